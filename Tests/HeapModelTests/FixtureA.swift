// SPDX-License-Identifier: Apache-2.0
// The two snapshots that tracemalloc's own tests compare, figure for figure.

import HeapModel

/// The two snapshots of `create_snapshots` in CPython's test_tracemalloc.
enum FixtureA {
  static let a2b4 = [Frame(file: "a.py", line: 2), Frame(file: "b.py", line: 4)]
  static let a5b4 = [Frame(file: "a.py", line: 5), Frame(file: "b.py", line: 4)]
  static let b1 = [Frame(file: "b.py", line: 1)]
  static let c578 = [Frame(file: "c.py", line: 578)]
  static let unknown = [Frame()]

  /// A trace as tracemalloc stores it: domain, size, stack, depth of the whole stack.
  typealias Trace = (domain: Int, bytes: Int, stack: [Frame], totalFrames: Int)

  static let earlierTraces: [Trace] = [
    (0, 10, a2b4, 3), (0, 10, a2b4, 3), (0, 10, a2b4, 3), (1, 2, a5b4, 3), (2, 66, b1, 1),
    (3, 7, unknown, 1),
  ]
  static let laterTraces: [Trace] = [
    (0, 10, a2b4, 3), (0, 10, a2b4, 3), (0, 10, a2b4, 3), (2, 2, a5b4, 3), (2, 5000, a5b4, 3),
    (4, 400, c578, 1),
  ]

  static let earlier = snapshot(of: earlierTraces)
  static let later = snapshot(of: laterTraces)

  static func snapshot(of traces: [Trace], depthLimit: Int = 2) -> Snapshot {
    var builder = Snapshot.Builder(header: ["depth": "\(depthLimit)"], modules: [])
    for trace in traces {
      builder.add(
        bytes: trace.bytes, stack: trace.stack,
        missingFrames: trace.totalFrames - trace.stack.count, domain: trace.domain)
    }
    return builder.finish()
  }
}
