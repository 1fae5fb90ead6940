// SPDX-License-Identifier: Apache-2.0
// Which memory may be read without asking the kernel again.

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
    (address &- low < lastOffset && address & 7 == 0) || probe(address)
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

/// A few pages of the heap that were found to be readable: those that async contexts lie in.
///
/// Kept from walk to walk, since what an async function's frame leads to is alive. Where an address is
/// only a guess, it is to be asked of fresh ones: a page may be gone by now. All zero is empty.
package struct ReadablePages {
  private var pages: InlineArray<8, UInt>

  package init() { pages = InlineArray(repeating: 0) }

  /// Whether an aligned word can be read. Cost: a load; a system call for a page that is not kept.
  @inline(__always)
  package mutating func canRead(_ address: UInt) -> Bool {
    let page = address & ~4095
    let slot = Int(truncatingIfNeeded: page >> 12 & 7)
    // Page 0 is nobody's.
    if pages[slot] == page, page != 0 { return address & 7 == 0 }
    return probe(address, page, slot)
  }

  @inline(never)
  private mutating func probe(_ address: UInt, _ page: UInt, _ slot: Int) -> Bool {
    guard address & 7 == 0, page != 0, page < LiveMap.addressLimit, System.isReadable(page) else {
      return false
    }
    pages[slot] = page
    return true
  }
}

/// Reads an aligned word that was found readable.
@inline(__always)
func stackWord(_ address: UInt) -> UInt {
  // Not nil: no page below the first 4 KiB was ever found readable.
  UnsafePointer<UInt>(bitPattern: address).unsafelyUnwrapped.pointee
}
