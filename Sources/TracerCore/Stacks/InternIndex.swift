// SPDX-License-Identifier: Apache-2.0
// From a hash to the one identifier of a value, found and extended by many threads without a lock.

import CTracerPlatform
import Synchronization

/// A hash table of identifiers that grows in place and never moves an entry.
///
/// Level k has 2^k slots of its own, behind those of the levels below, and uses the low k bits of
/// the hash. When there are entries for three eighths of them, the next level but one begins: what
/// is new is looked for in all of them, and each is a cache line or two. Old entries stay where
/// they are. An entry that is found below is copied to the level of the day, so that the
/// second search for it is short, and the level has room even when all have moved. Slots only ever
/// go from empty to an identifier: a reader needs no lock. Beside the identifier a slot has some bits of the
/// hash, so that other values, which lie anywhere in memory, need not be looked at. All zero is a valid,
/// closed index.
package struct InternIndex: ~Copyable {
  private let slots: Atomic<UInt>
  private let bits: Atomic<UInt32>
  private let entryCount: Atomic<UInt32>
  private let maximumBits: Atomic<UInt32>
  /// The power of two that all identifiers are below.
  private let limit: Atomic<UInt32>

  static var minimumBits: UInt32 { 10 }

  /// The levels are those of even numbers, and the last one.
  private func levelAbove(_ level: UInt32) -> UInt32 {
    min((level &+ 2) & ~1, maximumBits.load(ordering: .relaxed))
  }
  private func levelBelow(_ level: UInt32) -> UInt32 { (level &- 1) & ~1 }

  static var probeLimit: UInt32 { 16 }

  /// - Parameter limit: A power of two that all identifiers will be below.
  package func open(maximumBits: UInt32, below limit: UInt32) -> Bool {
    guard slots.map(8 << Int(maximumBits)) else { return false }
    self.maximumBits.store(maximumBits, ordering: .relaxed)
    self.limit.store(limit, ordering: .relaxed)
    entryCount.store(0, ordering: .relaxed)
    bits.store(Self.minimumBits, ordering: .releasing)
    return true
  }

  package func discard() {
    guard let base = slots.mapped else { return }
    System.discard(base, 8 << Int(maximumBits.load(ordering: .relaxed)))
    entryCount.store(0, ordering: .relaxed)
    bits.store(Self.minimumBits, ordering: .releasing)
  }

  /// Bytes of the slots in use.
  package var usedByteCount: Int {
    slots.load(ordering: .relaxed) == 0 ? 0 : 8 << Int(bits.load(ordering: .relaxed))
  }

  /// The identifier of a value, which `make` gives it at its first sight; 0 where there is no room.
  ///
  /// Two threads that meet a value for the first time in the same moment may both call `make`; one
  /// of the two identifiers is then never used. Cost: one cache line where the value is known.
  @inline(__always)
  package func intern(
    hash: UInt64, matches: (UInt32) -> Bool, make: () -> UInt32
  ) -> UInt32 {
    let level = bits.load(ordering: .acquiring)
    let found = find(hash, level, matches)
    if found != 0 { return found & (limit.load(ordering: .relaxed) &- 1) }
    return internUnseen(hash: hash, matches: matches, make: make)
  }

  /// The slots and the mask of this moment, for a reader that looks many values up in a row, and takes the
  /// bits of the hash off what it finds. What it
  /// does not find may be in the table all the same: `intern` then does.
  @inline(__always)
  package var view: (slots: UnsafeMutablePointer<Atomic<UInt32>>, mask: UInt64) {
    let slotCount = UInt64(1) << UInt64(bits.load(ordering: .acquiring) & 31)
    return (slot(slotCount), slotCount &- 1)
  }

  @inline(__always)
  private func slot(_ index: UInt64) -> UnsafeMutablePointer<Atomic<UInt32>> {
    UnsafeMutablePointer<Atomic<UInt32>>(
      bitPattern: slots.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(truncatingIfNeeded: index)
  }

  /// What a slot has of a hash, where identifiers are below a limit.
  @inline(__always)
  private static func tag(_ hash: UInt64, _ limit: UInt32) -> UInt32 {
    UInt32(truncatingIfNeeded: hash &>> 30) &* limit
  }

  /// The slot of a value, on one level; 0 where it is not.
  @inline(__always)
  private func find(_ hash: UInt64, _ level: UInt32, _ matches: (UInt32) -> Bool) -> UInt32 {
    let limit = limit.load(ordering: .relaxed)
    let tag = Self.tag(hash, limit)
    let first = UInt64(1) << UInt64(level)
    let mask = first &- 1
    var position = hash & mask
    var probe: UInt32 = 0
    while probe < Self.probeLimit {
      // Acquiring: pairs with the exchange in `insert`; the value must be readable by its name.
      let slot = slot(first &+ position).pointee.load(ordering: .acquiring)
      if slot == 0 { return 0 }
      if slot ^ tag < limit, matches(slot ^ tag) { return slot }
      position = (position &+ 1) & mask
      probe &+= 1
    }
    return 0
  }

  @inline(never)
  private func internUnseen(
    hash: UInt64, matches: (UInt32) -> Bool, make: () -> UInt32
  ) -> UInt32 {
    var level = bits.load(ordering: .acquiring)
    guard level >= Self.minimumBits else { return 0 }
    while level > Self.minimumBits {
      level = levelBelow(level)
      let found = find(hash, level, matches)
      if found != 0 {
        _ = insert(hash, found, matches)
        return found & (limit.load(ordering: .relaxed) &- 1)
      }
    }
    let made = make()
    guard made != 0 else { return 0 }
    let limit = limit.load(ordering: .relaxed)
    let kept = insert(hash, made | Self.tag(hash, limit), matches) & (limit &- 1)
    if kept == made { grow() }
    return kept
  }

  /// Enters a slot; answers the one that is there, or 0 where the table is full.
  private func insert(_ hash: UInt64, _ made: UInt32, _ matches: (UInt32) -> Bool) -> UInt32 {
    let limit = limit.load(ordering: .relaxed)
    let tag = Self.tag(hash, limit)
    while true {
      let level = bits.load(ordering: .acquiring)
      let first = UInt64(1) << UInt64(level)
      let mask = first &- 1
      var position = hash & mask
      var probe: UInt32 = 0
      while probe < Self.probeLimit {
        let (exchanged, original) = slot(first &+ position).pointee.compareExchange(
          expected: 0, desired: made, ordering: .acquiringAndReleasing)
        if exchanged { return made }
        if original == made || original ^ tag < limit && matches(original ^ tag) {
          return original
        }
        position = (position &+ 1) & mask
        probe &+= 1
      }
      guard level < maximumBits.load(ordering: .relaxed) else { return 0 }
      _ = bits.compareExchange(
        expected: level, desired: levelAbove(level), ordering: .acquiringAndReleasing)
    }
  }

  private func grow() {
    let count = entryCount.wrappingAdd(1, ordering: .relaxed).newValue
    let level = bits.load(ordering: .relaxed)
    guard count > 3 << (level &- 3), level < maximumBits.load(ordering: .relaxed) else { return }
    _ = bits.compareExchange(
      expected: level, desired: levelAbove(level), ordering: .acquiringAndReleasing)
  }
}
