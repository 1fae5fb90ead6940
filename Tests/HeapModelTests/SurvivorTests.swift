// SPDX-License-Identifier: Apache-2.0
// What generations have left.

import HeapModel
import Testing

private let leak = [Frame(file: "leak.c", line: 1)]
private let once = [Frame(file: "once.c", line: 2)]

/// Four generations; the dump was taken 100 ns after the recording began.
private let snapshot: Snapshot = {
  var builder = Snapshot.Builder(
    header: [
      "generation": "5", "dump_monotonic_ns": "1100", "generation.1": "0,1000",
      "generation.2": "0,1040", "generation.3": "0,1070", "generation.4": "0,1090",
    ], modules: [])
  builder.add(bytes: 1000, blocks: 1, stack: once, generation: 1)
  for generation in 1...4 {
    builder.add(bytes: 10 * generation, blocks: 2, stack: leak, generation: generation)
  }
  builder.add(bytes: 7, stack: leak)
  return builder.finish()
}()

@Suite struct SurvivorTests {
  @Test func `the generations are those that the dump has ended`() {
    #expect(snapshot.generations == 1...4)
    #expect(Snapshot().generations == nil)
    // Without a header, those that blocks are of.
    var bare = snapshot
    bare.header = [:]
    #expect(bare.generations == 1...4)
    bare.header = ["generation": "1"]
    #expect(bare.generations == 1...4)
    bare.samples = []
    #expect(bare.generations == nil)
    bare.header = ["generation": "\(Int.min)"]
    #expect(bare.generations == nil)
  }

  @Test func `rows have what was born then, the largest first, generation by generation`() throws {
    let rows = try snapshot.survivors(bornIn: 1...3, groupedBy: .file)
    #expect(
      rows.map { "\($0.statistic.key) \($0.statistic.liveBytes)" } == ["once.c 1000", "leak.c 60"])
    #expect(rows[0].generations == [.init(generation: 1, liveBytes: 1000, liveBlocks: 1)])
    #expect(rows[1].generations.map(\.generation) == [1, 2, 3])
    #expect(rows[1].generations.map(\.liveBytes) == [10, 20, 30])
    #expect(rows[1].generations.map(\.liveBlocks) == [2, 2, 2])
  }

  @Test func `one generation is a range, too, and one that left nothing has no rows`() throws {
    #expect(
      try snapshot.survivors(bornIn: 4...4, groupedBy: .line).map(\.statistic.liveBytes) == [40])
    #expect(try snapshot.survivors(bornIn: 9...9, groupedBy: .line).isEmpty)
    // Blocks of no known generation are in none.
    #expect(snapshot.born(in: 1...4).liveBytes == 1100)
  }

  @Test func `stacks can't be charged to every frame here either`() {
    #expect(throws: Snapshot.GroupingError(.everyFrameOfStack)) {
      try snapshot.survivors(bornIn: 1...2, groupedBy: .stack, charging: .everyFrame)
    }
  }

  @Test func `a generation's age is from its end to its beginning before the dump`() {
    #expect(snapshot.header.age(ofGeneration: 1) == 60...100)
    #expect(snapshot.header.age(ofGeneration: 4) == 0...10)
    #expect(snapshot.header.age(ofGeneration: 5) == nil)
    #expect(Header().age(ofGeneration: 1) == nil)
    // From a dump that was damaged.
    let odd: Header = [
      "dump_monotonic_ns": "\(Int.min)", "generation.1": "0,\(Int.max)", "generation.2": "0,0",
    ]
    #expect(odd.age(ofGeneration: 1) != nil)
  }
}
