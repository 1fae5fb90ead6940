// SPDX-License-Identifier: Apache-2.0
// JSON, read back by somebody else's reader and compared to the letter.

import Foundation
import HeapModel
import Reports
import Testing

@Suite struct JSONTests {
  @Test func `control characters, quotes and backslashes are escaped`() {
    #expect(
      JSON.string("\u{0}\u{1f}\"\\\n\r\t/é\u{7f}\u{2028}🙂").text
        == #""\u0000\u001f\"\\\n\r\t/é\u007f\u2028🙂""#)
  }

  @Test func `every scalar comes back through another reader`() throws {
    var all = ""
    for value in UInt32(0)...0x2fff {
      if let scalar = Unicode.Scalar(value) { all.unicodeScalars.append(scalar) }
    }
    all += "\u{10ffff}\u{fffd}"
    let text = JSON.array([.string(all)]).text
    let read = try #require(
      try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String])
    #expect(read.first.map { Array($0.unicodeScalars) } == Array(all.unicodeScalars))
  }

  @Test func `numbers that JSON does not have are null`() {
    #expect(
      JSON.array([.number(.infinity), .number(.nan), .number(2.5), .integer(.min)]).text
        == "[null,null,2.5,-9223372036854775808]")
  }

  @Test func `members keep their order`() {
    let value: JSON = ["b": 1, "a": [true_, .null, "x"], "c": [:]]
    #expect(value.text == #"{"b":1,"a":[true,null,"x"],"c":{}}"#)
  }

  private let true_ = JSON.boolean(true)
}

@Suite struct JSONReportTests {
  @Test func `statistics, to the letter`() {
    var snapshot = FixtureA.earlier.filtered(.file("a.py"))
    snapshot.warnings = ["cut"]
    let report = JSONReport.statistics(
      snapshot.statistics(groupedBy: .line), of: snapshot, groupedBy: .line, limit: 1)
    #expect(
      report.text == """
        {"report":"statistics","by":"line","moment":"dump","charging":"allocating_frame",\
        "total":{"live_bytes":32,"live_blocks":4,"total_bytes":32,"total_blocks":4,\
        "temporary_blocks":0},\
        "rows":[{"key":"a.py:2","file":"a.py","line":2,"live_bytes":30,"live_blocks":3,\
        "average_bytes":10.0,"total_bytes":30,"total_blocks":3,"temporary_blocks":0}],"omitted_rows":1,\
        "header":{"depth":"2"},"warnings":["cut"]}
        """)
  }

  @Test func `a comparison, to the letter`() throws {
    let report = JSONReport.comparison(
      try FixtureA.later.compared(
        to: FixtureA.earlier, groupedBy: .file, charging: .everyFrame),
      of: FixtureA.later, comparedTo: FixtureA.earlier, groupedBy: .file, charging: .everyFrame,
      limit: 2)
    #expect(
      report.text == """
        {"report":"comparison","by":"file","moment":"dump","charging":"every_frame",\
        "total":{"live_bytes":5432,"live_blocks":6,"added_bytes":5327,"added_blocks":0},\
        "rows":[{"key":"a.py","file":"a.py","live_bytes":5032,"live_blocks":5,\
        "average_bytes":1006.4,"added_bytes":5000,"added_blocks":1},\
        {"key":"b.py","file":"b.py","live_bytes":5032,"live_blocks":5,\
        "average_bytes":1006.4,"added_bytes":4934,"added_blocks":0}],"omitted_rows":2,\
        "header":{"depth":"2"},"earlier_header":{"depth":"2"},"warnings":[],\
        "earlier_warnings":[]}
        """)
  }

  @Test func `rows name what of their key is known`() {
    let libz = Module(
      start: 0x7000, limit: 0x9000, fileOffset: 0, path: "/usr/lib/libz.so.1", buildID: "")
    var builder = Snapshot.Builder(header: Header(), modules: [libz])
    builder.add(
      bytes: 1,
      stack: [
        Frame(address: 0x7010, module: 0), Frame(address: 0x7020, module: 0, function: "inflate"),
        Frame(function: "main", file: "m.c", line: 3),
      ], missingFrames: 2, isBroken: true, generation: 4, type: "M.Node")
    let snapshot = builder.finish()
    func row(_ grouping: Snapshot.Grouping) -> String {
      let text = JSONReport.statistics(
        snapshot.statistics(groupedBy: grouping), of: snapshot, groupedBy: grouping
      ).text
      return String(text.split(separator: #""rows":[{"#)[1].split(separator: #","live_bytes"#)[0])
    }
    #expect(row(.line) == #""key":"libz.so.1+0x10","offset":"0x10","module":"libz.so.1""#)
    #expect(row(.module) == #""key":"libz.so.1","module":"libz.so.1""#)
    #expect(row(.type) == #""key":"M.Node","type":"M.Node""#)
    #expect(row(.thread) == #""key":"unknown thread","thread":null"#)
    #expect(row(.generation) == #""key":"generation 4","generation":4"#)
    #expect(
      row(.stack) == """
        "key":"m.c:3","frames":[\
        {"key":"libz.so.1+0x10","offset":"0x10","module":"libz.so.1"},\
        {"key":"inflate (libz.so.1)","function":"inflate","module":"libz.so.1"},\
        {"key":"m.c:3","file":"m.c","line":3,"function":"main"}],"missing_frames":2,\
        "total_frames":5,"broken":true
        """)
  }

  @Test func `a header's pair that comes twice is one member, the last`() throws {
    var snapshot = Snapshot()
    snapshot.header = ["a": "1", "b": "2", "a": "3", "": "a remark"]
    let text = JSONReport.statistics([], of: snapshot, groupedBy: .line).text
    #expect(text.contains(#""header":{"b":"2","a":"3"}"#))
  }

  @Test func `what a hostile program is called does not break the text`() throws {
    var snapshot = Snapshot()
    snapshot.header["program"] = "\"},\u{1b}[31m\\"
    let text = JSONReport.statistics([], of: snapshot, groupedBy: .line).text
    let read = try #require(
      try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect((read["header"] as? [String: String])?["program"] == "\"},\u{1b}[31m\\")
  }
}
