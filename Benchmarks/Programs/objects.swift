// SPDX-License-Identifier: Apache-2.0
// Keeps objects and other blocks, and writes snapshots of them: prints the least processor time of each, in
// milliseconds.
//
//   objects BLOCKS FILE

import Glibc

final class Node {
  var words: (Int, Int) = (0, 1)
  let next: Node?
  init(_ next: Node?) { self.next = next }
}

func milliseconds() -> Double {
  var time = timespec()
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
  return Double(time.tv_sec) * 1000 + Double(time.tv_nsec) / 1e6
}

typealias SnapshotTo = @convention(c) (UnsafePointer<CChar>) -> CInt
let snapshot = unsafeBitCast(dlsym(nil, "heaptap_snapshot_to")!, to: SnapshotTo.self)
let count = Int(CommandLine.arguments[1])!
let path = CommandLine.arguments[2]

func measure() -> Double {
  (0..<9).map { _ in
    let start = milliseconds()
    precondition(snapshot(path) == 0)
    return milliseconds() - start
  }.min()!
}

var nodes: [Node] = []
nodes.reserveCapacity(count)
for _ in 0..<count { nodes.append(Node(nil)) }
print("objects:", measure())
nodes.removeAll()
var buffers: [UnsafeMutableRawPointer] = []
buffers.reserveCapacity(count)
for _ in 0..<count { buffers.append(.allocate(byteCount: 40, alignment: 8)) }
print("other blocks:", measure())
