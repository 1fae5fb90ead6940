// SPDX-License-Identifier: Apache-2.0
// The ordinary call, done without a detour: a stack that is remembered, a block that is known.

import CTracerPlatform
import Synchronization

/// What came of an attempt to do without a detour.
package enum QuickOutcome {
  /// It is done.
  case done
  /// It is done, and the thread's balance is to be published.
  case publishing
  /// Nothing was done.
  case unusual
}

extension UnsafeMutablePointer where Pointee == Core {
  /// The thread's state with the thread inside; `nil`, and nothing done, where there is more to it.
  @inline(__always)
  private func enterQuickly() -> UnsafeMutablePointer<ThreadState>? {
    guard let slot = tracer_thread(), UInt(bitPattern: slot) > 1 else { return nil }
    let thread = slot.assumingMemoryBound(to: ThreadState.self)
    guard thread.pointee.isInside.load(ordering: .relaxed) == 0 else { return nil }
    thread.pointee.isInside.store(1, ordering: .relaxed)
    // After the store, as in `enter`.
    guard
      thread.pointee.epoch.load(ordering: .relaxed)
        == core.pointee.openEpoch.load(ordering: .acquiring)
    else {
      leave(thread)
      return nil
    }
    return thread
  }

  /// Records a block that was just handed out, as a part of the hook of malloc.
  ///
  /// What is here is what every call comes by: a stack that was foreseen, a place in the map that is free, a tally
  /// that is the site's. Whatever else there may be is another function. The one core is named, and not `self`: its
  /// address then takes no register.
  @inline(__always)
  package func recordInline(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) {
    guard UInt64(UInt(bitPattern: byteCount)) < BlockWord.largeByteCount,
      let thread = enterQuickly()
    else { return recordSlowly(block, byteCount, registers) }
    guard let memo = thread.pointee.memo,
      memo.pointee.moduleGeneration == core.pointee.rows.moduleGeneration.load(ordering: .relaxed)
    else { return recordUnremembered(block, byteCount, registers, thread) }
    guard let entry = memo.foreseenEntry(registers, thread) else {
      return recordUnforeseen(block, byteCount, registers, thread)
    }
    guard entry.pointee.flags == 0 else {
      return recordForeseen(block, byteCount, registers, thread, entry)
    }
    return record(block, byteCount, entry.pointee.site, thread)
  }

  /// Records a block of a known site, and leaves.
  @inline(__always)
  private func record(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    let address = UInt(bitPattern: block)
    let count = UInt64(UInt(bitPattern: byteCount))
    guard
      core.pointee.map.enterQuickly(
        address, site: site, birth: core.pointee.birth.load(ordering: .relaxed), byteCount: count)
    else { return recordInPlace(block, byteCount, site, thread) }
    let tally = thread.tally(of: site)
    guard tally.isFit(for: site) else { return countAnew(block, byteCount, site, thread) }
    tally.add(count)
    if countAllocated(thread, address, count, tally) { return publishAndLeave(thread) }
    leave(thread)
  }

  /// As `recordInline`, for whoever is called less often.
  @inline(never)
  package func record(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) { recordInline(block, byteCount, registers) }

  /// As `record`, of a stack that was foreseen and has more to it than its words.
  @inline(never)
  private func recordForeseen(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>,
    _ entry: UnsafeMutablePointer<MemoEntry>
  ) {
    guard let memo = thread.pointee.memo else {
      return recordUnremembered(block, byteCount, registers, thread)
    }
    let site = memo.siteIfAwaited(entry, registers, self, thread)
    guard site != 0 else { return recordUnforeseen(block, byteCount, registers, thread) }
    return record(block, byteCount, unmarked(site, thread), thread)
  }

  /// As `record`, of a stack that was not foreseen.
  @inline(never)
  private func recordUnforeseen(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    let site = thread.pointee.memo?.searchedSite(registers, self, thread) ?? 0
    guard site != 0 else { return recordUnremembered(block, byteCount, registers, thread) }
    return record(block, byteCount, unmarked(site, thread), thread)
  }

  /// As `record`, of a stack that is not in the memo.
  @inline(never)
  private func recordUnremembered(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    record(
      thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)),
      followedSite(thread, registers))
    leave(thread)
  }

  /// As `record`, where there is something in the block's place in the map, or no place yet.
  @inline(never)
  private func recordInPlace(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    record(thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
    leave(thread)
  }

  /// What is left to do for a block in the map for whose site there is no tally.
  @inline(never)
  private func countAnew(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    if countAllocated(
      thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
    {
      publish(thread)
    }
    leave(thread)
  }

  @inline(never)
  private func publishAndLeave(_ thread: UnsafeMutablePointer<ThreadState>) {
    publish(thread)
    leave(thread)
  }

  /// As `record`, by the way that is open to every call.
  @inline(never)
  private func recordSlowly(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) {
    didAllocate(block, byteCount, registers)
  }

  /// Takes a block that is about to be given back, if it is known and small.
  @inline(__always)
  package func takeQuickly(_ block: UnsafeMutableRawPointer) -> QuickOutcome {
    guard let thread = enterQuickly() else { return .unusual }
    guard
      let word = core.pointee.map.takeQuickly(UInt(bitPattern: block), mark: thread.pointee.mark)
    else {
      leave(thread)
      return .unusual
    }
    if countFreed(thread, UInt(bitPattern: block), word.smallByteCount) { return .publishing }
    leave(thread)
    return .done
  }

  /// Takes the old block of a realloc and counts it as freed, if it is known and small; answers with its word, or
  /// 0, and nothing was done. Before the call: after it, another thread may own the address.
  @inline(__always)
  package func takeForMove(_ block: UnsafeMutableRawPointer) -> UInt64 {
    // A search for leaks wants to know of blocks on their way.
    guard !pointee.settings.looksForLeaks, let thread = enterQuickly() else { return 0 }
    let address = UInt(bitPattern: block)
    guard let word = pointee.map.takeQuickly(address, mark: thread.pointee.mark) else {
      leave(thread)
      return 0
    }
    let wasLast = thread.pointee.lastBlock == address
    if countFreed(thread, address, word.smallByteCount) {
      publishAndLeave(thread)
    } else {
      leave(thread)
    }
    return wasLast ? word.bits | Self.wasLast : word.bits
  }

  /// Puts the old block of a failed realloc back as it was, and takes back that it was counted as freed.
  @inline(never)
  package func putBack(_ block: UnsafeMutableRawPointer, _ taken: UInt64) {
    let word = BlockWord(bits: taken & ~Self.wasLast)
    let address = UInt(bitPattern: block)
    _ = pointee.map.enter(
      address, site: word.site, generation: word.generation, epoch: word.epoch,
      byteCount: word.smallByteCount)
    // None where the recording is over in which it was counted.
    guard let thread = enter() else { return }
    if BlockWord.mark(pointee.epoch.load(ordering: .relaxed)) == BlockWord.mark(word.epoch) {
      thread.pointee.counters.freedBlocks.addAlone(0 &- 1)
      thread.pointee.counters.freedBytes.addAlone(0 &- word.smallByteCount)
      // Of the site itself: the tally that has counted it may be another site's by now.
      if taken & Self.wasLast != 0 {
        _ = pointee.sites.temporaries(of: word.site).pointee.wrappingSubtract(
          1, ordering: .relaxed)
        // It is the last one still, unless a signal handler has allocated meanwhile.
        if thread.pointee.lastBlock == 0,
          let tally = thread.pointee.lastTally,
          tally.pointee.site.load(ordering: .relaxed) == word.site
        {
          thread.pointee.lastBlock = address
        }
      }
      if raiseBalance(thread, by: word.smallByteCount) { publish(thread) }
    }
    leave(thread)
  }

  /// A bit that no word has: the block was the thread's last.
  private static var wasLast: UInt64 { 1 << 63 }

  /// Publishes for a thread that is inside, and has it leave.
  @inline(never)
  package func publishAndLeave() {
    guard let slot = tracer_thread() else { return }
    let thread = slot.assumingMemoryBound(to: ThreadState.self)
    publish(thread)
    leave(thread)
  }
}
