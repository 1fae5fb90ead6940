// SPDX-License-Identifier: Apache-2.0
// Leaks known numbers of objects, arrays, strings and tasks' results, and prints what it computed.

final class Node {
  var next: Node?
  var payload: (Int, Int, Int) = (1, 2, 3)
}

nonisolated(unsafe) var nodes: [Node] = []
nonisolated(unsafe) var arrays: [[Int64]] = []
nonisolated(unsafe) var strings: [String] = []

/// Makes a node that nothing frees; unoptimised, or there would be no node.
@inline(never) @_optimize(none) func tie(_ node: Node) {
  node.next = node
}

@inline(never) func leakCycles(_ count: Int) {
  for _ in 0..<count {
    tie(Node())
  }
}

@inline(never) func keepArrays(_ count: Int) {
  arrays.reserveCapacity(count)
  for index in 0..<count { arrays.append(makeArray(index)) }
}
@inline(never) func makeArray(_ index: Int) -> [Int64] {
  [Int64](repeating: Int64(index), count: 1000)
}

@inline(never) func keepStrings(_ count: Int) {
  strings.reserveCapacity(count)
  for index in 0..<count { strings.append(makeString(index)) }
}
@inline(never) func makeString(_ index: Int) -> String {
  String(repeating: "s", count: 3000 + index % 2)
}

@inline(never) func churn(_ count: Int) -> Int {
  var sum = 0
  for index in 0..<count {
    let node = Node()
    node.payload.0 = index
    nodes.append(node)
    nodes.removeLast()
    let text = "a text that is too long to be small: \(index)"
    sum += node.payload.0 + text.utf8.count
  }
  return sum
}

@inline(never) func leakInTask(_ index: Int) async -> Int {
  var big = (index, index, index, index, index, index, index, index)
  await Task.yield()
  tie(Node())
  big.7 += 1
  return big.7
}

@main struct Program {
  static func main() async {
    leakCycles(700)
    keepArrays(50)
    keepStrings(40)
    let sum = churn(500)
    let results = await withTaskGroup(of: Int.self) { group in
      for index in 0..<300 { group.addTask { await leakInTask(index) } }
      return await group.reduce(0, +)
    }
    print(sum, results, arrays.count, strings.count)
  }
}
