// SPDX-License-Identifier: Apache-2.0
// Statistics and comparisons as text, to the letter.

import HeapModel
import Reports
import Testing

/// A heap with functions, an unsymbolicated library, a deep stack and a lost one.
private func symbolicated() -> Snapshot {
  let libz = Module(
    start: 0x7000, limit: 0x9000, fileOffset: 0x1000, path: "/usr/lib/libz.so.1", buildID: "")
  var builder = Snapshot.Builder(header: Header(), modules: [libz])
  let open = Frame(function: "Session.open()", file: "/src/app/Session.swift", line: 12)
  builder.add(
    bytes: 20480, blocks: 2, stack: [Frame(address: 0x7f30, module: 0), open], missingFrames: 1)
  builder.add(bytes: 3000, blocks: 3, stack: [open])
  builder.add(bytes: 7, stack: [.lostStack])
  return builder.finish()
}

@Suite struct TextTableTests {
  @Test func `statistics are tracemalloc's lines`() {
    #expect(
      TextTable(FixtureA.earlier.statistics(groupedBy: .line)).description == """
        b.py:1: size=66 B, count=1, average=66 B
        a.py:2: size=30 B, count=3, average=10 B
        <unknown>:0: size=7 B, count=1, average=7 B
        a.py:5: size=2 B, count=1, average=2 B
        """)
  }

  @Test func `comparisons are tracemalloc's lines`() {
    let changes = FixtureA.later.compared(to: FixtureA.earlier, groupedBy: .line)
    #expect(
      TextTable(changes).description == """
        a.py:5: size=5002 B (+5000 B), count=2 (+1), average=2501 B
        c.py:578: size=400 B (+400 B), count=1 (+1), average=400 B
        b.py:1: size=0 B (-66 B), count=0 (-1)
        <unknown>:0: size=0 B (-7 B), count=0 (-1)
        a.py:2: size=30 B (+0 B), count=3 (+0), average=10 B
        """)
    #expect(TextTable(changes).lines == changes.map(\.description))
  }

  @Test func `functions stand beside their lines`() {
    #expect(
      TextTable(symbolicated().statistics(groupedBy: .line)).description == """
        libz.so.1+0x1f30: size=20.0 KiB, count=2, average=10.0 KiB
        /src/app/Session.swift:12 in Session.open(): size=3000 B, count=3, average=1000 B
        (stack lost): size=7 B, count=1, average=7 B
        """)
  }

  @Test func `a stack that is not whole says what is known of its root`() {
    func root(missingFrames: Int, isBroken: Bool) -> String? {
      var builder = Snapshot.Builder()
      builder.add(
        bytes: 1, stack: [Frame(function: "f", file: "f.c", line: 1)], missingFrames: missingFrames,
        isBroken: isBroken)
      return TextTable(builder.finish().statistics(groupedBy: .stack)).lines.dropFirst(2).first
    }
    #expect(root(missingFrames: 0, isBroken: false) == nil)
    #expect(root(missingFrames: 136, isBroken: false) == "  … 136 more frames")
    #expect(root(missingFrames: 136, isBroken: true) == "  … at least 136 more frames")
    #expect(root(missingFrames: 0, isBroken: true) == "  … what called this is not known")
  }

  @Test func `stacks are below their figures, innermost first`() {
    #expect(
      TextTable(symbolicated().statistics(groupedBy: .stack)).description == """
        size=20.0 KiB, count=2, average=10.0 KiB
          libz.so.1+0x1f30
          /src/app/Session.swift:12 in Session.open()
          … 1 more frame
        size=3000 B, count=3, average=1000 B
          /src/app/Session.swift:12 in Session.open()
        size=7 B, count=1, average=7 B
          (stack lost)
        """)
    #expect(
      TextTable(symbolicated().compared(to: Snapshot(), groupedBy: .stack), limit: 1).lines == [
        "size=20.0 KiB (+20.0 KiB), count=2 (+2), average=10.0 KiB", "  libz.so.1+0x1f30",
        "  /src/app/Session.swift:12 in Session.open()", "  … 1 more frame",
        "… and 2 more rows",
      ])
  }

  @Test func `a limit counts what it hides`() {
    let statistics = FixtureA.earlier.statistics(groupedBy: .line)
    #expect(
      TextTable(statistics, limit: 3).lines.suffix(2) == [
        "<unknown>:0: size=7 B, count=1, average=7 B", "… and 1 more row",
      ])
    #expect(TextTable(statistics, limit: 4).lines.count == 4)
    #expect(TextTable(statistics, limit: 0).lines == ["… and 4 more rows"])
    #expect(TextTable([Statistic](), limit: 3).lines.isEmpty)
  }

  @Test func `rows with nothing alive are not shown, those that vanished are`() {
    var builder = Snapshot.Builder()
    let stack = builder.stack(FixtureA.b1)
    builder.add(.init(stack: stack, liveBytes: 0, liveBlocks: 0, totalBytes: 9, totalBlocks: 1))
    let churned = builder.finish()
    #expect(TextTable(churned.statistics(groupedBy: .line)).lines.isEmpty)
    #expect(TextTable(churned.compared(to: churned, groupedBy: .line)).lines.isEmpty)
    #expect(
      TextTable(churned.statistics(groupedBy: .line), .liveAndTotal).lines.first?
        .contains("size=0 B, count=0, total=") == true)
    #expect(
      TextTable(churned.compared(to: FixtureA.earlier, groupedBy: .line)).lines.first
        == "b.py:1: size=0 B (-66 B), count=0 (-1)")
    // A block of 0 bytes is alive.
    builder = Snapshot.Builder()
    builder.add(bytes: 0, stack: FixtureA.b1)
    #expect(
      TextTable(builder.finish().statistics(groupedBy: .line)).lines
        == ["b.py:1: size=0 B, count=1, average=0 B"])
  }

  @Test func `temporary blocks come with their share, and rows without any not at all`() {
    var builder = Snapshot.Builder()
    let loop = builder.stack([Frame(file: "a.c", line: 1)])
    let kept = builder.stack([Frame(file: "b.c", line: 2)])
    builder.add(
      .init(
        stack: loop, liveBytes: 20, liveBlocks: 2, totalBytes: 400, totalBlocks: 40,
        temporaryBlocks: 30))
    builder.add(.init(stack: kept, liveBytes: 9, liveBlocks: 1, totalBytes: 9, totalBlocks: 1))
    let rows = builder.finish().statistics(groupedBy: .line)
    #expect(rows.map(\.temporaryShare) == [0.75, 0])
    #expect(
      TextTable(rows, .temporary).lines == [
        "a.c:1: temporary=30 (75 % of 40 allocations), size=20 B, count=2, average=10 B"
      ])
  }

  @Test func `of a damaged dump no more blocks were temporary than there were`() {
    var builder = Snapshot.Builder()
    let loop = builder.stack([Frame(file: "a.c", line: 1)])
    builder.add(
      .init(
        stack: loop, liveBytes: 0, liveBlocks: 0, totalBytes: 8, totalBlocks: 1,
        temporaryBlocks: .max))
    let rows = builder.finish().statistics(groupedBy: .line)
    #expect(TextTable(rows, .temporary).lines.first?.contains("(100 % of 1 allocation)") == true)
  }

  @Test(arguments: [60, 70, 80, 100])
  func `a width shortens names and never figures`(width: Int) {
    var builder = Snapshot.Builder()
    builder.add(
      bytes: 3000, blocks: 3,
      stack: [
        Frame(
          function: "closure #1 in Session.open(address:timeout:)",
          file: "/home/builder/src/app/Sources/Session.swift", line: 12)
      ])
    let snapshot = builder.finish()
    let line = TextTable(
      snapshot.statistics(groupedBy: .line), style: TextStyle(width: width)
    ).lines[0]
    #expect(line.count <= width)
    #expect(line.hasSuffix(": size=3000 B, count=3, average=1000 B"))
    #expect(line.contains("ession.swift:12"))
    #expect(line.contains("ession.swift:12 in closure #1") == (width >= 80))
    for line in TextTable(
      snapshot.statistics(groupedBy: .stack), style: TextStyle(width: width)
    ).lines {
      #expect(line.count <= width)
    }
  }

  @Test func `colour only if asked, and figures stay the same`() {
    let changes = FixtureA.later.compared(to: FixtureA.earlier, groupedBy: .line)
    let coloured = TextTable(changes, style: TextStyle(colour: .ansi)).lines
    #expect(coloured[0].contains("size=5002 B\u{1b}[31m (+5000 B)\u{1b}[0m, count"))
    #expect(coloured[2].contains("\u{1b}[32m (-66 B)\u{1b}[0m"))
    #expect(!coloured[4].contains("\u{1b}"))
    #expect(!TextTable(changes).description.contains("\u{1b}"))
  }

  @Test func `a traced program cannot steer the terminal`() {
    var builder = Snapshot.Builder()
    builder.add(
      bytes: 1, stack: [Frame(function: "f\u{1b}[2J\u{202e}", file: "a\nb\u{9b}1m", line: 1)])
    let snapshot = builder.finish()
    for grouping in Snapshot.Grouping.allCases {
      for line in TextTable(snapshot.statistics(groupedBy: grouping)).lines {
        #expect(!line.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x9b })
      }
    }
    #expect(
      TextTable(snapshot.statistics(groupedBy: .line)).lines[0].hasPrefix("a?b?1m:1 in f?[2J?:"))
  }
}
