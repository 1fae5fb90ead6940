// SPDX-License-Identifier: Apache-2.0
// Marks what can be reached, and tells what is lost from what only the lost lead to.

import CTracerPlatform

/// One look at all memory. No other thread of the process runs meanwhile.
///
/// Conservative: what looks like the address of a block is one. Pointers are taken as they are, without
/// what Swift keeps in the bits that an address does not need.
struct LeakMark {
  /// From here on, pages of a block that were never written to are not read.
  private static var sparseByteCount: UInt { 1 << 20 }

  private(set) var index: BlockIndex
  private var mapped: MappedRanges
  private let pages: PageMap
  private let core: UnsafeMutablePointer<Core>
  private let deadline: UInt64
  private(set) var isLate = false
  private(set) var rootByteCount: UInt64 = 0

  /// The allocator's own words, where it is glibc's.
  private let libc: Range<UInt>
  /// Whether recording began with the first allocation: the rest of the heap is free memory.
  private let knowsAllBlocks: Bool
  /// The tracer's state, which is not the program's.
  private let ownState: Range<UInt>

  init(
    _ core: UnsafeMutablePointer<Core>, _ index: BlockIndex, _ mapped: MappedRanges,
    _ pages: PageMap, deadline: UInt64
  ) {
    (self.core, self.index, self.mapped, self.pages) = (core, index, mapped, pages)
    self.deadline = deadline
    knowsAllBlocks = core.pointee.hasSeenFirstAllocation
    let state = UInt(bitPattern: core)
    ownState = state..<state &+ UInt(TRACER_CORE_BYTE_COUNT)
    libc = core.glibcRange
  }

  // MARK: Words

  /// Marks what a word points to.
  @inline(__always)
  mutating func visit(_ word: UInt) {
    if let block = block(of: word) { mark(block) }
    if let block = sideTable(of: word) { mark(block) }
  }

  /// Swift keeps what it must in the upper eight bits and the lower three: the discriminator of a string,
  /// the case of an enumeration. (SWIFT_ABI_X86_64_SWIFT_SPARE_BITS_MASK)
  @inline(__always)
  private func block(of word: UInt) -> UInt32? {
    let address = word & 0x00ff_ffff_ffff_ffff
    guard address &- index.low < index.high &- index.low else { return nil }
    return index.block(at: address, core.pointee.map)
  }

  /// The counts of an object that has, or had, weak references: the address of a block that has them, in
  /// units of eight, below two bits that are set. (RefCount.h of Swift's runtime)
  @inline(__always)
  private func sideTable(of word: UInt) -> UInt32? {
    guard word >> 62 == 3 else { return nil }
    let shifted = word & (1 << 62 &- 1)
    guard shifted >> 44 == 0 else { return nil }
    let address = shifted << 3
    guard address &- index.low < index.high &- index.low else { return nil }
    return index.block(at: address, core.pointee.map)
  }

  @inline(__always)
  private mutating func mark(_ block: UInt32) {
    guard !index.has(.marked, block) else { return }
    index.set(.marked, block)
    index.push(block)
  }

  @inline(__always)
  private mutating func visit(from start: UInt, to end: UInt) {
    var address = (start &+ 7) & ~7
    let last = end & ~7
    while address < last {
      visit(stackWord(address))
      address &+= 8
    }
  }

  // MARK: Blocks

  /// Marks all that the marked lead to. To be called before the worklist can be full: it holds every block.
  mutating func flood() {
    while let block = index.pop() {
      guard !isTooLate() else { return }
      forEachWord(of: block) { $0.visit($1) }
    }
  }

  private mutating func isTooLate() -> Bool {
    // A look at the clock for some thousand blocks.
    ticks &+= 1
    if ticks & 0xfff == 0, System.monotonicTime > deadline { isLate = true }
    return isLate
  }
  private var ticks: UInt32 = 0

  /// Calls the body for each word of a block that can be read: programs protect pages of their blocks.
  @inline(__always)
  private mutating func forEachWord(
    of block: UInt32, _ body: (_ mark: inout LeakMark, _ word: UInt) -> Void
  ) {
    let start = index.address(block)
    let end = start &+ index.byteCount(block, core.pointee.map)
    var address = start
    while address < end {
      guard let range = mapped.range(at: address) else {
        address = (address | 4095) &+ 1
        continue
      }
      let stop = min(end, range.end)
      if stop &- address < Self.sparseByteCount {
        forEachWord(from: address, to: stop, body)
      } else {
        let (pages, first) = (pages, address)
        pages.forEachPresent(address & ~4095, (stop &+ 4095) & ~4095, isShared: true) {
          guard !isLate else { return }
          forEachWord(from: max($0, first), to: min($1, stop), body)
          if System.monotonicTime > deadline { isLate = true }
        }
      }
      address = stop
    }
  }

  @inline(__always)
  private mutating func forEachWord(
    from start: UInt, to end: UInt, _ body: (_ mark: inout LeakMark, _ word: UInt) -> Void
  ) {
    var address = (start &+ 7) & ~7
    let last = end & ~7
    while address < last {
      body(&self, stackWord(address))
      address &+= 8
    }
  }

  // MARK: The lost

  /// Tells the lost blocks apart: which of them others lead to.
  ///
  /// A block that another lost one points to is indirect, as LeakSanitizer has it. Of blocks that are
  /// lost in a circle each would be, and none to blame: one stands for the circle, and is lost.
  mutating func sortLost() {
    forEachLost { mark, block in
      mark.forEachWord(of: block) { mark, word in
        mark.forEachLostTarget(of: word) { mark, target in
          if target != block { mark.index.set(.isPointedTo, target) }
        }
      }
    }
    forEachLost { mark, block in
      if !mark.index.has(.isPointedTo, block) { mark.visitLost(from: block) }
    }
    visitCircles()
  }

  /// Visits what no lost block without a pointer to it leads to: what is in a circle, or behind one.
  ///
  /// By the age of their sites, so that of many circles that are alike it is the same that stand for them.
  private mutating func visitCircles() {
    var count = 0
    forEachLost { mark, block in
      guard !mark.index.has(.visited, block) else { return }
      mark.index.order[count] = block
      count &+= 1
    }
    let index = index
    let core = core
    func site(_ block: UInt32) -> UInt32 {
      core.pointee.map.find(index.address(block), epoch: index.epoch)?.site ?? 0
    }
    HeapSort.sort(index.order, count) { left, right in
      let (leftSite, rightSite) = (site(left), site(right))
      return leftSite != rightSite ? leftSite < rightSite : left < right
    }
    for position in 0..<count {
      let block = index.order[position]
      guard !self.index.has(.visited, block), !isTooLate() else { continue }
      self.index.clear(.isPointedTo, block)
      visitLost(from: block)
    }
  }

  @inline(__always)
  private mutating func forEachLost(_ body: (_ mark: inout LeakMark, _ block: UInt32) -> Void) {
    var block: UInt32 = 0
    while block < index.count, !isTooLate() {
      if !index.has(.marked, block) { body(&self, block) }
      block &+= 1
    }
  }

  @inline(__always)
  private mutating func forEachLostTarget(
    of word: UInt, _ body: (_ mark: inout LeakMark, _ target: UInt32) -> Void
  ) {
    if let target = block(of: word), !index.has(.marked, target) { body(&self, target) }
    if let target = sideTable(of: word), !index.has(.marked, target) { body(&self, target) }
  }

  /// Visits what a lost block leads to. Who stood for a circle, and is met on the way, was behind one.
  private mutating func visitLost(from first: UInt32) {
    index.set(.visited, first)
    index.push(first)
    while let block = index.pop() {
      guard !isTooLate() else { return }
      forEachWord(of: block) { mark, word in
        mark.forEachLostTarget(of: word) { mark, target in
          if target != first { mark.index.set(.isPointedTo, target) }
          guard !mark.index.has(.visited, target) else { return }
          mark.index.set(.visited, target)
          mark.index.push(target)
        }
      }
    }
  }

  // MARK: Roots

  /// Visits all memory that is neither a block's nor the allocator's nor ours.
  mutating func visitRoots(_ threads: borrowing StoppedThreads, workerStack: UInt) {
    var position = 0
    while position < mapped.count, !isLate {
      let range = mapped[position]
      position &+= 1
      guard range.kind.contains(.root) else { continue }
      if knowsAllBlocks, !libc.isEmpty, range.kind.contains(.heap) { continue }
      visitRoots(of: range, from: liveStart(of: range, threads, workerStack: workerStack))
    }
  }

  /// Where what is alive of a mapping begins: a stack's is above its stack pointer.
  ///
  /// Below it is what calls have left that are over. Only what is a stack for certain is cut: the main
  /// thread's, and what lies directly on a page that nobody may touch.
  private mutating func liveStart(
    of range: MappedRange, _ threads: borrowing StoppedThreads, workerStack: UInt
  ) -> UInt {
    let isStack = range.kind.contains(.guarded) || range.kind.contains(.mainStack)
    guard isStack else { return range.start }
    if range.start <= workerStack, workerStack < range.end { return workerStack }
    if let stackPointer = threads.stackPointer(in: range.start..<range.end) {
      // What a leaf function keeps below its stack pointer. (System V ABI, AMD64 supplement, 3.2.2.)
      return max(range.start, stackPointer &- 128)
    }
    guard let thread = ThreadBlock.ended(in: range) else { return range.start }
    // glibc keeps the stacks of ended threads for the next: with them what they had on it, and the
    // table of their thread-local data, which is a block.
    if thread.isJoined {
      visit(stackWord(thread.address &+ 8))
      return range.end
    }
    return thread.address
  }

  private mutating func visitRoots(of range: MappedRange, from start: UInt) {
    // Whole pages with a block are the allocator's, which owns what is between its blocks: free memory,
    // in which stale pointers are. Blocks from before the recording are not known, and so that counts.
    var address = start
    var block = index.firstBlock(reaching: start, core.pointee.map)
    while address < range.end, !isLate {
      var (stop, next) = (range.end, range.end)
      if let found = block, index.address(found) < range.end {
        let blockStart = index.address(found)
        let blockEnd = blockStart &+ index.byteCount(found, core.pointee.map)
        stop = knowsAllBlocks ? blockStart & ~4095 : blockStart
        next = knowsAllBlocks ? (blockEnd &+ 4095) & ~4095 : blockEnd
        block = found &+ 1 < index.count ? found &+ 1 : nil
      }
      if address < stop { visit(range, from: address, to: stop) }
      address = max(address, next)
    }
  }

  /// Visits what is there of a range, without the heaps of glibc's other arenas and our own state.
  private mutating func visit(_ range: MappedRange, from start: UInt, to end: UInt) {
    let (pages, libc, ownState) = (pages, libc, ownState)
    let isShared = range.kind.contains(.shared)
    pages.forEachPresent(start & ~4095, (end &+ 4095) & ~4095, isShared: isShared) { first, last in
      guard !isLate else { return }
      var address = max(first, start)
      let stop = min(last, end)
      while address < stop {
        if let heapEnd = arenaEnd(at: address) {
          address = heapEnd
          continue
        }
        // Up to where the next arena might begin.
        var part = min(stop, (address | ArenaHeap.mask) &+ 1)
        if ownState.contains(address) {
          address = ownState.upperBound
          continue
        }
        if address < ownState.lowerBound { part = min(part, ownState.lowerBound) }
        rootByteCount = rootByteCount &+ UInt64(part &- address)
        if libc.contains(address) {
          visitLibc(from: address, to: part)
        } else {
          visit(from: address, to: part)
        }
        address = part
      }
      if System.monotonicTime > deadline { isLate = true }
    }
  }

  private mutating func arenaEnd(at address: UInt) -> UInt? {
    guard knowsAllBlocks, !libc.isEmpty,
      let range = mapped.range(at: address & ~ArenaHeap.mask)
    else { return nil }
    return ArenaHeap.end(at: address, in: range)
  }

  /// libc's own data has the main arena, whose lists name free chunks by their headers. The header of the
  /// chunk behind a block lies in the block's last eight bytes: it must not keep that block.
  private mutating func visitLibc(from start: UInt, to end: UInt) {
    var address = (start &+ 7) & ~7
    let last = end & ~7
    while address < last {
      let word = stackWord(address)
      address &+= 8
      if let block = block(of: word), isHeader(word, behind: block) { continue }
      visit(word)
    }
  }

  private func isHeader(_ word: UInt, behind block: UInt32) -> Bool {
    let start = index.address(block)
    guard word & 15 == 0, word &- start >= 16 else { return false }
    // The size of the block's own chunk, with three flags. (malloc/malloc.c)
    return stackWord(start &- 8) & ~7 == word &- start &+ 16
  }
}

/// A heap of one of glibc's arenas but the first: 64 MiB at most, at a multiple of that. (malloc/arena.c)
private enum ArenaHeap {
  static var mask: UInt { (1 << 26) &- 1 }

  /// The end of the heap that an address lies in; `nil` where it does not look like one.
  static func end(at address: UInt, in range: MappedRange) -> UInt? {
    let start = address & ~mask
    guard range.kind.contains(.anonymous), range.start <= start, start &+ 48 <= range.end else {
      return nil
    }
    // struct heap_info: the arena, the heap before it, its size, and how much of it was ever usable.
    let (arena, previous) = (stackWord(start), stackWord(start &+ 8))
    let (size, usable) = (stackWord(start &+ 16), stackWord(start &+ 24))
    guard size != 0, size & 4095 == 0, usable & 4095 == 0, size <= usable, usable <= mask &+ 1,
      previous == 0 ? arena & ~mask == start : previous & mask == 0 && arena & ~mask != start,
      address < start &+ usable
    else { return nil }
    return start &+ usable
  }
}

/// glibc's description of a thread, at the end of its stack.
private struct ThreadBlock {
  let address: UInt
  let isJoined: Bool

  /// That of a thread which has ended; `nil` where there is none, or it lives.
  static func ended(in range: MappedRange) -> ThreadBlock? {
    guard range.end &- range.start >= 16384 else { return nil }
    var address = (range.end &- 1024) & ~63
    while address >= range.end &- 8192 {
      // tcbhead_t begins with its own address and has it again at 16; the thread's number is behind it,
      // 0 once the kernel has seen it end, -1 once it was joined. (nptl/descr.h)
      if stackWord(address) == address, stackWord(address &+ 16) == address {
        let number = Int32(truncatingIfNeeded: stackWord(address &+ 720))
        return number > 0 ? nil : ThreadBlock(address: address, isJoined: number < 0)
      }
      address &-= 64
    }
    return nil
  }
}
