// SPDX-License-Identifier: Apache-2.0
// Whose growth it is, by the functions on stacks, and how it is told.

import HeapModel
import Testing

@testable import Heaptap

@Suite struct HeapChangesTests {
  private let file = "/src/Sources/App/Catalog.swift"

  private func frame(_ function: String, _ file: String? = nil, line: Int = 1) -> Frame {
    Frame(function: function, file: file ?? self.file, line: line)
  }

  /// The frames of marks, innermost first: `inside`, and then digits from the highest one down.
  private func marked(_ parts: String...) -> [Frame] {
    parts.map { frame("static HeapMark.\($0)(_:isolation:_:)", "/HeapMark.swift") }
  }

  @Test func `every number that work can have is spelled by frames and read again`() {
    for number in [UInt32(2), 3, 4, 5, 6, 7, 63, 64, 1000, .max] {
      let digits = (0..<32).compactMap { number >> $0 <= 1 ? nil : number >> $0 & 1 }
      let spelled =
        marked("inside") + digits.reversed().flatMap { marked($0 == 0 ? "zero" : "one") }
      let others = [frame("load()"), frame("spell()")]
      let unended = spelled.dropFirst().map { HeapMark.Part($0) }
      #expect(!HeapMark(number: number).isSpelled(by: unended), "\(number)")
      for stack in [
        spelled, others + spelled + others,
        spelled + others + marked("inside", "one", "one", "one"),
        marked("inside", "one", "zero", "one") + spelled,
        spelled.flatMap { [$0] + marked("spell") },
      ] {
        let parts = stack.map { HeapMark.Part($0) }
        #expect(HeapMark(number: number).isSpelled(by: parts), "\(number)")
        #expect(!HeapMark(number: 0x7777).isSpelled(by: parts))
      }
    }
    #expect(HeapMark.Part(frame("Catalog.zero()")) == nil)
    #expect(HeapMark.Part(Frame(file: file, line: 1)) == nil)
  }

  @Test func `a place has its number again when it is free, and no other place ever gets it`() {
    let first = MeasuredWork(at: "a:1")
    let beside = MeasuredWork(at: "a:1")
    let other = MeasuredWork(at: "b:1")
    #expect(Set([first.mark, beside.mark, other.mark]).count == 3)
    first.end()
    #expect(MeasuredWork(at: "b:1").mark != first.mark)
    #expect(MeasuredWork(at: "a:1").mark == first.mark)
    #expect(MeasuredWork(at: "a:1").mark != beside.mark)
  }

  private func heap(_ blocks: [(Int, [Frame], missing: Int)]) -> Snapshot {
    var builder = Snapshot.Builder()
    for (bytes, stack, missing) in blocks {
      builder.add(bytes: bytes, stack: stack, missingFrames: missing)
    }
    return builder.finish()
  }

  @Test func `growth is the work's whose number is on the stack, and nobody's of the measuring`() {
    let page = [frame("Page.init()", "/src/Page.swift", line: 5), frame("load()", line: 9)]
    let own = page + marked("inside", "one")
    let others = page + marked("inside", "zero")
    let measuring = [frame("static HeapMeasurement.begin(by:)", "/h.swift")] + own
    let before = heap([(100, own, 0), (10, others, 0)])
    let after = heap([
      (100, own, 0), (50, own, 0), (7000, others, 0), (30, others, 4), (900, measuring, 0),
    ])
    let changes = HeapChanges(from: before, to: after, by: HeapMark(number: 3))
    #expect((changes.addedBytes, changes.addedBlocks) == (50, 1))
    #expect((changes.allocatedBytes, changes.allocatedBlocks) == (50, 1))
    #expect(changes.unattributedBytes == 30)
    #expect(changes.lines.map(\.description).first?.hasPrefix("/src/Page.swift:5: ") == true)
    #expect(changes.stacks.count == 1)

    let all = HeapChanges(from: before, to: after, by: nil)
    #expect((all.addedBytes, all.addedBlocks) == (7070, 2))
    #expect(all.unattributedBytes == 0)
  }

  @Test func `a report says what, of whom, by which lines, and what it cannot tell`() {
    let own =
      [frame("Page.init()", "/src/Page.swift", line: 5)] + marked("inside", "one")
      + [frame("load()", line: 9)]
    let changes = HeapChanges(
      from: heap([]), to: heap([(2000, own, 0), (30, [frame("deep()")], 4)]),
      by: HeapMark(number: 3))
    let report = HeapTraceReport(label: "load", scope: .work, changes: changes, peakBytes: 5000)
    #expect(
      report.text(lines: 3, stacksOf: 1) == """
        load: +2000 B in 1 blocks, 2000 B allocated, peak +5000 B; 30 B more on stacks deeper than \
        the depth limit
          /src/Page.swift:5: size=2000 B (+2000 B), count=1 (+1), average=2000 B
              Page.init() /src/Page.swift:5
              load() \(file):9
        """)
    let whole = HeapTraceReport(label: "load", scope: .process, changes: changes, peakBytes: 0)
    #expect(whole.description.contains("peak +0 B (of the whole process)"))
  }
}
