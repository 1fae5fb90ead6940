// SPDX-License-Identifier: Apache-2.0
// The child of a fork: its heap is the parent's to the byte, its threads are gone but one.

import CControlPage
import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// Makes the child a process of its own. Runs in the child's only thread, before fork returns.
  ///
  /// No table was locked when the parent forked, so that all are sound: an entry that another thread
  /// had begun is simply not there.
  package func becomeChild() {
    pointee.processID = System.processID
    leaveParentsRequests()
    pointee.dumps.isBusy.store(0, ordering: .relaxed)
    pointee.peaks.isBusy.store(0, ordering: .relaxed)
    pointee.dumps.leaveParents()
    // Until the child's own worker has looked: the parent's would be woken for nothing.
    pointee.wakeAtBytes.store(0, ordering: .relaxed)
    pointee.dumps.sequence = 0
    pointee.dumps.written.store(0, ordering: .relaxed)
    // The parent's worker may have been switching them.
    if pointee.isRecording.load(ordering: .relaxed) == Self.isStopping {
      close()
    }
    let entries = pointee.isRecording.load(ordering: .relaxed) != 0 ? recordingEntries : 0
    tracer_services.switch_freeing_entries?(entries)
    tracer_services.switch_allocating_entries?(entries)
    becomeSamplingChild()
    // A thread that was ending in the parent does not end here: without this it would be waited for.
    pointee.retiring.store(0, ordering: .relaxed)
    pointee.retiredThreads.store(0, ordering: .relaxed)
    pointee.tracked.unlockAll()
    let own = tracer_thread().map { UInt(bitPattern: $0) } ?? 0
    pointee.threads.forEach { thread in
      if UInt(bitPattern: thread) == own {
        thread.pointee.owner.store(UInt32(bitPattern: System.threadID), ordering: .relaxed)
      } else {
        thread.pointee.isInside.store(0, ordering: .relaxed)
        retire(thread)
      }
    }
  }

  private func leaveParentsRequests() {
    let page = pointee.requests.page.exchange(0, ordering: .relaxed)
    if let base = UnsafeMutableRawPointer(bitPattern: page) {
      System.unmap(base, Int(TRACER_CONTROL_BYTE_COUNT))
    }
    pointee.requests.pending.store(0, ordering: .relaxed)
    pointee.requests.toggles.store(0, ordering: .relaxed)
    pointee.requests.called.store(0, ordering: .relaxed)
    word(.caller).pointee.store(0, ordering: .relaxed)
    // A search for leaks in the parent has none to wait for here.
    word(.hold).pointee.store(0, ordering: .relaxed)
    pointee.requests.worker.store(0, ordering: .relaxed)
    pointee.requests.workerIsStarted.store(0, ordering: .relaxed)
    pointee.requests.exitAsked.store(0, ordering: .relaxed)
    word(.exitDone).pointee.store(0, ordering: .relaxed)
    pointee.requests.workerHasOwnDescriptors.store(0, ordering: .relaxed)
    // The child's worker has what the thread has that forks.
    pointee.requests.capabilityLooks.store(0, ordering: .relaxed)
    pointee.requests.identityLook.store(0, ordering: .relaxed)
  }

  /// Turns the tracer off in a child that is not to be traced.
  package func turnOff() {
    tracer_services.switch_allocating_entries?(0)
    tracer_services.switch_freeing_entries?(0)
    close()
    pointee.isOff = true
    tracer_services.restore_signal?(pointee.settings.startSignal)
    tracer_services.restore_signal?(pointee.settings.snapshotSignal)
    if pointee.settings.dumpsAtExit {
      for position in 0..<3 { tracer_services.restore_signal?(exitSignals[position]) }
    }
  }
}

/// Signals that end a process which has not asked for them, and before which a dump is written.
package var exitSignals: InlineArray<3, Int32> { [SIGTERM, SIGINT, SIGHUP] }
