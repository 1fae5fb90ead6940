// SPDX-License-Identifier: Apache-2.0
// Rows over many snapshots.

import HeapModel
import Testing

private func frame(_ file: String, _ line: Int = 1) -> Frame { Frame(file: file, line: line) }

/// A snapshot with so many bytes in each file.
private func snapshot(_ bytes: KeyValuePairs<String, Int>, header: Header = [:]) -> Snapshot {
  var builder = Snapshot.Builder(header: header, modules: [])
  for (file, count) in bytes { builder.add(bytes: count, stack: [frame(file), frame("main.c")]) }
  return builder.finish()
}

/// A trend of snapshots that were taken every hour.
private func trend(
  _ snapshots: [Snapshot], by grouping: Snapshot.Grouping = .file,
  charging: Snapshot.Charging = .allocatingFrame, order: [Int]? = nil
) throws -> Trend {
  var builder = try Trend.Builder(groupedBy: grouping, charging: charging)
  for number in order ?? Array(snapshots.indices) {
    try builder.add(snapshots[number], atNanoseconds: number * 3_600_000_000_000)
  }
  return builder.finish()
}

private let mixed = (0..<6).map { hour in
  snapshot(
    [
      "cache.c": min(hour, 3) * 1000, "slow.c": 10 * hour, "fast.c": 50 * hour,
      "churn.c": hour % 2 == 0 ? 900 : 100, "still.c": 5000,
    ],
    header: ["limit_bytes": "2000", "limit_usage_bytes": "\(1000 + 100 * hour)"])
}

@Suite struct TrendTests {
  @Test func `leaks come first, the one that reaches the limit first at the head`() throws {
    let rows = try trend(mixed).rows
    #expect(
      rows.map { "\($0.key) \($0.fit.verdict.rawValue)" } == [
        "fast.c leak", "slow.c leak", "cache.c levels off", "still.c steady", "churn.c churn",
      ])
    #expect(rows.map(\.fit.bytesPerHour) == [50, 10, 0, 0, 0])
    // 500 are left.
    #expect(rows.map(\.secondsLeft) == [36000, 180_000, nil, nil, nil])
    #expect(rows[0].liveBytes == [0, 50, 100, 150, 200, 250])
    #expect(rows[0].liveBlocks == 1)
  }

  @Test func `the whole has a trend of its own, and so has what counts against the limit`() throws {
    let trend = try trend(mixed)
    #expect(trend.total.liveBytes == mixed.map(\.liveBytes))
    #expect(trend.usage?.bytesPerHour == 100)
    #expect(trend.headroomBytes == 500)
    #expect(trend.secondsLeft(atBytesPerHour: 100) == 18000)
    #expect(trend.moments.map(\.seconds) == [0, 3600, 7200, 10800, 14400, 18000])
    #expect(trend.count(of: .leak) == 2 && trend.count(of: .churn) == 1)
  }

  @Test func `another limit in between leaves the usage without a trend`() throws {
    var snapshots = mixed
    snapshots[2].header["limit_bytes"] = "3000"
    #expect(try trend(snapshots).usage == nil)
    snapshots = mixed
    snapshots[2].header["limit_usage_bytes"] = nil
    #expect(try trend(snapshots).usage == nil)
  }

  @Test func `without a limit no time is left or gone`() throws {
    let trend = try trend(
      mixed.map {
        var one = $0; one.header = [:]; return one
      })
    #expect(trend.headroomBytes == nil && trend.rows.allSatisfy { $0.secondsLeft == nil })
  }

  @Test func `a limit that is passed leaves no time`() throws {
    let trend = try trend(
      (0..<4).map {
        snapshot(["a.c": $0], header: ["limit_bytes": "10", "limit_usage_bytes": "20"])
      })
    #expect(trend.rows[0].secondsLeft == 0)
  }

  @Test func `the order in which snapshots come does not matter`() throws {
    let inOrder = try trend(mixed)
    let shuffled = try trend(mixed, order: [3, 5, 0, 1, 4, 2])
    #expect(shuffled.rows == inOrder.rows && shuffled.total == inOrder.total)
    #expect(shuffled.moments == inOrder.moments && shuffled.header == inOrder.header)
  }

  @Test func `a row that comes, goes and comes again has zeros in between`() throws {
    let trend = try trend([
      snapshot([:]), snapshot(["a.c": 5]), snapshot(["b.c": 1]), snapshot(["a.c": 7]),
    ])
    let rows = Dictionary(uniqueKeysWithValues: trend.rows.map { ("\($0.key)", $0) })
    #expect(rows["a.c"]?.liveBytes == [0, 5, 0, 7] && rows["a.c"]?.liveBlocks == 1)
    #expect(rows["b.c"]?.liveBytes == [0, 0, 1, 0] && rows["b.c"]?.liveBlocks == 0)
  }

  @Test func `rows are stacks with the frames of the last snapshot`() throws {
    let rows = try trend([snapshot(["gone.c": 1]), snapshot(["here.c": 1])], by: .stack).rows
    #expect(rows.count == 2)
    for row in rows {
      #expect((row.stack == nil) == (row.lastBytes == 0))
      guard let stack = row.stack else { continue }
      #expect(Array(stack) == [frame("here.c"), frame("main.c")])
    }
  }

  @Test func `every caller may be charged, but not for whole stacks`() throws {
    let rows = try trend(mixed, charging: .everyFrame).rows
    #expect(rows.contains { $0.key == .file("main.c") && $0.liveBytes == mixed.map(\.liveBytes) })
    #expect(throws: Snapshot.GroupingError(.everyFrameOfStack)) {
      try trend(mixed, by: .stack, charging: .everyFrame)
    }
  }

  @Test func `a recording is told by its process and its beginning`() {
    let one: Header = [
      "host": "a", "boot_id": "b", "program": "c", "pid": "1", "start_monotonic_ns": "5",
      "sequence": "1",
    ]
    var other = one
    other["sequence"] = "2"
    #expect(one.recording == other.recording)
    for key in ["host", "boot_id", "program", "pid", "start_monotonic_ns"] {
      other = one
      other[key] = "7"
      #expect(one.recording != other.recording, "\(key)")
    }
  }
}
