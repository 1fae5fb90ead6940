// SPDX-License-Identifier: Apache-2.0
// The figures of a dump's header add up, and agree with what the kernel says.

import Foundation
import HeapModel
import Testing

@Suite struct ReconciliationTests {
  private func header(blocks: Int, bytes: Int) throws -> (Header, resident: Int) {
    let guest = try Obedient("record")
    try guest.tell("allocate \(blocks) \(bytes)")
    let snapshot = try guest.snapshot()
    return (snapshot.header, guest.facts.residentBytes)
  }

  private func figure(_ header: Header, _ key: String) throws -> Int {
    try #require(header[key].flatMap { Int($0) }, "\(key)")
  }

  /// Blocks of the heap proper, and such as the allocator maps one by one.
  @Test(arguments: [(100_000, 64), (10_000, 4096), (500, 262_144)])
  func `the parts of the memory in use add up, and the tracer's own is told apart`(
    blocks: Int, bytes: Int
  ) throws {
    let (header, resident) = try header(blocks: blocks, bytes: bytes)
    let usage = try figure(header, "usage_bytes")
    let tracer = try figure(header, "reconcile.tracer_bytes")
    var sum = 0
    for part in ["traced", "before", "mmap", "slack", "tracer", "other"] {
      sum += try figure(header, "reconcile.\(part)_bytes")
    }
    #expect(sum == usage)
    #expect(usage > 0 && usage <= resident)
    let told = try figure(header, "tracer_bytes")
    #expect(abs(tracer - told) <= told / 5 + 262_144, "\(tracer) by the kernel, \(told) by us")
    #expect(try figure(header, "reconcile.traced_bytes") >= blocks * bytes)
    #expect(try figure(header, "reconcile.mmap_bytes") < 1 << 20)
  }
}
