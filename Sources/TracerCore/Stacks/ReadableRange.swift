// SPDX-License-Identifier: Apache-2.0
// Which part of a stack may be read without asking the kernel again.

import CTracerPlatform
import Synchronization

/// A run of pages that were found to be readable: the part of a thread's stack that walks have seen.
///
/// An exact unwind of a sound stack reads nothing else than that stack. Hand-written code, generated
/// code and smashed stacks are why every read is checked all the same. All zero is an empty range.
package struct ReadableRange {
  private var low: UInt
  /// The range's length less eight, so that one comparison checks a whole word; 0 where empty.
  private var lastOffset: UInt

  package init() {
    low = 0
    lastOffset = 0
  }

  /// Forgets the range if a walk begins outside it: on another stack than the last, which may be gone.
  @inline(__always)
  package mutating func begin(at stackPointer: UInt) {
    if stackPointer &- low >= lastOffset { self = ReadableRange() }
  }

  /// Whether an aligned word can be read. Cost: a comparison; a system call for a page not yet seen.
  @inline(__always)
  package mutating func canRead(_ address: UInt) -> Bool {
    if coversWord(address) { return true }
    // A copy, so that the range stays in registers for whom all is there.
    var range = self
    let isReadable = range.probe(address)
    self = range
    return isReadable
  }

  /// Whether a word, aligned or not, lies in what was found readable.
  @inline(__always)
  package func covers(_ address: UInt) -> Bool { address &- low < lastOffset }

  /// Whether an aligned word lies in what was found readable.
  @inline(__always)
  func coversWord(_ address: UInt) -> Bool { covers(address) && address & 7 == 0 }

  /// Finds out whether all of a stretch that begins in or below the range can be read.
  package mutating func cover(_ start: UInt, _ byteCount: UInt) -> Bool {
    let last = start &+ byteCount
    guard !covers(last) else { return true }
    var address = covers(start) ? low &+ lastOffset &+ 7 : start & ~7
    while address <= last {
      guard canRead(address & ~7) else { return false }
      address = (address & ~4095) &+ 4096
    }
    return covers(last)
  }

  @inline(never)
  private mutating func probe(_ address: UInt) -> Bool {
    guard address & 7 == 0, address >= 4096, address < LiveMap.addressLimit else { return false }
    let page = address & ~4095
    guard System.isReadable(page) else { return false }
    let high = lastOffset == 0 ? low : low &+ lastOffset &+ 7
    if lastOffset != 0, page == high {
      lastOffset &+= 4096
    } else if lastOffset != 0, page &+ 4096 == low {
      low = page
      lastOffset &+= 4096
    } else {
      low = page
      lastOffset = 4096 &- 7
    }
    return true
  }
}

/// Pages of the heap that were found to be readable: those that async contexts lie in.
///
/// A context lives as long as the function whose context it is, so that what was readable for it is.
/// All zero knows of no page.
package struct ReadablePages {
  private var pages: InlineArray<16, UInt>

  package init() { pages = InlineArray(repeating: 0) }

  /// Whether an aligned word can be read. Cost: a comparison; a system call for a page not yet seen.
  @inline(__always)
  package mutating func canRead(_ address: UInt) -> Bool {
    // Kept one higher, so that an empty slot is no page, and not the first one.
    let page = address >> 12
    return address & 7 == 0 && (pages[unchecked: Int(page & 15)] == page &+ 1 || probe(address))
  }

  @inline(never)
  private mutating func probe(_ address: UInt) -> Bool {
    guard address & 7 == 0, address >= 4096, address < LiveMap.addressLimit,
      System.isReadable(address & ~4095)
    else { return false }
    pages[unchecked: Int(address >> 12 & 15)] = address >> 12 &+ 1
    return true
  }
}

/// Pages of modules' code that were found to be readable, by any thread. Code may be executed and not read.
///
/// All zero knows of no page.
package struct ReadableCode: ~Copyable {
  private static var count: Int { 64 }
  private let pages: InlineArray<64, Atomic<UInt>>

  /// Whether eight bytes of a module that has a frame on a stack can be read. Cost: a comparison; a system call
  /// for a page not seen lately, and where they lie in two.
  borrowing func canRead(_ address: UInt) -> Bool {
    guard address >= 4096, address < LiveMap.addressLimit else { return false }
    let page = address >> 12
    guard address & 4095 <= 4088 else { return System.isReadable(address) }
    // Kept one higher, so that an empty slot is no page.
    let slot = Int(page) & (Self.count &- 1)
    if pages[slot].load(ordering: .relaxed) == page &+ 1 { return true }
    guard System.isReadable(address) else { return false }
    pages[slot].store(page &+ 1, ordering: .relaxed)
    return true
  }

  /// Forgets all pages: a module is unloaded.
  borrowing func forget() {
    for slot in 0..<Self.count { pages[slot].store(0, ordering: .relaxed) }
  }
}

/// Reads an aligned word of the stack that was found readable.
@inline(__always)
func stackWord(_ address: UInt) -> UInt {
  // Not nil: no page below the first 4 KiB was ever found readable.
  UnsafePointer<UInt>(bitPattern: address).unsafelyUnwrapped.pointee
}
