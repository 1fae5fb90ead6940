// SPDX-License-Identifier: Apache-2.0
// From a hash to the one identifier of a value, found and extended by many threads without a lock.

import CTracerPlatform
import Synchronization

/// A hash table of 32-bit identifiers that grows in place and never moves an entry.
///
/// A table of 2^k slots uses the low k bits of the hash. When it is half full, k grows by one; old
/// entries stay where they are, and are found by looking with fewer bits. An entry found that way is
/// copied to where it now belongs, so that the second search for it is short. Slots only ever go
/// from empty to an identifier: a reader needs no lock. All zero is a valid, closed index.
package struct InternIndex: ~Copyable {
  private let slots: Atomic<UInt>
  private let bits: Atomic<UInt32>
  private let entryCount: Atomic<UInt32>
  private let maximumBits: Atomic<UInt32>

  static var minimumBits: UInt32 { 10 }
  static var probeLimit: UInt32 { 8 }

  package func open(maximumBits limit: UInt32) -> Bool {
    if slots.load(ordering: .acquiring) == 0 {
      guard let base = System.map(4 << Int(limit)) else { return false }
      slots.store(UInt(bitPattern: base), ordering: .releasing)
    }
    maximumBits.store(limit, ordering: .relaxed)
    entryCount.store(0, ordering: .relaxed)
    bits.store(Self.minimumBits, ordering: .releasing)
    return true
  }

  package func discard() {
    guard let base = UnsafeMutableRawPointer(bitPattern: slots.load(ordering: .acquiring)) else {
      return
    }
    System.discard(base, 4 << Int(maximumBits.load(ordering: .relaxed)))
    entryCount.store(0, ordering: .relaxed)
    bits.store(Self.minimumBits, ordering: .releasing)
  }

  /// Bytes of the slots in use.
  package var usedByteCount: Int {
    slots.load(ordering: .relaxed) == 0 ? 0 : 4 << Int(bits.load(ordering: .relaxed))
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
    if found != 0 { return found }
    return internUnseen(hash: hash, matches: matches, make: make)
  }

  @inline(__always)
  private func slot(_ index: UInt64) -> UnsafeMutablePointer<Atomic<UInt32>> {
    UnsafeMutablePointer<Atomic<UInt32>>(
      bitPattern: slots.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(truncatingIfNeeded: index)
  }

  @inline(__always)
  private func find(_ hash: UInt64, _ level: UInt32, _ matches: (UInt32) -> Bool) -> UInt32 {
    let mask = UInt64(1) << UInt64(level) &- 1
    var position = hash & mask
    var probe: UInt32 = 0
    while probe < Self.probeLimit {
      // Acquiring: pairs with the exchange in `insert`; the value must be readable by its name.
      let identifier = slot(position).pointee.load(ordering: .acquiring)
      if identifier == 0 { return 0 }
      if matches(identifier) { return identifier }
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
      level &-= 1
      let found = find(hash, level, matches)
      if found != 0 {
        _ = insert(hash, found, matches)
        return found
      }
    }
    let made = make()
    guard made != 0 else { return 0 }
    let kept = insert(hash, made, matches)
    if kept == made { grow() }
    return kept
  }

  /// Enters an identifier; answers the one that is there, or 0 where the table is full.
  private func insert(_ hash: UInt64, _ made: UInt32, _ matches: (UInt32) -> Bool) -> UInt32 {
    while true {
      let level = bits.load(ordering: .acquiring)
      let mask = UInt64(1) << UInt64(level) &- 1
      var position = hash & mask
      var probe: UInt32 = 0
      while probe < Self.probeLimit {
        let (exchanged, original) = slot(position).pointee.compareExchange(
          expected: 0, desired: made, ordering: .acquiringAndReleasing)
        if exchanged { return made }
        if original == made || matches(original) { return original }
        position = (position &+ 1) & mask
        probe &+= 1
      }
      guard level < maximumBits.load(ordering: .relaxed) else { return 0 }
      _ = bits.compareExchange(
        expected: level, desired: level &+ 1, ordering: .acquiringAndReleasing)
    }
  }

  private func grow() {
    let count = entryCount.add(1, ordering: .relaxed).newValue
    let level = bits.load(ordering: .relaxed)
    guard count > 1 << (level &- 1), level < maximumBits.load(ordering: .relaxed) else { return }
    _ = bits.compareExchange(expected: level, desired: level &+ 1, ordering: .acquiringAndReleasing)
  }
}
