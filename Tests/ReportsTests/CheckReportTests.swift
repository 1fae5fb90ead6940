// SPDX-License-Identifier: Apache-2.0
// The outcome of a check: as text, as Markdown and as JSON, to the letter.

import HeapModel
import Reports
import Testing

private func report(
  _ bounds: GrowthCheck.Bounds, _ suppressions: [CheckReport.Suppression] = [],
  compares: Bool = true, limit: Int? = nil
) throws -> CheckReport {
  let check = try GrowthCheck(
    of: FixtureA.later, comparedTo: compares ? FixtureA.earlier : Snapshot(), groupedBy: .line,
    bounds)
  return CheckReport(
    check, suppressions, groupedBy: .line, compares: compares, limit: limit)
}

private let suppressions: [CheckReport.Suppression] = {
  let rules = try! Suppressions(list: "leak:libz.so\n\nleak:|`<x>").rules
  return [
    .init(rule: rules[0], taken: .init(bytes: 4096, blocks: 12)), .init(rule: rules[1], taken: nil),
  ]
}()

@Suite struct CheckReportTests {
  @Test func `what is too much is said first, then the lines at fault`() throws {
    #expect(
      try report(.init(growthBytes: 1000, liveBytes: 5000, rowBytes: 399)).lines() == [
        "grew by 5327 B, 1000 B allowed", "5432 B alive, 5000 B allowed",
        "2 lines grew by more than the 399 B allowed for each", "",
        "a.py:5: size=5002 B (+5000 B), count=2 (+1), average=2501 B",
        "c.py:578: size=400 B (+400 B), count=1 (+1), average=400 B",
      ])
    #expect(
      try report(.init(rowBytes: 400)).lines() == [
        "1 line grew by more than the 400 B allowed for each", "",
        "a.py:5: size=5002 B (+5000 B), count=2 (+1), average=2501 B",
      ])
  }

  @Test func `what is well is one line`() throws {
    #expect(
      try report(.init(growthBytes: 10240, rowBytes: 5000)).lines() == [
        "within bounds: grew by 5327 B, 10.0 KiB allowed, at most 5000 B a line, 5000 B allowed"
      ])
    #expect(
      try report(.init(liveBytes: 10240), compares: false).lines() == [
        "within bounds: 5432 B alive, 10.0 KiB allowed"
      ])
  }

  @Test func `one dump has no changes`() throws {
    #expect(
      try report(.init(liveBytes: 1, rowBytes: 400), compares: false, limit: 1).lines() == [
        "5432 B alive, 1 B allowed", "1 line has more than the 400 B allowed for each", "",
        "a.py:5: size=5002 B, count=2, average=2501 B", "… and 2 more rows",
      ])
  }

  @Test func `suppressions are listed as LeakSanitizer lists them, and those not used are told`()
    throws
  {
    #expect(
      try report(.init(growthBytes: 9999), suppressions).lines().dropFirst() == [
        "", "Suppressions used:", "  count      bytes template", "     12       4096 libz.so", "",
        "suppression not used: 'leak:|`<x>' (line 3)",
      ])
  }

  @Test func `Markdown is a table in which names are text`() throws {
    #expect(
      try report(.init(growthBytes: 1000), suppressions, limit: 1).markdown == [
        "### Heap: out of bounds", "", "- grew by 5327 B, 1000 B allowed", "",
        "| Growth | Live | Blocks | Line |", "| ---: | ---: | ---: | --- |",
        "| +5000 B | 5002 B | 2 (+1) | <code>a.py:5</code> |", "", "… and 1 more row", "",
        "| Blocks | Bytes | Suppression used |", "| ---: | ---: | --- |",
        "| 12 | 4096 | <code>leak:libz.so</code> |", "", "Suppressions not used:", "",
        "- <code>leak:&#124;&#96;&#60;x&#62;</code>, line 3",
      ])
    #expect(
      try report(.init(liveBytes: 9999), compares: false).markdown
        == ["### Heap: within bounds", "", "- within bounds: 5432 B alive, 9999 B allowed"])
  }

  @Test func `JSON has the names that the manual has`() throws {
    let whole = #"""
      {"report":"check","passed":false,"by":"line","charging":"allocating_frame",\#
      "bounds":{"growth_bytes":null,"live_bytes":null,"row_bytes":400},\#
      "total":{"live_bytes":5432,"live_blocks":6,"added_bytes":5327,"added_blocks":0},\#
      "problems":["1 line grew by more than the 400 B allowed for each"],\#
      "rows":[{"key":"a.py:5","file":"a.py","line":5,"live_bytes":5002,"live_blocks":2,\#
      "average_bytes":2501.0,"added_bytes":5000,"added_blocks":1}],"omitted_rows":0,\#
      "suppressions":[{"pattern":"libz.so","line":1,"used":true,"bytes":4096,"blocks":12},\#
      {"pattern":"|`<x>","line":3,"used":false,"bytes":0,"blocks":0}]}
      """#
    #expect(try report(.init(rowBytes: 400), suppressions).json.text == whole)
    let one = try report(.init(liveBytes: 9999), compares: false).json.text
    #expect(one.contains(#""passed":true"#) && one.contains(#""added_bytes":null"#))
    #expect(one.contains(#""problems":[]"#))
  }
}
