// SPDX-License-Identifier: Apache-2.0
// What the live map keeps of one block, in eight bytes.

/// A live block's entry: site, generation, size and enough of its address to know a stranger.
///
///     bits  0…21  site (0: no block)
///     bits 22…31  generation, 1…1023; the last one lasts for the rest of the recording
///     bits 32…55  requested bytes, where the block is not large
///     bits 56…57  address bits 3 and 4
///     bits 58…60  epoch of the recording, which is 0 of no block
///     bit  61     large: the size is in the next word, which the block itself covers
///     bit  62     this word is the size of a large block, and no block
///
/// The word of a large block's size has bit 62 and the size in bits 0…61.
package struct BlockWord: Equatable {
  package var bits: UInt64

  @inline(__always)
  package init(bits: UInt64) { self.bits = bits }

  package static var siteLimit: UInt32 { 1 << 22 }
  package static var generationLimit: UInt32 { (1 << 10) - 1 }
  package static var epochMask: UInt32 { 7 }
  /// From this size on a block is large: 16 MiB, half a million granules of its own.
  package static var largeByteCount: UInt64 { 1 << 24 }

  private static var largeFlag: UInt64 { 1 << 61 }
  private static var sizeFlag: UInt64 { 1 << 62 }

  @inline(__always)
  package init(
    site: UInt32, generation: UInt32, epoch: UInt32, byteCount: UInt64, address: UInt
  ) {
    let isLarge = byteCount >= Self.largeByteCount
    self.init(
      site: site, birth: Self.birth(generation: generation, epoch: epoch),
      smallByteCount: isLarge ? 0 : byteCount, address: address)
    if isLarge { bits |= Self.largeFlag }
  }

  /// What the words of all blocks have in common that are born in a generation of a recording.
  package static func birth(generation: UInt32, epoch: UInt32) -> UInt64 {
    UInt64(generation) << 22 | mark(epoch)
  }

  /// The epoch as words carry it.
  @inline(__always)
  static func mark(_ epoch: UInt32) -> UInt64 { UInt64(epoch & epochMask) << 58 }

  /// A block that is not large.
  @inline(__always)
  init(site: UInt32, birth: UInt64, smallByteCount: UInt64, address: UInt) {
    bits = birth | UInt64(site) | smallByteCount << 32 | Self.addressBits(address)
  }

  /// The word after a large block's.
  @inline(__always)
  package init(largeByteCount: UInt64) {
    bits = Self.sizeFlag | (largeByteCount & (Self.sizeFlag &- 1))
  }

  @inline(__always)
  private static func addressBits(_ address: UInt) -> UInt64 { UInt64(address >> 3 & 3) << 56 }

  @inline(__always) package var site: UInt32 { UInt32(truncatingIfNeeded: bits) & 0x3f_ffff }
  @inline(__always) package var generation: UInt32 {
    UInt32(truncatingIfNeeded: bits >> 22) & 0x3ff
  }
  @inline(__always) package var epoch: UInt32 { UInt32(truncatingIfNeeded: bits >> 58) & 7 }
  @inline(__always) package var isLarge: Bool { bits & Self.largeFlag != 0 }
  @inline(__always) package var isLargeSize: Bool { bits & Self.sizeFlag != 0 }
  /// The size of a block that is not large.
  @inline(__always) package var smallByteCount: UInt64 { bits >> 32 & 0xff_ffff }
  /// The size that this word keeps for the large block before it.
  @inline(__always) package var largeByteCount: UInt64 { bits & (Self.sizeFlag &- 1) }

  /// The epoch of the recording that follows one, and of the first, which follows 0.
  package static func epoch(after epoch: UInt32) -> UInt32 {
    // As words keep it it is never 0, so that a word of nothing is of no recording.
    (epoch &+ 1) & epochMask == 0 ? epoch &+ 2 : epoch &+ 1
  }

  /// Whether this is the entry of a block of this recording at exactly this address.
  @inline(__always)
  package func isBlock(at address: UInt, epoch: UInt32) -> Bool {
    bits & (Self.identityMask | Self.sizeFlag) == Self.addressBits(address) | Self.mark(epoch)
  }

  /// Whether it is that of a block that is not large, of the recording with this mark.
  @inline(__always)
  func isSmallBlock(at address: UInt, mark: UInt64) -> Bool {
    (bits ^ Self.addressBits(address) ^ mark)
      & (Self.identityMask | Self.sizeFlag | Self.largeFlag) == 0
  }

  private static var identityMask: UInt64 { 3 << 56 | UInt64(epochMask) << 58 }
}
