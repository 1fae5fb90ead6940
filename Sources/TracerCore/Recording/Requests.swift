// SPDX-License-Identifier: Apache-2.0
// How a start, a snapshot or a stop is asked for: from a signal handler, or by the control page.

import CControlPage
import CTracerPlatform
import Synchronization

/// What was asked for and not yet done. All zero is nothing.
package struct Requests: ~Copyable {
  /// Bits of `Request`.
  package let pending: Atomic<UInt32>
  /// Signals that ask for the other state.
  package let toggles: Atomic<UInt32>
  /// The request of the API, one at a time, each of which takes the next number as its ticket.
  package let called: Atomic<UInt32>
  package let tickets: Atomic<UInt32>
  /// What came of the last one: an errno, 0 where it went well.
  package let callError: Atomic<UInt32>
  /// The control page; 0 where there is none.
  package let page: Atomic<UInt>
  /// The worker's thread number; 0 where none runs.
  package let worker: Atomic<UInt32>
  /// 1 from the moment that a worker is about to be started.
  package let workerIsStarted: Atomic<UInt32>
  package let workerHasOwnDescriptors: Atomic<UInt32>
  /// 1 when the dump at the end of the process has been asked for.
  package let exitAsked: Atomic<UInt32>
  /// How often the worker still compares its capabilities with the process's; 0 for not at all, 1 for
  /// once a second and for good. See `followCapabilities()`.
  package let capabilityLooks: Atomic<UInt32>
  /// 1 when the worker is to look at once who the program's thread has become. See `followIdentity()`.
  package let identityLook: Atomic<UInt32>
  /// 1 when the program's thread was seen to take the C library's locks. See `mayCallLibrary()`.
  package let libraryIsShared: Atomic<UInt32>
}

package struct Request: BitSet {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }

  package static var start: Self { Self(rawValue: 1) }
  package static var stop: Self { Self(rawValue: 2) }
  package static var snapshot: Self { Self(rawValue: 4) }
  package static var exit: Self { Self(rawValue: 8) }
  package static var terminated: Self { Self(rawValue: 16) }
  // Of the API only.
  package static var drop: Self { Self(rawValue: 32) }
  package static var clear: Self { Self(rawValue: 64) }
  package static var mark: Self { Self(rawValue: 128) }
  package static var file: Self { Self(rawValue: 256) }
}

extension UnsafeMutablePointer where Pointee == Core {
  package var page: UnsafeMutablePointer<tracer_control_page>? {
    UnsafeMutablePointer<tracer_control_page>(
      bitPattern: pointee.requests.page.load(ordering: .acquiring))
  }

  /// The word that the worker sleeps on.
  private var wakeWord: UnsafeMutablePointer<Atomic<UInt32>> {
    if let page {
      return UnsafeMutableRawPointer(page).advanced(by: ControlPage.wakeOffset)
        .assumingMemoryBound(to: Atomic<UInt32>.self)
    }
    return word(.wake)
  }

  /// Asks the worker. Safe in a signal handler: two atomic operations and a wake-up.
  package func ask(_ request: Request) {
    _ = pointee.requests.pending.bitwiseOr(request.rawValue, ordering: .releasing)
    wakeWorker()
  }

  package func wakeWorker() {
    let word = wakeWord
    _ = word.pointee.wrappingAdd(1, ordering: .acquiringAndReleasing)
    System.wake(UnsafeMutableRawPointer(word), shared: true)
  }

  /// The value to pass to `sleep(after:)`, read before looking for requests.
  package var wakeCount: UInt32 { wakeWord.pointee.load(ordering: .acquiring) }

  /// Sleeps until somebody asks, or for so long.
  package func sleep(after count: UInt32, nanoseconds: Int) {
    System.wait(
      on: UnsafeMutableRawPointer(wakeWord), while: count, nanoseconds: nanoseconds, shared: true)
  }

  // MARK: The API

  /// Has the worker carry out a request of the API, and waits for it: 0 or an errno.
  ///
  /// One call at a time has the worker, so that each gets its own answer and `prepare` may write
  /// what goes with the request. ETIMEDOUT after a minute: then the request is taken back, or, where
  /// the worker was at it already, nobody else calls before that is done.
  package func callWorker(_ request: Request, _ prepare: () -> Void = {}) -> Int32 {
    let deadline = System.monotonicTime &+ 60_000_000_000
    guard lockCaller(until: deadline) else { return ETIMEDOUT }
    prepare()
    // The request before its ticket: a worker that reads the ticket finds the request.
    pointee.requests.called.store(request.rawValue, ordering: .releasing)
    let ticket = pointee.requests.tickets.wrappingAdd(1, ordering: .acquiringAndReleasing).newValue
    wakeWorker()
    while System.monotonicTime < deadline {
      let served = word(.served).pointee.load(ordering: .acquiring)
      if served == ticket { break }
      System.wait(
        on: UnsafeMutableRawPointer(word(.served)), while: served, nanoseconds: 1_000_000_000,
        shared: false)
    }
    if word(.served).pointee.load(ordering: .acquiring) == ticket {
      let error = Int32(bitPattern: pointee.requests.callError.load(ordering: .relaxed))
      unlockCaller(from: Self.isCalling)
      return error
    }
    if pointee.requests.called.exchange(0, ordering: .acquiringAndReleasing) != 0 {
      unlockCaller(from: Self.isCalling)
    } else {
      word(.caller).pointee.store(Self.wasAbandoned, ordering: .sequentiallyConsistent)
      // It may be done since: then it has not seen that it was to unlock.
      if word(.served).pointee.load(ordering: .sequentiallyConsistent) == ticket {
        unlockCaller(from: Self.wasAbandoned)
      }
    }
    return ETIMEDOUT
  }

  private static var isCalling: UInt32 { 1 }
  private static var wasAbandoned: UInt32 { 2 }

  private func lockCaller(until deadline: UInt64) -> Bool {
    while true {
      let (exchanged, holder) = word(.caller).pointee.compareExchange(
        expected: 0, desired: Self.isCalling, ordering: .acquiring)
      if exchanged { return true }
      if System.monotonicTime >= deadline { return false }
      System.wait(
        on: UnsafeMutableRawPointer(word(.caller)), while: holder, nanoseconds: 1_000_000_000,
        shared: false)
    }
  }

  private func unlockCaller(from holder: UInt32) {
    let (exchanged, _) = word(.caller).pointee.compareExchange(
      expected: holder, desired: 0, ordering: .releasing)
    if exchanged { System.wake(UnsafeMutableRawPointer(word(.caller)), shared: false) }
  }

  /// Answers the call of a ticket, whether or not somebody still waits for it.
  func answerCall(_ ticket: UInt32) {
    guard word(.served).pointee.load(ordering: .relaxed) != ticket else { return }
    word(.served).pointee.store(ticket, ordering: .sequentiallyConsistent)
    System.wake(UnsafeMutableRawPointer(word(.served)), shared: false)
    unlockCaller(from: Self.wasAbandoned)
  }

  // MARK: Signals

  /// The handler: sets a bit and wakes the worker. Under 256 bytes of stack.
  ///
  /// A value that came with the signal says what is asked for; a bare signal toggles or snapshots.
  package func didReceive(_ signal: Int32, code: Int32, value: Int32) {
    // A vfork child runs in this memory, but is another process, as is a child that fork has not
    // yet returned in. What would end it must.
    guard System.processID == pointee.processID else {
      let isOurs =
        signal == pointee.settings.startSignal || signal == pointee.settings.snapshotSignal
      if !isOurs { tracer_services.die_by_signal?(signal) }
      return
    }
    if signal == pointee.settings.startSignal {
      let isQueued = code == -1  // SI_QUEUE
      if isQueued, value == 1 { return ask(.start) }
      if isQueued, value == 2 { return ask(.stop) }
      if isQueued, value == 3 { return ask(.snapshot) }
      _ = pointee.requests.toggles.wrappingAdd(1, ordering: .releasing)
      wakeWorker()
    } else if signal == pointee.settings.snapshotSignal {
      ask(.snapshot)
    } else {
      terminate(by: signal)
    }
  }

  /// Writes the last dump, then lets the signal do what it would have done.
  private func terminate(by signal: Int32) {
    dumpBeforeEnd(.terminated)
    tracer_services.die_by_signal?(signal)
  }

  // MARK: The end of the process

  /// Writes the dump at the end of the process, once, and waits for it.
  ///
  /// The worker does it where there is one: it has a stack and a descriptor table of its own.
  package func dumpBeforeEnd(_ request: Request) {
    var end = (core: self, request: request)
    withUnsafeMutablePointer(to: &end) {
      // What is in the caller's registers only is held by them: a search for leaks must find it.
      tracer_call_with_saved_registers(
        {
          let end = $0.assumingMemoryBound(to: (core: Self, request: Request).self).pointee
          end.core.dumpWithSavedRegisters(end.request)
        }, $0)
    }
  }

  private func dumpWithSavedRegisters(_ request: Request) {
    guard pointee.settings.dumpsAtExit, System.processID == pointee.processID,
      pointee.isRecording.load(ordering: .acquiring) != 0,
      pointee.requests.exitAsked.exchange(1, ordering: .acquiringAndReleasing) == 0
    else { return waitForExitDump() }
    var here: UInt8 = 0
    pointee.leaks.endingStack = withUnsafeMutablePointer(to: &here) { UInt(bitPattern: $0) }
    if pointee.settings.looksForLeaks { waitForWorker() }
    let worker = pointee.requests.worker.load(ordering: .acquiring)
    guard worker != 0, worker != UInt32(bitPattern: System.threadID) else {
      carryOutExit(request)
      return
    }
    ask(request)
    waitForExitDump()
  }

  /// Waits a moment for a worker that was started and has not yet said who it is: a search for leaks
  /// would take it for a thread of the program's.
  private func waitForWorker() {
    var rounds = 0
    while rounds < 100, pointee.requests.workerIsStarted.load(ordering: .acquiring) != 0,
      pointee.requests.worker.load(ordering: .acquiring) == 0
    {
      System.sleep(nanoseconds: 1_000_000)
      rounds &+= 1
    }
  }

  private func waitForExitDump() {
    guard pointee.requests.exitAsked.load(ordering: .acquiring) != 0,
      System.processID == pointee.processID,
      pointee.requests.worker.load(ordering: .relaxed) != UInt32(bitPattern: System.threadID)
    else { return }
    // Half a minute: a disk that does not answer must not keep a process from ending.
    var seconds = 0
    while word(.exitDone).pointee.load(ordering: .acquiring) == 0, seconds < 30 {
      System.wait(
        on: UnsafeMutableRawPointer(word(.exitDone)), while: 0, nanoseconds: 1_000_000_000,
        shared: false)
      seconds &+= 1
    }
  }

  package func exitDumpIsDone() {
    word(.exitDone).pointee.store(1, ordering: .releasing)
    System.wake(UnsafeMutableRawPointer(word(.exitDone)), shared: false)
  }
}
