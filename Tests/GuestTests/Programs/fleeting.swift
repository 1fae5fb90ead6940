// SPDX-License-Identifier: Apache-2.0
// Threads that make and end objects, small ones and such as have pages of their own, while the process asks
// for snapshots of itself.

import Dispatch
import Glibc

final class Fleeting {
  var words: (Int, Int) = (1, 2)
  let array: [Int]
  init(_ count: Int) { array = [Int](repeating: count, count: count) }
}

nonisolated(unsafe) var isOver = false

@inline(never) @_optimize(none) func churn(_ seed: Int) {
  var held: [Fleeting] = []
  var number = seed
  while !isOver {
    number = (number &* 1_103_515_245 &+ 12345) & 0x7fff_ffff
    held.append(Fleeting(number % 3000))
    if held.count > 40 { held.remove(at: number % 40) }
  }
}

let group = DispatchGroup()
for seed in 1...4 { DispatchQueue.global().async(group: group) { churn(seed) } }
for _ in 0..<20 {
  usleep(30_000)
  kill(getpid(), SIGUSR2)
}
usleep(30_000)
isOver = true
group.wait()
print("done")
