// SPDX-License-Identifier: Apache-2.0
// Survivors as text and as JSON, to the letter.

import HeapModel
import Reports
import Testing

private let snapshot: Snapshot = {
  let second = 1_000_000_000
  var builder = Snapshot.Builder(
    header: [
      "program": "leaky", "pid": "1234", "generation": "4",
      "dump_monotonic_ns": "\(1000 * second)", "generation.1": "0,\(100 * second)",
      "generation.2": "0,\(400 * second)", "generation.3": "0,\(940 * second)",
    ], modules: [])
  let leak = [Frame(function: "leak", file: "leak.c", line: 3)]
  for generation in 1...3 { builder.add(bytes: 50, stack: leak, generation: generation) }
  builder.add(
    bytes: 4000, blocks: 2, stack: [Frame(function: "load", file: "once.c", line: 4)],
    generation: 1)
  return builder.finish()
}()

@Suite struct SurvivorsTextTests {
  private let rows: [Survivor]

  init() throws { rows = try snapshot.survivors(bornIn: 1...2, groupedBy: .line) }

  @Test func `a row says how many generations have left something in it`() {
    #expect(
      TextTable(rows, of: 1...2).lines == [
        "once.c:4 in load: size=4000 B, count=2, average=2000 B, left by 1 of 2 generations",
        "leak.c:3 in leak: size=100 B, count=2, average=50 B, left by 2 of 2 generations",
      ])
    #expect(TextTable(rows, of: 1...1).lines[0].hasSuffix("average=2000 B"))
    #expect(TextTable(rows, of: 1...2, limit: 1).lines[1] == "… and 1 more row")
  }

  @Test func `the whole says which generations, how old they are, and what share they have`() {
    #expect(
      Summary(of: snapshot, bornIn: 1...2).lines == [
        "leaky (1234)", "born in generations 1 to 2 of 3: 1 min 0 s to 15 min 0 s old",
        "total: size=4100 B of 4150 B, count=4 of 5",
      ])
    #expect(
      Summary(of: snapshot, bornIn: 3...3).lines[1]
        == "born in generation 3 of 3: 0.0 s to 1 min 0 s old")
    var bare = snapshot
    bare.header = [:]
    #expect(Summary(of: bare, bornIn: 2...2).lines[0] == "born in generation 2 of 3")
  }

  @Test func `rows that are generations say how old they are`() {
    #expect(
      TextTable(snapshot.statistics(groupedBy: .generation), header: snapshot.header).lines == [
        "generation 1, 10 min 0 s to 15 min 0 s old: size=4050 B, count=3, average=1350 B",
        "generation 3, 0.0 s to 1 min 0 s old: size=50 B, count=1, average=50 B",
        "generation 2, 1 min 0 s to 10 min 0 s old: size=50 B, count=1, average=50 B",
      ])
  }

  @Test func `JSON has each generation of a row`() {
    let text = JSONReport.survivors(
      rows, of: snapshot, bornIn: 1...2, groupedBy: .line, limit: 1
    ).text
    let beginning = #"""
      {"report":"survivors","by":"line","charging":"allocating_frame","born":{"first":1,"last":2,\#
      "youngest_seconds":60.0,"oldest_seconds":900.0},\#
      "total":{"live_bytes":4100,"live_blocks":4},"rows":[{"key":"once.c:4","file":"once.c",\#
      "line":4,"function":"load","live_bytes":4000,"live_blocks":2,"average_bytes":2000.0,\#
      "generations":[{"generation":1,"live_bytes":4000,"live_blocks":2}]}],"omitted_rows":1,
      """#
    #expect(text.hasPrefix(beginning), "\(text)")
  }
}
