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
    guard
      thread.pointee.epoch.load(ordering: .relaxed) == pointee.openEpoch.load(ordering: .acquiring)
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
    var site = rememberedSite(thread, registers)
    if site &- 1 >= MemoEntry.truncatedSite &- 1 {
      guard site != 0 else {
        leave(thread)
        return .unremembered
      }
      thread.pointee.counters.truncatedStacks.addAlone(1)
      site &= ~MemoEntry.truncatedSite
    }
    guard
      pointee.map.enterQuickly(
        UInt(bitPattern: block), site: site,
        birth: pointee.birth.load(ordering: .relaxed),
        byteCount: UInt64(UInt(bitPattern: byteCount)))
    else {
      recordRemembered(thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
      return .done
    }
    if countAllocated(
      thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)), site)
    {
      return .publishing
    }
    leave(thread)
    return .done
  }

  /// What is left to do for a block in whose place there is something, or for which there is no place yet: its
  /// stack is not looked up again.
  @inline(never)
  private func recordRemembered(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64,
    _ site: UInt32
  ) {
    record(thread, address, byteCount, site)
    leave(thread)
  }

  /// Takes a block that is about to be given back, if it is known and small.
  @inline(__always)
  package func takeQuickly(_ block: UnsafeMutableRawPointer) -> QuickOutcome {
    guard let thread = enterQuickly() else { return .unusual }
    guard
      let byteCount = pointee.map.takeQuickly(
        UInt(bitPattern: block), mark: thread.pointee.mark)
    else {
      leave(thread)
      return .unusual
    }
    if countFreed(thread, UInt(bitPattern: block), byteCount) { return .publishing }
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
