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
  /// Nothing was done: the stack is not remembered.
  case unremembered
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
    guard pointee.isRecording.load(ordering: .acquiring) != 0,
      thread.pointee.epoch.load(ordering: .relaxed) == pointee.epoch.load(ordering: .relaxed)
    else {
      leave(thread)
      return nil
    }
    return thread
  }

  /// Records a block that was just handed out, if its stack is remembered.
  @inline(__always)
  package func recordQuickly(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) -> QuickOutcome {
    guard UInt64(UInt(bitPattern: byteCount)) < BlockWord.largeByteCount,
      let thread = enterQuickly()
    else { return .unusual }
    let site = rememberedSite(thread, registers)
    guard site &- 1 < MemoEntry.truncatedSite &- 1,
      pointee.map.enterQuickly(
        UInt(bitPattern: block), site: site,
        birth: pointee.birth.load(ordering: .relaxed),
        byteCount: UInt64(UInt(bitPattern: byteCount)))
    else {
      if site >= MemoEntry.truncatedSite {
        recordTruncated(thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
        return .done
      }
      leave(thread)
      return site == 0 ? .unremembered : .unusual
    }
    thread.pointee.counters.allocatedBlocks.addAlone(1)
    thread.pointee.counters.allocatedBytes.addAlone(UInt64(UInt(bitPattern: byteCount)))
    tally(thread, site, UInt64(UInt(bitPattern: byteCount)))
    let balance = thread.pointee.balance &+ Int64(byteCount)
    thread.pointee.balance = balance
    if balance > thread.pointee.balanceHigh.load(ordering: .relaxed) {
      thread.pointee.balanceHigh.store(balance, ordering: .relaxed)
      if balance >= publishLimit { return .publishing }
    }
    leave(thread)
    return .done
  }

  /// What is left to do for a stack that is deeper than the limit: it is not looked up again.
  @inline(never)
  private func recordTruncated(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64,
    _ site: UInt32
  ) {
    thread.pointee.counters.truncatedStacks.addAlone(1)
    record(thread, address, byteCount, site & ~MemoEntry.truncatedSite)
    leave(thread)
  }

  /// As `StackCache.rememberedSite`, with what the thread knows at hand.
  @inline(__always)
  private func rememberedSite(
    _ thread: UnsafeMutablePointer<ThreadState>, _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    guard let memo = thread.pointee.memo,
      memo.pointee.moduleGeneration == pointee.rows.moduleGeneration.load(ordering: .relaxed)
    else { return 0 }
    return memo.rememberedSite(registers, thread)
  }

  @inline(__always)
  private func tally(
    _ thread: UnsafeMutablePointer<ThreadState>, _ site: UInt32, _ byteCount: UInt64
  ) {
    let tally = thread.tallies + Int(site) & (ThreadState.tallyCount &- 1)
    if tally.pointee.site.load(ordering: .relaxed) != site
      || tally.pointee.blocks.load(ordering: .relaxed) >= SiteTally.blockLimit
    {
      flushInPlace(tally)
      tally.pointee.site.store(site, ordering: .relaxed)
    }
    tally.pointee.blocks.store(
      tally.pointee.blocks.load(ordering: .relaxed) &+ 1, ordering: .relaxed)
    tally.pointee.bytes.addAlone(byteCount)
  }

  /// Takes a block that is about to be given back, if it is known and small.
  @inline(__always)
  package func takeQuickly(_ block: UnsafeMutableRawPointer) -> QuickOutcome {
    guard let thread = enterQuickly() else { return .unusual }
    guard
      let byteCount = pointee.map.takeQuickly(
        UInt(bitPattern: block), epoch: pointee.epoch.load(ordering: .relaxed))
    else {
      leave(thread)
      return .unusual
    }
    thread.pointee.counters.freedBlocks.addAlone(1)
    thread.pointee.counters.freedBytes.addAlone(byteCount)
    let balance = thread.pointee.balance &- Int64(bitPattern: byteCount)
    thread.pointee.balance = balance
    if balance <= 0 &- publishLimit { return .publishing }
    leave(thread)
    return .done
  }

  /// Publishes for a thread that is inside, and has it leave.
  @inline(never)
  package func publishAndLeave() {
    guard let slot = tracer_thread() else { return }
    let thread = slot.assumingMemoryBound(to: ThreadState.self)
    publish(thread)
    leave(thread)
  }
}
