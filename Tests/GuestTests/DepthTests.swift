// SPDX-License-Identifier: Apache-2.0
// Stacks are kept to a depth, and what is missing is said.

import HeapModel
import Testing

@Suite struct DepthTests {
  private func record(calls: Int, depth: Int) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("depths.c", ["-O1", "-g"])
    let result = try run(
      [program, "\(calls)"], environment: box.environment("record", ["HEAPTAP_DEPTH": "\(depth)"]))
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound(truncated: true)
    #expect(snapshot.header.depthLimit == depth)
    return snapshot.named()
  }

  private func stack(ofSize size: Int, in snapshot: Snapshot) throws -> Stack {
    let sample = try #require(snapshot.samples.first { $0.liveBytes == size })
    return snapshot.stack(of: sample)
  }

  @Test func `the innermost five frames are kept, and one is said to be missing`() throws {
    let snapshot = try record(calls: 10, depth: 5)
    let deep = try stack(ofSize: 4001, in: snapshot)
    #expect(deep.map(\.function) == Array(repeating: "descend", count: 5))
    #expect(deep.missingFrames >= 1)
    let shallow = try stack(ofSize: 4003, in: snapshot)
    #expect(shallow.missingFrames == 0)
    #expect(shallow.first?.function == "main")
    #expect(shallow.last?.function == "_start")
    // Every truncated allocation is counted: the deep one, and whatever printing took.
    let truncated = snapshot.samples.filter { $0.missingFrames > 0 }
    #expect(snapshot.header.integer("truncated_stacks") == truncated.sum(\.totalBlocks))
  }

  @Test func `a stack that just fits is whole`() throws {
    // main, __libc_start_call_main, __libc_start_main and _start are below the calls.
    for (calls, missing) in [(59, 0), (60, 1)] {
      let deep = try stack(ofSize: 4001, in: record(calls: calls, depth: 64))
      #expect(deep.count == 64)
      #expect(deep.missingFrames == missing)
      #expect((deep.last?.function == "_start") == (missing == 0))
    }
  }

  @Test func `5,000 calls deep is as deep as the limit`() throws {
    for depth in [1, 64, 1024] {
      let snapshot = try record(calls: 5000, depth: depth)
      let deep = try stack(ofSize: 4001, in: snapshot)
      #expect(deep.count == depth)
      #expect(deep.allSatisfy { $0.function == "descend" })
      #expect(deep.missingFrames >= 1)
    }
  }

  @Test func `code without tables is walked by its frame pointers`() throws {
    let snapshot = try record(withoutTables: "-fno-omit-frame-pointer")
    snapshot.expectSound()
    let deep = try stack(ofSize: 4001, in: snapshot.named())
    #expect(deep.prefix(31).allSatisfy { $0.function == "descend" })
    #expect(deep.dropFirst(31).first?.function == "main")
    #expect(deep.last?.function == "_start")
  }

  @Test func `code without tables or frame pointers harms nothing, and is counted`() throws {
    let snapshot = try record(withoutTables: "-fomit-frame-pointer")
    #expect(snapshot.header.integer("broken_stacks") ?? 0 >= 2)
    #expect(snapshot.liveBytes == snapshot.header.liveBytes)
    let broken = snapshot.samples.filter(\.isBroken)
    #expect(snapshot.header.integer("broken_stacks") == broken.sum(\.totalBlocks))
    // What called malloc is known all the same.
    #expect(try stack(ofSize: 4001, in: snapshot.named()).first?.function == "descend")
  }

  private func record(withoutTables option: String) throws -> Snapshot {
    let box = try DumpBox()
    let tables = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]
    let program = try Programs.build("depths.c", ["-O2", "-g", option] + tables)
    let result = try run([program, "30"], environment: box.environment("record"))
    #expect(result.output == "done\n", "\(result.errors)")
    return try box.snapshot()
  }
}
