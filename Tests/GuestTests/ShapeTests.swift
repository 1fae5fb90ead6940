// SPDX-License-Identifier: Apache-2.0
// Blocks that are very large, very many, or aligned as nobody aligns them.

import HeapModel
import Testing

@Suite struct ShapeTests {
  private func record(_ way: String) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("shapes.c", ["-O1", "-g", "-fno-builtin"])
    let result = try run([program, way], environment: box.environment("record"))
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.hasSuffix("done\n"))
    #expect(!result.output.contains("close 0"))
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot.named()
  }

  @Test func `blocks of 16 MiB and more have their exact size`() throws {
    let snapshot = try record("large")
    let left = snapshot.samples(through: "leave_large")
    #expect(left.allSatisfy { $0.liveBlocks == 1 })
    let sizes = [
      (16 << 20) - 1, 16 << 20, (16 << 20) + 1, 17 << 20, 100 << 20, 5 << 30,
    ]
    #expect(left.map(\.liveBytes).sorted() == sizes)
    let churned = snapshot.samples(through: "churn_large")
    #expect(churned.sum(\.totalBlocks) == 100)
    #expect(churned.sum(\.liveBlocks) == 0)
    let shrunk = snapshot.samples(through: "shrink_large").filter { $0.liveBlocks > 0 }
    #expect(shrunk.map(\.liveBytes).sorted() == [3_333_333, 44_444_444])
    #expect(snapshot.header.histogram.last?.limitBytes == 8 << 30)
    #expect(snapshot.header.histogram.last?.blocks == 1)
  }

  @Test func `a million small blocks are a million, beside a million that come and go`() throws {
    let snapshot = try record("many")
    let left = snapshot.samples(through: "leave_many")
    #expect(left.map(\.liveBlocks) == [1_000_000])
    #expect(left.map(\.liveBytes) == [24_000_000])
    let churned = snapshot.samples(through: "churn_many")
    #expect(churned.sum(\.totalBlocks) == 1_000_000)
    #expect(churned.sum(\.liveBlocks) == 0)
    // A quarter of the touched heap, 32 bytes a block, and little else.
    let mapBytes = snapshot.header.integer("tracer.map_bytes") ?? .max
    #expect(mapBytes < 32_000_000 / 4 + (1 << 20))
  }

  @Test func `blocks as close as can be, and on every alignment, do not meet in the map`() throws {
    let snapshot = try record("close")
    #expect(snapshot.samples(through: "leave_close").map(\.liveBlocks) == [1000])
    let aligned = snapshot.samples(through: "leave_aligned")
    #expect(aligned.sum(\.liveBlocks) == 22 * 5 + 17)
    #expect(aligned.sum(\.liveBytes) == 22 * (1 + 9 + 17 + 25 + 33) + 17 * 10)
  }
}
