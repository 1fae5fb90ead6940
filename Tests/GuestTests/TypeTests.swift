// SPDX-License-Identifier: Apache-2.0
// What the objects of Swift are, and that nothing else is taken for one.

import HeapModel
import Testing

@Suite struct TypeTests {
  /// What `kinds.swift` keeps, in blocks.
  private func expected(_ module: String) -> [String: Int] {
    [
      "\(module).Base": 101, "\(module).Derived": 102, "\(module).Holder<Swift.Int>": 103,
      "\(module).Holder<Swift.Dictionary<Swift.String, Swift.Optional<Swift.Int>>>": 104,
      "\(module).Holder<Swift.String>.Inner": 105,
      "\(module).Space.Deep<(Swift.Int, Swift.String), Any.Type>": 106,
      "\(module).Hidden": 107, "\(module).Counter": 108, "\(module).Companion<Swift.Bool>": 109,
      "Swift._ContiguousArrayStorage<Swift.Int32>": 110, "error \(module).Problem": 112,
      // With the one that the program begins with.
      "task": 116,
    ]
  }

  private func record(
    _ options: [String], _ environment: [String: String] = [:], isStripped: Bool = false
  ) throws -> Snapshot {
    let program = try Programs.build(
      "kinds.swift", options + ["-g", "-parse-as-library", "-module-name", "kinds"])
    if isStripped { #expect(try run(["/usr/bin/strip", program]).status == 0) }
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record", environment))
    #expect(result.status == 0 && result.output == "945 110 111 112 227 115\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot
  }

  private func blocks(_ snapshot: Snapshot) -> [String: Int] {
    var blocks: [String: Int] = [:]
    for sample in snapshot.samples {
      if let type = sample.type { blocks[type, default: 0] += sample.liveBlocks }
    }
    return blocks
  }

  @Test(arguments: ["-O", "-Onone"], [["-no-static-stdlib"], ["-static-stdlib"]])
  func `objects are told by their types, block for block`(
    optimisation: String, linking: [String]
  ) throws {
    let snapshot = try record([optimisation] + linking)
    let found = blocks(snapshot)
    for (type, count) in expected("kinds") { #expect(found[type] == count, "\(type): \(found)") }
    #expect(found["closure context"] ?? 0 >= 111)
    #expect(found.values.reduce(0, +) == snapshot.header.typedBlocks)
    // Of what begins with metadata and is no object, nothing is told.
    let others = snapshot.samples(ofSize: 24).filter { $0.type == nil }
    #expect(others.map(\.liveBlocks).filter { $0 == 113 || $0 == 114 }.sorted() == [113, 114])
  }

  @Test func `a stripped static program has the same types`() throws {
    let found = blocks(
      try record(["-O", "-static-stdlib", "-Xlinker", "--build-id=sha1"], isStripped: true))
    for (type, count) in expected("kinds") { #expect(found[type] == count, "\(type): \(found)") }
  }

  @Test func `two runs of one program have the same types`() throws {
    let options = ["-O", "-no-static-stdlib"]
    #expect(blocks(try record(options)) == blocks(try record(options)))
  }

  @Test func `a program without Swift has no types, and was looked at`() throws {
    let box = try DumpBox()
    let program = try Programs.build("threads.c", ["-O2", "-g", "-fno-builtin"])
    let result = try run([program, "sequence"], environment: box.environment("record"))
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    #expect(snapshot.header.hasTypes && snapshot.header.typedBlocks == 0)
    #expect(snapshot.samples.allSatisfy { $0.type == nil })
  }

  @Test func `with HEAPTAP_TYPES=0 no object is looked at, and the dump says so`() throws {
    let snapshot = try record(["-O", "-no-static-stdlib"], ["HEAPTAP_TYPES": "0"])
    #expect(blocks(snapshot).isEmpty && !snapshot.header.hasTypes)
    #expect(snapshot.header.typesProblem == "HEAPTAP_TYPES=0")
  }

  @Test func `objects that end under the scan harm nobody`() throws {
    let box = try DumpBox()
    let program = try Programs.build("fleeting.swift", ["-O", "-g", "-module-name", "fleeting"])
    // Most arrays have pages of their own, which are gone when they are.
    let result = try run(
      [program], environment: box.environment("record", ["MALLOC_MMAP_THRESHOLD_": "8192"]))
    #expect(result.status == 0 && result.output == "done\n", "\(result.errors)")
    let snapshots = try box.snapshots()
    #expect(snapshots.count > 5)
    for snapshot in snapshots { #expect(snapshot.header.isComplete && snapshot.header.hasTypes) }
    let types = Set(snapshots.flatMap { $0.samples.compactMap(\.type) })
    #expect(
      types.isSuperset(of: ["fleeting.Fleeting", "Swift._ContiguousArrayStorage<Swift.Int>"]))
    // Memory that has changed hands is told by its new owner's type, or by none: never by another name.
    #expect(
      types.allSatisfy {
        $0.hasPrefix("fleeting.") || $0.hasPrefix("Swift.") || $0.hasPrefix("Dispatch.")
          || $0 == "closure context"
      }, "\(types)")
  }
}
