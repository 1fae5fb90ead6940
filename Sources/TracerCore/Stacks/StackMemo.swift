// SPDX-License-Identifier: Apache-2.0
// Whole stacks that a thread has seen more than once, found again without a walk.

import CTracerPlatform
import Synchronization

/// A place in the search for a remembered stack.
///
/// The first node is named by return address and stack pointer. Where several stacks have both in
/// common, the node names the first word of the stack in which two of them were seen to differ, and its
/// value leads on to the next node. The stacks behind a node have in common what comes before its word.
struct MemoNode {
  /// 0 where the slot is free.
  var key: UInt64
  /// The word to look at next, as far behind the registers of the call; or one of the two below.
  var discriminator: Int32
  /// Where the entry is in the arena, in units of 16 bytes; of any node but a leaf, one of those behind
  /// it, which tells what a walk reads before that word.
  var entry: UInt32

  /// Whether this asks for what comes after another discriminator.
  func isAfter(_ other: Int32) -> Bool {
    other != Self.leaf && (discriminator == Self.leaf || other < discriminator)
  }

  static var leaf: Int32 { -1 }
  /// Where rbp is, which comes before all words of the stack.
  static var framePointer: Int32 { 8 }
  /// Where the return address of the call is.
  static var returnAddress: Int32 { 48 }
  /// Who awaits: behind all words of the stack.
  static var awaiting: Int32 { .max }
  /// Slots that a key may be in, from the one that its hash names.
  static var probeLimit: Int { 4 }
  static var stepLimit: Int { 32 }

  @inline(__always)
  static func key(at registers: UInt, after returnAddress: UInt64) -> UInt64 {
    // A stack pointer's low bits tell the most, and a product's high bits depend on all of its factor's.
    ((returnAddress ^ UInt64(registers).byteSwapped) &* 0x9E37_79B9_7F4A_7C15) | 1
  }

  /// The key of the node behind this one. It does not depend on what comes before, so that a node can
  /// be put between two others.
  @inline(__always)
  func keyBehind(_ word: UInt) -> UInt64 {
    let name = UInt64(entry) << 32 | UInt64(UInt32(bitPattern: discriminator))
    let mixed =
      (name &* 0xD6E8_FEB8_6659_FD93 ^ UInt64(word)) &* 0xBF58_476D_1CE4_E5B9
    return (mixed ^ mixed &>> 32) &* 0x9E37_79B9_7F4A_7C15 | 1
  }
}

/// A remembered stack: where it began, its site, and every word that a walk of it reads.
///
/// Behind it lie the words in groups of four, in the order of a walk: rbp if that is a part of it, as it lies among
/// the registers of the call, and those of the stack. A stack of a Swift task ends where its context is kept, and has
/// the number of those who await behind it. See `AwaitingStack`.
struct MemoEntry {
  /// Where the registers of the call lie, right before the stack.
  var registers: UInt
  var returnAddress: UInt64
  /// The word of the stack that is the farthest away.
  var farthest: UInt
  var site: UInt32
  /// Not 0 where there is more to it than the words of the stack.
  var flags: UInt32
  /// Where its last group ends. It has one at least.
  var end: UnsafeMutableRawPointer
  /// Where from the registers on the context of a task is kept, and the task itself, if an executor tells it.
  var contextOffset: Int32
  var taskOffset: Int32
  /// Who awaits it, 0 of a stack that is no task's.
  var awaitingSite: UInt32
  /// Where in the arena the entries are that came next, each at a place that tells where its stack begins.
  var followers = InlineArray<8, UInt32>(repeating: 0)

  /// Added to the site that `rememberedSite` answers where the stack is but to be counted as truncated.
  static var truncatedSite: UInt32 { 1 << 31 }
  static var isAwaited: UInt32 { 1 }
  static var isTruncated: UInt32 { 2 }
  /// The task is told by its executor.
  static var isExecuted: UInt32 { 4 }
}

/// Four words. Short of four, the last is there more than once.
struct MemoGroup {
  /// How far behind the registers of the call they are, two in each: loads are what a comparison spends its
  /// time on.
  private var o01, o23: UInt64
  private var v0, v1, v2, v3: UInt

  init(_ c0: StackCheck, _ c1: StackCheck, _ c2: StackCheck, _ c3: StackCheck, from start: UInt) {
    o01 = UInt64(c0.address &- start) | UInt64(c1.address &- start) << 32
    o23 = UInt64(c2.address &- start) | UInt64(c3.address &- start) << 32
    (v0, v1, v2, v3) = (c0.value, c1.value, c2.value, c3.value)
  }

  /// One after the other: behind a word that is another one the stack may have ended since.
  @inline(__always)
  func differs(from start: UInt) -> Bool {
    if Self.differ(start, o01, v0, v1) { return true }
    return Self.differ(start, o23, v2, v3)
  }

  @inline(__always)
  private static func differ(
    _ start: UInt, _ offsets: UInt64, _ first: @autoclosure () -> UInt,
    _ second: @autoclosure () -> UInt
  ) -> Bool {
    let word = stackWord(start &+ UInt(UInt32(truncatingIfNeeded: offsets)))
    if word != first() { return true }
    return stackWord(start &+ UInt(offsets >> 32)) != second()
  }

  @inline(__always)
  func isSame(as other: MemoGroup) -> Bool {
    o01 == other.o01 && v0 == other.v0 && v1 == other.v1 && o23 == other.o23 && v2 == other.v2
      && v3 == other.v3
  }

  @inline(__always)
  func word(_ position: Int) -> (offset: Int32, value: UInt) {
    switch position & 3 {
    case 0: return (Int32(truncatingIfNeeded: o01), v0)
    case 1: return (Int32(truncatingIfNeeded: o01 >> 32), v1)
    case 2: return (Int32(truncatingIfNeeded: o23), v2)
    default: return (Int32(truncatingIfNeeded: o23 >> 32), v3)
    }
  }
}

extension UnsafeMutablePointer where Pointee == MemoEntry {
  @inline(__always)
  var groups: UnsafeMutablePointer<MemoGroup> {
    UnsafeMutableRawPointer(self + 1).assumingMemoryBound(to: MemoGroup.self)
  }

  var groupCount: Int {
    (pointee.end - UnsafeMutableRawPointer(groups)) / MemoryLayout<MemoGroup>.stride
  }

  /// Whether a walk from here would read on the stack what it read when this was remembered.
  @inline(__always)
  func isStillTrue(
    _ registers: UnsafePointer<tracer_registers>, _ readable: ReadableRange
  ) -> Bool {
    let start = UInt(bitPattern: registers)
    guard pointee.registers == start,
      pointee.returnAddress == registers.pointee.return_address,
      readable.covers(pointee.farthest)
    else { return false }
    var group = groups
    repeat {
      if group.pointee.differs(from: start) { return false }
      group += 1
    } while UnsafeMutableRawPointer(group) != pointee.end
    return true
  }

  /// Whether a walk from here would read a word of the stack that it read when this was remembered:
  /// all before it are what they were.
  @inline(never)
  func leads(to discriminator: Int32, _ registers: UnsafePointer<tracer_registers>) -> Bool {
    let start = UInt(bitPattern: registers)
    for position in 0..<(4 &* groupCount) {
      let (offset, value) = groups[position / 4].word(position)
      if offset == discriminator { return true }
      if stackWord(start &+ UInt(bitPattern: Int(offset))) != value { return false }
    }
    return false
  }

  /// The site, with `truncatedSite` where the stack is a truncated one.
  @inline(__always)
  var markedSite: UInt32 {
    pointee.flags & MemoEntry.isTruncated == 0
      ? pointee.site : pointee.site | MemoEntry.truncatedSite
  }

  /// Who awaits the task whose stack this is still true of; 0 where they are not known for sure.
  @inline(__always)
  func awaitingSite(
    _ registers: UnsafePointer<tracer_registers>, _ cache: UnsafeMutablePointer<StackCache>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    cache.awaitingSite(context(registers), of: task(registers), core, thread)
  }

  /// Whether those who await are found at once, and are those of this entry.
  @inline(__always)
  func isAwaitedStill(
    _ registers: UnsafePointer<tracer_registers>, _ cache: UnsafeMutablePointer<StackCache>
  ) -> Bool {
    pointee.flags & MemoEntry.isAwaited == 0
      || cache.knownAwaitingSite(context(registers), of: task(registers)) == pointee.awaitingSite
  }

  /// The context of the task, as it is on the stack now.
  @inline(__always)
  private func context(_ registers: UnsafePointer<tracer_registers>) -> UInt {
    stackWord(UInt(bitPattern: registers) &+ UInt(bitPattern: Int(pointee.contextOffset)))
  }

  /// The task; 0 where it need not be looked at.
  @inline(__always)
  private func task(_ registers: UnsafePointer<tracer_registers>) -> UInt {
    pointee.flags & MemoEntry.isExecuted == 0
      ? 0 : stackWord(UInt(bitPattern: registers) &+ UInt(bitPattern: Int(pointee.taskOffset)))
  }
}

// MARK: Looking

extension UnsafeMutablePointer where Pointee == StackCache {
  /// The entry of the stack that begins at these registers, as far as the stack tells; `nil` where it is
  /// not remembered.
  ///
  /// Cost: two and a half loads for each word of the stack, and a few for each node.
  @inline(__always)
  private func remembered(
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<MemoEntry>? {
    var key = MemoNode.key(at: UInt(bitPattern: registers), after: registers.pointee.return_address)
    let shift = UInt64(pointee.nodeShift)
    var steps = MemoNode.stepLimit
    while steps > 0 {
      steps &-= 1
      var node = nodes + Int(truncatingIfNeeded: key &>> shift)
      if node.pointee.key != key {
        node += 1
        if node.pointee.key != key {
          node += 1
          if node.pointee.key != key {
            node += 1
            if node.pointee.key != key { return nil }
          }
        }
      }
      let discriminator = node.pointee.discriminator
      if discriminator == MemoNode.leaf {
        let entry = self.entry(node.pointee.entry)
        return entry.isStillTrue(registers, thread.pointee.readable) ? entry : nil
      }
      guard let word = word(node.pointee, registers, core, thread) else { return nil }
      key = node.pointee.keyBehind(word)
    }
    return nil
  }

  /// The entry that was foreseen for the stack that begins at these registers; `nil` where it is not true of its
  /// words. It is noted as the right one: whoever finds that it is not notes another one (`expect`), or that
  /// there is none (`noteNone`).
  @inline(__always)
  func foreseenEntry(
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<MemoEntry>? {
    let place = place(registers)
    let last = pointee.last
    // Each of these before the next is asked for, so that it need not be kept meanwhile: registers are what this
    // needs most.
    pointee.lastButOne = last
    let next = entry(at: last).pointee.followers[unchecked: place]
    pointee.last = next
    let expected = entry(at: next)
    return expected.isStillTrue(registers, thread.pointee.readable) ? expected : nil
  }

  /// Notes that what was foreseen was wrong, and that nobody knows better.
  private func noteNone() { pointee.last = pointee.lastButOne }

  /// Notes that an entry was the right one, and is to be foreseen where it was not.
  private func expect(
    _ entry: UnsafeMutablePointer<MemoEntry>, _ registers: UnsafePointer<tracer_registers>
  ) {
    pointee.last = UInt32(truncatingIfNeeded: UnsafeMutableRawPointer(entry) - arena)
    let before = self.entry(at: pointee.lastButOne)
    let place = place(registers)
    // What was wrong only makes room, and the next one is kept: where it is one after another, half of them are
    // searched for at once, which takes less than to look at the wrong one first.
    before.pointee.followers[unchecked: place] =
      before.pointee.followers[unchecked: place] == 0 ? pointee.last : 0
  }

  /// The site of the stack that begins at these registers; 0 where it is not remembered. With
  /// `truncatedSite` where the stack is a truncated one.
  @inline(never)
  func rememberedSite(
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    guard let entry = foreseenEntry(registers, thread) else {
      return searchedSite(registers, core, thread)
    }
    return foreseenSite(entry, registers, core, thread)
  }

  /// As `rememberedSite`, of a stack for which an entry was foreseen that is true of its words.
  @inline(__always)
  func foreseenSite(
    _ entry: UnsafeMutablePointer<MemoEntry>, _ registers: UnsafePointer<tracer_registers>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    let site = siteIfAwaited(entry, registers, core, thread)
    return site != 0 ? site : searchedSite(registers, core, thread)
  }

  /// As `rememberedSite`, of a stack that was not foreseen.
  @inline(never)
  func searchedSite(
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    if let entry = remembered(registers, core, thread) {
      let site = siteIfAwaited(entry, registers, core, thread)
      if site != 0 {
        expect(entry, registers)
        return site
      }
    }
    noteNone()
    return 0
  }

  /// The place of a stack that begins like this among those that an entry may be followed by.
  ///
  /// A program's next allocation depends on what it does, and on its data: of a parser's, what came after the
  /// last one the last time was right for half of them, and with where the call is in addition, for nine in ten.
  @inline(__always)
  private func place(_ registers: UnsafePointer<tracer_registers>) -> Int {
    // Of the low halves: a multiplication by so small a number takes no register for it.
    let start =
      UInt32(truncatingIfNeeded: registers.pointee.return_address)
      ^ UInt32(truncatingIfNeeded: UInt(bitPattern: registers)) << 8
    return Int((start &* 0x9E37_79B1) >> 29)
  }

  @inline(__always)
  private func entry(at offset: UInt32) -> UnsafeMutablePointer<MemoEntry> {
    (arena + Int(offset)).assumingMemoryBound(to: MemoEntry.self)
  }

  /// The marked site of an entry that is true of the stack, if those await who are to; else 0.
  @inline(__always)
  func siteIfAwaited(
    _ entry: UnsafeMutablePointer<MemoEntry>, _ registers: UnsafePointer<tracer_registers>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    guard
      entry.pointee.flags & MemoEntry.isAwaited == 0
        || entry.awaitingSite(registers, self, core, thread) == entry.pointee.awaitingSite
    else { return 0 }
    return entry.markedSite
  }

  @inline(__always)
  private func entry(_ number: UInt32) -> UnsafeMutablePointer<MemoEntry> {
    entry(at: number &* 16)
  }

  /// The word that a node asks for, as it is now.
  ///
  /// What was found readable may not be so any longer: a stack that has begun where another one was may
  /// end before that did. The stack pointer's own page is there, and any other if the walk leads to it.
  @inline(__always)
  private func word(
    _ node: MemoNode, _ registers: UnsafePointer<tracer_registers>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt? {
    if node.discriminator == MemoNode.framePointer { return UInt(registers.pointee.rbp) }
    if node.discriminator == MemoNode.awaiting {
      return who(awaits: entry(node.entry), registers, core, thread)
    }
    let readable = thread.pointee.readable
    let stackPointer = UInt(bitPattern: registers + 1)
    let address = UInt(bitPattern: registers) &+ UInt(bitPattern: Int(node.discriminator))
    guard
      address >> 12 == stackPointer >> 12
        || readable.covers(address) && entry(node.entry).leads(to: node.discriminator, registers)
    else { return nil }
    return stackWord(address)
  }

  @inline(never)
  private func who(
    awaits entry: UnsafeMutablePointer<MemoEntry>, _ registers: UnsafePointer<tracer_registers>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt? {
    guard entry.isStillTrue(registers, thread.pointee.readable) else { return nil }
    let site = entry.awaitingSite(registers, self, core, thread)
    return site == 0 ? nil : UInt(site)
  }
}

// MARK: Remembering

extension UnsafeMutablePointer where Pointee == StackCache {
  /// Begins anew, for a recording and the modules of this moment.
  @inline(never)
  func begin(_ epoch: UInt32, _ moduleGeneration: UInt32, nodeBits: UInt32) {
    pointee.frameCount = 0
    forgetAwaiting()
    pointee.windowLength = 0
    pointee.pauseLength = 0
    pointee.pauseLeft = 0
    pointee.misses = 0
    pointee.admitted = 0
    pointee.allocationsBefore = 0
    pointee.epoch = epoch
    pointee.moduleGeneration = moduleGeneration
    empty(nodeBits: nodeBits)
  }

  /// Forgets every stack, with so many slots for nodes from now on.
  private func empty(nodeBits: UInt32) {
    UnsafeMutableRawPointer(nodes).initializeMemory(
      as: UInt8.self, repeating: 0, count: StackCache.nodeByteCount(nodeBits))
    pointee.nodeBits = nodeBits
    pointee.nodeShift = min(64 &- nodeBits, 63)
    pointee.nodeCount = 0
    // The first entry is no stack's: no return address is 0.
    pointee.last = 0
    pointee.lastButOne = 0
    UnsafeMutableRawPointer(arena).initializeMemory(
      as: UInt8.self, repeating: 0, count: MemoryLayout<MemoEntry>.stride)
    pointee.arenaUsed = UInt32((MemoryLayout<MemoEntry>.stride &+ 15) & ~15)
    pointee.arenaLimit = UInt32(truncatingIfNeeded: StackCache.arenaByteCount(nodeBits))
  }

  /// Remembers the stack that the image shows, which is the one at these registers.
  ///
  /// Cold: as long as a few hundred words take.
  @inline(never)
  func remember(
    _ site: UInt32, isTruncated: Bool, _ registers: UnsafePointer<tracer_registers>,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Bool {
    let place = FramePlace(registers)
    let innermost = frames + Int(pointee.frameCount &- 1)
    let checkCount = Int(innermost.pointee.checkCount)
    let leadCount = innermost.pointee.needsFramePointer ? 1 : 0
    let groupCount = max((leadCount &+ checkCount &+ 3) / 4, 1)
    var reach: UInt = 0
    for position in 0..<checkCount {
      reach = max(reach, checks[position].address &- place.stackPointer)
    }
    let isAwaited = pointee.imageAwaitingSite != 0
    let isExecuted = isAwaited && pointee.imageTaskAddress != 0
    let contextOffset = pointee.imageContextAddress &- place.stackPointer
    let taskOffset = pointee.imageTaskAddress &- place.stackPointer
    // Before the stack pointer are the registers.
    if isAwaited, Int(bitPattern: contextOffset) > 0 { reach = max(reach, contextOffset) }
    if isExecuted, Int(bitPattern: taskOffset) > 0 { reach = max(reach, taskOffset) }
    guard reach < UInt(Int32.max) else { return true }
    var range = thread.pointee.readable
    let isReadable = range.cover(place.stackPointer, reach)
    thread.pointee.readable = range
    guard isReadable else { return true }
    let byteCount =
      MemoryLayout<MemoEntry>.stride &+ groupCount &* MemoryLayout<MemoGroup>.stride
    guard Int(pointee.arenaUsed) &+ byteCount <= Int(pointee.arenaLimit) else { return false }
    let number = pointee.arenaUsed / 16
    let entry = entry(number)
    let start = UInt(bitPattern: registers)
    entry.initialize(
      to: MemoEntry(
        registers: start, returnAddress: place.counter, farthest: place.stackPointer &+ reach,
        site: site,
        flags: (isAwaited ? MemoEntry.isAwaited : 0) | (isTruncated ? MemoEntry.isTruncated : 0)
          | (isExecuted ? MemoEntry.isExecuted : 0),
        end: UnsafeMutableRawPointer(entry.groups + groupCount),
        contextOffset: isAwaited
          ? Int32(truncatingIfNeeded: pointee.imageContextAddress &- start) : 0,
        taskOffset: isExecuted ? Int32(truncatingIfNeeded: pointee.imageTaskAddress &- start) : 0,
        awaitingSite: pointee.imageAwaitingSite))
    for group in 0..<groupCount {
      let first = checkCount &- 1 &- 4 &* group &+ leadCount
      if first < checkCount, first >= 3 {
        let words = checks + first
        entry.groups[group] = MemoGroup(words[0], words[-1], words[-2], words[-3], from: start)
      } else {
        entry.groups[group] = MemoGroup(
          check(first, of: checkCount, place, start),
          check(first &- 1, of: checkCount, place, start),
          check(first &- 2, of: checkCount, place, start),
          check(first &- 3, of: checkCount, place, start), from: start)
      }
    }
    pointee.arenaUsed = pointee.arenaUsed &+ UInt32(truncatingIfNeeded: (byteCount &+ 15) & ~15)
    expect(entry, registers)
    return enter(entry, number, registers, core, thread)
  }

  /// One of the words that the image's walk has read, of which the last was read first; before that rbp, or of a walk
  /// that has read nothing the return address, which is known to be the same.
  @inline(__always)
  private func check(
    _ position: Int, of count: Int, _ place: FramePlace, _ registers: UInt
  ) -> StackCheck {
    if position < count, count > 0 { return checks[max(position, 0)] }
    return position < 0
      ? StackCheck(
        address: registers &+ UInt(MemoNode.returnAddress), value: UInt(place.counter))
      : StackCheck(
        address: registers &+ UInt(MemoNode.framePointer), value: place.framePointer)
  }

  /// Makes an entry findable, or not where its slots are taken; `false` where most slots are.
  private func enter(
    _ entry: UnsafeMutablePointer<MemoEntry>, _ number: UInt32,
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Bool {
    var key = MemoNode.key(at: entry.pointee.registers, after: entry.pointee.returnAddress)
    for _ in 0..<MemoNode.stepLimit {
      guard let node = slot(key) else { return hasFreeSlots }
      if node.pointee.key == 0 {
        node.pointee = MemoNode(key: key, discriminator: MemoNode.leaf, entry: number)
        pointee.nodeCount = pointee.nodeCount &+ 1
        return true
      }
      let difference = Self.difference(self.entry(node.pointee.entry), entry)
      if difference == MemoNode.leaf, node.pointee.discriminator == MemoNode.leaf {
        // The same stack, or one that differs in nothing that can be looked at first.
        node.pointee.entry = number
        return true
      }
      if node.pointee.isAfter(difference), !divide(node, at: difference) { return hasFreeSlots }
      guard let word = word(node.pointee, registers, core, thread) else { return true }
      key = node.pointee.keyBehind(word)
    }
    return true
  }

  /// Puts a node before a node, which then asks for an earlier word; `false` where there is no slot.
  private func divide(_ node: UnsafeMutablePointer<MemoNode>, at discriminator: Int32) -> Bool {
    let first = MemoNode(
      key: node.pointee.key, discriminator: discriminator, entry: node.pointee.entry)
    let key = first.keyBehind(Self.value(discriminator, entry(first.entry)))
    guard let other = slot(key), other.pointee.key == 0 else { return false }
    other.pointee = MemoNode(
      key: key, discriminator: node.pointee.discriminator, entry: first.entry)
    node.pointee = first
    pointee.nodeCount = pointee.nodeCount &+ 1
    return true
  }

  private var hasFreeSlots: Bool { pointee.nodeCount < 3 << (pointee.nodeBits &- 2) }

  /// The slot that has a key, or else one that is free; `nil` where others have them all.
  private func slot(_ key: UInt64) -> UnsafeMutablePointer<MemoNode>? {
    let first = nodes + Int(truncatingIfNeeded: key &>> UInt64(pointee.nodeShift))
    for probe in 0..<MemoNode.probeLimit
    where first[probe].key == key || first[probe].key == 0 { return first + probe }
    return nil
  }

  /// What tells two entries apart: the first word in which they differ, or else who awaits.
  private static func difference(
    _ left: UnsafeMutablePointer<MemoEntry>, _ right: UnsafeMutablePointer<MemoEntry>
  ) -> Int32 {
    guard left.pointee.registers == right.pointee.registers,
      left.pointee.returnAddress == right.pointee.returnAddress
    else { return MemoNode.leaf }
    let (leftCount, rightCount) = (4 &* left.groupCount, 4 &* right.groupCount)
    let common = min(leftCount, rightCount) / 4
    var same = 0
    while same < common, left.groups[same].isSame(as: right.groups[same]) { same &+= 1 }
    var (i, j) = (4 &* same, 4 &* same)
    while i < leftCount, j < rightCount {
      let (a, b) = (word(left, i), word(right, j))
      // What only one of them has read, such as a register that no later frame needs, is passed over.
      if a.offset < b.offset {
        i &+= 1
      } else if a.offset > b.offset {
        j &+= 1
      } else if a.value != b.value {
        return a.offset
      } else {
        i &+= 1
        j &+= 1
      }
    }
    return left.pointee.awaitingSite == right.pointee.awaitingSite
      || left.pointee.contextOffset != right.pointee.contextOffset
      ? MemoNode.leaf : MemoNode.awaiting
  }

  private static func value(
    _ discriminator: Int32, _ entry: UnsafeMutablePointer<MemoEntry>
  ) -> UInt {
    if discriminator == MemoNode.awaiting { return UInt(entry.pointee.awaitingSite) }
    for position in 0..<(4 &* entry.groupCount) {
      let word = word(entry, position)
      if word.offset == discriminator { return word.value }
    }
    return 0
  }

  private static func word(
    _ entry: UnsafeMutablePointer<MemoEntry>, _ position: Int
  ) -> (offset: Int32, value: UInt) {
    entry.groups[position / 4].word(position)
  }

  // MARK: Room

  /// Whether this stack, which was seen before and was not remembered, is to be remembered now.
  func admits() -> Bool {
    pointee.misses = pointee.misses &+ 1
    guard pointee.pauseLeft == 0 else { return false }
    pointee.admitted = pointee.admitted &+ 1
    return true
  }

  /// The size that the memo is to have after it was full.
  ///
  /// It grows for whoever has a use for it. Where stacks are more than it can ever hold, nothing is
  /// looked up or remembered for a while, and each time for longer: that costs more than the walk
  /// that it saves.
  func nextNodeBits(_ allocations: UInt64) -> UInt32 {
    // The thread may be another than the one that began with this memo, and count from 0.
    let served =
      allocations < pointee.allocationsBefore
      ? allocations : allocations &- pointee.allocationsBefore
    let hits = served > UInt64(pointee.misses) ? served &- UInt64(pointee.misses) : 0
    let pays = hits > UInt64(pointee.admitted)
    if pays || pointee.nodeBits < 12 {
      pointee.pauseLength = 0
      return min(
        max(pointee.nodeBits &+ 1, StackCache.firstNodeBits), StackCache.maximumNodeBits)
    }
    pointee.pauseLength = min(max(pointee.pauseLength &* 2, 1 << 14), 1 << 20)
    pointee.pauseLeft = pointee.pauseLength
    return pointee.nodeBits
  }

  /// Forgets all stacks, and begins again with another size.
  @inline(never)
  func makeRoom(nodeBits: UInt32, _ allocations: UInt64) {
    pointee.misses = 0
    pointee.admitted = 0
    pointee.allocationsBefore = allocations
    empty(nodeBits: nodeBits)
  }
}
