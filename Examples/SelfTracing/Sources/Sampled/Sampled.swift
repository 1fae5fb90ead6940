// SPDX-License-Identifier: Apache-2.0
// Samples in the place of every block, for a process in which even 25 ns an allocation are too much: what is
// alive is an estimate then, and says how far it may be off.

import Heaptap

final class Session {
  let page: [UInt8]
  init() { page = [UInt8](repeating: 1, count: 16_000) }
}

@main struct Sampled {
  static func main() async throws {
    try HeapTracer.start(sampleBytes: 64 << 10)
    let sessions = (0..<10_000).map { _ in Session() }
    let now = try HeapTracer.figures()
    print("\(now.liveBytes) ± \(now.liveErrorBytes) alive, one sample in \(now.sampleBytes)")
    let snapshot = try await HeapTracer.takeSnapshot().symbolicated()
    for line in snapshot.statistics(groupedBy: .line).prefix(1) {
      print("\(line.key): \(line.liveBytes) ± \(line.liveErrorBytes)")
    }
    let gone = withExtendedLifetime(sessions) { sessions.count }
    withHeapTrace("growth", report: { print($0) }) { _ = [UInt8](repeating: 1, count: gone) }
    try HeapTracer.stop()

    do { try HeapTracer.start(sampleBytes: 1 << 20) } catch { print(error) }
    // Every block is another matter.
    try HeapTracer.start(sampleBytes: 0)
    let exact = [UInt8](repeating: 1, count: 1_000_000)
    print(try withExtendedLifetime(exact) { try HeapTracer.figures().liveBytes })
    try HeapTracer.stop()
  }
}
