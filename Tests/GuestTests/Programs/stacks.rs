// SPDX-License-Identifier: Apache-2.0
// Allocates from stacks that Rust makes: generics, iterators, threads, destructors, a panic.

use std::collections::{BTreeMap, HashMap};

/// What the optimiser cannot see through: `std::hint::black_box`, which Debian 12's compiler lacks.
fn keep<T>(value: T) -> T {
    let value = std::mem::ManuallyDrop::new(value);
    unsafe { std::ptr::read_volatile(&*value) }
}

fn grow(depth: usize, map: &mut BTreeMap<String, Vec<usize>>) {
    if depth == 0 {
        return;
    }
    for i in 0..3 {
        map.entry(format!("a key of depth {depth}, {i}"))
            .or_default()
            .push(depth);
        grow(depth - 1, map);
    }
}

/// Allocates while a panic is on its way through its frame.
struct Guard(Vec<u8>);
impl Drop for Guard {
    fn drop(&mut self) {
        keep(vec![1u8; self.0.len()]);
    }
}

fn panics(n: usize) -> usize {
    let guard = Guard(vec![0; n]);
    if n > 5 {
        panic!("a message of {n} letters");
    }
    guard.0.len()
}

fn letters(n: u32) -> usize {
    let text: String = (0..n * 100)
        .map(|c| char::from(65 + (c % 26) as u8))
        .collect();
    text.split('A').map(|part| part.to_owned()).count()
}

fn main() {
    let mut map = BTreeMap::new();
    grow(5, &mut map);
    let by_length: HashMap<_, _> = map.iter().map(|(k, v)| (v.len(), k.clone())).collect();
    let threads: Vec<_> = (0..4)
        .map(|n| std::thread::spawn(move || letters(n)))
        .collect();
    let total: usize = threads.into_iter().map(|t| t.join().unwrap()).sum();
    std::panic::set_hook(Box::new(|_| {}));
    let refused = std::panic::catch_unwind(|| panics(10));
    println!(
        "{} {} {} {}",
        map.len(),
        by_length.len(),
        total,
        refused.is_err()
    );
}
