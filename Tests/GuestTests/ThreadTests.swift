// SPDX-License-Identifier: Apache-2.0
// Counts are exact whichever threads allocate and free, and however those end.

import HeapModel
import Testing

@Suite struct ThreadTests {
  typealias Allocator = AllocatorTests.Allocator

  private func record(_ way: String, _ allocator: Allocator) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("threads.c", ["-O2", "-g", "-fno-builtin"])
    let result = try run(
      [program, way], environment: box.environment("record", allocator.environment))
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot.named()
  }

  @Test(arguments: Allocator.all)
  func `64 threads that free each other's blocks leave exactly what they left`(
    _ allocator: Allocator
  ) throws {
    let snapshot = try record("cross", allocator)
    let made = snapshot.samples(through: "allocate")
    let sizes = (40..<104).reduce(0, +)
    #expect(made.sum(\.totalBlocks) == 64 * 500)
    #expect(made.sum(\.totalBytes) == 500 * sizes)
    #expect(made.sum(\.liveBlocks) == 64 * 250)
    #expect(made.sum(\.liveBytes) == 250 * sizes)
    // What others write too is written when some hundred bytes have come together, and once for each site
    // and thread, or more often where sites share a tally.
    let writes = try #require(snapshot.header.integer("published_balances"))
    #expect(writes > 64 && writes <= 2 * 64 * 500)
    #expect(try #require(snapshot.header.integer("flushed_tallies")) >= 64)
    // All were alive at once, whoever held back how much of it.
    #expect(snapshot.header.peakBytes ?? 0 >= 500 * sizes)
  }

  @Test(arguments: Allocator.all)
  func `2,000 threads one after the other are all counted, by little memory`(_ allocator: Allocator)
    throws
  {
    let snapshot = try record("sequence", allocator)
    #expect(snapshot.samples(ofSize: 51).map(\.liveBlocks) == [2000])
    let churned = snapshot.samples(through: "allocate").filter { $0.totalBytes == 2000 * 77 }
    #expect(churned.map(\.totalBlocks) == [2000])
    #expect(churned.map(\.liveBlocks) == [0])
    // States of ended threads are used again.
    #expect(snapshot.header.integer("tracer.thread_bytes") ?? .max <= 4 * 16384)
  }

  @Test
  func `10,000 short threads leave the tracer what 1,000 do, and 50 at once no more than a few`()
    throws
  {
    let guest = try Obedient("1", ["MALLOC_ARENA_MAX": "2"])
    try guest.start()
    try guest.tell("allocate 100 50")
    func ownBytes() throws -> (counted: Int, resident: Int) {
      let header = try guest.snapshot().header
      return try (#require(header.integer("tracer.thread_bytes")), guest.facts.tracerResidentBytes)
    }
    // The second time is for what comes once, such as the pages of a dump with these stacks.
    for _ in 0..<2 { try guest.tell("threads 500 50") }
    let few = try ownBytes()
    try guest.tell("threads 9000 50")
    let many = try ownBytes()
    #expect(many.counted <= few.counted + 2 << 20, "\(many) \(few)")
    #expect(many.resident <= few.resident + 2 << 20, "\(many) \(few)")

    // So many at once take what they need, and leave it.
    try guest.tell("threads 1000 1000")
    let after = try ownBytes()
    #expect(after.counted <= few.counted + 2 << 20, "\(after) \(few)")
    #expect(after.resident <= few.resident + 3 << 20, "\(after) \(few)")
    let last = try guest.snapshot()
    last.expectSound()
    #expect(last.totalBlocks >= 11000 * 200 && last.header.integer("lost.blocks") == 0)
    #expect(last.liveBlocks >= 100)
  }

  @Test(arguments: Allocator.all)
  func `destructors of thread-specific data allocate and free like all code`(_ allocator: Allocator)
    throws
  {
    let snapshot = try record("keys", allocator)
    let grown = snapshot.samples.filter { snapshot.functions(of: $0).first == "at_end" }
    #expect(grown.sum(\.liveBlocks) == 20 * 40)
    #expect(grown.sum(\.liveBytes) == 20 * 40 * 103)
    #expect(grown.sum(\.totalBlocks) == 3 * 20 * 40)
    let values = snapshot.samples(through: "allocate")
    #expect(values.sum(\.totalBlocks) == 3 * 20 * 40)
    #expect(values.sum(\.liveBlocks) == 0)
  }

  /// From one piece to the one before it a frame leads far away, where a walk does not go.
  @Test(arguments: ["bfd", "gold"])
  func `stacks in pieces come out short and say so, and no block is lost`(linker: String) throws {
    let program = try Programs.build(
      "split_stack.c", ["-O1", "-g", "-fsplit-stack", "-fuse-ld=\(linker)"])
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record"))
    let snapshot = try box.snapshot()
    #expect(snapshot.header.losses.allSatisfy { !$0.key.hasPrefix("lost.") || $0.count == 0 })
    let left = snapshot.named().samples(through: "descend")
    #expect(result.output == "\(left.sum(\.liveBlocks)) \(left.sum(\.liveBytes))\n")
    #expect(snapshot.header.integer("broken_stacks") ?? 0 > 0)
  }

  @Test(arguments: [200, 232, 246, 300])
  func `a program's thread-local data leaves the worker its stack`(kibibytes: Int) throws {
    let program = try Programs.build(
      "obedient.c", ["-O2", "-g", "-DTHREAD_LOCAL_BYTES=\(kibibytes << 10)"])
    let guest = try Obedient("1", program: program)
    try guest.start()
    try guest.tell("plant 100 1")
    #expect(try guest.snapshot().header.isComplete)
  }
}
