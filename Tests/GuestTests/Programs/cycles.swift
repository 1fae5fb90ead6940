// SPDX-License-Identifier: Apache-2.0
// Loses ten pairs of objects that hold each other, and keeps much else in every way that has a tag.

import Glibc

final class Node {
  var other: Node?
  var name: String
  weak var parent: Node?
  init(_ name: String) { self.name = name }
}

final class Watched { var number = 1 }

enum Payload {
  case node(Node)
  case watched(Watched)
  case text(String)
  case numbers([Int])
}

nonisolated(unsafe) var texts: [String] = []
nonisolated(unsafe) var table: [String: Node] = [:]
nonisolated(unsafe) var payloads: [Payload] = []
nonisolated(unsafe) var anything: Any = 0
nonisolated(unsafe) var watched: [Watched] = []

@inline(never) func leak(_ count: Int) {
  for number in 0..<count {
    let first = Node("a name that is too long for the small form, number \(number)")
    let second = Node("short")
    first.other = second
    second.other = first
    second.parent = first
  }
}

@inline(never) func keep() {
  for number in 0..<100 {
    texts.append("a text that is too long for the small form, number \(number)")
    table["a key that is too long for the small form, number \(number)"] = Node(
      "a value that is too long for the small form, number \(number)")
    payloads.append(.node(Node("short")))
    payloads.append(.watched(Watched()))
    payloads.append(.text("one more that is too long for the small form, number \(number)"))
    payloads.append(.numbers([number, 2]))
    let one = Watched()
    weak let weakly = one
    watched.append(one)
    if weakly == nil { print("gone") }
  }
  anything = ["a": Node("in a dictionary that is in an existential, and too long")]
}

@inline(never) func scrub() {
  withUnsafeTemporaryAllocation(byteCount: 60000, alignment: 16) {
    _ = $0.initializeMemory(as: UInt8.self, repeating: 0)
  }
}

let sleeper = Task.detached { try? await Task.sleep(nanoseconds: 60_000_000_000) }
let numbers = AsyncStream<Int> { continuation in
  for number in 0..<10 { continuation.yield(number) }
}
await Task { keep() }.value
leak(10)
keep()
scrub()
exit(texts.count == 200 && !sleeper.isCancelled ? 0 : 1)
