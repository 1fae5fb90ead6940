// SPDX-License-Identifier: Apache-2.0
// Looks at its own heap again and again, and says what has grown since the look before.

import Heaptap

/// A cache that somebody forgot to empty.
final class Sessions {
  private var pages: [Int: [UInt8]] = [:]

  func visit(_ page: Int) {
    pages[page] = [UInt8](repeating: 0, count: 10_000)
  }
}

@main struct LeakHunt {
  static func main() async throws {
    try HeapTracer.start(depth: 32)
    let sessions = Sessions()
    var before = try await HeapTracer.takeSnapshot().symbolicated()
    for round in 1...3 {
      for page in 0..<100 { sessions.visit(round * 100 + page) }
      let now = try await HeapTracer.takeSnapshot().symbolicated()
      let ours = Filter.file("LeakHunt.swift")
      let growth = now.filtered(ours).compared(to: before.filtered(ours), groupedBy: .line)
      print("round \(round)")
      for line in growth.prefix(3) where line.addedBytes > 0 { print("  \(line)") }
      before = now
    }
    withExtendedLifetime(sessions) {}
  }
}
