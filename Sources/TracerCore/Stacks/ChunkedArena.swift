// SPDX-License-Identifier: Apache-2.0
// Append-only memory that several threads extend without a lock.

import CTracerPlatform
import Synchronization

/// Memory that only grows, named by word offsets that fit in 32 bits.
///
/// Chunks of 1 MiB are taken from the kernel as they are reached; what has been given out never
/// moves. All zero is a valid, closed arena, which has room for nothing.
package struct ChunkedArena: ~Copyable {
  static var chunkWordCount: UInt32 { 1 << 18 }
  static var chunkByteCount: Int { 1 << 20 }
  /// 4 GiB in all: the words that an offset can name.
  static var chunkLimit: Int { 4096 }

  private let cursor: Atomic<UInt32>
  private let directory: Atomic<UInt>

  /// Makes room for the chunks' addresses; the chunks themselves come later.
  package func open(reserving words: UInt32) -> Bool {
    guard directory.map(Self.chunkLimit * MemoryLayout<UInt>.stride) else { return false }
    cursor.store(words, ordering: .releasing)
    return true
  }

  /// Bytes given out so far.
  package var usedByteCount: Int {
    Int(min(cursor.load(ordering: .relaxed), UInt32.max / 2)) * 4
  }

  /// Takes words, which lie in one chunk; `nil` where there is no memory or no room.
  ///
  /// The caller asks for even counts only, if it stores 64-bit values.
  package func allocate(_ words: UInt32) -> UInt32? {
    guard words <= Self.chunkWordCount else { return nil }
    while true {
      let start = cursor.load(ordering: .relaxed)
      let inChunk = start & (Self.chunkWordCount &- 1)
      let skipped = inChunk &+ words > Self.chunkWordCount ? Self.chunkWordCount &- inChunk : 0
      let offset = start &+ skipped
      // Half of what 32 bits can name, so that threads racing past the end cannot wrap the cursor.
      guard offset < UInt32.max / 2, offset >> 18 < UInt32(Self.chunkLimit) else { return nil }
      // Before the cursor moves: everything below it is always there to be read.
      guard chunk(offset >> 18) != nil else { return nil }
      guard
        cursor.compareExchange(
          expected: start, desired: offset &+ words, ordering: .relaxed
        ).exchanged
      else { continue }
      return offset
    }
  }

  /// The address of words that `allocate` gave out.
  @inline(__always)
  package func address(_ offset: UInt32) -> UnsafeMutableRawPointer {
    // Not nil: whoever has the offset has seen its chunk made.
    existingChunk(offset >> 18).unsafelyUnwrapped
      + Int(offset & (Self.chunkWordCount &- 1)) &* 4
  }

  /// The address of words, if their chunk was ever used.
  func addressIfMapped(_ offset: UInt32) -> UnsafeMutableRawPointer? {
    guard directory.load(ordering: .acquiring) != 0 else { return nil }
    guard let base = existingChunk(offset >> 18) else { return nil }
    return base + Int(offset & (Self.chunkWordCount &- 1)) &* 4
  }

  /// Has words be there that nobody has asked for; `false` where there is no memory. For arenas whose
  /// offsets are another's numbers.
  func makeRoom(at offset: UInt32) -> Bool {
    guard offset >> 18 < UInt32(Self.chunkLimit), chunk(offset >> 18) != nil else { return false }
    // As far as it is used: more than one thread may be on its way.
    cursor.max(offset &+ 1, ordering: .relaxed)
    return true
  }

  /// Has the pages of so many words at the beginning be there, so that using them takes no memory.
  package func prepare(words: UInt32) {
    var offset: UInt32 = 0
    while offset < words, offset >> 18 < UInt32(Self.chunkLimit) {
      guard let base = chunk(offset >> 18) else { return }
      System.touch(base, Int(min(words &- offset, Self.chunkWordCount)) &* 4)
      offset &+= Self.chunkWordCount
    }
  }

  /// Begins anew and keeps the pages, with what is in them. Nobody may hold an offset any more.
  package func rewind(reserving words: UInt32) {
    cursor.store(words, ordering: .releasing)
  }

  /// Gives all pages back. Nobody may hold an offset any more.
  package func discard(reserving words: UInt32) {
    guard directory.load(ordering: .acquiring) != 0 else { return }
    for index in 0..<UInt32(Self.chunkLimit) { slot(index).pointee.discard(Self.chunkByteCount) }
    cursor.store(words, ordering: .releasing)
  }

  @inline(__always)
  private func slot(_ index: UInt32) -> UnsafeMutablePointer<Atomic<UInt>> {
    UnsafeMutablePointer<Atomic<UInt>>(
      bitPattern: directory.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(index)
  }

  @inline(__always)
  private func existingChunk(_ index: UInt32) -> UnsafeMutableRawPointer? {
    slot(index).pointee.mapped
  }

  private func chunk(_ index: UInt32) -> UnsafeMutableRawPointer? {
    guard directory.load(ordering: .acquiring) != 0 else { return nil }
    return slot(index).pointee.mapConcurrently(Self.chunkByteCount)?.base
  }
}
