// SPDX-License-Identifier: Apache-2.0
// Swift's objects, arrays, strings and tasks: what its runtime asks malloc for is counted as it asks.

import HeapModel
import Testing

@Suite struct ObjectTests {
  /// Header, reference and three words.
  private let nodeByteCount = 16 + 8 + 24

  @Test(arguments: ["-O", "-Onone"])
  func `objects, arrays, strings and tasks are counted where they are made`(
    _ optimisation: String
  ) throws {
    let program = try Programs.build(
      "objects.swift", [optimisation, "-g", "-parse-as-library"])
    let plain = try run([program])
    #expect(plain.status == 0)
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record"))
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output == plain.output)
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let named = snapshot.named()

    let cycles = live(named, through: "leakCycles")
    #expect(cycles.sum(\.liveBlocks) == 700)
    #expect(cycles.sum(\.liveBytes) == 700 * nodeByteCount)
    let ofTasks = live(named, through: "leakInTask").filter {
      $0.liveBytes == $0.liveBlocks * nodeByteCount
    }
    #expect(ofTasks.sum(\.liveBlocks) == 300)
    // The array's header is 32 bytes.
    let arrays = live(named, through: "keepArrays").filter { $0.liveBlocks == 50 }
    #expect(arrays.map(\.liveBytes) == [50 * (32 + 8000)])
    let strings = live(named, through: "keepStrings").filter { $0.liveBlocks == 40 }
    #expect(strings.count == 1)
    #expect(strings.sum(\.liveBytes) >= 40 * (32 + 3000))
    // Nothing of what comes and goes stays, and all of it was seen.
    let churned = named.samples(through: "churn")
    #expect(churned.filter { $0.totalBytes == 500 * nodeByteCount }.map(\.totalBlocks) == [500])
    #expect(live(named, through: "churn").allSatisfy { $0.liveBlocks == 1 })
    // A task's first slab is an allocation of its own, and gone when the task is; that of the main
    // task stays.
    let slabs = named.samples.filter { sample in
      named.functions(of: sample).first?.contains("StackAllocator") == true
    }
    #expect(slabs.sum(\.totalBlocks) >= 300)
    #expect(slabs.sum(\.liveBlocks) <= 3)
  }

  private func live(_ snapshot: Snapshot, through function: String) -> [Snapshot.Sample] {
    snapshot.samples.filter { sample in
      sample.liveBlocks > 0
        && snapshot.functions(of: sample).contains { $0.contains(function) }
    }
  }
}
