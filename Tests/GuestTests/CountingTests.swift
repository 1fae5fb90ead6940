// SPDX-License-Identifier: Apache-2.0
// Exact counts: what valgrind says of a program, Heaptap says too.

import Foundation
import HeapModel
import Testing

@Suite struct CountingTests {
  @Test func `a program that only returns is traced from its first allocation to its end`() throws {
    let box = try DumpBox()
    let result = try run(["/bin/true"], environment: box.environment("record"))
    #expect(result.status == 0)
    let snapshot = try box.snapshot()
    #expect(snapshot.header.isComplete)
  }

  /// The figures of valgrind's `total heap usage`.
  private struct Usage {
    var allocations: Int
    var frees: Int
    var bytes: Int

    init(_ program: [String]) throws {
      let result = try run(
        [try #require(Workshop.find("valgrind")), "--run-libc-freeres=no", "--run-cxx-freeres=no"]
          + program)
      let line = try #require(
        result.errors.split(separator: "\n").first { $0.contains("total heap usage") })
      let numbers = line.split(separator: ":")[1].split { !$0.isNumber && $0 != "," }
        .compactMap { Int($0.filter(\.isNumber)) }
      (allocations, frees, bytes) = (numbers[0], numbers[1], numbers[2])
    }
  }

  @Test(
    .enabled(if: Workshop.find("valgrind") != nil, "needs valgrind"),
    arguments: ["churn.c", "churn.cpp"])
  func `allocations, frees and bytes are valgrind's to the block`(_ source: String) throws {
    let options = source.hasSuffix("cpp") ? ["-O1", "-g", "-std=c++17"] : ["-O1", "-g"]
    let program = try Programs.build(source, options + ["-fno-builtin"])
    let usage = try Usage([program])
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record"))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    #expect(snapshot.header.totalBlocks == usage.allocations)
    #expect(snapshot.header.totalBytes == usage.bytes)
    #expect(snapshot.header.freedBlocks == usage.frees)
    #expect(snapshot.header.beforeFreedBlocks == 0)
  }

  @Test func `what a program leaves is what is alive, to the byte`() throws {
    let box = try DumpBox()
    let program = try Programs.build("churn.c", ["-O1", "-g", "-fno-builtin"])
    let result = try run([program], environment: box.environment("record"))
    let numbers = result.output.split { !$0.isNumber }.compactMap { Int($0) }
    let snapshot = try box.snapshot()
    #expect([snapshot.liveBytes, snapshot.liveBlocks] == numbers)
  }

  @Test func `what a program in C++ leaves is what is alive, to the byte`() throws {
    let box = try DumpBox()
    let program = try Programs.build("churn.cpp", ["-O1", "-g", "-std=c++17", "-fno-builtin"])
    let result = try run([program], environment: box.environment("record"))
    let numbers = result.output.split { !$0.isNumber }.compactMap { Int($0) }
    let snapshot = try box.snapshot().named()
    let ofMain = snapshot.samples(through: "main")
    #expect([ofMain.sum(\.liveBytes), ofMain.sum(\.liveBlocks)] == numbers)
  }
}
