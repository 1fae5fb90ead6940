// SPDX-License-Identifier: Apache-2.0
// Trends as text and as JSON, to the letter.

import HeapModel
import Reports
import Testing

private let hours = 6

/// Six hours of a program with so many bytes in each line at the end of each.
private func trend(
  _ bytes: (Int) -> [(file: String, bytes: Int)], hours: Int = hours, header: Header = [:],
  by grouping: Snapshot.Grouping = .line
) throws -> Trend {
  var builder = try Trend.Builder(groupedBy: grouping)
  for hour in 0..<hours {
    var header = header
    header["dump_wall_ns"] = "\(1_795_256_877_123_456_789 + hour * 3_600_000_000_000)"
    var one = Snapshot.Builder(header: header, modules: [])
    for (file, count) in bytes(hour) {
      one.add(
        bytes: count, blocks: 2,
        stack: [
          Frame(function: "make_\(file)", file: "\(file).c", line: 7),
          Frame(function: "main", file: "main.c", line: 1),
        ])
    }
    try builder.add(one.finish(), atNanoseconds: hour * 3_600_000_000_000)
  }
  return builder.finish()
}

private func mixed(_ hour: Int) -> [(file: String, bytes: Int)] {
  [
    ("leak", 1_048_576 * hour), ("cache", min(hour, 2) * 1_000_000),
    ("churn", hour % 2 == 0 ? 900 : 100_000), ("still", 5000),
  ]
}

private let header: Header = [
  "program": "leaky", "pid": "1234", "limit_bytes": "67108864", "limit_usage_bytes": "33554432",
  "limit_source": "/sys/fs/cgroup/memory.max", "limit_rate_bytes": "7", "lost.blocks": "2",
]

@Suite struct TrendTextTests {
  @Test func `the first line is the answer, and the fastest leak is the first row`() throws {
    let text = TrendText(try trend(mixed, header: header), groupedBy: .line)
    #expect(
      text.description == """
        leak.c:7 in make_leak leaks, +1024 KiB/h; the limit of 64.0 MiB is reached in 1 d 8 h

        TREND   VERDICT            RATE  GREW IN  LIMIT IN      SIZE  LINE
        ▁▂▄▅▇█  leak        +1024 KiB/h   5 of 5   1 d 8 h  5120 KiB  leak.c:7 in make_leak
        ▁▅████  levels off       +0 B/h   2 of 5         -  1953 KiB  cache.c:7 in make_cache
        ▁█▁█▁█  churn            +0 B/h   3 of 5         -  97.7 KiB  churn.c:7 in make_churn
        ▅▅▅▅▅▅  steady           +0 B/h   0 of 5         -    5000 B  still.c:7 in make_still

        leaky (1234)
        6 dumps in 5 h 0 min, 2026-11-21T10:27:57Z to 2026-11-21T15:27:57Z
        total: ▁▃▅▆▇█ leak, +1024 KiB/h, size=7176 KiB, count=8
        limit: 50 % of 64.0 MiB (/sys/fs/cgroup/memory.max), usage +0 B/h
        lost: 2 (lost.blocks: allocations that are not counted for want of room)
        """)
  }

  @Test func `where more than what is traced grows, the limit's own speed is said as well`() throws
  {
    var builder = try Trend.Builder(groupedBy: .line)
    for hour in 0..<5 {
      var one = Snapshot.Builder(
        header: ["limit_bytes": "10000", "limit_usage_bytes": "\(2000 + 1000 * hour)"], modules: [])
      one.add(bytes: 100 * hour, stack: [Frame(file: "a.c", line: 1)])
      try builder.add(one.finish(), atNanoseconds: hour * 3_600_000_000_000)
    }
    let lines = TrendText(builder.finish(), groupedBy: .line).lines
    #expect(lines[0] == "a.c:1 leaks, +100 B/h; the limit of 10000 B is reached in 1 d 16 h")
    #expect(lines.last == "limit: 60 % of 10000 B, usage +1000 B/h, reached in 4 h 0 min")
  }

  @Test(arguments: [
    ([0, 1, 2, 3, 4], "a.c leaks, +1 B/h"),
    ([0, 1], "a.c grew, +1 B/h; 2 dumps can't tell a leak from what will stop, 4 can"),
    (
      [0, 0, 0, 0, 0, 0, 6],
      "a.c grew, +1 B/h; too lately, or in too few steps, to tell a leak from what will stop"
    ),
    ([0, 9, 9, 9, 9, 9, 9, 9], "nothing leaks: 1 file levels off"),
    ([5, 5, 5], "nothing leaks: 1 file is steady"), ([9, 1, 9, 1], "nothing leaks: 1 file churns"),
    ([4, 3, 2, 1], "nothing leaks: 1 file shrinks"), ([0, 0], "nothing leaks"),
  ])
  func `the answer is one sentence whatever there is`(bytes: [Int], sentence: String) throws {
    let trend = try trend({ [("a", bytes[$0])].filter { $0.1 > 0 } }, hours: bytes.count, by: .file)
    #expect(TrendText(trend, groupedBy: .file).lines[0] == sentence)
  }

  @Test func `figures of a damaged dump are told like any others`() throws {
    for (first, last) in [(0, Int.max), (Int.max, Int.min)] {
      var builder = try Trend.Builder(groupedBy: .line)
      for (number, bytes) in [first, first, first, last].enumerated() {
        var one = Snapshot.Builder(
          header: ["limit_bytes": "\(Int.max)", "limit_usage_bytes": "\(Int.min)"], modules: [])
        one.add(bytes: bytes, stack: [Frame(file: "a.c", line: 1)])
        try builder.add(one.finish(), atNanoseconds: number)
      }
      let trend = builder.finish()
      #expect(TrendText(trend, groupedBy: .line).lines[0].contains(/leaks|grew|shrinks/))
      #expect(!JSONReport.trend(trend, paths: [], groupedBy: .line).text.isEmpty)
    }
  }

  @Test func `several leaks are added up, but not where they overlap`() throws {
    let trend = try trend({ [("a", 10 * $0), ("b", 30 * $0)] })
    #expect(
      TrendText(trend, groupedBy: .line).lines[0]
        == "b.c:7 in make_b leaks, +30 B/h, and 1 more line, +40 B/h together")
    #expect(
      TrendText(trend, groupedBy: .line, charging: .everyFrame).lines[0]
        == "b.c:7 in make_b leaks, +30 B/h, and 1 more line")
  }

  @Test func `a terminal shortens names, and a locale without UTF-8 has letters for a chart`()
    throws
  {
    let trend = try trend(mixed, header: header)
    let narrow = TrendText(
      trend, groupedBy: .line, style: TextStyle(width: 80, drawsInASCII: true))
    let rows = narrow.lines.dropFirst(2).prefix(5)
    #expect(rows.allSatisfy { $0.count <= 80 }, "\(rows)")
    #expect(rows[rows.startIndex + 1].hasPrefix("_.=+%#  leak"), "\(rows)")
    let coloured = TrendText(trend, groupedBy: .line, style: TextStyle(colour: .ansi))
    #expect(coloured.lines[0].hasPrefix("\u{1b}[31mleak.c:7 in make_leak leaks, "))
    #expect(coloured.lines[3].hasPrefix("\u{1b}[31m▁▂▄▅▇█  leak"))
  }

  @Test func `rows of stacks have their frames below, and those left out are counted`() throws {
    let lines = TrendText(try trend(mixed, by: .stack), groupedBy: .stack, limit: 1).lines
    #expect(lines[0] == "leak.c:7 in make_leak leaks, +1024 KiB/h")
    #expect(lines[2] == "TREND   VERDICT         RATE  GREW IN      SIZE")
    #expect(lines[4...6] == ["  leak.c:7 in make_leak", "  main.c:1 in main", "… and 3 more rows"])
  }

  @Test func `more dumps than fit share characters, and their peaks stay`() throws {
    let trend = try trend({ [("a", $0 == 17 ? 100 : 1)] }, hours: 100)
    let row = TrendText(trend, groupedBy: .line).lines[3]
    #expect(row.hasPrefix("▁▁▁▁█▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁▁  churn"), "\(row)")
  }

  @Test func `JSON has the names that the manual has`() throws {
    let trend = try trend(mixed, header: header)
    let text = JSONReport.trend(
      trend, paths: (0..<hours).map { "\($0).pb" }, groupedBy: .line, limit: 1
    ).text
    let beginning = #"""
      {"report":"trend","by":"line","charging":"allocating_frame","dumps":[{"path":"0.pb",\#
      "time":"2026-11-21T10:27:57Z","seconds":0.0,"live_bytes":5900,"usage_bytes":33554432},
      """#
    #expect(text.hasPrefix(beginning), "\(text)")
    let limit =
      #""limit":{"limit_bytes":67108864,"headroom_bytes":33554432,"usage_bytes_per_hour":0.0}"#
    #expect(text.contains(limit), "\(text)")
    let row = #"""
      "rows":[{"key":"leak.c:7","file":"leak.c","line":7,"function":"make_leak",\#
      "verdict":"leak","bytes_per_hour":1048576.0,"overall_bytes_per_hour":1048576.0,\#
      "grew_in":5,"shrank_in":0,"intervals":5,"seconds_left":115200.0,\#
      "live_bytes":5242880,"live_blocks":2,\#
      "series":[0,1048576,2097152,3145728,4194304,5242880]}],"omitted_rows":3
      """#
    #expect(text.contains(row), "\(text)")
  }
}
