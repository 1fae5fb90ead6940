// SPDX-License-Identifier: Apache-2.0
// Keeps known numbers of objects of each kind, and memory that looks like some.

import Glibc

class Base { var number = 1 }
final class Derived: Base { var more = 2 }
final class Holder<Value> {
  final class Inner { var word = 0 }
  var value: Value
  init(_ value: Value) { self.value = value }
}
struct Space {
  final class Deep<First, Second> {
    var first: First
    var second: Second
    init(_ first: First, _ second: Second) {
      self.first = first
      self.second = second
    }
  }
}
extension Array { final class Companion { var word = 0 } }
private final class Hidden { var word = 0 }
actor Counter { var count = 0 }
struct Problem: Error { var text: String }

nonisolated(unsafe) var kept: [AnyObject] = []
nonisolated(unsafe) var arrays: [[Int32]] = []
nonisolated(unsafe) var closures: [() -> Int] = []
nonisolated(unsafe) var errors: [any Error] = []
nonisolated(unsafe) var buffers: [UnsafeMutableRawPointer] = []

@inline(never) @_optimize(none) func keep(_ count: Int, _ make: () -> AnyObject) {
  for _ in 0..<count { kept.append(make()) }
}
@inline(never) @_optimize(none) func closure(_ number: Int, _ text: String) -> () -> Int {
  { number + text.utf8.count }
}
@inline(never) @_optimize(none) func array(_ number: Int32) -> [Int32] {
  [Int32](repeating: number, count: 100)
}

/// Memory of Swift's that begins with metadata, and is no object.
@inline(never) func keepTypes(_ count: Int) {
  for _ in 0..<count {
    let types = UnsafeMutablePointer<AnyObject.Type>.allocate(capacity: 3)
    types.initialize(repeating: Base.self, count: 3)
    buffers.append(UnsafeMutableRawPointer(types))
  }
}

/// Memory of malloc's that begins like a new object.
@inline(never) func keepLookalikes(_ count: Int) {
  for _ in 0..<count {
    let words = malloc(24)!
    words.storeBytes(of: unsafeBitCast(Base.self as AnyClass, to: UInt.self), as: UInt.self)
    words.storeBytes(of: 3, toByteOffset: 8, as: UInt.self)
    buffers.append(words)
  }
}

@inline(never) func wait() async {
  await withUnsafeContinuation { (_: UnsafeContinuation<Void, Never>) in }
}

@main struct Program {
  static func main() async {
    kept.reserveCapacity(10_000)
    arrays.reserveCapacity(1000)
    closures.reserveCapacity(1000)
    errors.reserveCapacity(1000)
    buffers.reserveCapacity(1000)
    keep(101) { Base() }
    keep(102) { Derived() }
    keep(103) { Holder(1) }
    keep(104) { Holder<[String: Int?]>([:]) }
    keep(105) { Holder<String>.Inner() }
    keep(106) { Space.Deep((1, "a"), Base.self as Any.Type) }
    keep(107) { Hidden() }
    keep(108) { Counter() }
    keep(109) { [Bool].Companion() }
    for number in 0..<110 { arrays.append(array(Int32(number))) }
    for number in 0..<111 { closures.append(closure(number, "\(CommandLine.argc)")) }
    for number in 0..<112 { errors.append(Problem(text: "\(number)")) }
    keepTypes(113)
    keepLookalikes(114)
    var tasks: [Task<Void, Never>] = []
    for _ in 0..<115 { tasks.append(Task { await wait() }) }
    // A task that ends keeps its memory for as long as somebody refers to it.
    await Task {}.value
    print(
      kept.count, arrays.count, closures.count, errors.count, buffers.count, tasks.count)
    exit(0)
  }
}
