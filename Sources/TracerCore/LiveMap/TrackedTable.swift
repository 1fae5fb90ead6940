// SPDX-License-Identifier: Apache-2.0
// Memory that malloc does not hand out, as far as the program tells of it.

import CTracerPlatform
import Synchronization

/// One block that the program tracks.
///
/// All but `next` changes between two steps of `version`, which is odd meanwhile: a dump reads
/// without a lock, and reads again what was changed under its eyes.
private struct TrackedBlock: ~Copyable {
  static var wordCount: UInt32 { 8 }

  let address: Atomic<UInt64>
  let byteCount: Atomic<UInt64>
  /// The site in bits 0…21 and the generation above it; 0 where the place is free.
  let origin: Atomic<UInt32>
  let domain: Atomic<UInt32>
  let version: Atomic<UInt32>
  /// The next place of the bucket, or of those that are free; 0 is none.
  let next: Atomic<UInt32>
}

/// Blocks by domain and address. All zero is a valid, closed table.
///
/// Unlike the live map it takes any address, and one address in several domains, and it has locks:
/// no hook comes here, only who calls `heaptap_track`. Each store leaves the table whole, so that
/// the child of a fork may go on with it wherever another thread was, once the locks are open.
package struct TrackedTable: ~Copyable {
  private static var bucketCount: UInt32 { 1 << 16 }
  private static var stripeCount: UInt32 { 64 }
  private static var headsByteCount: Int { Int(bucketCount) * 4 + Int(stripeCount) * 8 }

  /// The first block of each bucket, then the lock and the free places of each stripe.
  private let heads: Atomic<UInt>
  private let blocks: ChunkedArena
  package let blockCount: Atomic<UInt64>
  package let byteCount: Atomic<UInt64>

  package func open() -> Bool {
    heads.map(Self.headsByteCount) && blocks.open(reserving: TrackedBlock.wordCount)
  }

  /// Forgets every block and gives the pages back. No thread may be in here.
  package func discard() {
    heads.discard(Self.headsByteCount)
    blocks.discard(reserving: TrackedBlock.wordCount)
    blockCount.store(0, ordering: .relaxed)
    byteCount.store(0, ordering: .relaxed)
  }

  package var usedByteCount: Int { blocks.usedByteCount }

  // MARK: Places

  private func word(_ index: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
    UnsafeMutablePointer<Atomic<UInt32>>(
      bitPattern: heads.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(index)
  }

  private func lock(ofStripe stripe: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
    word(Self.bucketCount &+ stripe)
  }

  private func free(ofStripe stripe: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
    word(Self.bucketCount &+ Self.stripeCount &+ stripe)
  }

  private func block(_ place: UInt32) -> UnsafeMutablePointer<TrackedBlock> {
    blocks.address(place).assumingMemoryBound(to: TrackedBlock.self)
  }

  private static func bucket(_ domain: UInt32, _ address: UInt64) -> UInt32 {
    var hash = (address ^ UInt64(domain) << 40) &* 0x9E37_79B9_7F4A_7C15
    hash ^= hash >> 29
    return UInt32(truncatingIfNeeded: (hash &* 0xD6E8_FEB8_6659_FD93) >> 48)
  }

  /// Runs the body with the bucket's stripe to itself.
  private func locked<Result>(_ bucket: UInt32, _ body: (_ stripe: UInt32) -> Result) -> Result {
    let stripe = bucket & (Self.stripeCount &- 1)
    let word = lock(ofStripe: stripe)
    // 0 open, 1 locked, 2 locked and waited for.
    if !word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      while word.pointee.exchange(2, ordering: .acquiring) != 0 {
        System.wait(
          on: UnsafeMutableRawPointer(word), while: 2, nanoseconds: 100_000_000, shared: false)
      }
    }
    defer {
      if word.pointee.exchange(0, ordering: .releasing) == 2 {
        System.wake(UnsafeMutableRawPointer(word), shared: false)
      }
    }
    return body(stripe)
  }

  /// Opens the locks of threads that a fork has left behind in the parent.
  package func unlockAll() {
    guard heads.load(ordering: .acquiring) != 0 else { return }
    for stripe in 0..<Self.stripeCount {
      lock(ofStripe: stripe).pointee.store(0, ordering: .relaxed)
    }
  }

  /// The word that leads to a block's place: it holds 0 where the block is not there.
  private func link(
    _ bucket: UInt32, _ domain: UInt32, _ address: UInt64
  ) -> UnsafeMutablePointer<Atomic<UInt32>> {
    var link = word(bucket)
    while true {
      let place = link.pointee.load(ordering: .relaxed)
      guard place != 0 else { return link }
      let block = block(place)
      if block.pointee.address.load(ordering: .relaxed) == address,
        block.pointee.domain.load(ordering: .relaxed) == domain
      {
        return link
      }
      link = Self.next(of: block)
    }
  }

  private static func next(
    of block: UnsafeMutablePointer<TrackedBlock>
  ) -> UnsafeMutablePointer<Atomic<UInt32>> {
    (UnsafeMutableRawPointer(block) + 28).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  // MARK: Blocks

  /// Enters a block, in the place of one that had its domain and address. `false` where there is no
  /// memory: nothing has changed.
  package func enter(
    domain: UInt32, address: UInt64, byteCount size: UInt64, site: UInt32, generation: UInt32
  ) -> Bool {
    let bucket = Self.bucket(domain, address)
    return locked(bucket) { stripe in
      let link = link(bucket, domain, address)
      let known = link.pointee.load(ordering: .relaxed)
      guard known != 0 || makePlace(stripe) != 0 else { return false }
      let place = known != 0 ? known : takePlace(stripe)
      let block = block(place)
      let origin = site | generation << 22
      if known != 0 {
        _ = byteCount.wrappingSubtract(
          block.pointee.byteCount.load(ordering: .relaxed), ordering: .relaxed)
      } else {
        _ = blockCount.wrappingAdd(1, ordering: .relaxed)
      }
      _ = byteCount.wrappingAdd(size, ordering: .relaxed)
      change(block) {
        block.pointee.address.store(address, ordering: .relaxed)
        block.pointee.domain.store(domain, ordering: .relaxed)
        block.pointee.byteCount.store(size, ordering: .relaxed)
        block.pointee.origin.store(origin, ordering: .relaxed)
      }
      if known == 0 {
        block.pointee.next.store(word(bucket).pointee.load(ordering: .relaxed), ordering: .relaxed)
        word(bucket).pointee.store(place, ordering: .releasing)
      }
      return true
    }
  }

  /// Takes a block out; nothing happens where there is none.
  package func take(domain: UInt32, address: UInt64) {
    let bucket = Self.bucket(domain, address)
    locked(bucket) { stripe in
      let link = link(bucket, domain, address)
      let place = link.pointee.load(ordering: .relaxed)
      guard place != 0 else { return }
      let block = block(place)
      _ = blockCount.wrappingSubtract(1, ordering: .relaxed)
      _ = byteCount.wrappingSubtract(
        block.pointee.byteCount.load(ordering: .relaxed), ordering: .relaxed)
      link.pointee.store(block.pointee.next.load(ordering: .relaxed), ordering: .relaxed)
      change(block) { block.pointee.origin.store(0, ordering: .relaxed) }
      block.pointee.next.store(
        free(ofStripe: stripe).pointee.load(ordering: .relaxed), ordering: .relaxed)
      free(ofStripe: stripe).pointee.store(place, ordering: .relaxed)
    }
  }

  /// The first free place of a stripe, a new one if need be; 0 where there is no memory.
  private func makePlace(_ stripe: UInt32) -> UInt32 {
    let free = free(ofStripe: stripe)
    let first = free.pointee.load(ordering: .relaxed)
    if first != 0 { return first }
    guard let place = blocks.allocate(TrackedBlock.wordCount) else { return 0 }
    free.pointee.store(place, ordering: .relaxed)
    return place
  }

  private func takePlace(_ stripe: UInt32) -> UInt32 {
    let place = makePlace(stripe)
    free(ofStripe: stripe).pointee.store(
      block(place).pointee.next.load(ordering: .relaxed), ordering: .relaxed)
    return place
  }

  private func change(_ block: UnsafeMutablePointer<TrackedBlock>, _ body: () -> Void) {
    // The body's stores stay between the two: whoever reads one of them finds the version changed.
    let version = block.pointee.version.load(ordering: .relaxed)
    block.pointee.version.store(version &+ 1, ordering: .relaxed)
    atomicMemoryFence(ordering: .releasing)
    body()
    block.pointee.version.store(version &+ 2, ordering: .releasing)
  }

  // MARK: Scan

  /// Calls the body for every block that was tracked before a generation.
  ///
  /// Stops nobody. A block that stays as it is throughout is seen once; one that is tracked or
  /// untracked meanwhile, at most once.
  package func forEachBlock(
    bornBefore generation: UInt32,
    _ body: (_ domain: UInt32, _ site: UInt32, _ generation: UInt32, _ byteCount: UInt64) -> Void
  ) {
    guard heads.load(ordering: .acquiring) != 0 else { return }
    let end = UInt32(blocks.usedByteCount / 4)
    // A chunk is a whole number of places.
    var place = TrackedBlock.wordCount
    while place < end {
      let block = block(place)
      place &+= TrackedBlock.wordCount
      for _ in 0..<4 {
        let version = block.pointee.version.load(ordering: .acquiring)
        let origin = block.pointee.origin.load(ordering: .relaxed)
        let domain = block.pointee.domain.load(ordering: .relaxed)
        let byteCount = block.pointee.byteCount.load(ordering: .relaxed)
        atomicMemoryFence(ordering: .acquiring)
        guard version & 1 == 0, block.pointee.version.load(ordering: .relaxed) == version else {
          continue
        }
        if origin != 0, origin >> 22 < generation {
          body(domain, origin & (BlockWord.siteLimit &- 1), origin >> 22, byteCount)
        }
        break
      }
    }
  }
}
