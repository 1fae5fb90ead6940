// SPDX-License-Identifier: Apache-2.0
// What is said of lost blocks, to the letter.

import HeapModel
import Reports
import Testing

@Suite struct LeakReportTests {
  private func snapshot(_ header: Header = ["reach": "1"], leaks: Bool = true) -> Snapshot {
    var builder = Snapshot.Builder(header: header, modules: [])
    func frame(_ line: Int) -> Frame { Frame(function: "f\(line)", file: "/a.c", line: line) }
    builder.add(bytes: 1000, blocks: 10, stack: [frame(1)])
    guard leaks else { return builder.finish() }
    builder.add(bytes: 300, blocks: 2, stack: [frame(2), frame(9)], reach: .lost)
    builder.add(bytes: 200, blocks: 1, stack: [frame(3)], reach: .lost)
    builder.add(bytes: 50, blocks: 5, stack: [frame(4)], reach: .indirect)
    // What a program tracks by itself is not searched.
    builder.add(bytes: 7, blocks: 1, stack: [frame(5)], domain: 3)
    return builder.finish()
  }

  @Test func `what is lost comes first, and then what only that led to`() {
    var named: Snapshot?
    let report = LeakReport(of: snapshot()) {
      named = $0
      return Snapshot.Suppressed(rest: $0)
    }
    #expect(report.hasLeaks)
    #expect(
      report.lines.joined(separator: "\n") == """
        lost 500 B in 3 blocks, held by these only 50 B in 5 blocks, still reachable 1000 B in 10 blocks

        lost:
        size=300 B, count=2, average=150 B
          /a.c:2 in f2
          /a.c:9 in f9
        size=200 B, count=1, average=200 B
          /a.c:3 in f3

        held by lost blocks only:
        size=50 B, count=5, average=10 B
          /a.c:4 in f4
        """)
    // Only the leaks' own frames are named.
    #expect(named?.distinctFrames.count == 4)
  }

  @Test func `a limit of stacks is one for each kind`() {
    let report = LeakReport(of: snapshot(), limit: 1) { Snapshot.Suppressed(rest: $0) }
    #expect(report.lines.contains("… and 1 more row"))
    #expect(report.lines.contains("size=50 B, count=5, average=10 B"))
  }

  @Test func `without leaks no names are asked for`() {
    let report = LeakReport(of: snapshot(leaks: false)) { _ in
      Issue.record("asked")
      return Snapshot.Suppressed(rest: Snapshot())
    }
    #expect(!report.hasLeaks)
    #expect(report.lines == ["no leaks: still reachable 1000 B in 10 blocks"])
  }

  @Test func `what is suppressed is counted apart, and what it held is then no leak`() throws {
    func report(_ list: String) throws -> LeakReport {
      let suppressions = try Suppressions(list: list)
      return LeakReport(of: snapshot()) { $0.suppressed(by: suppressions) }
    }
    let some = try report("leak:f9")
    #expect(some.hasLeaks)
    #expect(
      some.lines.first == "lost 200 B in 1 block, held by these only 50 B in 5 blocks,"
        + " suppressed 300 B in 2 blocks, still reachable 1000 B in 10 blocks")
    #expect(!some.lines.contains { $0.contains("f2") })
    let all = try report("leak:^f2$\nleak:^f3$")
    #expect(!all.hasLeaks)
    #expect(
      all.lines == [
        "no leaks but suppressed ones: held by these only 50 B in 5 blocks,"
          + " suppressed 500 B in 3 blocks, still reachable 1000 B in 10 blocks"
      ])
  }

  @Test func `what may make the answer wrong is said`() {
    let header: Header = [
      "reach": "1", "reach.moving": "1", "reach.allocator": "1", "lost.blocks": "4",
    ]
    let report = LeakReport(of: snapshot(header, leaks: false)) { Snapshot.Suppressed(rest: $0) }
    #expect(
      report.lines.dropFirst() == [
        "warning: a block was just being reallocated: what only it led to may pass for lost",
        "warning: 4 blocks were not recorded: what only they led to may pass for lost",
        "warning: the allocator is not glibc's: what its own tables lead to passes for reachable",
      ])
  }

  @Test func `a summary says what was lost, or why that is not known`() {
    #expect(
      Summary(of: snapshot()).lines.contains(
        "leaks: lost 500 B in 3 blocks, held by these only 50 B in 5 blocks,"
          + " still reachable 1000 B in 10 blocks"))
    #expect(
      Summary(of: snapshot(["reach.problem": "no\u{1b}ne"])).lines.contains(
        "leaks were not looked for: no?ne"))
    #expect(!Summary(of: snapshot([:])).lines.contains { $0.contains("leaks") })
  }
}
