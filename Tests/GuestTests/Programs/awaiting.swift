// SPDX-License-Identifier: Apache-2.0
// Leaks a block of a size of its own from each way in which Swift's functions await each other, and
// prints the sizes with the functions that lead there, innermost first. Every call of one of these
// functions stands on a line with its name.

import Synchronization

let kept = Mutex<[UInt]>([])

/// Leaks a block.
@inline(never) func keep(_ size: Int) {
  let block = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 8)
  block.storeBytes(of: size, as: Int.self)
  kept.withLock { $0.append(UInt(bitPattern: block)) }
}

nonisolated(unsafe) var expected: [String] = []
func expect(_ size: Int, _ functions: String...) {
  expected.append("\(size) \((["keep"] + functions).joined(separator: "<"))")
}

// MARK: A plain chain

@inline(never) func five(_ size: Int) async -> Int {
  keep(size)
  await Task.yield()
  keep(size + 1)
  return size
}
@inline(never) func four(_ size: Int) async -> Int {
  let result = await five(size)
  keep(size + 2)
  return result + 1
}
@inline(never) func three(_ size: Int) async throws -> Int {
  let result = await four(size)
  if result < 0 { throw CancellationError() }
  return result + 1
}
/// No code of its own behind the await: a tail call where it is optimised.
@inline(never) func two(_ size: Int) async throws -> Int {
  return try await three(size)
}
@inline(never) func one(_ size: Int) async throws -> Int {
  let result =
    try await two(size)
  return result + 1
}
func expectChain(_ size: Int, _ functions: String...) {
  let callers = ["four", "three", "two", "one"] + functions
  expected.append("\(size) \((["keep", "five"] + callers).joined(separator: "<"))")
  expected.append("\(size + 1) \((["keep", "five"] + callers).joined(separator: "<"))")
  expected.append("\(size + 2) \((["keep"] + callers).joined(separator: "<"))")
}

@inline(never) func chains() async throws {
  expectChain(10_000, "chains", "main")
  expect(10_005, "chains", "main")
  _ = try await one(10_000)
  keep(10_005)
}

/// Thrown through and caught: the functions behind it go on.
@inline(never) func failing(_ size: Int) async throws -> Int {
  await Task.yield()
  keep(size)
  throw CancellationError()
}
@inline(never) func trying(_ size: Int) async -> Int {
  do {
    return try await failing(size)
  } catch {
    keep(size + 1)
  }
  return 0
}
@inline(never) func throwing() async {
  expect(11_000, "failing", "trying", "throwing", "main")
  expect(11_001, "trying", "throwing", "main")
  expect(11_005, "throwing", "main")
  _ = await trying(11_000)
  keep(11_005)
}

// MARK: Actors

actor Shop {
  var sold = 0
  func sell(_ size: Int) async throws -> Int {
    sold += 1
    keep(size + 5)
    return try await one(size) + sold
  }
}
@MainActor func onMain(_ size: Int) async throws -> Int {
  let result = try await one(size)
  keep(size + 5)
  return result
}
@inline(never) func actors() async throws {
  expectChain(12_000, "sell", "actors", "main")
  expect(12_005, "sell", "actors", "main")
  let shop = Shop()
  _ = try await shop.sell(12_000)
  expectChain(12_100, "onMain", "actors", "main")
  expect(12_105, "onMain", "actors", "main")
  _ = try await onMain(12_100)
}

// MARK: Generics, witnesses, closures

protocol Route: Sendable { func answer(_ size: Int) async throws -> Int }
struct Page: Route {
  @inline(never) func answer(_ size: Int) async throws -> Int { try await one(size) + 1 }
}
struct Sized<Value: BinaryInteger & Sendable>: Route {
  var value: Value
  @inline(never) func answer(_ size: Int) async throws -> Int {
    try await one(size + Int(value))
  }
}
@inline(never) func ask<R: Route>(_ route: R, _ size: Int) async throws -> Int {
  try await route.answer(size) + 1
}
@inline(never) func with<R>(_ size: Int, _ body: (Int) async throws -> R) async rethrows -> R {
  let result = try await body(size)  // closures
  keep(size + 5)
  return result
}
@inline(never) func generics() async throws {
  expectChain(13_000, "answer", "ask", "generics", "main")
  _ = try await ask(Page(), 13_000)
  expectChain(13_110, "answer", "ask", "generics", "main")
  _ = try await ask(Sized<UInt8>(value: 10), 13_100)
  let routes: [any Route] = [Page(), Sized(value: 7)]
  expectChain(13_200, "answer", "generics", "main")
  expectChain(13_217, "answer", "generics", "main")
  for (number, route) in routes.enumerated() {
    _ = try await route.answer(13_200 + 10 * number)
  }
}
@inline(never) func closures() async throws {
  // `body` is called by `with`, and written here.
  expectChain(14_000, "closures", "with", "closures", "main")
  expect(14_005, "with", "closures", "main")
  _ = try await with(14_000) { try await one($0) /* body with */ }
  let nested: @Sendable (Int) async throws -> Int = { try await one($0) /* nested */ }
  expectChain(14_100, "closures", "closures", "main")
  _ = try await nested(14_100)  // closures
}

// MARK: Tasks

@inline(never) func tasks() async throws {
  expectChain(15_000, "tasks", "tasks", "main")
  _ = try await Task { try await one(15_000) /* tasks */ }.value
  expectChain(15_100, "tasks", "tasks", "main")
  _ = try await Task.detached { try await one(15_100) /* tasks */ }.value
  expectChain(15_200, "tasks", "tasks", "tasks", "main")
  let outer = Task {  // tasks
    try await Task { try await one(15_200) /* tasks */ }.value  // tasks
  }
  _ = try await outer.value
}

@inline(never) func groups() async throws {
  // Three blocks of each.
  expectChain(16_000, "groups", "groups", "groups", "main")
  let sum = try await withThrowingTaskGroup(of: Int.self) { group in  // groups
    for _ in 0..<3 { group.addTask { try await one(16_000) /* groups */ } }
    return try await group.reduce(0, +)
  }
  expect(16_105, "groups", "groups", "groups", "main")
  try await withThrowingDiscardingTaskGroup { group in  // groups
    group.addTask { keep(16_105) /* groups */ }
  }
  keep(sum > 0 ? 16_205 : 16_206)
  expect(16_205, "groups", "main")
}

@inline(never) func inner(_ size: Int) async throws -> Int {
  async let result = one(size)  // inner
  return try await result
}
@inline(never) func lets() async throws {
  expectChain(17_000, "lets", "main")
  expectChain(17_100, "inner", "lets", "main")
  async let first = one(17_000)  // lets
  async let second = inner(17_100)  // lets
  _ = try await first + second
  keep(17_205)
  expect(17_205, "lets", "main")
}

// MARK: Streams, continuations, cancellation, task locals

@inline(never) func drain(_ stream: AsyncStream<Int>) async {
  for await size in stream { keep(size) }
}
@inline(never) func streams() async {
  let (stream, continuation) = AsyncStream.makeStream(of: Int.self)
  expect(18_005, "streams", "streams", "main")
  expect(18_001, "drain", "streams", "main")
  let producer = Task {  // streams
    keep(18_005)  // streams
    for size in [18_001, 18_001] {
      continuation.yield(size)
      await Task.yield()
    }
    continuation.finish()
  }
  await drain(stream)
  await producer.value
}

@inline(never) func resumed(_ size: Int) async -> Int {
  let result = await withCheckedContinuation { continuation in  // resumed
    keep(size)  // resumed
    Task.detached { continuation.resume(returning: size) }
  }
  keep(size + 1)
  return result
}
@inline(never) func continuations() async {
  expect(19_000, "resumed", "resumed", "continuations", "main")
  expect(19_001, "resumed", "continuations", "main")
  _ = await resumed(19_000)
}

@inline(never) func cancelled(_ size: Int) async throws -> Int {
  try await withTaskCancellationHandler {  // cancelled
    try await one(size)  // cancelled
  } onCancel: {
    keep(size + 7)
  }
}
@inline(never) func cancellations() async throws {
  expectChain(20_000, "cancelled", "cancelled", "cancellations", "main")
  _ = try await cancelled(20_000)
}

enum Local { @TaskLocal static var value = 0 }
@inline(never) func locals() async throws {
  expectChain(21_000, "locals", "locals", "main")
  try await Local.$value.withValue(3) {  // locals
    _ = try await one(21_000)  // locals
  }
}

@main struct Program {
  static func main() async throws {
    try await chains()
    await throwing()
    try await actors()
    try await generics()
    try await closures()
    try await tasks()
    try await groups()
    try await lets()
    await streams()
    await continuations()
    try await cancellations()
    try await locals()
    print(expected.joined(separator: "\n"))
  }
}
