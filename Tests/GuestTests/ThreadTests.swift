// SPDX-License-Identifier: Apache-2.0
// Counts are exact whichever threads allocate and free, and however those end.

import HeapModel
import Testing

@Suite struct ThreadTests {
  private func record(_ way: String) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("threads.c", ["-O2", "-g", "-fno-builtin"])
    let result = try run([program, way], environment: box.environment("record"))
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot.named()
  }

  @Test func `64 threads that free each other's blocks leave exactly what they left`() throws {
    let snapshot = try record("cross")
    let made = snapshot.samples(through: "allocate")
    let sizes = (40..<104).reduce(0, +)
    #expect(made.sum(\.totalBlocks) == 64 * 500)
    #expect(made.sum(\.totalBytes) == 500 * sizes)
    #expect(made.sum(\.liveBlocks) == 64 * 250)
    #expect(made.sum(\.liveBytes) == 250 * sizes)
    // All were alive at once, whoever held back how much of it.
    #expect(snapshot.header.peakBytes ?? 0 >= 500 * sizes)
  }

  @Test func `2,000 threads one after the other are all counted, by little memory`() throws {
    let snapshot = try record("sequence")
    #expect(snapshot.samples(ofSize: 51).map(\.liveBlocks) == [2000])
    let churned = snapshot.samples(through: "allocate").filter { $0.totalBytes == 2000 * 77 }
    #expect(churned.map(\.totalBlocks) == [2000])
    #expect(churned.map(\.liveBlocks) == [0])
    // States of ended threads are used again.
    #expect(snapshot.header.integer("tracer.thread_bytes") ?? .max <= 4 * 16384)
  }

  @Test func `destructors of thread-specific data allocate and free like all code`() throws {
    let snapshot = try record("keys")
    let grown = snapshot.samples.filter { snapshot.functions(of: $0).first == "at_end" }
    #expect(grown.sum(\.liveBlocks) == 20 * 40)
    #expect(grown.sum(\.liveBytes) == 20 * 40 * 103)
    #expect(grown.sum(\.totalBlocks) == 3 * 20 * 40)
    let values = snapshot.samples(through: "allocate")
    #expect(values.sum(\.totalBlocks) == 3 * 20 * 40)
    #expect(values.sum(\.liveBlocks) == 0)
  }
}
