// SPDX-License-Identifier: Apache-2.0
// The live map: a shadow of the heap, one word for each block that is alive.

import CTracerPlatform
import Synchronization

/// Every live block, found by its address with two loads and no search.
///
/// glibc's chunks are at least 32 bytes apart (MINSIZE in malloc/malloc.c, with 16-byte alignment),
/// so `address >> 5` is unique among live blocks, and while recording the hooks make it so with any
/// other allocator. Address space is divided into regions of 64 MiB; a region's shadow is 16 MiB of
/// words, whose pages come as they are written: at most a quarter of what the heap has touched.
///
/// A block belongs to one thread at a time, so its word needs no read-modify-write: a store enters
/// it, a load and a store take it. Only a dump reads words of others. All zero is a valid, closed
/// map.
package struct LiveMap: ~Copyable {
  static var regionShift: UInt { 26 }
  static var granuleShift: UInt { 5 }
  static var regionWordCount: Int { 1 << 21 }
  static var shadowByteCount: Int { 1 << 24 }
  static var wordsPerPage: Int { 512 }
  /// One byte for each page of the shadow, at its end: whether the page was ever written.
  static var regionPageCount: Int { 4096 }
  static var regionByteCount: Int { shadowByteCount + regionPageCount }
  /// User addresses of x86-64 and arm64 with four levels of page tables end at 2^47.
  static var addressLimit: UInt { 1 << 47 }
  static var topByteCount: Int { Int(addressLimit >> regionShift) * 8 }
  /// 4 TiB of heap.
  static var regionLimit: UInt32 { 65536 }

  private let top: Atomic<UInt>
  /// The regions in use, so that a scan need not read the whole top level.
  private let regions: Atomic<UInt>
  private let regionCount: Atomic<UInt32>

  package func open() -> Bool {
    // Who finds the top level finds the regions too.
    regions.map(Int(Self.regionLimit) * 4) && top.map(Self.topByteCount)
  }

  // MARK: Words

  @inline(__always)
  private func slot(_ region: UInt) -> UnsafeMutablePointer<Atomic<UInt>> {
    UnsafeMutablePointer<Atomic<UInt>>(
      bitPattern: top.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(bitPattern: region)
  }

  @inline(__always)
  private func shadow(_ address: UInt) -> UnsafeMutableRawPointer? {
    slot(address >> Self.regionShift).pointee.mapped
  }

  @inline(__always)
  private static func index(_ address: UInt) -> Int {
    Int(bitPattern: address & (1 << regionShift &- 1)) >> Int(granuleShift)
  }

  @inline(__always)
  private static func word(
    _ shadow: UnsafeMutableRawPointer, _ index: Int
  ) -> UnsafeMutablePointer<Atomic<UInt64>> {
    shadow.assumingMemoryBound(to: Atomic<UInt64>.self) + index
  }

  /// Enters a block. `false` where there is no room: nothing was entered.
  ///
  /// Cost: a load and two stores; a call to the kernel once for 64 MiB of heap.
  @inline(__always)
  package func enter(
    _ address: UInt, site: UInt32, generation: UInt32, epoch: UInt32, byteCount: UInt64
  ) -> Bool {
    guard address < Self.addressLimit else { return false }
    guard let shadow = shadow(address) ?? makeRegion(address) else { return false }
    let index = Self.index(address)
    let word = BlockWord(
      site: site, generation: generation, epoch: epoch, byteCount: byteCount, address: address)
    if word.isLarge, !enterSize(address &+ 32, byteCount) { return false }
    // Releasing: a dump that sees a large block's word must find its size in the next.
    Self.word(shadow, index).pointee.store(word.bits, ordering: .releasing)
    touch(shadow, index)
    return true
  }

  /// Enters a block that is not large, if there is room already and nothing is in its place. Not into a page that
  /// is not there yet: to look whether something is in it would cost a fault, and to write it another one.
  @inline(__always)
  func enterQuickly(
    _ address: UInt, site: UInt32, birth: UInt64, byteCount: UInt64
  ) -> Bool {
    guard address < Self.addressLimit, let shadow = shadow(address) else { return false }
    let index = Self.index(address)
    let cell = Self.word(shadow, index)
    guard mark(shadow, index).pointee.load(ordering: .relaxed) != 0,
      cell.pointee.load(ordering: .relaxed) == 0
    else { return false }
    cell.pointee.store(
      BlockWord(site: site, birth: birth, smallByteCount: byteCount, address: address).bits,
      ordering: .releasing)
    return true
  }

  /// Takes out what is still there in the place of a block that was just handed out: one that was
  /// given back by a call that nobody saw. Answers with its size, or `nil`.
  func takeStale(_ address: UInt, epoch: UInt32) -> UInt64? {
    let index = Self.index(address)
    guard address < Self.addressLimit, let shadow = shadow(address),
      mark(shadow, index).pointee.load(ordering: .relaxed) != 0
    else { return nil }
    let cell = Self.word(shadow, index)
    let word = BlockWord(bits: cell.pointee.load(ordering: .relaxed))
    guard !word.isLargeSize, word.site != 0, word.epoch == epoch & BlockWord.epochMask else {
      return nil
    }
    cell.pointee.store(0, ordering: .relaxed)
    return word.isLarge ? takeSize(address &+ 32) : word.smallByteCount
  }

  /// Takes a block out that is not large; `nil` for any other, which stays.
  @inline(__always)
  func takeQuickly(_ address: UInt, mark: UInt64) -> BlockWord? {
    guard address < Self.addressLimit, let shadow = shadow(address) else { return nil }
    let cell = Self.word(shadow, Self.index(address))
    let word = BlockWord(bits: cell.pointee.load(ordering: .relaxed))
    guard word.isSmallBlock(at: address, mark: mark) else { return nil }
    cell.pointee.store(0, ordering: .relaxed)
    return word
  }

  /// Takes a block out; `nil` where none of this recording is at the address.
  @inline(__always)
  package func take(_ address: UInt, epoch: UInt32) -> (word: BlockWord, byteCount: UInt64)? {
    guard address < Self.addressLimit, let shadow = shadow(address) else { return nil }
    let cell = Self.word(shadow, Self.index(address))
    let word = BlockWord(bits: cell.pointee.load(ordering: .relaxed))
    guard word.isBlock(at: address, epoch: epoch) else { return nil }
    cell.pointee.store(0, ordering: .relaxed)
    return (word, word.isLarge ? takeSize(address &+ 32) ?? 0 : word.smallByteCount)
  }

  /// Looks without taking.
  package func find(_ address: UInt, epoch: UInt32) -> BlockWord? {
    guard address < Self.addressLimit, let shadow = shadow(address) else { return nil }
    let word = BlockWord(
      bits: Self.word(shadow, Self.index(address)).pointee.load(ordering: .relaxed))
    return word.isBlock(at: address, epoch: epoch) ? word : nil
  }

  /// The address of the word on which it depends whether a block is at an address: the block's own, or
  /// where nothing near was ever entered, the one that will lead there. `nil` where none ever is.
  package func cell(_ address: UInt) -> UInt? {
    guard address < Self.addressLimit else { return nil }
    guard let shadow = shadow(address) else {
      return UInt(bitPattern: slot(address >> Self.regionShift))
    }
    return UInt(bitPattern: Self.word(shadow, Self.index(address)))
  }

  /// The block that the aligned word at an address is a part of; `nil` for a large one, and for one that
  /// begins more than 8 KiB before.
  ///
  /// Cost: a load for each 32 bytes before it in the block.
  func holder(of address: UInt, epoch: UInt32) -> (address: UInt, word: BlockWord)? {
    guard address < Self.addressLimit, let shadow = shadow(address) else { return nil }
    let start = address & ~(1 << Self.regionShift &- 1)
    var index = Self.index(address)
    let last = max(0, index &- 256)
    while index >= last {
      let bits = Self.word(shadow, index).pointee.load(ordering: .relaxed)
      let block =
        start &+ (UInt(bitPattern: index) << Self.granuleShift)
        &+ UInt(truncatingIfNeeded: bits >> 56 & 3) &* 8
      index &-= 1
      let word = BlockWord(bits: bits)
      // The block behind it may begin in the same granule.
      guard word.isBlock(at: block, epoch: epoch), block <= address else { continue }
      return !word.isLarge && address &- block &+ 8 <= word.smallByteCount ? (block, word) : nil
    }
    return nil
  }

  @inline(__always)
  private func touch(_ shadow: UnsafeMutableRawPointer, _ index: Int) {
    let mark = mark(shadow, index)
    // Relaxed: a dump that misses the mark misses a block as young as itself. Looked at first: a load is
    // cheaper than a store, and threads share the line.
    if mark.pointee.load(ordering: .relaxed) == 0 { mark.pointee.store(1, ordering: .relaxed) }
  }

  /// Whether the page of the shadow that an index is in was ever written.
  @inline(__always)
  private func mark(
    _ shadow: UnsafeMutableRawPointer, _ index: Int
  ) -> UnsafeMutablePointer<Atomic<UInt8>> {
    (shadow + Self.shadowByteCount).assumingMemoryBound(to: Atomic<UInt8>.self) + (index >> 9)
  }

  @inline(never)
  private func enterSize(_ address: UInt, _ byteCount: UInt64) -> Bool {
    guard let shadow = shadow(address) ?? makeRegion(address) else { return false }
    Self.word(shadow, Self.index(address)).pointee.store(
      BlockWord(largeByteCount: byteCount).bits, ordering: .relaxed)
    touch(shadow, Self.index(address))
    return true
  }

  /// Takes the size of a large block out; `nil` where it is gone. Of a block that was given back unseen
  /// the word may be that of somebody's new block by now, and stays.
  @inline(never)
  private func takeSize(_ address: UInt) -> UInt64? {
    guard let shadow = shadow(address) else { return nil }
    let cell = Self.word(shadow, Self.index(address))
    let word = BlockWord(bits: cell.pointee.load(ordering: .relaxed))
    guard word.isLargeSize,
      cell.pointee.compareExchange(
        expected: word.bits, desired: 0, ordering: .relaxed
      ).exchanged
    else { return nil }
    return word.largeByteCount
  }

  @inline(never)
  private func makeRegion(_ address: UInt) -> UnsafeMutableRawPointer? {
    let region = address >> Self.regionShift
    guard let (shadow, isNew) = slot(region).pointee.mapConcurrently(Self.regionByteCount) else {
      return nil
    }
    guard isNew else { return shadow }
    let count = regionCount.wrappingAdd(1, ordering: .relaxed).oldValue
    guard count < Self.regionLimit else { return nil }
    // The list holds region + 1, so that a place not yet written reads as none.
    regionList[Int(count)].store(UInt32(truncatingIfNeeded: region) &+ 1, ordering: .releasing)
    return shadow
  }

  // MARK: Scan

  private var regionList: UnsafeMutablePointer<Atomic<UInt32>> {
    UnsafeMutablePointer<Atomic<UInt32>>(
      bitPattern: regions.load(ordering: .relaxed)
    ).unsafelyUnwrapped
  }

  private func forEachShadow(_ body: (UInt, UnsafeMutableRawPointer) -> Void) {
    guard top.load(ordering: .acquiring) != 0 else { return }
    let count = min(regionCount.load(ordering: .acquiring), Self.regionLimit)
    var position = 0
    while position < Int(count) {
      let region = regionList[position].load(ordering: .acquiring)
      position &+= 1
      guard region != 0 else { continue }
      let start = UInt(region &- 1) << Self.regionShift
      if let shadow = shadow(start) { body(start, shadow) }
    }
  }

  private func forEachTouchedPage(
    _ body: (_ start: UInt, _ shadow: UnsafeMutableRawPointer, _ page: Int) -> Void
  ) {
    forEachShadow { start, shadow in
      Self.forEachTouchedPage(of: shadow) { body(start, shadow, $0) }
    }
  }

  @inline(__always)
  private static func forEachTouchedPage(
    of shadow: UnsafeMutableRawPointer, _ body: (_ page: Int) -> Void
  ) {
    let pages = (shadow + shadowByteCount).assumingMemoryBound(to: Atomic<UInt8>.self)
    for page in 0..<regionPageCount where pages[page].load(ordering: .relaxed) != 0 { body(page) }
  }

  /// Calls the body for every block of the recording that was born before a generation.
  ///
  /// Stops nobody. A block that is alive throughout is seen once; one that is freed or reallocated
  /// meanwhile, at most once.
  package func forEachBlock(
    epoch: UInt32, bornBefore generation: UInt32,
    _ body: (_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Void
  ) {
    forEachTouchedPage { start, shadow, page in
      forEachBlock(start, shadow, page, epoch: epoch, bornBefore: generation, body)
    }
  }

  /// Calls the body for every block of the recording that begins in a region, in the order of addresses.
  func forEachBlock(
    ofRegion region: UInt32, epoch: UInt32,
    _ body: (_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Void
  ) {
    let start = UInt(region) << Self.regionShift
    guard let shadow = shadow(start) else { return }
    Self.forEachTouchedPage(of: shadow) {
      forEachBlock(start, shadow, $0, epoch: epoch, bornBefore: .max, body)
    }
  }

  @inline(__always)
  private func forEachBlock(
    _ start: UInt, _ shadow: UnsafeMutableRawPointer, _ page: Int, epoch: UInt32,
    bornBefore generation: UInt32,
    _ body: (_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Void
  ) {
    let first = page &* Self.wordsPerPage
    for index in first..<(first &+ Self.wordsPerPage) {
      // Acquiring: pairs with the releasing store in `enter`.
      let bits = Self.word(shadow, index).pointee.load(ordering: .acquiring)
      if bits == 0 { continue }
      let word = BlockWord(bits: bits)
      guard !word.isLargeSize, word.site != 0, word.epoch == epoch & BlockWord.epochMask,
        word.generation < generation
      else { continue }
      let address =
        start &+ UInt(index) << Self.granuleShift | UInt(truncatingIfNeeded: bits >> 56 & 3) << 3
      if !word.isLarge {
        body(address, word, word.smallByteCount)
      } else if let byteCount = largeByteCount(after: address) {
        body(address, word, byteCount)
      }
    }
  }

  /// The bytes asked for by the block that begins at an address. One does, as the caller knows.
  @inline(__always)
  func byteCount(at address: UInt) -> UInt64 {
    guard let shadow = shadow(address) else { return 0 }
    let word = BlockWord(
      bits: Self.word(shadow, Self.index(address)).pointee.load(ordering: .relaxed))
    return word.isLarge ? largeByteCount(after: address) ?? 0 : word.smallByteCount
  }

  /// How many regions have a shadow.
  var usedRegionCount: Int {
    top.load(ordering: .acquiring) == 0
      ? 0 : Int(min(regionCount.load(ordering: .acquiring), Self.regionLimit))
  }

  /// Copies the numbers of the regions that have a shadow, in no order; answers how many.
  func copyRegions(to numbers: UnsafeMutablePointer<UInt32>, limit: Int) -> Int {
    var count = 0
    forEachShadow { start, _ in
      guard count < limit else { return }
      numbers[count] = UInt32(truncatingIfNeeded: start >> Self.regionShift)
      count &+= 1
    }
    return count
  }

  private func largeByteCount(after address: UInt) -> UInt64? {
    guard let shadow = shadow(address &+ 32) else { return nil }
    let word = BlockWord(
      bits: Self.word(shadow, Self.index(address &+ 32)).pointee.load(ordering: .relaxed))
    return word.isLargeSize ? word.largeByteCount : nil
  }

  /// Whether any block of any recording was ever entered in a range of addresses: it is heap.
  package func hasTouched(_ range: Range<UInt>) -> Bool {
    guard top.load(ordering: .acquiring) != 0, !range.isEmpty else { return false }
    var address = range.lowerBound & ~16383
    let end = min(range.upperBound, Self.addressLimit)
    while address < end {
      guard let shadow = shadow(address) else {
        address = (address >> Self.regionShift &+ 1) << Self.regionShift
        continue
      }
      let pages = (shadow + Self.shadowByteCount).assumingMemoryBound(to: Atomic<UInt8>.self)
      if pages[Self.index(address) >> 9].load(ordering: .relaxed) != 0 { return true }
      address &+= 16384  // what one page of the shadow covers
    }
    return false
  }

  /// Bytes that the map keeps resident: every shadow page that was written, and the page marks.
  package var touchedByteCount: Int {
    var pages = 0
    forEachTouchedPage { _, _, _ in pages &+= 1 }
    return pages &* System.pageByteCount
      &+ Int(regionCount.load(ordering: .relaxed)) &* Self.regionPageCount
  }

  /// Gives the pages back and keeps the addresses, since a hook may be on its way to one.
  package func discard() {
    forEachShadow { _, shadow in System.discard(shadow, Self.regionByteCount) }
  }
}
