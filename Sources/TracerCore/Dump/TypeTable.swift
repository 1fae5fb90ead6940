// SPDX-License-Identifier: Apache-2.0
// The types that a dump has met, by the metadata that objects begin with.

import CTracerPlatform
import Synchronization

/// What is known of the objects that begin with one address.
struct TypeEntry {
  var metadata: UInt
  /// No object of the type is smaller; 0 where the address is that of no metadata.
  var byteCount: UInt64
  /// The name's number among the strings of the dump; 0 until it is written.
  var string: UInt64
  var nameOffset: UInt32
  var nameByteCount: UInt16
  /// An error, whose own metadata say no more.
  var isError: Bool
  var isTask: Bool
  /// Where the table has the entry's number.
  var slot: UInt32

  var isKnown: Bool { byteCount != 0 }
}

/// The types of one dump, by numbers from 1. All zero is a valid, closed table.
///
/// Begins anew with each dump: in between, modules come and go, and metadata with them.
struct TypeTable: ~Copyable {
  /// Types beyond these are told as unknown.
  static var limit: UInt32 { 1 << 14 }
  private static var slotCount: UInt32 { 1 << 15 }
  private static var nameByteLimit: Int { 1 << 20 }
  /// Bytes of a name that are kept.
  static var longestName: Int { 400 }
  private static var entriesByteCount: Int { Int(limit + 1) * MemoryLayout<TypeEntry>.stride }
  private static var slotsByteCount: Int { Int(slotCount) * 4 }
  private static var byteCount: Int { entriesByteCount + slotsByteCount + nameByteLimit }

  private let base: Atomic<UInt>
  private var count: UInt32
  private var nameBytes: Int

  /// Takes the addresses; pages come with the types.
  func open() -> Bool { base.map(Self.byteCount) }

  /// Forgets all types and keeps the pages.
  mutating func clear() {
    var number: UInt32 = 1
    while number <= count {
      slots[Int(entry(number).pointee.slot)] = 0
      number &+= 1
    }
    count = 0
    nameBytes = 0
  }

  /// Forgets all types and gives the pages back.
  mutating func discard() {
    base.discard(Self.byteCount)
    count = 0
    nameBytes = 0
  }

  var usedByteCount: Int {
    // Slots are wherever the hash puts them.
    count == 0
      ? 0 : Int(count) &* (MemoryLayout<TypeEntry>.stride) &+ nameBytes &+ Self.slotsByteCount
  }

  private var start: UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(bitPattern: base.load(ordering: .relaxed)).unsafelyUnwrapped
  }

  private var slots: UnsafeMutablePointer<UInt32> {
    (start + Self.entriesByteCount).assumingMemoryBound(to: UInt32.self)
  }

  func entry(_ number: UInt32) -> UnsafeMutablePointer<TypeEntry> {
    start.assumingMemoryBound(to: TypeEntry.self) + Int(number)
  }

  func name(of entry: TypeEntry) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(
      start: start + Self.entriesByteCount + Self.slotsByteCount + Int(entry.nameOffset),
      count: Int(entry.nameByteCount))
  }

  /// The number of the entry for an address, which `describe` fills where it is new; 0 where there is no
  /// room for it.
  @inline(__always)
  mutating func number(
    _ metadata: UInt, describe: (inout TypeEntry, inout TextBuffer) -> Void
  ) -> UInt32 {
    var slot = Self.hash(metadata)
    while true {
      let number = slots[Int(slot)]
      if number == 0 { break }
      if entry(number).pointee.metadata == metadata { return number }
      slot = (slot &+ 1) & (Self.slotCount &- 1)
    }
    return make(metadata, at: slot, describe)
  }

  @inline(__always)
  private static func hash(_ metadata: UInt) -> UInt32 {
    UInt32(truncatingIfNeeded: (metadata &* 0x9E37_79B9_7F4A_7C15) >> 49)
  }

  @inline(never)
  private mutating func make(
    _ metadata: UInt, at slot: UInt32, _ describe: (inout TypeEntry, inout TextBuffer) -> Void
  ) -> UInt32 {
    guard count < Self.limit, nameBytes &+ Self.longestName <= Self.nameByteLimit else { return 0 }
    var made = TypeEntry(
      metadata: metadata, byteCount: 0, string: 0, nameOffset: UInt32(nameBytes),
      nameByteCount: 0, isError: false, isTask: false, slot: slot)
    let room = start + Self.entriesByteCount + Self.slotsByteCount + nameBytes
    // Of a longer name the beginning, and the word that it goes on.
    var text = TextBuffer(room, capacity: Self.longestName &- 3)
    describe(&made, &text)
    if made.isKnown {
      var kept = text.count
      if text.isFull {
        for position in 0..<3 {
          room.storeBytes(of: 0x2e, toByteOffset: kept &+ position, as: UInt8.self)
        }
        kept &+= 3
      }
      made.nameByteCount = UInt16(truncatingIfNeeded: kept)
      nameBytes &+= kept
    }
    count &+= 1
    entry(count).pointee = made
    slots[Int(slot)] = count
    return count
  }
}
