// SPDX-License-Identifier: Apache-2.0
// Grouping and comparing, with the figures of tracemalloc's own tests.

import HeapModel
import Testing

/// A row in a form that a test can be read by.
private func rows(_ statistics: [Statistic]) -> [String] {
  statistics.map { "\($0.key) \($0.liveBytes)x\($0.liveBlocks)" }
}

private func rows(_ differences: [StatisticDifference]) -> [String] {
  differences.map {
    "\($0.key) \($0.liveBytes)(\($0.addedBytes)) \($0.liveBlocks)(\($0.addedBlocks))"
  }
}

@Suite struct FixtureStatisticsTests {
  let earlier = FixtureA.earlier
  let later = FixtureA.later

  @Test func `by line`() {
    #expect(
      rows(earlier.statistics(groupedBy: .line))
        == ["b.py:1 66x1", "a.py:2 30x3", "<unknown>:0 7x1", "a.py:5 2x1"])
    #expect(
      rows(later.statistics(groupedBy: .line))
        == ["a.py:5 5002x2", "c.py:578 400x1", "a.py:2 30x3"])
  }

  @Test func `compared by line`() {
    #expect(
      rows(later.compared(to: earlier, groupedBy: .line)) == [
        "a.py:5 5002(5000) 2(1)", "c.py:578 400(400) 1(1)", "b.py:1 0(-66) 0(-1)",
        "<unknown>:0 0(-7) 0(-1)", "a.py:2 30(0) 3(0)",
      ])
  }

  @Test func `by file`() {
    #expect(
      rows(earlier.statistics(groupedBy: .file)) == ["b.py 66x1", "a.py 32x4", "<unknown> 7x1"])
    #expect(rows(later.statistics(groupedBy: .file)) == ["a.py 5032x5", "c.py 400x1"])
    #expect(
      rows(later.compared(to: earlier, groupedBy: .file)) == [
        "a.py 5032(5000) 5(1)", "c.py 400(400) 1(1)", "b.py 0(-66) 0(-1)",
        "<unknown> 0(-7) 0(-1)",
      ])
  }

  @Test func `by stack`() {
    let before = earlier.statistics(groupedBy: .stack)
    #expect(before.map(\.liveBytes) == [66, 30, 7, 2])
    #expect(before.map(\.liveBlocks) == [1, 3, 1, 1])
    #expect(
      before.map { Array($0.stack!) }
        == [FixtureA.b1, FixtureA.a2b4, FixtureA.unknown, FixtureA.a5b4])

    let after = later.statistics(groupedBy: .stack)
    #expect(after.map(\.liveBytes) == [5002, 400, 30])
    #expect(after.map { Array($0.stack!) } == [FixtureA.a5b4, FixtureA.c578, FixtureA.a2b4])
    #expect(after[0].stack?.totalFrameCount == 3)
  }

  @Test func `compared by stack`() {
    let changes = later.compared(to: earlier, groupedBy: .stack)
    #expect(changes.map(\.addedBytes) == [5000, 400, -66, -7, 0])
    #expect(changes.map(\.addedBlocks) == [1, 1, -1, -1, 0])
    #expect(
      changes.map { Array($0.stack!) } == [
        FixtureA.a5b4, FixtureA.c578, FixtureA.b1, FixtureA.unknown, FixtureA.a2b4,
      ])
  }

  @Test func `whole stacks cannot be charged to every frame`() {
    #expect(throws: Snapshot.GroupingError(.everyFrameOfStack)) {
      try earlier.statistics(groupedBy: .stack, charging: .everyFrame)
    }
    #expect(throws: Snapshot.GroupingError(.everyFrameOfStack)) {
      try later.compared(to: earlier, groupedBy: .stack, charging: .everyFrame)
    }
  }

  @Test func `by file, charging every frame`() throws {
    #expect(
      rows(try earlier.statistics(groupedBy: .file, charging: .everyFrame))
        == ["b.py 98x5", "a.py 32x4", "<unknown> 7x1"])
  }

  @Test func `by line, charging every frame`() throws {
    #expect(
      rows(try earlier.statistics(groupedBy: .line, charging: .everyFrame)) == [
        "b.py:1 66x1", "b.py:4 32x4", "a.py:2 30x3", "<unknown>:0 7x1", "a.py:5 2x1",
      ])
  }

  @Test func `statistics print as in tracemalloc`() {
    #expect(
      earlier.statistics(groupedBy: .line)[0].description
        == "b.py:1: size=66 B, count=1, average=66 B")
    let changes = later.compared(to: earlier, groupedBy: .line)
    #expect(
      changes[0].description
        == "a.py:5: size=5002 B (+5000 B), count=2 (+1), average=2501 B")
    #expect(changes[2].description == "b.py:1: size=0 B (-66 B), count=0 (-1)")
    #expect(changes[4].description == "a.py:2: size=30 B (+0 B), count=3 (+0), average=10 B")
  }

  @Test func `statistics slice like a sequence`() {
    #expect(earlier.statistics(groupedBy: .line)[..<2].map(\.liveBytes) == [66, 30])
  }
}

@Suite struct StatisticsTests {
  @Test func `a recursive function is charged once`() throws {
    var builder = Snapshot.Builder()
    let recursive = Frame(function: "walk", file: "a.py", line: 3)
    builder.add(bytes: 10, stack: [recursive, recursive, recursive, Frame(function: "main")])
    let snapshot = builder.finish()
    #expect(
      rows(try snapshot.statistics(groupedBy: .function, charging: .everyFrame))
        == ["walk 10x1", "main 10x1"])
    #expect(
      rows(try snapshot.statistics(groupedBy: .file, charging: .everyFrame))
        == ["a.py 10x1", "<unknown> 10x1"])
  }

  @Test func `growth is sorted by size of change, not size`() {
    func heap(_ small: Int, _ large: Int) -> Snapshot {
      var builder = Snapshot.Builder()
      builder.add(bytes: small, stack: FixtureA.b1)
      builder.add(bytes: large, stack: FixtureA.c578)
      return builder.finish()
    }
    let changes = heap(10, 1010).compared(to: heap(500, 1000), groupedBy: .line)
    #expect(rows(changes) == ["b.py:1 10(-490) 1(0)", "c.py:578 1010(10) 1(0)"])
  }

  @Test func `ties are broken by count and then by key, descending`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 10, blocks: 1, stack: [Frame(file: "a", line: 1)])
    builder.add(bytes: 10, blocks: 1, stack: [Frame(file: "b", line: 1)])
    builder.add(bytes: 10, blocks: 2, stack: [Frame(file: "a", line: 9)])
    builder.add(bytes: 10, blocks: 1, stack: [Frame(file: "b", line: 10)])
    let snapshot = builder.finish()
    #expect(
      snapshot.statistics(groupedBy: .line).map(\.key.description)
        == ["a:9", "b:10", "b:1", "a:1"])
    #expect(
      snapshot.compared(to: Snapshot(), groupedBy: .line).map(\.key.description)
        == ["a:9", "b:10", "b:1", "a:1"])
  }

  @Test func `functions without lines stay apart`() {
    let libz = Module(
      start: 0x7000, limit: 0x9000, fileOffset: 0x1000, path: "/usr/lib/libz.so.1", buildID: "")
    var builder = Snapshot.Builder(header: Header(), modules: [libz])
    builder.add(bytes: 4, stack: [Frame(address: 0x7010, module: 0, function: "inflate")])
    builder.add(bytes: 3, stack: [Frame(address: 0x7020, module: 0, function: "deflate")])
    builder.add(bytes: 2, stack: [Frame(address: 0x7f30, module: 0)])
    builder.add(bytes: 1, stack: [Frame(address: 0xbeef)])
    let snapshot = builder.finish()
    let names = [
      "inflate (libz.so.1)", "deflate (libz.so.1)", "libz.so.1+0x1f30", "0xbeef",
    ]
    #expect(snapshot.statistics(groupedBy: .line).map(\.key.description) == names)
    #expect(snapshot.statistics(groupedBy: .function).map(\.key.description) == names)
    #expect(
      rows(snapshot.statistics(groupedBy: .file)) == ["libz.so.1 9x3", "<unknown> 1x1"])
    #expect(
      rows(snapshot.statistics(groupedBy: .module)) == ["libz.so.1 9x3", "<unknown> 1x1"])
  }

  @Test func `rows meet across processes, where modules lay elsewhere`() {
    func heap(at start: UInt64) -> Snapshot {
      let library = Module(
        start: start, limit: start + 0x1000, fileOffset: 0, path: "/lib/liba.so", buildID: "")
      var builder = Snapshot.Builder(header: Header(), modules: [library])
      builder.add(bytes: 8, stack: [Frame(address: start + 0x10, module: 0)])
      return builder.finish()
    }
    for grouping in [Snapshot.Grouping.line, .stack, .function] {
      let changes = heap(at: 0x7000).compared(to: heap(at: 0x5000), groupedBy: grouping)
      #expect(changes.map(\.addedBytes) == [0])
    }
  }

  @Test func `the function stands beside its line without making rows`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: [Frame(function: "outer", file: "a", line: 1)])
    builder.add(bytes: 1, stack: [Frame(function: "closure", file: "a", line: 1)])
    let statistics = builder.finish().statistics(groupedBy: .line)
    #expect(statistics.map(\.liveBlocks) == [2])
    #expect(statistics[0].function == "closure")
  }

  @Test func `a stack that was lost has a row of its own`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: [.lostStack])
    let snapshot = builder.finish()
    for grouping in [Snapshot.Grouping.line, .file, .function, .module] {
      #expect(snapshot.statistics(groupedBy: grouping)[0].key.description == "(stack lost)")
    }
  }

  @Test func `a stack without frames is unknown`() throws {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: [])
    let snapshot = builder.finish()
    #expect(snapshot.statistics(groupedBy: .line)[0].key.description == "<unknown>:0")
    #expect(snapshot.statistics(groupedBy: .stack)[0].key.description == "<unknown>:0")
    #expect(
      try snapshot.statistics(groupedBy: .line, charging: .everyFrame)[0].liveBlocks == 1)
  }

  @Test func `generations tell what each interval left behind`() throws {
    var builder = Snapshot.Builder()
    builder.add(bytes: 5, stack: FixtureA.b1, generation: 1)
    builder.add(bytes: 7, stack: FixtureA.b1, generation: 2)
    builder.add(bytes: 4, stack: FixtureA.c578, generation: 1)
    builder.add(bytes: 1, stack: FixtureA.c578)
    let snapshot = builder.finish()
    let expected = ["generation 1 9x2", "generation 2 7x1", "no generation 1x1"]
    #expect(rows(snapshot.statistics(groupedBy: .generation)) == expected)
    #expect(
      rows(try snapshot.statistics(groupedBy: .generation, charging: .everyFrame)) == expected)
  }

  @Test func `types and threads are rows by name, and what is not known is a row of its own`()
    throws
  {
    var builder = Snapshot.Builder()
    builder.add(bytes: 5, stack: FixtureA.b1, type: "M.Node", thread: "worker-1")
    builder.add(bytes: 7, stack: FixtureA.c578, type: "M.Node", thread: "main")
    builder.add(bytes: 4, stack: FixtureA.c578, thread: "main")
    builder.add(bytes: 4, stack: FixtureA.c578, type: "task")
    let snapshot = builder.finish()
    let types = ["M.Node 12x2", "task 4x1", "unknown (not an object of Swift) 4x1"]
    #expect(rows(snapshot.statistics(groupedBy: .type)) == types)
    let threads = ["main 11x2", "worker-1 5x1", "unknown thread 4x1"]
    #expect(rows(snapshot.statistics(groupedBy: .thread)) == threads)
    #expect(rows(try snapshot.statistics(groupedBy: .thread, charging: .everyFrame)) == threads)
    let change = snapshot.compared(to: snapshot.filtered(.file("b.py")), groupedBy: .type)
    #expect(change.map(\.addedBytes) == [7, 4, 4])
    try snapshot.check(.type)
    try snapshot.check(.thread)
  }

  @Test func `what a snapshot knows nothing of is no grouping for it`() throws {
    var builder = Snapshot.Builder()
    builder.add(bytes: 5, stack: FixtureA.b1)
    var snapshot = builder.finish()
    #expect(throws: Snapshot.GroupingError(.noTypes)) { try snapshot.check(.type) }
    #expect(throws: Snapshot.GroupingError(.noThreads)) { try snapshot.check(.thread) }
    #expect(throws: Snapshot.GroupingError(.noReach)) { try snapshot.check(.reach) }
    let asked: Set<Snapshot.Grouping> = [.type, .thread, .reach]
    for grouping in Snapshot.Grouping.allCases where !asked.contains(grouping) {
      try snapshot.check(grouping)
    }
    snapshot.header["types_problem"] = "a limit was near"
    #expect(
      throws: Snapshot.GroupingError(.noTypes, cause: "a limit was near")
    ) { try snapshot.check(.type) }
    // None was found, but somebody looked.
    snapshot.header["typed_blocks"] = "0"
    snapshot.header["threads"] = "1"
    snapshot.header["reach"] = "1"
    for grouping in asked { try snapshot.check(grouping) }
    try Snapshot().check(.thread)
  }

  @Test func `cumulative figures add up although one sample carries them`() {
    var builder = Snapshot.Builder()
    let stack = builder.stack(FixtureA.b1)
    builder.add(.init(stack: stack, liveBytes: 5, liveBlocks: 1, totalBytes: 90, totalBlocks: 9))
    builder.add(.init(stack: stack, liveBytes: 6, liveBlocks: 1))
    let statistic = builder.finish().statistics(groupedBy: .line)[0]
    #expect(statistic.totalBytes == 90)
    #expect(statistic.totalBlocks == 9)
    #expect(statistic.averageBytes == 5.5)
  }

  @Test func `the groupings' names are the words that the command takes`() {
    #expect(
      Snapshot.Grouping.allCases.map(\.description)
        == ["line", "file", "function", "stack", "module", "generation", "type", "thread", "reach"])
    #expect(Snapshot.Grouping(rawValue: "func") == nil)
  }
}
