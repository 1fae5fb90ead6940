// SPDX-License-Identifier: Apache-2.0
// The blocks that were sampled and are alive: few, anywhere in the heap.

import CTracerPlatform
import Synchronization

/// One sampled block.
private struct SampledBlock: ~Copyable {
  static var byteCount: Int { 32 }

  /// 0 where the place is free.
  let address: Atomic<UInt64>
  /// A `BlockWord` without the size; 0 until the block is entered as a whole.
  let word: Atomic<UInt64>
  let byteCount: Atomic<UInt64>
  private let unused: UInt64
}

/// Sampled blocks by their addresses, and a byte for each page of the heap that says whether to look.
///
/// The shadow of the live map would cost a page for nearly every one of them, up to a quarter of the
/// heap in the end. Here a block takes 32 bytes, in one of eight places that its address leads to; where
/// those are taken, in one of eight of the next level, which has four times as many. Nothing moves, so
/// that nothing is locked: a thread takes a place by one exchange, and only who owns a block gives its
/// place back. All zero is a valid, closed table.
package struct SampledBlocks: ~Copyable {
  private static var levelLimit: Int { 8 }
  private static var perBucket: Int { 8 }
  private static func bucketCount(_ level: Int) -> UInt64 { 512 << UInt64(2 &* level) }
  private static func byteCount(_ level: Int) -> Int {
    Int(bucketCount(level)) &* perBucket &* SampledBlock.byteCount
  }
  private static var pageShift: UInt64 { 12 }
  /// Where blocks were ever sampled, in steps of 2 MiB: which mappings are heap.
  private static var stepShift: UInt64 { 21 }
  private static var stepByteCount: Int { Int(LiveMap.addressLimit >> UInt(stepShift)) }

  /// The addresses of the levels, and how many blocks each was ever given.
  private let levels: Atomic<UInt>
  private let steps: Atomic<UInt>

  package func open() -> Bool {
    guard levels.map(System.pageByteCount), steps.map(Self.stepByteCount) else { return false }
    if tracer_sampled_pages == nil {
      guard let base = System.map(Int(TRACER_PAGE_CELL_COUNT)) else { return false }
      tracer_sampled_pages = base.assumingMemoryBound(to: UInt8.self)
    }
    return true
  }

  // MARK: Places

  private func slot(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt>> {
    UnsafeMutablePointer<Atomic<UInt>>(
      bitPattern: levels.load(ordering: .acquiring)
    ).unsafelyUnwrapped + index
  }

  private func level(_ level: Int) -> UnsafeMutableRawPointer? {
    slot(level).pointee.mapped
  }

  private func entered(_ level: Int) -> UnsafeMutablePointer<Atomic<UInt>> {
    slot(Self.levelLimit &+ level)
  }

  private func makeLevel(_ level: Int) -> UnsafeMutableRawPointer? {
    slot(level).pointee.mapConcurrently(Self.byteCount(level))?.base
  }

  /// The first of the places that an address leads to.
  private static func bucket(
    _ base: UnsafeMutableRawPointer, _ level: Int, _ address: UInt
  ) -> UnsafeMutablePointer<SampledBlock> {
    // Blocks that share a bucket here do not in the next level.
    var hash = UInt64(address >> 3) &* (0x9E37_79B9_7F4A_7C15 &+ UInt64(level) &* 2)
    hash ^= hash >> 29
    let index = (hash &* 0xD6E8_FEB8_6659_FD93) >> 32 & (bucketCount(level) &- 1)
    return (base + Int(index) &* perBucket &* SampledBlock.byteCount)
      .assumingMemoryBound(to: SampledBlock.self)
  }

  // MARK: Blocks

  /// Enters a block that is in no place. `false` where there is no room: nothing was entered.
  package func enter(_ address: UInt, _ word: BlockWord, byteCount: UInt64) -> Bool {
    for level in 0..<Self.levelLimit {
      guard let base = makeLevel(level) else { return false }
      let bucket = Self.bucket(base, level, address)
      for place in 0..<Self.perBucket {
        let block = bucket + place
        guard block.pointee.address.load(ordering: .relaxed) == 0,
          block.pointee.address.compareExchange(
            expected: 0, desired: UInt64(address), ordering: .acquiring
          ).exchanged
        else { continue }
        block.pointee.byteCount.store(byteCount, ordering: .relaxed)
        // Releasing: a dump that sees the word must find its size.
        block.pointee.word.store(word.bits, ordering: .releasing)
        _ = entered(level).pointee.wrappingAdd(1, ordering: .relaxed)
        noteStep(address)
        raise(address)
        return true
      }
    }
    return false
  }

  private func place(
    _ address: UInt, _ epoch: UInt32
  ) -> UnsafeMutablePointer<SampledBlock>? {
    guard levels.load(ordering: .relaxed) != 0 else { return nil }
    for level in 0..<Self.levelLimit {
      guard let base = self.level(level) else { return nil }
      let bucket = Self.bucket(base, level, address)
      for place in 0..<Self.perBucket {
        let block = bucket + place
        guard block.pointee.address.load(ordering: .relaxed) == UInt64(address) else { continue }
        let word = BlockWord(bits: block.pointee.word.load(ordering: .relaxed))
        return word.isBlock(at: address, epoch: epoch) ? block : nil
      }
    }
    return nil
  }

  /// Looks without taking.
  package func find(_ address: UInt, epoch: UInt32) -> BlockWord? {
    place(address, epoch).map { BlockWord(bits: $0.pointee.word.load(ordering: .relaxed)) }
  }

  /// Takes a block out; `nil` where none of this recording is at the address.
  package func take(_ address: UInt, epoch: UInt32) -> (word: BlockWord, byteCount: UInt64)? {
    guard let block = place(address, epoch) else { return nil }
    let word = BlockWord(bits: block.pointee.word.load(ordering: .relaxed))
    let byteCount = block.pointee.byteCount.load(ordering: .relaxed)
    block.pointee.word.store(0, ordering: .relaxed)
    // Releasing: who takes the place next writes after the above.
    block.pointee.address.store(0, ordering: .releasing)
    lower(address)
    return (word, byteCount)
  }

  /// Calls the body for every block of the recording that was born before a generation.
  ///
  /// Stops nobody. A block that is alive throughout is seen once; one that is freed or reallocated
  /// meanwhile, at most once.
  package func forEachBlock(
    epoch: UInt32, bornBefore generation: UInt32,
    _ body: (_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Void
  ) {
    guard levels.load(ordering: .relaxed) != 0 else { return }
    for level in 0..<Self.levelLimit {
      guard let base = self.level(level) else { return }
      let first = base.assumingMemoryBound(to: SampledBlock.self)
      for index in 0..<Int(Self.bucketCount(level)) &* Self.perBucket {
        let block = first + index
        let address = block.pointee.address.load(ordering: .acquiring)
        if address == 0 { continue }
        let word = BlockWord(bits: block.pointee.word.load(ordering: .acquiring))
        let byteCount = block.pointee.byteCount.load(ordering: .relaxed)
        atomicMemoryFence(ordering: .acquiring)
        // Another block may have come to the place meanwhile, and is too young to be here.
        guard word.isBlock(at: UInt(address), epoch: epoch), word.generation < generation,
          block.pointee.word.load(ordering: .relaxed) == word.bits,
          block.pointee.address.load(ordering: .relaxed) == address
        else { continue }
        body(UInt(address), word, byteCount)
      }
    }
  }

  // MARK: Pages

  private func cell(_ address: UInt) -> UnsafeMutablePointer<Atomic<UInt8>> {
    let index = address >> UInt(Self.pageShift) & UInt(TRACER_PAGE_CELL_COUNT &- 1)
    return UnsafeMutableRawPointer(tracer_sampled_pages.unsafelyUnwrapped + Int(index))
      .assumingMemoryBound(to: Atomic<UInt8>.self)
  }

  /// Counts one more block in a page. A cell that is full stays so: who frees there looks in vain, and
  /// finds what there is to find.
  private func raise(_ address: UInt) {
    let cell = cell(address)
    var count = cell.pointee.load(ordering: .relaxed)
    while count < UInt8.max {
      let (exchanged, original) = cell.pointee.weakCompareExchange(
        expected: count, desired: count &+ 1, ordering: .relaxed)
      if exchanged { return }
      count = original
    }
  }

  private func lower(_ address: UInt) {
    let cell = cell(address)
    var count = cell.pointee.load(ordering: .relaxed)
    while count > 0, count < UInt8.max {
      let (exchanged, original) = cell.pointee.weakCompareExchange(
        expected: count, desired: count &- 1, ordering: .relaxed)
      if exchanged { return }
      count = original
    }
  }

  private func noteStep(_ address: UInt) {
    guard address < LiveMap.addressLimit else { return }
    step(address >> UInt(Self.stepShift)).pointee.store(1, ordering: .relaxed)
  }

  private func step(_ number: UInt) -> UnsafeMutablePointer<Atomic<UInt8>> {
    UnsafeMutablePointer<Atomic<UInt8>>(
      bitPattern: steps.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(number)
  }

  /// Whether any block was ever sampled in a range of addresses, to 2 MiB: it is heap.
  func hasTouched(_ range: Range<UInt>) -> Bool {
    guard steps.load(ordering: .acquiring) != 0, !range.isEmpty else { return false }
    let end = min(range.upperBound, LiveMap.addressLimit)
    var number = range.lowerBound >> UInt(Self.stepShift)
    while number << UInt(Self.stepShift) < end {
      if step(number).pointee.load(ordering: .relaxed) != 0 { return true }
      number &+= 1
    }
    return false
  }

  // MARK: Memory

  /// At most this much of the tables was ever touched.
  package var touchedByteCount: Int {
    guard levels.load(ordering: .acquiring) != 0 else { return 0 }
    var sum = 0
    var blocks: UInt = 0
    for level in 0..<Self.levelLimit where self.level(level) != nil {
      let count = entered(level).pointee.load(ordering: .relaxed)
      blocks = blocks &+ count
      sum &+= min(Self.byteCount(level), Int(min(count, 1 << 40)) &* System.pageByteCount)
    }
    return sum
      &+ min(Int(TRACER_PAGE_CELL_COUNT), Int(min(blocks, 1 << 40)) &* System.pageByteCount)
  }

  /// Gives the pages back and keeps the addresses, since a thread may be on its way to one.
  package func discard() {
    guard levels.load(ordering: .acquiring) != 0 else { return }
    for level in 0..<Self.levelLimit {
      slot(level).pointee.discard(Self.byteCount(level))
      entered(level).pointee.store(0, ordering: .relaxed)
    }
    steps.discard(Self.stepByteCount)
    if let base = tracer_sampled_pages {
      System.discard(UnsafeMutableRawPointer(base), Int(TRACER_PAGE_CELL_COUNT))
    }
  }
}
