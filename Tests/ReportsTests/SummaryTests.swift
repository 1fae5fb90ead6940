// SPDX-License-Identifier: Apache-2.0
// The summary above a report, to the letter.

import HeapModel
import Reports
import Testing

private let fullHeader: Header = [
  "program": "leaky", "pid": "1234", "host": "web-3", "unit": "leaky.service",
  "trigger": "signal", "sequence": "2", "start_monotonic_ns": "1000000000",
  "dump_monotonic_ns": "91500000000", "dump_wall_ns": "1795256877123456789",
  "live_bytes": "110", "live_blocks": "6", "scanned_bytes": "105", "peak_bytes": "20480",
  "peak_error_bytes": "512", "total_bytes": "4096", "total_blocks": "40",
  "freed_bytes": "3986", "freed_blocks": "1", "before_heap_bytes": "10000",
  "before_freed_blocks": "3", "before_freed_bytes": "100", "before_remaining_bytes": "9900",
  "usage_bytes": "1048576", "usage_source": "/proc/self/statm",
  "reconcile.traced_bytes": "524288", "reconcile.before_bytes": "9900",
  "reconcile.new_kind_bytes": "500000", "reconcile.other_bytes": "-1000",
  "lost.sites": "3", "lost.blocks": "0", "lost.novel": "2", "broken_stacks": "1",
  "omitted_bytes": "20480",
]

@Suite struct SummaryTests {
  @Test func `a dump near a limit says which, how full it was, and how fast that went`() {
    var snapshot = FixtureA.earlier
    snapshot.header = [
      "trigger": "limit", "limit_bytes": "67108864", "limit_usage_bytes": "55574528",
      "limit_source": "/sys/fs/cgroup/a\u{1b}b/memory.max", "limit_headroom_bytes": "11534336",
      "limit_rate_bytes": "1048576", "limit_mark": "80%", "left_out_bytes": "2048",
    ]
    let lines = Summary(of: snapshot).lines
    #expect(
      lines.contains(
        "limit: 83 % of 64.0 MiB (/sys/fs/cgroup/a?b/memory.max), past the mark of 80%, "
          + "11.0 MiB left, growing by 1024 KiB a second"), "\(lines)")
    #expect(lines.contains { $0.hasPrefix("lost: 2048 B (left_out_bytes: ") })
    snapshot.header = ["limit_bytes": "100", "limit_rate_bytes": "-2048"]
    #expect(Summary(of: snapshot).lines.contains("limit: 100 B, shrinking by 2048 B a second"))
    snapshot.header = ["limit_bytes": "0"]
    #expect(!Summary(of: snapshot).lines.contains { $0.hasPrefix("limit") })
    snapshot.header = [
      "limit_bytes": "1", "limit_usage_bytes": "\(Int.max)", "limit_rate_bytes": "\(Int.min)",
    ]
    #expect(Summary(of: snapshot).lines.contains { $0.hasPrefix("limit: 9900 % of 1 B, ") })
  }

  @Test func `a picture of the peak says how much of it there is, and of when`() {
    var snapshot = Snapshot()
    snapshot.header = [
      "peak_bytes": "20480", "peak.picture_bytes": "19456", "peak.picture_blocks": "3",
      "start_monotonic_ns": "1000000000", "peak.picture_monotonic_ns": "3500000000",
      "peak.missed": "2", "total_bytes": "30000", "total_blocks": "40", "temporary_blocks": "1",
    ]
    #expect(
      Summary(of: snapshot).lines.suffix(2) == [
        "peak: 20.0 KiB; 19.0 KiB are known by stack (95 %), as of 2.5 s after recording began",
        "allocated since recording began: 29.3 KiB in 40 blocks, temporary: 1 block",
      ])
    snapshot.header["peak.picture_bytes"] = "10240"
    #expect(
      Summary(of: snapshot).lines.contains {
        $0.hasSuffix("began; what came above that was over too soon")
      })
  }

  @Test(arguments: ["9223372036854775807", "-9223372036854775808", "0"], ["1", "-1", "0"])
  func `no picture of the peak, whatever it says, is more than all of it`(
    picture: String, peak: String
  ) {
    var snapshot = Snapshot()
    snapshot.header = [
      "peak_bytes": peak, "peak.picture_bytes": picture, "peak.picture_blocks": "1",
    ]
    let line = Summary(of: snapshot).lines.first { $0.hasPrefix("peak: ") }
    #expect(line?.contains("(0 %)") == true || line?.contains("(100 %)") == true, "\(line ?? "")")
  }

  @Test func `a summary says what the dump says, and every loss`() {
    var snapshot = FixtureA.earlier
    snapshot.header = fullHeader
    snapshot.warnings = ["profile ends inside a field (byte 9): the largest 4 sites were kept"]
    #expect(
      Summary(of: snapshot).description == """
        leaky (1234) on web-3, unit leaky.service
        dump 2 by signal, 2026-11-21T10:27:57Z, 1 min 30 s after recording began
        total: size=105 B, count=6, average=18 B
        peak: 20.0 KiB, exact to 512 B
        allocated since recording began: 4096 B in 40 blocks, freed: 3986 B in 1 block
        counters say +5 B: allocated or freed while the dump was made
        before recording: 10000 B allocated, 100 B in 3 blocks freed since, at most 9900 B left
        memory in use: 1024 KiB, by /proc/self/statm
          traced                    512 KiB
          from before recording      9900 B
          new_kind                  488 KiB
          other                     -1000 B
          not explained            15.0 KiB
        lost: 3 (lost.sites: allocations whose stack found no room, shown as (stack lost))
        lost: 2 (lost.novel: of a kind that this version does not know)
        lost: 1 (broken_stacks: allocations whose stack ends before the outermost call)
        lost: 20.0 KiB (omitted_bytes: live at sites left out of the dump)
        warning: profile ends inside a field (byte 9): the largest 4 sites were kept
        """)
  }

  @Test(arguments: [
    "lost.sites", "lost.blocks", "lost.nested", "lost.rows", "lost.other", "truncated_stacks",
    "broken_stacks", "sites_omitted", "omitted_bytes",
  ])
  func `a loss has a line if it is not zero`(key: String) {
    var snapshot = Snapshot()
    snapshot.header[key] = "0"
    #expect(Summary(of: snapshot).lines == ["total: size=0 B, count=0"])
    snapshot.header[key] = "77"
    #expect(Summary(of: snapshot).lines.count == 2)
    #expect(Summary(of: snapshot).lines[1].hasPrefix("lost: 77 "))
    #expect(Summary(of: snapshot).lines[1].contains(" (\(key): "))
  }

  @Test func `a profile that says nothing of itself has a total`() {
    #expect(
      Summary(of: FixtureA.earlier).lines == ["total: size=105 B, count=6, average=18 B"])
  }

  @Test func `a heap that is not all in memory adds up without an absurd line`() {
    var snapshot = Snapshot()
    snapshot.header = [
      "before_freed_blocks": "0", "before_freed_bytes": "0", "usage_bytes": "300",
      "reconcile.traced_bytes": "1000", "reconcile.before_bytes": "0",
      "reconcile.mmap_bytes": "0", "reconcile.slack_bytes": "-800",
      "reconcile.tracer_bytes": "100",
    ]
    #expect(
      Summary(of: snapshot).lines == [
        "total: size=0 B, count=0", "memory in use: 300 B",
        "  traced                            1000 B",
        "  allocated, but not in memory      -800 B",
        "  the tracer itself                  100 B",
      ])
  }

  @Test func `what filters left is told as a part of the whole`() {
    var snapshot = FixtureA.earlier
    snapshot.header = ["scanned_bytes": "1050", "scanned_blocks": "60"]
    #expect(
      Summary(of: snapshot).lines == ["total: size=105 B of 1050 B, count=6 of 60, average=18 B"])
  }

  @Test func `a comparison says what either snapshot lacks`() {
    var earlier = FixtureA.earlier
    earlier.header["lost.sites"] = "1"
    earlier.warnings = ["cut"]
    var later = FixtureA.later
    later.header["lost.sites"] = "2"
    let lost = "(lost.sites: allocations whose stack found no room, shown as (stack lost))"
    #expect(
      Summary(of: later, comparedTo: earlier).lines == [
        "total: size=5432 B (+5327 B), count=6 (+0)", "earlier snapshot: lost: 1 \(lost)",
        "earlier snapshot: warning: cut", "lost: 2 \(lost)",
      ])
  }

  @Test func `colour only if asked`() {
    var snapshot = FixtureA.earlier
    snapshot.header = fullHeader
    let coloured = Summary(of: snapshot, style: TextStyle(colour: .ansi)).lines
    #expect(coloured[0] == "\u{1b}[1mleaky (1234) on web-3, unit leaky.service\u{1b}[0m")
    #expect(!Summary(of: snapshot).description.contains("\u{1b}"))
  }

  @Test(arguments: [
    (0, "1970-01-01T00:00:00Z"), (951_782_400_000_000_000, "2000-02-29T00:00:00Z"),
    (1_709_251_199_999_999_999, "2024-02-29T23:59:59Z"),
    (4_107_542_400_000_000_000, "2100-03-01T00:00:00Z"), (-1, "1969-12-31T23:59:59Z"),
    (.max, "2262-04-11T23:47:16Z"), (.min, "1677-09-21T00:12:43Z"),
  ])
  func `times are UTC`(nanoseconds: Int, text: String) {
    var snapshot = Snapshot()
    snapshot.header["dump_wall_ns"] = "\(nanoseconds)"
    #expect(Summary(of: snapshot).lines[0] == text)
  }

  @Test(arguments: [
    (0, "1970-01-01T00:00:00.000000Z"), (-1, "1969-12-31T23:59:59.999999Z"),
    (.max, "294247-01-10T04:00:54.775807Z"), (.min, "-290308-12-21T19:59:05.224192Z"),
  ])
  func `moments of the journal are UTC, to the microsecond`(microseconds: Int, text: String) {
    #expect(UTC.text(microseconds: microseconds) == text)
  }

  @Test(arguments: [
    (0, "0.0 s"), (6_790_000_000, "6.7 s"), (60_000_000_000, "1 min 0 s"),
    (3_660_000_000_000, "1 h 1 min"), (90_000_000_000_000, "1 d 1 h"),
  ])
  func `durations have the two units that matter`(nanoseconds: Int, text: String) {
    var snapshot = Snapshot()
    snapshot.header["start_monotonic_ns"] = "0"
    snapshot.header["dump_monotonic_ns"] = "\(nanoseconds)"
    #expect(Summary(of: snapshot).lines[0] == "\(text) after recording began")
  }

  @Test func `the histogram has a line for each size`() {
    let header: Header = ["histogram": "16:2:20,16384:1:10300,more:1:500000"]
    #expect(
      HistogramText(of: header).description == """
        up to 16 B    : size=20 B, count=2
        up to 16.0 KiB: size=10.1 KiB, count=1
        more          : size=488 KiB, count=1
        """)
    #expect(HistogramText(of: Header()).lines.isEmpty)
  }

  @Test func `every pair of the header can be shown`() {
    let header: Header = ["pid": "1", "unheard_of": "a\u{7}b"]
    #expect(HeaderText(of: header).lines == ["pid=1", "unheard_of=a?b"])
  }
}
