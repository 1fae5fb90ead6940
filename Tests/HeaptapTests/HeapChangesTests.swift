// SPDX-License-Identifier: Apache-2.0
// Whose growth it is, by the functions on stacks, and how it is told.

import HeapModel
import Testing

@testable import Heaptap

@Suite struct HeapChangesTests {
  private let file = "/src/Sources/App/Catalog.swift"

  private func caller(_ function: String) -> CallingFunction {
    CallingFunction(file: file, function: function)
  }

  private func frame(_ function: String, _ file: String? = nil, line: Int = 1) -> Frame {
    Frame(function: function, file: file ?? self.file, line: line)
  }

  @Test(arguments: [
    ("load(from:)", "Catalog.load(from:)"), ("load(from:)", "static Catalog.load(from:)"),
    ("load(from:)", "closure #1 in Catalog.load(from:)"), ("init(_:)", "Catalog.init(_:)"),
    ("`a b`()", "`a\u{a0}b`()"), ("a b()", "closure #2 in `a b`()"),
    ("name", "Catalog.name.getter"),
  ])
  func `a function is known on stacks, and so are its closures`(function: String, shown: String) {
    #expect(caller(function).matches(frame(shown)))
    #expect(caller(function).matches(Frame(function: shown)), "without lines the name is enough")
    #expect(!caller(function).matches(frame(shown, "/src/Sources/App/Other.swift")))
    #expect(!caller(function).matches(frame("other()")))
    #expect(!caller(function).matches(Frame(file: file, line: 1)))
  }

  @Test func `the top level of a program is known by its file`() {
    let main = CallingFunction(file: "/src/main.swift", function: "App")
    #expect(main.matches(frame("main", "/src/main.swift")))
    #expect(main.matches(frame("closure #1 in main", "/src/main.swift")))
    #expect(!main.matches(frame("main", "/other/main.swift")))
    #expect(!caller("App").matches(frame("main")))
  }

  private func heap(_ blocks: [(Int, [Frame], missing: Int)]) -> Snapshot {
    var builder = Snapshot.Builder()
    for (bytes, stack, missing) in blocks {
      builder.add(bytes: bytes, stack: stack, missingFrames: missing)
    }
    return builder.finish()
  }

  @Test func `growth is the function's where it is on the stack, and nobody's of the measuring`() {
    let own = [frame("Page.init()", "/src/Page.swift", line: 5), frame("load()", line: 9)]
    let others = [frame("Page.init()", "/src/Page.swift", line: 5), frame("serve()", line: 30)]
    let measuring = [frame("static HeapMeasurement.begin(by:)", "/h.swift")] + own
    let before = heap([(100, own, 0), (10, others, 0)])
    let after = heap([
      (100, own, 0), (50, own, 0), (7000, others, 0), (30, others, 4), (900, measuring, 0),
    ])
    let changes = HeapChanges(from: before, to: after, by: caller("load()"))
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
    let own = [frame("Page.init()", "/src/Page.swift", line: 5), frame("load()", line: 9)]
    let changes = HeapChanges(
      from: heap([]), to: heap([(2000, own, 0), (30, [frame("deep()")], 4)]), by: caller("load()"))
    let report = HeapTraceReport(label: "load", scope: .caller, changes: changes, peakBytes: 5000)
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
