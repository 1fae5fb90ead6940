// SPDX-License-Identifier: Apache-2.0
// What was alive at the peak, as a snapshot.

import HeapModel
import Testing

@Suite struct PeakTests {
  private func snapshot(_ header: Header) -> Snapshot {
    var builder = Snapshot.Builder(header: header, modules: [])
    let (top, base) = (
      builder.stack([Frame(function: "top")]), builder.stack([Frame(function: "base")])
    )
    builder.add(
      .init(
        stack: top, generation: 2, type: "M.T", liveBytes: 10, liveBlocks: 1, totalBytes: 900,
        totalBlocks: 90, temporaryBlocks: 4, peakBytes: 500, peakBlocks: 50, reach: .lost))
    builder.add(.init(stack: top, generation: 3, liveBytes: 30, liveBlocks: 3))
    builder.add(.init(stack: base, liveBytes: 40, liveBlocks: 4, totalBytes: 40, totalBlocks: 4))
    return builder.finish()
  }

  private let header: Header = [
    "scanned_bytes": "80", "scanned_blocks": "8", "live_bytes": "80", "live_blocks": "8",
    "peak_bytes": "520", "peak.picture_bytes": "500", "peak.picture_blocks": "50",
    "peak.picture_monotonic_ns": "7", "peak.missed": "1", "histogram": "16:1:10",
    "usage_bytes": "1", "reconcile.traced_bytes": "1",
  ]

  @Test func `a snapshot at the peak has its figures, by stack`() throws {
    let peak = try snapshot(header).atPeak()
    #expect(peak.liveBytes == 500 && peak.liveBlocks == 50)
    #expect(peak.totalBytes == 940 && peak.temporaryBlocks == 4)
    let rows = try peak.statistics(groupedBy: .function, charging: .everyFrame)
    #expect(rows.map(\.liveBytes) == [500, 0])
    #expect(peak.samples.allSatisfy { $0.generation == nil && $0.type == nil && $0.reach == .held })
    #expect(peak.header.scannedBytes == 500 && peak.header.liveBlocks == 50)
    #expect(peak.header.histogram.isEmpty && peak.header.reconciliation == nil)
    #expect(
      peak.header.peakPicture
        == snapshot(header).header.peakPicture && peak.header.peakPicture?.missed == 1)
  }

  @Test func `without a picture, or by what it is not kept by, there is none`() {
    #expect(throws: Snapshot.GroupingError(.noPeak)) { try snapshot([:]).atPeak() }
    for grouping in [Snapshot.Grouping.generation, .type, .reach] {
      #expect(throws: Snapshot.GroupingError(.keptByStack, cause: grouping.rawValue)) {
        try snapshot(header).atPeak(groupedBy: grouping)
      }
      #expect(throws: Snapshot.GroupingError(.keptByStack, cause: grouping.rawValue)) {
        try snapshot(header).checkTemporaries(groupedBy: grouping)
      }
    }
    #expect(throws: Never.self) { try snapshot([:]).checkTemporaries(groupedBy: .line) }
    #expect(throws: Snapshot.GroupingError(.noTemporaries)) {
      try Snapshot().checkTemporaries(groupedBy: .line)
    }
  }
}
