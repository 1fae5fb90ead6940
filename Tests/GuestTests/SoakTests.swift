// SPDX-License-Identifier: Apache-2.0
// Endurance and cost: many dumps beside turmoil, and the tracer's own memory.

import Foundation
import HeapModel
import Pprof
import ProcessControl
import Testing

@Suite(.serialized) struct SoakTests {
  /// How many dumps in a row; `make soak` asks for more.
  private static let dumpCount =
    ProcessInfo.processInfo.environment["HEAPTAP_SOAK"].flatMap { Int($0) } ?? 50

  /// What a dump says of the blocks that were there before the turmoil.
  private struct Stable: Equatable {
    var stacks = 0
    var blocks = 0
    var bytes = 0

    init(_ snapshot: Snapshot) {
      for sample in snapshot.samples where sample.generation == 1 {
        stacks += 1
        blocks += sample.liveBlocks
        bytes += sample.liveBytes
      }
    }

    init(stacks: Int, blocksPerStack: Int) {
      self.stacks = stacks
      blocks = stacks * blocksPerStack
      bytes = (0..<stacks).reduce(0) { $0 + (16 + $1 % 64) * blocksPerStack }
    }
  }

  @Test func `a million blocks of ten thousand stacks come out of every dump amid turmoil`() throws
  {
    let guest = try Obedient("1")
    let armed = try guest.armed()
    _ = try armed.start(timeout: patience)
    #expect(try guest.ask("plant 10000 100") == 1_000_000)
    let known = Stable(stacks: 10000, blocksPerStack: 100)
    // The first dump ends the generation of the stable blocks.
    for round in 0...Self.dumpCount {
      if round == 1 { try guest.tell("turmoil") }
      let path = try armed.snapshot(timeout: patience)
      let file = URL(fileURLWithPath: path)
      let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: file)))
      try #require([snapshot].areSound, "dump \(round)")
      try #require(Stable(snapshot) == known, "dump \(round)")
      try FileManager.default.removeItem(at: file)
    }
    try guest.tell("calm")
    guard case .stopped(let last?, nil) = try armed.stop(timeout: patience) else {
      throw GuestError("no last dump")
    }
    let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: last))))
    #expect(Stable(snapshot) == known)
    #expect(snapshot.header.losses.allSatisfy { $0.count == 0 || !$0.key.hasPrefix("lost.") })
    #expect(guest.box.names.count == 1)
  }

  // MARK: Memory

  /// Blocks and their number: the heap's touched range is what they and their headers take.
  @Test(arguments: [(64, 400_000), (4096, 10_000), (256 << 10, 200)])
  func `recording costs a quarter of the heap at most, and says what it costs`(
    byteCount: Int, blockCount: Int
  ) throws {
    let guest = try Obedient("1")
    try guest.start()
    try guest.tell("allocate \(blockCount) \(byteCount)")
    let snapshot = try guest.snapshot()
    let outside = guest.facts.tracerResidentBytes
    let heap = blockCount * (byteCount + 16)
    let sites = snapshot.header.siteCount ?? 0
    // One thread, its sites, and the buffers and first pages of the tables.
    let bound = heap / 4 + 16 << 10 + sites * 4096 + 1 << 20
    #expect(outside > 0)
    #expect(outside <= bound)
    let inside = try #require(snapshot.header.tracerBytes)
    #expect(
      abs(inside - outside) <= outside / 5 + 256 << 10, "\(inside) inside, \(outside) outside")
  }
}
