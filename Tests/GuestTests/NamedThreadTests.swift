// SPDX-License-Identifier: Apache-2.0
// Which thread has allocated what, where that is recorded.

import HeapModel
import Testing

@Suite struct NamedThreadTests {
  private func record(_ environment: [String: String]) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("named_threads.c", ["-O2", "-g", "-fno-builtin"])
    let result = try run([program], environment: box.environment("record", environment))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot
  }

  private func blocks(
    _ snapshot: Snapshot, where condition: (Snapshot.Sample) -> Bool
  ) -> [String: Int] {
    var blocks: [String: Int] = [:]
    for sample in snapshot.samples where sample.liveBlocks > 0 && condition(sample) {
      blocks[sample.thread ?? "", default: 0] += sample.liveBlocks
    }
    return blocks
  }

  @Test(arguments: ["0", "1"])
  func `each block is its thread's, whose name is the last that it had`(checked: String) throws {
    let snapshot = try record(["HEAPTAP_THREADS": "1", "HEAPTAP_CHECK": checked])
    // The main thread, six workers and fifty others.
    #expect(snapshot.header["threads"] == "57" && snapshot.header.hasThreads)
    for number in 0..<6 {
      let own = snapshot.samples.filter { $0.thread == "worker-\(number)" }
      #expect(own.sum(\.totalBlocks) == 1010, "worker-\(number)")
      #expect(own.sum(\.liveBytes) == 10 * (100 + number) + 1000 * 64)
      #expect(Set(own.map(\.threadID)).count == 1)
    }
    // As much of it as the kernel keeps.
    let name = try String(#require(snapshot.header.program).prefix(15))
    #expect(blocks(snapshot) { $0.liveBytes == 200 * $0.liveBlocks } == [name: 1000])
    // Those without a name of their own have the program's, and numbers of their own.
    let unnamed = snapshot.samples.filter { $0.liveBytes == 200 * $0.liveBlocks }
    #expect(Set(unnamed.map(\.threadID)).count == 50)
    #expect(blocks(snapshot) { $0.liveBytes == 300 * $0.liveBlocks } == [name: 30])
    let main = snapshot.samples.filter { $0.liveBytes == 300 * $0.liveBlocks }
    #expect(main.map(\.threadID) == [snapshot.header.pid])
  }

  @Test func `unasked, stacks of all threads are one and have no thread`() throws {
    let snapshot = try record([:])
    #expect(!snapshot.header.hasThreads)
    #expect(snapshot.samples.allSatisfy { $0.thread == nil && $0.threadID == nil })
    #expect(snapshot.samples(ofSize: 200).map(\.liveBlocks) == [1000])
  }

  @Test func `threads that share a stack share its frames`() throws {
    let (apart, together) = (try record(["HEAPTAP_THREADS": "1"]), try record([:]))
    func bytes(_ snapshot: Snapshot) throws -> Int {
      try #require(snapshot.header.integer("tracer.site_bytes"))
    }
    let sites = try #require(apart.header.siteCount) - #require(together.header.siteCount)
    #expect(sites > 50)
    // A site's record of 32 bytes, and one more for the stack itself; the index grows by doubling.
    #expect(try bytes(apart) - bytes(together) <= sites * 2 * 32 + (8 << 10))
  }
}
