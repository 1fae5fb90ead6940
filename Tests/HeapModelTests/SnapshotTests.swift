// SPDX-License-Identifier: Apache-2.0
// Snapshots as values: what they keep, share and equal.

import HeapModel
import Testing

@Suite struct SnapshotTests {
  @Test func `two allocations from one path share one stack`() {
    let snapshot = FixtureA.earlier
    #expect(snapshot.stackCount == 4)
    #expect(snapshot.samples[0].stack == snapshot.samples[1].stack)
    #expect(snapshot.samples[0].stack != snapshot.samples[3].stack)
  }

  @Test func `a frame is kept once`() {
    // a:2, b:4, a:5, b:1, unknown: b:4 is on two stacks.
    #expect(FixtureA.earlier.distinctFrames.count == 5)
  }

  @Test func `many stacks are told apart, and found again`() {
    var builder = Snapshot.Builder()
    let frames = (0..<300).map { builder.index(of: Frame(address: UInt64($0))) }
    func run(_ number: Int) -> [UInt32] { [frames[number % 300], frames[number / 300]] }
    let first = (0..<9000).map { builder.stack(run($0)[...]) }
    let again = (0..<9000).map { builder.stack(run($0)[...]) }
    #expect(first == Array(0..<9000))
    #expect(first == again)
    // An empty stack is a stack.
    #expect(builder.stack([UInt32]()[...]) == 9000)
  }

  @Test func `sizes, the depth limit and the depth of the whole stack are kept`() {
    let trace: FixtureA.Trace = (0, 123, [Frame(file: "a.py", line: 2)], 10)
    let snapshot = FixtureA.snapshot(of: [trace], depthLimit: 1)
    let sample = snapshot.samples[0]
    #expect(snapshot.header.depthLimit == 1)
    #expect(sample.liveBytes == 123)
    #expect(snapshot.stack(of: sample).count == 1)
    #expect(snapshot.stack(of: sample).totalFrameCount == 10)
  }

  @Test func `totals add up the samples`() {
    #expect(FixtureA.earlier.liveBytes == 105)
    #expect(FixtureA.earlier.liveBlocks == 6)
    #expect(FixtureA.later.liveBytes == 5432)
  }

  @Test func `totals beyond 64 bits stop at the largest number`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: .max, blocks: .max, stack: FixtureA.b1)
    builder.add(bytes: .max, blocks: .max, stack: FixtureA.b1)
    let snapshot = builder.finish()
    #expect(snapshot.liveBytes == .max)
    #expect(snapshot.statistics(groupedBy: .line)[0].liveBlocks == .max)
    #expect(snapshot.compared(to: Snapshot(), groupedBy: .line)[0].addedBytes == .max)
    #expect(Snapshot().compared(to: snapshot, groupedBy: .line)[0].addedBytes == -.max)
  }

  @Test func `equality is about what was measured, not about numbering`() {
    var builder = Snapshot.Builder(header: ["depth": "2"], modules: [])
    _ = builder.stack(FixtureA.c578)
    for trace in FixtureA.earlierTraces {
      builder.add(
        bytes: trace.bytes, stack: trace.stack,
        missingFrames: trace.totalFrames - trace.stack.count, domain: trace.domain)
    }
    builder.warnings = ["read from a file cut short"]
    let renumbered = builder.finish()
    #expect(renumbered.samples[0].stack != FixtureA.earlier.samples[0].stack)
    #expect(renumbered == FixtureA.earlier)
    #expect(FixtureA.earlier != FixtureA.later)
  }

  @Test func `equality sees one byte, one frame, one domain and one pair of the header`() {
    let whole = FixtureA.earlier
    for change in [
      { $0.samples[1].liveBytes += 1 }, { $0.samples[1].domain = 7 },
      { $0.samples[1].stack = $0.samples[3].stack }, { $0.header["depth"] = "3" },
      { $0.samples.removeLast() },
    ] as [(inout Snapshot) -> Void] {
      var changed = whole
      change(&changed)
      #expect(changed != whole)
    }
  }

  @Test func `a trace prints as in tracemalloc`() {
    #expect(FixtureA.earlier.line(for: FixtureA.earlier.samples[0]) == "b.py:4: 10 B")
  }

  @Test func `traces slice like a sequence`() {
    #expect(FixtureA.earlier.samples[..<2].map(\.liveBytes) == [10, 10])
    #expect(FixtureA.earlier.samples.suffix(1).map(\.domain) == [3])
  }
}

@Suite struct StackTests {
  let stack = Stack(FixtureA.a2b4, missingFrames: 1)

  @Test func `a stack slices like a sequence`() {
    #expect(Array(stack[..<1]) == [Frame(file: "a.py", line: 2)])
    #expect(stack.reversed().first == Frame(file: "b.py", line: 4))
    #expect(stack.count == 2)
  }

  @Test func `the outermost call comes first unless asked otherwise`() {
    let lines = [#"  File "b.py", line 4"#, #"  File "a.py", line 2"#]
    #expect(stack.lines() == lines)
    #expect(stack.lines(order: .innermostFirst) == lines.reversed())
  }

  @Test func `an extent keeps the end that it names, in either order`() {
    #expect(stack.lines(.innermost(1)) == [#"  File "a.py", line 2"#])
    #expect(stack.lines(.outermost(1)) == [#"  File "b.py", line 4"#])
    #expect(stack.lines(.innermost(1), order: .innermostFirst) == [#"  File "a.py", line 2"#])
    #expect(stack.lines(.outermost(1), order: .innermostFirst) == [#"  File "b.py", line 4"#])
    #expect(stack.lines(.innermost(9)).count == 2)
    #expect(stack.lines(.innermost(0)).isEmpty)
    #expect(stack.lines(.outermost(-1)).isEmpty)
  }

  @Test func `source lines are shown where the caller has them, without their indentation`() {
    let lines = stack.lines { $0.file == "a.py" ? "\t  f(1)  \n" : nil }
    #expect(lines == [#"  File "b.py", line 4"#, #"  File "a.py", line 2"#, "    f(1)"])
    #expect(stack.lines { _ in "   " }.count == 2)
  }

  @Test func `a known function is named`() {
    let stack = Stack([Frame(function: "open()", file: "s.swift", line: 7)])
    #expect(stack.lines() == [#"  File "s.swift", line 7, in open()"#])
  }

  @Test func `an unknown frame is shown as such`() {
    #expect(Stack([Frame()]).lines() == [#"  File "<unknown>", line 0"#])
  }

  @Test func `the whole depth is told only where frames are missing`() {
    #expect(stack.debugDescription == "<Stack (a.py:2, b.py:4) of 3>")
    #expect(Stack(FixtureA.a2b4).debugDescription == "<Stack (a.py:2, b.py:4)>")
  }
}
