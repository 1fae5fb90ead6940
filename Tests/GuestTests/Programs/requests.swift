// SPDX-License-Identifier: Apache-2.0
// What the requests to a server do: they allocate from the children of `async let`, from groups, actors and
// tasks of their own, a few times from each stack. Prints how many requests there were.
//
//   requests ROUNDS

import Foundation

final class Box {
  var numbers: [Int]
  init(_ number: Int) { numbers = Array(repeating: number, count: 4) }
}

@inline(never) func leaf(_ number: Int) -> Int {
  Box(number).numbers[number & 3] &+ String(number &* 1_000_000_007).utf8.count
}
@inline(never) func work(_ number: Int) -> Int {
  (0..<4).reduce(0) { $0 &+ leaf(number &+ $1) }
}
@inline(never) func step(_ number: Int) async -> Int {
  let before = work(number)
  await Task.yield()
  return before &+ work(number &+ 1)
}

@inline(never) func lets(_ number: Int) async -> Int {
  async let first = step(number)
  async let second = step(number &+ 1)
  async let third = step(number &+ 2)
  return await first &+ second &+ third
}
@inline(never) func nested(_ number: Int) async -> Int {
  async let first = lets(number)
  async let second = lets(number &+ 1)
  return await first &+ second &+ work(number)
}
@inline(never) func group(_ number: Int) async -> Int {
  await withTaskGroup(of: Int.self) { group in
    for child in 0..<8 { group.addTask { await step(number &+ child) } }
    return await group.reduce(0, &+)
  }
}

actor Account {
  private var sum = 0
  private var log: [Int: Box] = [:]
  func add(_ number: Int) -> Int {
    sum &+= work(number)
    log[number & 63] = Box(number)
    return sum
  }
}
@inline(never) func hops(_ number: Int, _ accounts: [Account]) async -> Int {
  var sum = 0
  for hop in 0..<8 { sum &+= await accounts[(number &+ hop) % accounts.count].add(number &+ hop) }
  return sum
}

@inline(never) func unstructured(_ number: Int) async -> Int {
  let inherited = Task { await step(number) }
  let detached = Task.detached { await step(number &+ 1) }
  return await inherited.value &+ detached.value
}

@inline(never) func request(_ number: Int, _ accounts: [Account]) async -> Int {
  await lets(number) &+ group(number) &+ hops(number, accounts) &+ unstructured(number)
    &+ nested(number)
}

@main struct Program {
  static func main() async {
    let accounts = (0..<4).map { _ in Account() }
    var count = 0
    for round in 0..<Int(CommandLine.arguments[1])! {
      count += await withTaskGroup(of: Int.self) { group in
        for number in 0..<4 {
          group.addTask { await request(4 &* round &+ number, accounts) == 0 ? 0 : 1 }
        }
        return await group.reduce(0, +)
      }
    }
    print(count)
  }
}
