// SPDX-License-Identifier: Apache-2.0
// Every distinct stack, once.

import CTracerPlatform
import Synchronization

/// One distinct stack and what was ever allocated from it; where threads are told apart, by one thread.
package struct Site: ~Copyable {
  package var hash: UInt32
  /// Where the rows of the frames begin in the table's arena, innermost first.
  package var frames: UInt32
  package var frameCount: UInt16
  /// Bit 0: what called the outermost frame that was found is not known, since the unwinding ended there.
  /// The others: the thread's number, or 0.
  package var facts: UInt16
  /// The frames that the stack had, with those beyond the depth limit.
  package var totalFrameCount: UInt32
  /// Cumulative, since recording began, without what threads still hold back in their tallies.
  package let totalBlocks: Atomic<UInt64>
  package let totalBytes: Atomic<UInt64>

  package var isTruncated: Bool { totalFrameCount > UInt32(frameCount) }
  package var isBroken: Bool { facts & 1 != 0 }
  package var thread: UInt32 { UInt32(facts >> 1) }
}

/// The sites, named by numbers from 1. All zero is a valid, closed table.
package struct SiteTable: ~Copyable {
  /// The site of allocations whose stack found no room; it has no frames.
  package static var lost: UInt32 { 1 }
  private static var wordsPerSite: UInt32 { 8 }

  private let sites: ChunkedArena
  private let frames: ChunkedArena
  private let index: InternIndex
  /// By site, 8 bytes each, beside the sites since those are of a power of two: how many of its blocks were
  /// temporary, or, where blocks are sampled and that is not known, how far their sum may be off.
  private let temporaries: ChunkedArena

  package func open() -> Bool {
    // Site 0 means no block, and site 1 is the lost one: both exist from the start.
    guard
      sites.open(reserving: 0), frames.open(reserving: 0),
      index.open(maximumBits: 23, below: BlockWord.siteLimit), temporaries.open(reserving: 0)
    else { return false }
    return reserveFirstSites()
  }

  private func reserveFirstSites() -> Bool {
    sites.allocate(2 * Self.wordsPerSite) != nil && temporaries.makeRoom(at: 2 * Self.lost)
  }

  package func discard() {
    index.discard()
    sites.discard(reserving: 0)
    frames.discard(reserving: 0)
    temporaries.discard(reserving: 0)
    _ = reserveFirstSites()
  }

  /// Sites named so far, and the two that are always there.
  package var limit: UInt32 { UInt32(sites.usedByteCount / 4) / Self.wordsPerSite }

  package var usedByteCount: Int {
    sites.usedByteCount + frames.usedByteCount + index.usedByteCount + temporaries.usedByteCount
  }

  @inline(__always)
  package func site(_ identifier: UInt32) -> UnsafeMutablePointer<Site> {
    sites.address(identifier &* Self.wordsPerSite).assumingMemoryBound(to: Site.self)
  }

  /// A site that may be in a chunk that was never made.
  package func siteIfMapped(_ identifier: UInt32) -> UnsafeMutablePointer<Site>? {
    sites.addressIfMapped(identifier &* Self.wordsPerSite)?.assumingMemoryBound(to: Site.self)
  }

  /// How many of a site's blocks were freed before their thread's next allocation, without what threads still
  /// hold back.
  @inline(__always)
  package func temporaries(of identifier: UInt32) -> UnsafeMutablePointer<Atomic<UInt64>> {
    temporaries.address(identifier &* 2).assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// In a recording that samples: what all blocks of a site add to the variance of its bytes, as that of a
  /// `SampleWeight`.
  package func variance(of identifier: UInt32) -> UnsafeMutablePointer<Atomic<UInt64>> {
    temporaries(of: identifier)
  }

  package func rows(of site: borrowing Site) -> UnsafePointer<UInt32> {
    UnsafePointer(frames.address(site.frames).assumingMemoryBound(to: UInt32.self))
  }

  /// The site of a stack, by the rows of its innermost frames, the outermost of them first, and by
  /// how many frames it had in all; `lost` where there is no room. `hash` is `StackHash.of` them.
  ///
  /// A thread other than 0 has sites of its own, which share their frames with that of thread 0.
  ///
  /// `isNew` becomes true where the stack was never seen before, by any thread, or by this one where it
  /// has a number.
  package func intern(
    _ rows: UnsafePointer<UInt32>, count: UInt32, total: UInt32, isBroken: Bool, thread: UInt32,
    hash rowHash: UInt64, _ isNew: inout Bool
  ) -> UInt32 {
    guard count > 0 else { return Self.lost }
    let facts = UInt16(truncatingIfNeeded: thread << 1 | (isBroken ? 1 : 0))
    // The low bits of a product depend on few of its factor's: the high ones are folded in.
    var hash = rowHash &+ UInt64(total) &+ UInt64(facts) << 32
    hash = (hash ^ hash >> 32) &* 0x9E37_79B9_7F4A_7C15
    hash ^= hash >> 29
    let short = UInt32(truncatingIfNeeded: hash >> 32)
    var wasMade = false
    let found = index.intern(hash: hash) { identifier in
      let candidate = site(identifier)
      guard candidate.pointee.hash == short, UInt32(candidate.pointee.frameCount) == count,
        candidate.pointee.totalFrameCount == total, candidate.pointee.facts == facts
      else { return false }
      return Self.areReversed(self.rows(of: candidate.pointee), rows, Int(count))
    } make: {
      wasMade = true
      var shared: UInt32?
      if thread != 0 {
        var isUnmet = false
        let site = intern(
          rows, count: count, total: total, isBroken: isBroken, thread: 0, hash: rowHash, &isUnmet)
        guard site != Self.lost else { return 0 }
        shared = self.site(site).pointee.frames
      }
      return make(rows, count, total, short, facts, frames: shared)
    }
    isNew = wasMade
    return found == 0 ? Self.lost : found
  }

  /// Whether two names are of one stack.
  package func isSameStack(_ left: UInt32, _ right: UInt32) -> Bool {
    let (a, b) = (site(left), site(right))
    guard a.pointee.frameCount == b.pointee.frameCount,
      a.pointee.totalFrameCount == b.pointee.totalFrameCount,
      a.pointee.facts == b.pointee.facts
    else { return false }
    let (c, d) = (rows(of: a.pointee), rows(of: b.pointee))
    for position in 0..<Int(a.pointee.frameCount) where c[position] != d[position] { return false }
    return true
  }

  private func make(
    _ rows: UnsafePointer<UInt32>, _ count: UInt32, _ total: UInt32, _ hash: UInt32,
    _ facts: UInt16, frames shared: UInt32?
  ) -> UInt32 {
    guard limit < BlockWord.siteLimit, let start = shared ?? frames.allocate(count),
      let offset = sites.allocate(Self.wordsPerSite)
    else { return 0 }
    let identifier = offset / Self.wordsPerSite
    guard identifier < BlockWord.siteLimit, temporaries.makeRoom(at: 2 &* identifier) else {
      return 0
    }
    if shared == nil {
      let copy = frames.address(start).assumingMemoryBound(to: UInt32.self)
      for position in 0..<Int(count) { copy[position] = rows[Int(count) &- 1 &- position] }
    }
    let site = site(identifier)
    site.pointee.hash = hash
    site.pointee.frames = start
    // The depth limit is 1024.
    site.pointee.frameCount = UInt16(truncatingIfNeeded: count)
    site.pointee.totalFrameCount = total
    site.pointee.facts = facts
    return identifier
  }

  @inline(__always)
  private static func areReversed(
    _ left: UnsafePointer<UInt32>, _ right: UnsafePointer<UInt32>, _ count: Int
  ) -> Bool {
    var position = 0
    while position < count {
      if left[position] != right[count &- 1 &- position] { return false }
      position &+= 1
    }
    return true
  }
}
