// SPDX-License-Identifier: Apache-2.0
// Which blocks were freed before their thread's next allocation.

import Foundation
import HeapModel
import Testing

@Suite struct TemporaryTests {
  typealias Allocator = AllocatorTests.Allocator

  private func record(_ allocator: Allocator = Allocator.all[0], _ more: [String: String] = [:])
    throws
    -> DumpBox
  {
    let box = try DumpBox()
    let program = try Programs.build("temporary.cpp", ["-O1", "-g", "-fno-builtin"])
    let environment = allocator.environment.merging(more) { $1 }
    let result = try run(
      [program],
      environment: box.environment("record", environment.merging(["HEAPTAP_DEPTH": "1024"]) { $1 }))
    #expect(result.output == "done\n", "\(result.errors)")
    return box
  }

  /// Temporary blocks and all blocks of the stacks that lead through a function.
  private func counts(_ snapshot: Snapshot, _ function: String) -> [Int] {
    let samples = snapshot.samples(through: function)
    return [samples.sum(\.temporaryBlocks), samples.sum(\.totalBlocks)]
  }

  private func expectCounted(_ snapshot: Snapshot) {
    snapshot.expectSound()
    #expect(snapshot.header.temporaryBlocks == snapshot.temporaryBlocks)
    let named = snapshot.named()
    #expect(counts(named, "direct") == [200_000, 200_000])
    #expect(counts(named, "large") == [10, 10])
    #expect(counts(named, "outer") == [0, 1000])
    #expect(counts(named, "inner") == [1000, 1000])
    let grown = named.samples(through: "grow").filter { $0.totalBlocks == 100 }
    #expect(grown.map(\.temporaryBlocks) == [99])
    #expect(counts(named, "refused") == [300, 300])
    #expect(counts(named, "objects") == [500, 500])
    #expect(counts(named, "sites") == [1803, 1803])
    #expect(counts(named, "leave") == [100, 200])
    #expect(counts(named, "hand_over") == [0, 20])
  }

  @Test(arguments: Allocator.all)
  func `a block is temporary if its thread frees it before it allocates again`(
    _ allocator: Allocator
  ) throws {
    expectCounted(try record(allocator).snapshot())
  }

  @Test func `so it is where every stack is walked, and where threads are told apart`() throws {
    expectCounted(try record(Allocator.all[0], ["HEAPTAP_CHECK": "1"]).snapshot())
    expectCounted(try record(Allocator.all[0], ["HEAPTAP_THREADS": "1"]).snapshot())
  }

  @Test func `show --temporary has them first, with their share`() throws {
    let dump = try #require(record().dumps.first).path
    let shown = try heaptap(["show", "--temporary", "--by", "function", dump])
    #expect(shown.status == 0, "\(shown.errors)")
    let rows = shown.output.split(separator: "\n", omittingEmptySubsequences: false)
    #expect(rows[0].contains(": temporary="), "\(shown.output)")
    let inner = try #require(rows.first { $0.hasPrefix("inner (") }, "\(shown.output)")
    #expect(
      inner.hasSuffix("): temporary=1000 (100 % of 1000 allocations), size=0 B, count=0"))
    #expect(!shown.output.contains("hand_over (") && !shown.output.contains("outer ("))

    let folded = try heaptap(["show", "--temporary", "--format", "folded", dump])
    #expect(folded.output.contains("nested;inner 1000\n"), "\(folded.output)")

    let json = try heaptap(["show", "--temporary", "--json", "-n", "0", "--by", "function", dump])
    let report = try #require(
      JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
    let jsonRows = try #require(report["rows"] as? [[String: Any]])
    let named = try #require(
      jsonRows.first { ($0["key"] as? String)?.hasPrefix("grow (") == true })
    #expect(named["temporary_blocks"] as? Int == 99 && named["total_blocks"] as? Int == 100)
    let sorted = jsonRows.compactMap { $0["temporary_blocks"] as? Int }
    #expect(sorted == sorted.sorted(by: >) && sorted[0] >= 200_000)
  }

  @Test func `show --temporary says why it cannot`() throws {
    let dump = try #require(record().dumps.first).path
    let byType = try heaptap(["show", "--temporary", "--by", "generation", dump])
    #expect(byType.status == 2)
    #expect(
      byType.errors
        == """
        heaptap: temporary blocks, and those at the peak, are counted by stack, not by generation, group \
        by line, function, stack or thread

        """)
    let sorted = try heaptap(["show", "--temporary", "--sort", "total", dump])
    #expect(sorted.status == 64 && sorted.errors.contains("--temporary does not go with --sort"))
  }

  @Test func `temporary blocks survive symbolize and strip`() throws {
    let box = try record()
    let dump = try #require(box.dumps.first).path
    let whole = try box.snapshot()
    for command in ["symbolize", "strip"] {
      let copy = box.directory.appendingPathComponent("\(command).pb").path
      let result = try heaptap([command, "-o", copy, dump])
      #expect(result.status == 0, "\(result.errors)")
      let read = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: copy))))
      #expect(read.temporaryBlocks == whole.temporaryBlocks)
      #expect(read.header.temporaryBlocks == whole.header.temporaryBlocks)
    }
  }
}
