// SPDX-License-Identifier: Apache-2.0
// Allocates from stacks that Swift makes: generics, closures, witnesses, errors, bridges into the
// runtime, tasks.

import Synchronization

#if WITH_FOUNDATION
  import Foundation
#endif

protocol Shape {
  associatedtype Measure: Comparable
  func measure(_ depth: Int) -> Measure
}

final class Node<Value> {
  var value: Value
  var children: [Node<Value>] = []
  init(_ value: Value) { self.value = value }

  func grow(_ depth: Int, _ make: (Int) -> Value) {
    guard depth > 0 else { return }
    for index in 0..<3 {
      let child = Node(make(depth * 10 + index))
      child.grow(depth - 1, make)
      children.append(child)
    }
  }
  deinit { if children.count > 2 { keep("gone") } }
}

struct Square: Shape {
  var side: Double
  func measure(_ depth: Int) -> String {
    depth == 0 ? String(repeating: "square", count: 10) : measure(depth - 1) + "\(side)"
  }
}

/// Tasks keep what they make, several at once.
let kept = Mutex<[String]>([])

@inline(never) func keep(_ text: String) { kept.withLock { $0.append(text) } }

@inline(never) func keptCount() -> Int { kept.withLock { $0.count } }

@inline(never) func largest(_ shapes: [any Shape]) -> String {
  shapes.map { "\($0.measure(5))" }.max() ?? ""
}

struct Refusal: Error { var reason: String }
@inline(never) func refuse(_ depth: Int) throws -> Int {
  guard depth > 0 else { throw Refusal(reason: String(repeating: "no", count: 30)) }
  let text = String(repeating: "x", count: 20 + depth)
  return try refuse(depth - 1) + text.count
}

@inline(never) func work(_ round: Int) -> Int {
  let tree = Node("root \(round)")
  tree.grow(4) { "a child of \($0) that is too long to be small" }
  var counts: [String: [Int]] = [:]
  for index in 0..<200 {
    counts["a key, and not a short one: \(index % 50)", default: []].append(index)
  }
  let sorted = counts.sorted { ($0.value.count, $0.key) < ($1.value.count, $1.key) }
  keep(largest([Square(side: 3), Square(side: Double(round))]))
  do { return try refuse(6) } catch { keep("\(error)") }
  #if WITH_FOUNDATION
    let bytes = try? JSONEncoder().encode(["numbers": Array(0..<20), "rounds": [round]])
    let back = bytes.flatMap { try? JSONDecoder().decode([String: [Int]].self, from: $0) }
    keep("\(back?.count ?? 0)")
  #endif
  return sorted.count + tree.children.count
}

actor Store {
  var rows: [String] = []
  func add(_ row: String) -> Int {
    rows.append(row + String(repeating: ".", count: 30))
    return rows.count
  }
}

@inline(never) func request(_ number: Int, _ store: Store) async -> Int {
  let before = String(repeating: "before", count: number + 5)
  let count = await store.add(before)
  await Task.yield()
  return count + String(repeating: "after", count: number + 5).count + work(number)
}

#if SYNCHRONOUS
  @main struct Program {
    static func main() { print((0..<6).map(work).reduce(0, +)) }
  }
#else
  @main struct Program {
    static func main() async throws {
      var total = 0
      for round in 0..<3 { total += work(round) }
      let store = Store()
      total += try await withThrowingTaskGroup(of: Int.self) { group in
        for number in 0..<8 { group.addTask { await request(number, store) } }
        return try await group.reduce(0, +)
      }
      async let one = request(20, store)
      async let other = request(21, store)
      total += await one + other
      for await number in AsyncStream<Int>(unfolding: { keptCount() < 60 ? keptCount() : nil }) {
        total += work(number)
      }
      print(total)
    }
  }
#endif
