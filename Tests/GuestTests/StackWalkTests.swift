// SPDX-License-Identifier: Apache-2.0
// Stacks are libunwind's, frame by frame to the root.

import Foundation
import HeapModel
import Testing

@Suite struct StackWalkTests {
  private static let hasOracle = ["/usr/include", "/usr/include/x86_64-linux-gnu"].contains {
    FileManager.default.fileExists(atPath: "\($0)/libunwind.h")
  }

  /// Addresses by the size of the block that was allocated there, as the guest's libunwind saw them.
  private func oracle(_ output: String) -> [(size: Int, addresses: [UInt64])] {
    output.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      guard let first = words.first, let size = Int(first) else { return nil }
      return (size, words.dropFirst().compactMap { UInt64($0, radix: 16) })
    }
  }

  /// Runs a guest that walks its own stacks, and compares what it found with what was recorded.
  private func compare(
    _ source: String, _ options: [String], arguments: [String] = [], count: Int,
    skipping skipped: Set<Int> = []
  ) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build(source, options + ["-g", "-lunwind"])
    let result = try run(
      [program] + arguments,
      environment: box.environment("record", ["HEAPTAP_DEPTH": "1024"]))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let expected = oracle(result.output)
    #expect(expected.count == count)
    for (size, addresses) in expected where !skipped.contains(size) {
      let found = snapshot.samples.filter { $0.liveBlocks == 1 && $0.liveBytes == size }
      #expect(found.count == 1, "\(size)")
      guard let sample = found.first else { continue }
      // The innermost frame is the one that walked first and allocated then: from two places.
      let stack = snapshot.stack(of: sample).dropFirst().map(\.address)
      #expect(stack == addresses, "\(size)")
      #expect(!addresses.isEmpty)
    }
    return snapshot.named()
  }

  @Test(
    .enabled(if: hasOracle, "needs libunwind-dev"),
    arguments: [
      ["-O2", "-fomit-frame-pointer"], ["-O2", "-fno-omit-frame-pointer"], ["-O0"],
      ["-O3", "-mavx2", "-fno-plt"], ["-O2", "-fcf-protection=full", "-no-pie"],
    ])
  func `C's stacks are libunwind's`(_ options: [String]) throws {
    // A function without any table is where libunwind may lose its way; the frames below say more.
    let named = try compare("stacks.c", options, count: 23, skipping: [10031])
    let sample = try #require(named.samples.first { $0.liveBytes == 10031 })
    let functions = named.functions(of: sample)
    #expect(functions.prefix(3) == ["capture", "without_table", "main"])
    #expect(functions.last == "_start")
  }

  @Test(
    .enabled(if: hasOracle, "needs libunwind-dev"),
    arguments: [
      ["-O2", "-fomit-frame-pointer"], ["-O2", "-fno-omit-frame-pointer"], ["-O0"],
      ["-O3", "-mavx2", "-fno-plt"],
    ])
  func `C++'s stacks are libunwind's`(_ options: [String]) throws {
    let named = try compare("stacks.cpp", options, count: 14)
    // An exception's way through a frame runs that frame's destructors, and no stack ends in it.
    let sample = try #require(named.samples.first { $0.liveBytes == 10103 })
    let functions = named.functions(of: sample)
    #expect(functions.contains { $0 == "thrower" })
    #expect(functions.last == "_start")
  }

  @Test(.enabled(if: hasOracle, "needs libunwind-dev"))
  func `a stack leads through the loader's lazy binding`() throws {
    let plugin = try Programs.build(
      "plugin.cpp", ["-O1", "-g", "-w", "-shared", "-fPIC", "-DRESOLVER", "-Wl,-z,lazy"])
    let named = try compare("lazy.c", ["-O2", "-rdynamic"], arguments: [plugin], count: 2)
    let sample = try #require(named.samples.first { $0.liveBytes == 20001 })
    let functions = named.functions(of: sample)
    #expect(functions.contains { $0.hasPrefix("_dl_runtime_resolve") }, "\(functions)")
    #expect(functions.suffix(4).first == "main")
  }

  /// A scheduler of fibers leaves such frames behind: the thread that began a fiber has ended.
  @Test(arguments: [["65536"], ["4096"], ["1024"], ["64"], ["65536", "before"]])
  func `a stack that leads on into one that is gone ends there`(_ arguments: [String]) throws {
    let program = try Programs.build("gone_stack.c")
    let result = try run(
      [program] + arguments, environment: DumpBox().environment("record"))
    #expect(result.status == 0)
    #expect(result.output == "still here\n")
  }

  @Test(arguments: ["-O0", "-O2"])
  func `a stack that begins where a larger one was is read to its own end`(_ level: String) throws {
    let program = try Programs.build("reused_stack.c", [level])
    for check in ["0", "1"] {
      let box = try DumpBox()
      let result = try run(
        [program], environment: box.environment("record", ["HEAPTAP_CHECK": check]))
      #expect(result.status == 0)
      #expect(result.output == "still here\n")
      #expect(try box.snapshot().header.integer("differing_stacks") ?? 0 == 0)
    }
  }
}
