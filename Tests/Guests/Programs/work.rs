// SPDX-License-Identifier: Apache-2.0
// Threads that allocate, hand over and panic: prints what they have computed.

use std::collections::{BTreeMap, HashMap};
use std::panic;
use std::sync::mpsc::channel;
use std::thread;

fn work(seed: u64) -> u64 {
    let mut words: HashMap<String, Vec<u64>> = HashMap::new();
    for i in 0..20000u64 {
        let n = (i * 7919 + seed) % 10007;
        words.entry(format!("key {}", n)).or_default().push(i);
    }
    let sorted: BTreeMap<String, Vec<u64>> = words.into_iter().collect();
    let mut sum = 0u64;
    for (key, values) in &sorted {
        for value in values {
            sum = sum.wrapping_mul(31).wrapping_add(key.len() as u64 ^ value);
        }
    }
    sum
}

fn fail(depth: u32, kept: Box<String>) -> usize {
    if depth == 0 {
        panic!("as planned: {}", kept);
    }
    let below = fail(depth - 1, Box::new(format!("{}{}", kept, depth)));
    below + kept.len()
}

fn main() {
    let (sender, receiver) = channel();
    let mut threads = Vec::new();
    for n in 0..8u64 {
        let sender = sender.clone();
        threads.push(thread::spawn(move || {
            for i in 0..2000 {
                sender.send(Box::new((n, i, vec![n as u8; i as usize % 97]))).unwrap();
            }
            work(n)
        }));
    }
    drop(sender);
    let mut bytes = 0;
    for message in receiver {
        bytes += message.2.len();
    }
    println!("bytes {}", bytes);
    for thread in threads {
        println!("thread {}", thread.join().unwrap());
    }
    for n in 0..20 {
        let caught = panic::catch_unwind(|| fail(n, Box::new(String::from("x"))));
        println!("caught {}", caught.is_err());
    }
    println!("joined {}", thread::spawn(|| fail(3, Box::new(String::new()))).join().is_err());
    let mut grown: Vec<Vec<u8>> = Vec::new();
    for n in 0..3000 {
        grown.push(Vec::with_capacity(n * 7));
        if n % 3 == 0 {
            grown.swap_remove(n / 3);
        }
    }
    println!("left {}", grown.iter().map(|v| v.capacity()).sum::<usize>());
}
