// SPDX-License-Identifier: Apache-2.0
// Reports of samples: that they are estimates, how good they are, and what chance may have done.

import Foundation
import HeapModel
import Reports
import Testing

@Suite struct EstimateTests {
  private func snapshot(_ rows: [(line: Int, bytes: Int, error: Int)], mean: Int = 1 << 19)
    -> Snapshot
  {
    var builder = Snapshot.Builder()
    builder.header = ["heaptap": "1", "sample_bytes": "\(mean)"]
    for row in rows {
      let frame = Frame(function: "f\(row.line)", file: "a.c", line: row.line)
      builder.add(
        Snapshot.Sample(
          stack: builder.stack([frame]), generation: 1, liveBytes: row.bytes, liveBlocks: 10,
          sampledBlocks: 2, liveErrorBytes: row.error))
    }
    return builder.finish()
  }

  private let mebi = 1 << 20

  @Test func `errors of rows are roots of the sums of squares, and shown behind sizes`() throws {
    let one = snapshot([(1, 10 * mebi, 3 * mebi), (1, 10 * mebi, 4 * mebi), (2, mebi, 0)])
    let rows = one.statistics(groupedBy: .line)
    #expect(rows.map(\.liveErrorBytes) == [5 * mebi, 0])
    #expect(
      TextTable(rows).lines == [
        "a.c:1 in f1: size=20.0 MiB (±5120 KiB), count=20, average=1024 KiB",
        "a.c:2 in f2: size=1024 KiB, count=10, average=102 KiB",
      ])
    #expect(one.liveErrorBytes == 5 * mebi)
    let summary = Summary(of: one).lines
    #expect(summary.contains("estimates: by one sample in 512 KiB; ± is the standard error"))
    #expect(summary.contains { $0.hasPrefix("total: size=21.0 MiB (±5120 KiB), ") })
    let json = JSONReport.statistics(rows, of: one, groupedBy: .line).text
    #expect(json.contains("\"live_error_bytes\":\(5 * mebi)"))
  }

  @Test func `what was ever allocated has an error of its own`() {
    var builder = Snapshot.Builder()
    let frame = Frame(function: "f", file: "a.c", line: 1)
    for error in [3 * mebi, 4 * mebi] {
      builder.add(
        Snapshot.Sample(
          stack: builder.stack([frame]), liveBytes: 0, liveBlocks: 0, totalBytes: 50 * mebi,
          totalBlocks: 70, totalErrorBytes: error))
    }
    let snapshot = builder.finish()
    let rows = snapshot.statistics(groupedBy: .line)
    #expect(rows.map(\.totalErrorBytes) == [5 * mebi] && snapshot.totalErrorBytes == 5 * mebi)
    #expect(
      TextTable(rows, .liveAndTotal).lines == [
        "a.c:1 in f: size=0 B, count=0, total=100 MiB (±5120 KiB), allocations=140"
      ])
    let json = JSONReport.statistics(rows, of: snapshot, groupedBy: .line).text
    #expect(json.components(separatedBy: "\"total_error_bytes\":\(5 * mebi)").count == 3)
    #expect(!json.contains("live_error_bytes"))
  }

  @Test func `a difference has the errors of both`() {
    let (earlier, later) = (
      snapshot([(1, 10 * mebi, 3 * mebi)]), snapshot([(1, 12 * mebi, 4 * mebi)])
    )
    let rows = later.compared(to: earlier, groupedBy: .line)
    #expect(rows[0].addedErrorBytes == 5 * mebi && rows[0].liveErrorBytes == 4 * mebi)
    #expect(TextTable(rows).lines[0].contains("size=12.0 MiB (+2048 KiB ±5120 KiB), "))
    let summary = Summary(of: later, comparedTo: earlier).lines
    #expect(summary.contains { $0.hasPrefix("total: size=12.0 MiB (+2048 KiB ±5120 KiB)") })
    #expect(summary.contains { $0.hasPrefix("estimates: ") })
  }

  @Test(arguments: [(12, true, true), (19, true, true), (21, false, false), (10, true, false)])
  func `a bound holds that is passed by two standard errors at most, and that is said`(
    _ now: Int, _ passes: Bool, _ isUndecided: Bool
  ) throws {
    let (earlier, later) = (
      snapshot([(1, 10 * mebi, 3 * mebi)]), snapshot([(1, now * mebi, 4 * mebi)])
    )
    let check = try GrowthCheck(
      of: later, comparedTo: earlier, groupedBy: .line, .init(growthBytes: 0))
    #expect(check.passes == passes && check.isUndecided == isUndecided)
    let report = CheckReport(check, groupedBy: .line, compares: true)
    #expect(report.lines().contains { $0.contains("two standard errors") } == isUndecided)
    #expect(report.json.text.contains("\"undecided\":\(isUndecided)"))
    if !passes { #expect(report.lines()[0].contains("grew by 11.0 MiB (±5120 KiB), 0 B allowed")) }
  }

  @Test func `what grows by less than its error does not leak`() throws {
    func verdict(_ error: Int) throws -> Verdict {
      var trend = try Trend.Builder(groupedBy: .line)
      for hour in 0..<8 {
        try trend.add(
          snapshot([(1, (10 + hour) * mebi, error)]), atNanoseconds: hour * 3_600_000_000_000)
      }
      return trend.finish().rows[0].fit.verdict
    }
    // By 7 MiB, and the error of the difference is the root of two times this.
    #expect(try verdict(0) == .leak)
    #expect(try verdict(2 * mebi) == .leak)
    #expect(try verdict(3 * mebi) == .churn)
  }

  @Test func `of what every block is known, nothing is said of errors`() {
    let exact = snapshot([(1, mebi, 0)]).statistics(groupedBy: .line)
    #expect(!TextTable(exact).lines[0].contains("±"))
    #expect(!JSONReport.statistics(exact, of: Snapshot(), groupedBy: .line).text.contains("error"))
  }
}
