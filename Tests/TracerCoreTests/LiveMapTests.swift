// SPDX-License-Identifier: Apache-2.0
// The live map: what goes in comes out, and nothing else does.

import Testing

@testable import TracerCore

@Suite struct LiveMapTests {
  private let map = Zeroed(LiveMap.self)

  init() throws {
    try #require(map { $0.pointee.open() })
  }

  private func enter(_ address: UInt, _ byteCount: UInt64, site: UInt32 = 7, born: UInt32 = 1)
    -> Bool
  {
    map.pointer.pointee.enter(
      address, site: site, generation: born, epoch: 1, byteCount: byteCount)
  }

  private func take(_ address: UInt, epoch: UInt32 = 1) -> UInt64? {
    map.pointer.pointee.take(address, epoch: epoch)?.byteCount
  }

  private func blocks(bornBefore generation: UInt32 = 2) -> [UInt: UInt64] {
    var found: [UInt: UInt64] = [:]
    map.pointer.pointee.forEachBlock(epoch: 1, bornBefore: generation) { address, _, bytes in
      found[address] = bytes
    }
    return found
  }

  @Test func `an address leads to the block that it is in, and no other does`() {
    let block: UInt = 0x7f00_0000_1010
    func holder(_ address: UInt, epoch: UInt32 = 1) -> UInt? {
      map.pointer.pointee.holder(of: address, epoch: epoch)?.address
    }
    #expect(holder(block) == nil)
    #expect(enter(block, 200) && enter(block + 224, 16) && enter(block - 32, 16))
    for offset: UInt in [0, 8, 96, 192] { #expect(holder(block + offset) == block) }
    // Its last word, and what is behind it.
    for offset: UInt in [200, 208, 216] { #expect(holder(block + offset) == nil) }
    #expect(holder(block - 8) == nil && holder(block - 24) == block - 32)
    #expect(holder(block + 224) == block + 224)
    #expect(holder(block, epoch: 2) == nil)
    // As far as is looked, and in a large block.
    #expect(enter(0x7f00_0010_0000, 1 << 20))
    #expect(holder(0x7f00_0010_0000 + 8192) == 0x7f00_0010_0000)
    #expect(holder(0x7f00_0010_0000 + 8192 + 32) == nil)
    #expect(enter(0x7f00_0100_0000, 1 << 24))
    #expect(holder(0x7f00_0100_0000) == nil && holder(0x7f00_0100_0100) == nil)
    #expect(holder(1 << 47) == nil && holder(0) == nil)
  }

  @Test(arguments: [0, 1, 24, 1 << 24 - 1, 1 << 24, 1 << 24 + 1, 1 << 40] as [UInt64])
  func `a block of any size is taken out as it went in, once`(byteCount: UInt64) {
    #expect(enter(0x7f00_0000_1010, byteCount))
    #expect(blocks() == [0x7f00_0000_1010: byteCount])
    #expect(take(0x7f00_0000_1010) == byteCount)
    #expect(take(0x7f00_0000_1010) == nil)
    #expect(blocks().isEmpty)
  }

  @Test func `the size of a large block is found across the edge of a region`() {
    let last: UInt = 0x7f00_0400_0000 - 32
    #expect(enter(last, 1 << 30))
    #expect(blocks() == [last: 1 << 30])
    #expect(take(last) == 1 << 30)
  }

  @Test func `a stranger in the same granule is not a block`() {
    #expect(enter(0x5000_0010, 16))
    #expect(take(0x5000_0000) == nil)
    #expect(take(0x5000_0018) == nil)
    #expect(take(0x5000_0010) == 16)
  }

  @Test func `a block of another recording is unknown and unseen`() {
    #expect(enter(0x5000_0000, 64))
    #expect(take(0x5000_0000, epoch: 2) == nil)
    var seen = 0
    map.pointer.pointee.forEachBlock(epoch: 2, bornBefore: 9) { _, _, _ in seen += 1 }
    #expect(seen == 0)
  }

  @Test func `a scan leaves out what was born after it began`() {
    #expect(enter(0x5000_0000, 1, born: 1))
    #expect(enter(0x5000_0020, 2, born: 2))
    #expect(blocks(bornBefore: 2) == [0x5000_0000: 1])
    #expect(blocks(bornBefore: 3).count == 2)
  }

  @Test func `an address beyond user space is refused, not masked`() {
    #expect(!enter(1 << 47, 8))
    #expect(take(1 << 47) == nil)
    #expect(take(UInt.max) == nil)
  }

  @Test func `pages are given back and addresses kept`() {
    #expect(enter(0x5000_0000, 64))
    #expect(map { $0.pointee.touchedByteCount } == 8192)
    map.pointer.pointee.discard()
    #expect(take(0x5000_0000) == nil)
    #expect(enter(0x5000_0000, 65))
    #expect(take(0x5000_0000) == 65)
  }

  @Test func `a range counts as heap once a block was in it`() {
    #expect(enter(0x6000_8000, 64))
    #expect(map { $0.pointee.hasTouched(0x6000_0000..<0x6001_0000) })
    #expect(!map { $0.pointee.hasTouched(0x6100_0000..<0x6200_0000) })
    #expect(!map { $0.pointee.hasTouched(0x9_0000_0000..<0x9_1000_0000) })
  }

  @Test func `a word keeps every field apart`() {
    let word = BlockWord(
      site: BlockWord.siteLimit - 1, generation: BlockWord.generationLimit, epoch: 7,
      byteCount: BlockWord.largeByteCount - 1, address: 0x18)
    #expect(word.site == BlockWord.siteLimit - 1)
    #expect(word.generation == BlockWord.generationLimit)
    #expect(word.epoch == 7)
    #expect(word.smallByteCount == BlockWord.largeByteCount - 1)
    #expect(!word.isLarge)
    #expect(!word.isLargeSize)
    #expect(word.isBlock(at: 0x18, epoch: 7))
    #expect(!word.isBlock(at: 0x10, epoch: 7))
    #expect(!word.isBlock(at: 0x18, epoch: 6))
  }

  @Test func `no word of nothing is a block of any recording`() {
    var epoch: UInt32 = 0
    for _ in 0..<20 {
      let next = BlockWord.epoch(after: epoch)
      #expect(!BlockWord(bits: 0).isBlock(at: 0, epoch: next))
      // Nor is one that the recording before has left.
      let left = BlockWord(site: 7, generation: 1, epoch: epoch, byteCount: 8, address: 0x20)
      #expect(!left.isBlock(at: 0x20, epoch: next))
      epoch = next
    }
    #expect(!BlockWord(bits: 0).isBlock(at: 0, epoch: BlockWord.epoch(after: .max)))
  }
}
