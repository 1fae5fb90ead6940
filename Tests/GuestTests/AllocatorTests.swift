// SPDX-License-Identifier: Apache-2.0
// Allocators other than glibc's, which bring operators of their own and pack blocks closer.

import Foundation
import HeapModel
import Testing

@Suite struct AllocatorTests {
  /// An allocator to preload; the empty path is glibc's own.
  struct Allocator: CustomTestStringConvertible {
    var name: String
    var path: String

    var testDescription: String { name }

    static let directory = "/usr/lib/x86_64-linux-gnu"
    static let all = [
      Allocator(name: "glibc", path: ""),
      Allocator(name: "jemalloc", path: "\(directory)/libjemalloc.so.2"),
      Allocator(name: "tcmalloc", path: "\(directory)/libtcmalloc_minimal.so.4"),
      Allocator(name: "mimalloc", path: "\(directory)/libmimalloc.so.2"),
    ]
    static let foreign = all.filter { !$0.path.isEmpty }

    /// Preloaded behind the tracer.
    var environment: [String: String] {
      ["LD_PRELOAD": path.isEmpty ? Workshop.library : "\(Workshop.library):\(path)"]
    }
  }

  private func build() throws -> String {
    try Programs.build("allocators.cpp", ["-O1", "-g", "-std=c++17", "-w", "-fno-builtin"])
  }

  @Test(arguments: Allocator.all)
  func `small blocks by every entry are counted once and by the size asked for`(
    _ allocator: Allocator
  ) throws {
    let box = try DumpBox()
    let result = try run(
      [build(), "record"], environment: box.environment("record", allocator.environment))
    #expect(result.status == 0, "\(result.output) \(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let named = snapshot.named()
    let made = named.samples(through: "(anonymous namespace)::allocate")
    #expect(made.sum(\.liveBlocks) == 16_000)
    let sizes = (1...40).reduce(0, +)
    #expect(made.sum(\.liveBytes) == 400 * sizes)
    // One more for each realloc, of 100 bytes.
    #expect(made.sum(\.totalBlocks) == 51_000)
    #expect(made.sum(\.totalBytes) == 3000 * 100 + 16 * 75 * sizes)
    // Sixteen ways, of which each is one call in the source; one calls two entries.
    let lines = made.map { sample in
      named.stack(of: sample).first { $0.function?.hasSuffix("::allocate") == true }?.line
    }
    #expect(Set(lines).count == 16)
    // As the program counted them.
    let left = Left.read(result.output)
    #expect(left.count == 40)
    #expect(left.allSatisfy { $0.function == "400" })
  }

  @Test(arguments: Allocator.all)
  func `blocks outlive a recording that begins and ends between their halves`(
    _ allocator: Allocator
  ) throws {
    let box = try DumpBox()
    let result = try run(
      [build(), "switch"], environment: box.environment("1", allocator.environment))
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    #expect(snapshot.header.trigger == "stop")
    #expect(snapshot.header.beforeFreedBlocks == 24_000)
    #expect((snapshot.header.beforeFreedBytes ?? 0) >= 24_000 * 8)
  }

  @Test(arguments: Allocator.all, ["alloc", "free"])
  func `what realloc to nothing leaves is counted, be it a block or none`(
    _ allocator: Allocator, _ habit: String
  ) throws {
    let box = try DumpBox()
    var environment = box.environment("record", allocator.environment)
    environment["MALLOC_CONF"] = "zero_realloc:\(habit)"  // jemalloc's setting
    let result = try run([build(), "shrink"], environment: environment)
    let left = try #require(Left.read(result.output).first)
    let isBlock =
      allocator.name == "mimalloc" || (allocator.name == "jemalloc" && habit == "alloc")
    #expect(left.size == (isBlock ? 1000 : 0))
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let made = snapshot.named().samples(through: "(anonymous namespace)::shrink_to_nothing")
    #expect(made.sum(\.liveBlocks) == left.size)
    #expect(made.sum(\.liveBytes) == 0)
    #expect(made.sum(\.totalBlocks) == 1000 + left.size)
  }

  @Test(arguments: Allocator.foreign)
  func `behind another allocator the tracer stays off, says why, and harms nothing`(
    _ allocator: Allocator
  ) throws {
    let box = try DumpBox()
    let order = ["LD_PRELOAD": "\(allocator.path):\(Workshop.library)"]
    for (mode, way) in [("record", "record"), ("1", "record"), ("0", "record")] {
      let result = try run([build(), way], environment: box.environment(mode, order))
      #expect(result.status == 0, "\(result.errors)")
      #expect(Left.read(result.output).count == 40)
      #expect(result.errors.contains("comes before libheaptap.so") == (mode != "0"))
      #expect(!result.errors.contains("recording"))
    }
    #expect(box.names.isEmpty)
  }

  @Test(arguments: zip(Allocator.all, ["__libc_free", "sdallocx", "tc_free", "mi_free"]))
  func `blocks that are given back unseen are counted as lost once their place is taken again`(
    _ allocator: Allocator, _ function: String
  ) throws {
    let box = try DumpBox()
    let result = try run(
      [Programs.build("unseen.c", ["-O1", "-g"]), function],
      environment: box.environment("record", allocator.environment))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    let made = snapshot.named().samples(through: "make")
    #expect(made.sum(\.totalBlocks) == 1001)
    let unseen = try #require(snapshot.header.losses.first { $0.key == "lost.frees" }).count
    // What lies in places that were not handed out again is alive, as far as anybody can tell. tcmalloc
    // and mimalloc go through a page before they take a place again.
    #expect(unseen > 800 && made.sum(\.liveBlocks) == 1001 - unseen)
    #expect(snapshot.totalBlocks - (snapshot.header.freedBlocks ?? 0) == snapshot.liveBlocks)
  }
}
