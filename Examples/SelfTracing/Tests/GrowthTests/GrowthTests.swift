// SPDX-License-Identifier: Apache-2.0
// Tests that fail on growth. With LEAK set in the environment they do.

import Foundation
import HeaptapTesting
import Synchronization
import Testing

let isLeaking = ProcessInfo.processInfo.environment["LEAK"] != nil
let leaked = Mutex<[[UInt8]]>([])

/// Imports a file, and in a bad build keeps it.
func importFile(byteCount: Int) {
  let contents = [UInt8](repeating: 1, count: byteCount)
  if isLeaking { leaked.withLock { $0.append(contents) } }
}

@Test(.heapGrowth(under: 10 << 20)) func `ten imports of 2 MB leave less than 10 MB`() {
  for _ in 0..<10 { importFile(byteCount: 2 << 20) }
}

@Test func `an import leaves nothing`() throws {
  try expectNoGrowth { importFile(byteCount: 5000) }
}

@Test func `an import allocates once`() throws {
  try expectAllocations(atMostBlocks: isLeaking ? 0 : 1, atMostBytes: 6000) {
    importFile(byteCount: 5000)
  }
}
