// SPDX-License-Identifier: Apache-2.0
// Allocates and frees from many tasks at a time, along chains that differ in their middle, and from
// tasks that make the next one for as long as they are told. Prints how many have done so.

import Synchronization

/// A block that comes and goes.
@inline(never) func touch(_ number: Int) {
  let block = UnsafeMutableRawPointer.allocate(byteCount: 64 + number & 1023, alignment: 8)
  block.storeBytes(of: number, as: Int.self)
  block.deallocate()
}

@inline(never) func leaf(_ number: Int) async -> Int {
  touch(number)
  if number % 3 == 0 { await Task.yield() }
  touch(number)
  return number
}
@inline(never) func middle(_ number: Int, _ depth: Int) async -> Int {
  touch(number)
  if depth == 0 { return await leaf(number) + 1 }
  let result = await (number % 2 == 0 ? left(number, depth - 1) : right(number, depth - 1))
  touch(number)
  return result
}
@inline(never) func left(_ number: Int, _ depth: Int) async -> Int {
  touch(number)
  let result = await middle(number / 2, depth)
  touch(number)
  return result
}
@inline(never) func right(_ number: Int, _ depth: Int) async -> Int {
  let result = await middle(number / 2 + 1, depth)
  touch(number)
  return result + 1
}
@inline(never) func both(_ number: Int) async -> Int {
  async let first = middle(number, 2)
  async let second = left(number, 3)
  touch(number)
  return await first + second
}

actor Counter {
  private var sum = 0
  func add(_ number: Int) async -> Int {
    sum &+= number
    touch(number)
    let result = await middle(number, 1)
    touch(number)
    return sum &+ result
  }
}
let counter = Counter()

@inline(never) func every(_ number: Int) async -> Int {
  var sum = await middle(number, number % 5)
  sum &+= await both(number)
  sum &+= await counter.add(number)
  sum &+= await Task { await middle(number, 3) }.value
  sum &+= await Task.detached { await both(number) }.value
  return sum
}

let generations = Atomic<Int>(0)

/// A task that nobody awaits makes the next one.
@inline(never) func respawn(_ count: Int) {
  Task {
    touch(count)
    generations.add(1, ordering: .relaxed)
    if count > 1 { respawn(count - 1) }
  }
}

@main struct Program {
  static func main() async {
    respawn(5000)
    for round in 0..<20 {
      _ = await withTaskGroup(of: Int.self) { group in
        for number in 0..<50 { group.addTask { await every(number + round) } }
        return await group.reduce(0, &+)
      }
    }
    while generations.load(ordering: .relaxed) < 5000 { await Task.yield() }
    print(generations.load(ordering: .relaxed))
  }
}
