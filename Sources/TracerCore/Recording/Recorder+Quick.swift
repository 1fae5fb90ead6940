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
  /// The thread's state with the thread inside; `nil`, and nothing done, where there is more to it. Who gets a state
  /// has yet to ask whether there is a recording, in this order as in `enter`, and must leave also where there is none.
  @inline(__always)
  private func stepIn() -> UnsafeMutablePointer<ThreadState>? {
    guard let slot = tracer_thread(), UInt(bitPattern: slot) > 1 else { return nil }
    let thread = slot.assumingMemoryBound(to: ThreadState.self)
    guard thread.pointee.isInside.load(ordering: .relaxed) == 0 else { return nil }
    thread.pointee.isInside.store(1, ordering: .relaxed)
    return thread
  }

  /// The thread's state with the thread inside; `nil`, and nothing done, where there is more to it.
  @inline(__always)
  private func enterQuickly() -> UnsafeMutablePointer<ThreadState>? {
    guard let thread = stepIn() else { return nil }
    guard isOpen(thread) else {
      leave(thread)
      return nil
    }
    return thread
  }

  /// Whether the thread's state is of the recording that goes on.
  @inline(__always)
  fileprivate func isOpen(_ thread: UnsafeMutablePointer<ThreadState>) -> Bool {
    thread.pointee.epoch.load(ordering: .relaxed) == core.pointee.rows.gate.openEpoch
  }

  /// Records a block that was just handed out, as the hook of malloc does it, and answers with it.
  ///
  /// What is here is what every call comes by: a stack that was foreseen, a place in the map that is free, a tally
  /// that is the site's. Whatever else there may be is a function that is jumped to (`Detour`): where nothing has
  /// to outlive a call, no register is saved. The one core is named, and not `self`, for the same reason.
  @inline(__always)
  package func record(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) -> UnsafeMutableRawPointer {
    guard UInt64(UInt(bitPattern: byteCount)) < BlockWord.largeByteCount,
      let thread = stepIn()
    else { return Detour.recordSlowly(block, byteCount, registers) }
    guard thread.pointee.memoGate == core.pointee.rows.gate.current else {
      return Detour.recordWithoutMemo(block, byteCount, registers, thread)
    }
    guard let entry = thread.pointee.memo.foreseenEntry(registers, thread) else {
      return Detour.recordUnforeseen(block, byteCount, registers, thread)
    }
    guard entry.pointee.flags == 0 else {
      return Detour.recordForeseen(block, byteCount, registers, thread, entry)
    }
    return recordQuickly(block, byteCount, entry.pointee.site, thread)
  }

  /// Records a block of a known site, and leaves.
  @inline(__always)
  fileprivate func recordQuickly(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    let address = UInt(bitPattern: block)
    let count = UInt64(UInt(bitPattern: byteCount))
    guard
      core.pointee.map.enterQuickly(
        address, site: site, birth: core.pointee.birth.load(ordering: .relaxed), byteCount: count)
    else { return Detour.recordInPlace(block, byteCount, site, thread) }
    let tally = thread.tally(of: site)
    guard tally.isFit(for: site) else { return Detour.countAnew(block, byteCount, site, thread) }
    tally.add(count)
    if countAllocated(thread, address, count, tally) { return Detour.publish(block, thread) }
    leave(thread)
    return block
  }

  @inline(never)
  fileprivate func publishAndLeave(_ thread: UnsafeMutablePointer<ThreadState>) {
    publish(thread)
    leave(thread)
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

/// What a block comes by that is not recorded by the quick way. Each answers with the block, and is not a method
/// of the core: Swift keeps `self` in a register that its caller would have to save.
private enum Detour {
  /// The way that is open to every call.
  @inline(never)
  static func recordSlowly(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) -> UnsafeMutableRawPointer {
    core.didAllocate(block, byteCount, registers)
    return block
  }

  /// There is no memo, or it is not of these modules, or not of a recording that goes on.
  @inline(never)
  static func recordWithoutMemo(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    guard core.isOpen(thread) else {
      core.leave(thread)
      return recordSlowly(block, byteCount, registers)
    }
    return recordUnremembered(block, byteCount, registers, thread)
  }

  /// A stack that was foreseen and has more to it than its words.
  @inline(never)
  static func recordForeseen(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>,
    _ entry: UnsafeMutablePointer<MemoEntry>
  ) -> UnsafeMutableRawPointer {
    guard entry.isAwaitedStill(registers, thread.pointee.memo) else {
      return recordIfAwaited(block, byteCount, registers, thread, entry)
    }
    return core.recordQuickly(block, byteCount, core.unmarked(entry.markedSite, thread), thread)
  }

  /// A stack that was foreseen, of a task of which it is to be found out who awaits it.
  @inline(never)
  private static func recordIfAwaited(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>,
    _ entry: UnsafeMutablePointer<MemoEntry>
  ) -> UnsafeMutableRawPointer {
    let site = thread.pointee.memo.foreseenSite(entry, registers, core, thread)
    return recordIfRemembered(block, byteCount, registers, thread, site)
  }

  /// A stack that was not foreseen.
  @inline(never)
  static func recordUnforeseen(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    let site = thread.pointee.memo.searchedSite(registers, core, thread)
    return recordIfRemembered(block, byteCount, registers, thread, site)
  }

  /// A stack of this site, as the memo answers it: 0 where it does not have the stack.
  @inline(__always)
  private static func recordIfRemembered(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>,
    _ site: UInt32
  ) -> UnsafeMutableRawPointer {
    guard site != 0 else { return recordUnremembered(block, byteCount, registers, thread) }
    return core.recordQuickly(block, byteCount, core.unmarked(site, thread), thread)
  }

  /// A stack that is not in the memo.
  @inline(never)
  static func recordUnremembered(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    recordInPlace(block, byteCount, core.followedSite(thread, registers), thread)
  }

  /// There is something in the block's place in the map, or no place yet.
  @inline(never)
  static func recordInPlace(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    core.record(thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
    core.leave(thread)
    return block
  }

  /// What is left to do for a block in the map for whose site there is no tally.
  @inline(never)
  static func countAnew(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int, _ site: UInt32,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    let isLarge = core.countAllocated(
      thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
    if isLarge { core.publish(thread) }
    core.leave(thread)
    return block
  }

  /// What is left to do where the thread's balance has grown enough.
  @inline(never)
  static func publish(
    _ block: UnsafeMutableRawPointer, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutableRawPointer {
    core.publishAndLeave(thread)
    return block
  }
}
