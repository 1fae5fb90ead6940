// SPDX-License-Identifier: Apache-2.0
// Live blocks by address, so that a word is known for a pointer into one of them.

import CTracerPlatform

/// How a block is held, as a dump tells it.
enum Reach: UInt8 {
  /// Reachable, or not looked for.
  case held = 0
  /// Nothing points to it, or nothing but what it leads to itself.
  case lost = 1
  /// Only lost blocks lead to it.
  case indirect = 2
}

/// Every live block, in the order of addresses, and what was found out of it.
///
/// The live map answers for the first byte of a block only. This answers for all of them: by region and
/// page to the few blocks that begin in the page, of which the last that does not lie behind the address
/// is it, or the one before. Eight bytes a block, four for the worklist, four more
/// for those in circles, and 64 KiB for 64 MiB of heap.
struct BlockIndex {
  /// What a block's address has in the bits that alignment leaves.
  struct Flags: BitSet {
    let rawValue: UInt
    static var marked: Self { Self(rawValue: 1) }
    /// Another block that is not marked points to it.
    static var isPointedTo: Self { Self(rawValue: 2) }
    /// Passed by the search for what lost blocks hold.
    static var visited: Self { Self(rawValue: 4) }
    static var mask: UInt { 7 }
  }

  private static var pagesPerRegion: Int { 1 << Int(LiveMap.regionShift &- 12) }
  private static var regionLimit: Int { Int(LiveMap.addressLimit >> LiveMap.regionShift) }
  /// In `places`: the region has no page numbers, and all of it belongs to the block of this number.
  private static var spannedFlag: UInt32 { 1 << 31 }

  private var entries: UnsafeMutablePointer<UInt>
  /// Blocks whose contents are still to be read; each comes here once.
  private var work: UnsafeMutablePointer<UInt32>
  private var workCount = 0
  /// Room for as many once more.
  let order: UnsafeMutablePointer<UInt32>
  /// Per region: its page numbers' place plus one, or the block that spans it.
  private var places: UnsafeMutablePointer<UInt32>
  /// Per region in use and page: the number of the first block that begins in the page or behind it.
  private var firsts: UnsafeMutablePointer<UInt32>
  private var base: UnsafeMutableRawPointer
  private var byteCount: Int
  private(set) var count: UInt32 = 0
  /// All blocks lie between them.
  private(set) var low: UInt = 0
  private(set) var high: UInt = 0
  let epoch: UInt32

  /// Enters every block of the map, which must not change meanwhile; `nil` where there is no memory.
  ///
  /// Cost: two passes over the map, 6 ns a block.
  init?(_ map: borrowing LiveMap, epoch: UInt32) {
    var blockCount = 0
    map.forEachBlock(epoch: epoch, bornBefore: .max) { _, _, _ in blockCount &+= 1 }
    let regionCount = map.usedRegionCount
    guard blockCount < Int(Self.spannedFlag) else { return nil }
    let placesBytes = Self.regionLimit &* 4
    let orderBytes = regionCount &* 4
    let firstsBytes = regionCount &* (Self.pagesPerRegion &+ 1) &* 4
    byteCount = blockCount &* 16 &+ placesBytes &+ orderBytes &+ firstsBytes &+ 64
    guard let base = System.map(byteCount) else { return nil }
    self.base = base
    self.epoch = epoch
    entries = base.assumingMemoryBound(to: UInt.self)
    work = (base + blockCount &* 8).assumingMemoryBound(to: UInt32.self)
    order = work + blockCount
    places = order + blockCount
    firsts = places + Self.regionLimit
    fill(map, firsts + regionCount &* (Self.pagesPerRegion &+ 1), regionCount)
  }

  func discard() { System.unmap(base, byteCount) }

  private mutating func fill(
    _ map: borrowing LiveMap, _ regions: UnsafeMutablePointer<UInt32>, _ regionCount: Int
  ) {
    let used = map.copyRegions(to: regions, limit: regionCount)
    HeapSort.sort(regions, used) { $0 < $1 }
    for position in 0..<used { places[Int(regions[position])] = UInt32(position) &+ 1 }
    for position in 0..<used {
      let pages = firsts + position &* (Self.pagesPerRegion &+ 1)
      var page = 0
      map.forEachBlock(ofRegion: regions[position], epoch: epoch) { address, _, byteCount in
        let own = Int(address >> 12) & (Self.pagesPerRegion &- 1)
        while page <= own {
          pages[page] = count
          page &+= 1
        }
        enter(address, byteCount)
      }
      while page <= Self.pagesPerRegion {
        pages[page] = count
        page &+= 1
      }
    }
  }

  private mutating func enter(_ address: UInt, _ byteCount: UInt64) {
    entries[Int(count)] = address
    if count == 0 { low = address }
    let end = address &+ max(1, UInt(truncatingIfNeeded: byteCount))
    // One byte more: an array of none, see `block(at:)`.
    high = max(high, end &+ 1)
    var region = (address >> LiveMap.regionShift) &+ 1
    while region <= (end &- 1) >> LiveMap.regionShift, region < UInt(Self.regionLimit) {
      if places[Int(region)] == 0 { places[Int(region)] = count | Self.spannedFlag }
      region &+= 1
    }
    count &+= 1
  }

  // MARK: Blocks

  @inline(__always)
  func address(_ block: UInt32) -> UInt { entries[Int(block)] & ~Flags.mask }

  /// The bytes that were asked for; one at least, so that every block can be pointed to.
  @inline(__always)
  func byteCount(_ block: UInt32, _ map: borrowing LiveMap) -> UInt {
    max(1, UInt(truncatingIfNeeded: map.byteCount(at: address(block))))
  }

  @inline(__always)
  func has(_ flag: Flags, _ block: UInt32) -> Bool { entries[Int(block)] & flag.rawValue != 0 }

  @inline(__always)
  mutating func set(_ flag: Flags, _ block: UInt32) { entries[Int(block)] |= flag.rawValue }

  @inline(__always)
  mutating func clear(_ flag: Flags, _ block: UInt32) { entries[Int(block)] &= ~flag.rawValue }

  /// The last block that does not begin behind an address; `nil` where there is none, or one in another
  /// region that does not reach here.
  @inline(__always)
  func lastBlock(before address: UInt) -> UInt32? {
    guard address >= low, address < LiveMap.addressLimit else { return nil }
    let place = places[Int(address >> LiveMap.regionShift)]
    if place & Self.spannedFlag != 0 { return place & ~Self.spannedFlag }
    guard place != 0 else { return nil }
    let page = Int(address >> 12) & (Self.pagesPerRegion &- 1)
    let pages = firsts + Int(place &- 1) &* (Self.pagesPerRegion &+ 1)
    var (start, end) = (pages[page], pages[page &+ 1])
    // The first in the page that begins behind the address; the one before it is the answer.
    while start < end {
      let middle = start &+ (end &- start) / 2
      if self.address(middle) <= address { start = middle &+ 1 } else { end = middle }
    }
    return start == 0 ? nil : start &- 1
  }

  /// The block that an address lies in.
  ///
  /// As LeakSanitizer has it, one past the end is not in it, but for C++'s array of no elements whose type
  /// has a destructor: a block of eight bytes, the count, which is pointed to behind them.
  @inline(__always)
  func block(at address: UInt, _ map: borrowing LiveMap) -> UInt32? {
    guard address >= low, address < high, let block = lastBlock(before: address) else { return nil }
    let (start, size) = (self.address(block), byteCount(block, map))
    if address &- start < size { return block }
    guard size == 8, address &- start == 8, stackWord(start) == 0 else { return nil }
    return block
  }

  /// The first block that ends behind an address; `nil` where there is none.
  func firstBlock(reaching address: UInt, _ map: borrowing LiveMap) -> UInt32? {
    var (start, end) = (UInt32(0), count)
    while start < end {
      let middle = start &+ (end &- start) / 2
      if self.address(middle) < address { start = middle &+ 1 } else { end = middle }
    }
    if start > 0, self.address(start &- 1) &+ byteCount(start &- 1, map) > address {
      return start &- 1
    }
    return start < count ? start : nil
  }

  /// How the block that begins at an address is held, once `LeakSearch` has marked.
  func reach(ofBlockAt address: UInt) -> Reach {
    guard let block = lastBlock(before: address), self.address(block) == address,
      !has(.marked, block)
    else { return .held }
    return has(.isPointedTo, block) ? .indirect : .lost
  }

  // MARK: Worklist

  @inline(__always)
  mutating func push(_ block: UInt32) {
    work[workCount] = block
    workCount &+= 1
  }

  mutating func pop() -> UInt32? {
    guard workCount > 0 else { return nil }
    workCount &-= 1
    return work[workCount]
  }
}
