// SPDX-License-Identifier: Apache-2.0
// The one thread of the tracer: it sleeps until it is asked, and does what signal handlers must not.

import CControlPage
import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// The worker's life. Does not return while the process lives.
  package func work() {
    var here: UInt8 = 0
    pointee.leaks.workerStack = withUnsafeMutablePointer(to: &here) { UInt(bitPattern: $0) }
    let name: StaticString = "heaptap"
    _ = System.call(SYS_prctl, Int(PR_SET_NAME), Int(bitPattern: name.utf8Start))
    // A table of its own: what it opens the daemon cannot see, inherit or close.
    let isOwn =
      System.call(SYS_close_range, 0, Int(UInt32.max), 2) == 0  // CLOSE_RANGE_UNSHARE
    pointee.requests.workerHasOwnDescriptors.store(isOwn ? 1 : 0, ordering: .releasing)
    pointee.requests.worker.store(UInt32(bitPattern: System.threadID), ordering: .releasing)
    if isOwn {
      makePage()
      openMemoryFile()
    }
    waitUntilSettled()
    tellArmed()
    var lookedAround: UInt64 = 0
    while true {
      let count = wakeCount
      carryOutRequests()
      let now = System.monotonicTime
      // Near a limit the worker may wake a hundred times as often.
      if now &- lookedAround >= 900_000_000 {
        lookAround()
        lookedAround = now
      }
      let pause = keepPeak()
      sleep(after: count, nanoseconds: min(min(pause, watchLimits()), followCapabilities()))
    }
  }

  /// Waits for the first moments of the process: many children of a fork, and many commands, have no
  /// more. They cost the journal no entry and the machine no look at its limits. A request ends it.
  private func waitUntilSettled() {
    let isRecording = pointee.isRecording.load(ordering: .relaxed) != 0
    let settled = System.monotonicTime &+ (isRecording ? 20_000_000 : 200_000_000)
    while true {
      let count = wakeCount
      if isAsked { return }
      // The dump at the end of a process is no reason to tell that it was there.
      carryOutRequests()
      let pause = keepPeak()
      let now = System.monotonicTime
      if now >= settled { return }
      sleep(after: count, nanoseconds: min(min(Int(settled &- now), pause), followCapabilities()))
    }
  }

  /// Whether there is a request but that of the process's end.
  private var isAsked: Bool {
    let atEnd = Request.exit.union(.terminated).rawValue
    let commands = page?.word(ControlPage.commandsOffset).pointee.load(ordering: .acquiring) ?? 0
    return pointee.requests.pending.load(ordering: .acquiring) & ~atEnd != 0
      || pointee.requests.called.load(ordering: .acquiring) != 0
      || pointee.requests.toggles.load(ordering: .acquiring) != 0 || commands != 0
  }

  // MARK: Requests

  private func carryOutRequests() {
    if pointee.requests.identityLook.exchange(0, ordering: .acquiring) != 0 { followIdentity() }
    var requested: UInt32 = 0
    let ticket = pointee.requests.tickets.load(ordering: .acquiring)
    let called = Request(rawValue: pointee.requests.called.exchange(0, ordering: .acquiring))
    var asked = Request(rawValue: pointee.requests.pending.exchange(0, ordering: .acquiring))
    var trigger = DumpTrigger.signal
    if let page {
      // The ticket first: a request that comes in between is carried out, and answered next time.
      requested = page.word(ControlPage.requestedOffset).pointee.load(ordering: .acquiring)
      let commands = page.word(ControlPage.commandsOffset).pointee.exchange(
        0, ordering: .acquiring)
      if commands & UInt32(TRACER_COMMAND_SNAPSHOT.rawValue) != 0 {
        trigger = .control
        asked.insert(.snapshot)
      }
      if commands & UInt32(TRACER_COMMAND_START.rawValue) != 0 { asked.insert(.start) }
      if commands & UInt32(TRACER_COMMAND_STOP.rawValue) != 0 { asked.insert(.stop) }
    }
    if pointee.requests.toggles.exchange(0, ordering: .acquiring) & 1 != 0 {
      asked.insert(pointee.isRecording.load(ordering: .relaxed) != 0 ? .stop : .start)
    }
    if asked.contains(.exit) || asked.contains(.terminated) { return carryOutExit(asked) }
    if asked.contains(.start) { _ = carryOutStart() }
    if asked.contains(.snapshot) { _ = carryOutSnapshot(trigger) }
    if asked.contains(.stop) { carryOutStop() }
    if called.rawValue != 0 {
      pointee.requests.callError.store(UInt32(bitPattern: carryOut(called)), ordering: .relaxed)
    }
    if let page {
      publishCounters(on: page)
      let handled = page.word(ControlPage.handledOffset)
      if handled.pointee.load(ordering: .relaxed) != requested {
        handled.pointee.store(requested, ordering: .releasing)
        System.wake(UnsafeMutableRawPointer(handled), shared: true)
      }
    }
    answerCall(ticket)
  }

  /// Carries out a request of the API; 0 or an errno.
  private func carryOut(_ called: Request) -> Int32 {
    if called.contains(.start) {
      let sampling = pointee.calledSampling
      return carryOutStart(
        depth: pointee.calledDepth, sampling: sampling == .max ? nil : sampling,
        isTold: isOthersAffair)
    }
    if called.contains(.snapshot) { return carryOutSnapshot(.api) }
    if called.contains(.stop) {
      carryOutStop()
      return 0
    }
    if called.contains(.drop) {
      dropRecording()
      return 0
    }
    guard pointee.isRecording.load(ordering: .relaxed) != 0 else { return ESRCH }
    if called.contains(.file) { return writeCalledFile() }
    if called.contains(.mark) { return markGeneration() }
    if called.contains(.clear) { return clearRecording() }
    return EINVAL
  }

  /// Whether anyone but the program itself is to know of what it does with its own recording: not
  /// where nobody has armed it, and a test of it may start and stop a hundred times.
  private var isOthersAffair: Bool { pointee.settings.mode != .unset }

  private func carryOutStart(
    depth: UInt32 = 0, sampling: UInt64? = nil, isTold: Bool = true
  ) -> Int32 {
    let wasRecording = pointee.isRecording.load(ordering: .relaxed) != 0
    let error = startRecording(depth: depth, sampling: sampling)
    page?.pointee.start_result = UInt32(bitPattern: error)
    // EBUSY is the answer to a wish of the program's own, where it has one.
    if wasRecording || !isTold || error == EBUSY && sampling != nil { return error }
    guard error == 0 else {
      tellNotStarted(error)
      return error
    }
    withMessage { message in
      message.append("recording started, ")
      message.append(decimal: UInt64(pointee.depth))
      message.append(" frames a stack")
      appendSampling(to: &message)
      if let held = pointee.before.heapBytes {
        message.append("; ")
        message.append(byteCount: held)
        message.append(" were allocated before")
      }
      notify(.started, message.bytes)
    }
    return error
  }

  private func carryOutSnapshot(_ trigger: DumpTrigger) -> Int32 {
    guard pointee.isRecording.load(ordering: .relaxed) != 0 else {
      page?.pointee.snapshot_result = TRACER_SNAPSHOT_DORMANT.rawValue
      withMessage { message in
        message.append("no snapshot was written: nothing is being recorded (")
        if pointee.settings.startSignal != 0 {
          Settings.describe(
            pointee.settings.startSignal, into: &message, tracer_services.signal_minimum?() ?? 0)
          message.append(" or ")
        }
        message.append("'heaptap start ")
        message.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
        message.append("' starts recording)")
        notify(.trouble, message.bytes)
      }
      return ESRCH
    }
    return snapshot(trigger, .snapshot)
  }

  /// Writes a dump, and tells the page and the log how it went; 0, or the errno of what went wrong.
  @discardableResult
  func snapshot(_ trigger: DumpTrigger, _ event: NoticeEvent) -> Int32 {
    var error: Int32 = 0
    var bytes = InlineArray<2048, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) { bytes in
      var path = TextBuffer(bytes.baseAddress.unsafelyUnwrapped, capacity: 2048)
      withMessage { message in
        let outcome = writeDump(trigger, path: &path, message: &message)
        error = outcome.error
        guard outcome.isWritten else {
          page?.pointee.error = UInt32(bitPattern: outcome.error)
          page?.setText(ControlPage.messageOffset, capacity: 512, message.bytes)
          page?.pointee.snapshot_result = TRACER_SNAPSHOT_FAILED.rawValue
          // Near a limit the journal is then the only place that has the figures.
          return trigger == .limit
            ? tell(trigger, event, .problem(message.bytes)) : notify(.trouble, message.bytes)
        }
        _ = pointee.dumps.written.wrappingAdd(1, ordering: .relaxed)
        page?.setText(ControlPage.dumpPathOffset, capacity: 4096, path.bytes)
        page?.pointee.snapshot_result = TRACER_SNAPSHOT_WRITTEN.rawValue
        tell(trigger, event, .path(path.bytes))
      }
    }
    return error
  }

  private func carryOutStop() {
    guard pointee.isRecording.load(ordering: .relaxed) != 0 else { return }
    stopAllocating()
    // Afterwards there is nothing left to take them from.
    let figures = snapshot(.stop, .snapshot) == 0 ? figures(.stop) : nil
    stopRecording()
    withMessage { message in
      message.append("recording stopped; the tracer's memory was given back")
      notify(.stopped, message.bytes, figures: figures)
    }
  }

  /// Stops recording without a last dump.
  private func dropRecording() {
    guard pointee.isRecording.load(ordering: .relaxed) != 0 else { return }
    stopAllocating()
    stopRecording()
    guard isOthersAffair else { return }
    withMessage { message in
      message.append("recording stopped without a last snapshot, as the program asked;")
      message.append(" the tracer's memory was given back")
      notify(.stopped, message.bytes)
    }
  }

  /// Forgets every block, as if recording had begun only now: a stop and a start, between which
  /// nothing can be recorded that the start does not know.
  private func clearRecording() -> Int32 {
    let (depth, sampling) = (pointee.depth, samplingByteCount)
    stopRecording()
    return startRecording(depth: depth, sampling: sampling)
  }

  /// Begins the next generation; ERANGE where there is none left.
  private func markGeneration() -> Int32 {
    let before = pointee.generation.load(ordering: .relaxed)
    _ = openGeneration(System.wallTime, System.monotonicTime)
    return pointee.generation.load(ordering: .relaxed) != before ? 0 : ERANGE
  }

  /// Writes a snapshot to the file that the program has named, and tells nobody: it was asked for by
  /// who will read it.
  private func writeCalledFile() -> Int32 {
    var bytes = InlineArray<4112, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      var partial = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 4112)
      return withUnsafeBytes(of: &pointee.calledPath) { path in
        let name = path.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self)
        partial.append(cString: name)
        partial.append(".partial")
        return writeDump(to: name, partial: partial.cString())
      }
    }
  }

  /// Says why there is no recording, which the process is not to notice in any other way.
  package func tellNotStarted(_ error: Int32) {
    withMessage { message in
      message.append("recording did not start")
      appendReason(error, to: &message)
      page?.setText(ControlPage.messageOffset, capacity: 512, message.bytes)
      notify(.trouble, message.bytes)
    }
  }

  /// `: the kernel gave no memory for the tables (…)`, of an error of `startRecording`.
  func appendReason(_ error: Int32, to message: inout TextBuffer) {
    guard error == EBUSY else {
      message.append(": the kernel gave no memory for the tables")
      return message.append(" (RLIMIT_AS, or strict overcommit)")
    }
    message.append(": the program has sampled one in ")
    message.append(byteCount: pointee.sampling.mean.byteCount)
    message.append(" before, HEAPTAP_SAMPLE asks for one in ")
    message.append(byteCount: pointee.settings.sampleByteCount)
    message.append(", and a process keeps its distance (HEAPTAP_SAMPLE=off records every block)")
  }

  /// The dump at the end of the process, by whichever thread.
  package func carryOutExit(_ request: Request) {
    if pointee.isRecording.load(ordering: .acquiring) != 0 {
      snapshot(request.contains(.terminated) ? .terminated : .exit, .snapshot)
    }
    exitDumpIsDone()
  }

  /// `, one sample in 512 KiB`, where there are samples.
  private func appendSampling(to message: inout TextBuffer) {
    guard samplingByteCount != 0 else { return }
    message.append(", one sample in ")
    message.append(byteCount: samplingByteCount)
  }

  func withMessage(_ body: (inout TextBuffer) -> Void) {
    var bytes = InlineArray<1100, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      var message = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 1100)
      body(&message)
    }
  }

  // MARK: Manners

  private func tellArmed() {
    guard pointee.settings.mode == .armed || pointee.settings.mode == .recording else { return }
    withMessage { message in
      let isRecording = pointee.isRecording.load(ordering: .relaxed) != 0
      message.append(isRecording ? "armed and recording" : "armed, dormant")
      if isRecording { appendSampling(to: &message) }
      if pointee.settings.startSignal != 0 {
        let minimum = tracer_services.signal_minimum?() ?? 0
        message.append("; ")
        Settings.describe(pointee.settings.startSignal, into: &message, minimum)
        message.append(" starts and stops, ")
        Settings.describe(pointee.settings.snapshotSignal, into: &message, minimum)
        message.append(" writes a snapshot")
      }
      notify(.armed, message.bytes)
    }
  }

  /// Once a second: handlers that the application took, figures for `heaptap list`, the end.
  private func lookAround() {
    followIdentity()
    if let page { publishCounters(on: page) }
    checkHandler(pointee.settings.startSignal, .takenStartHandler, told: .foreignStartHandler)
    checkHandler(
      pointee.settings.snapshotSignal, .takenSnapshotHandler, told: .foreignSnapshotHandler)
    if let exitProcess = tracer_services.exit_process, isLastThread { exitProcess(0) }
  }

  private func checkHandler(_ signal: Int32, _ trouble: Trouble, told: Trouble) {
    guard signal != 0, let owns = tracer_services.owns_signal, owns(signal) == 0,
      pointee.notices.told.load(ordering: .relaxed) & told.rawValue == 0, isNews(trouble)
    else { return }
    tellForeignHandler(signal, "has installed")
  }

  /// Says that the application's handler wins, and what else there is.
  package func tellForeignHandler(_ signal: Int32, _ verb: StaticString) {
    withMessage { message in
      message.append("the application ")
      message.append(verb)
      message.append(" a handler of its own for ")
      Settings.describe(signal, into: &message, tracer_services.signal_minimum?() ?? 0)
      message.append(", and keeps it: use 'heaptap start' and 'heaptap snapshot', or other")
      message.append(" signals by HEAPTAP_SIGNALS=RTMIN+3,RTMIN+4")
      notify(.trouble, message.bytes)
    }
  }

  /// Whether the main thread has ended by pthread_exit, and all others too: then the process would
  /// have ended with the last of them.
  private var isLastThread: Bool {
    var facts = statx()
    let path: StaticString = "/proc/self/task"
    let answer = withUnsafeMutablePointer(to: &facts) {
      System.call(
        SYS_statx, Int(AT_FDCWD), Int(bitPattern: path.utf8Start), 0, 4,  // STATX_NLINK
        Int(bitPattern: $0))
    }
    // The directory's links are two and one for each thread; an ended leader still counts.
    guard answer == 0, facts.stx_nlink <= 4 else { return false }
    var bytes = InlineArray<512, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      let path: StaticString = "/proc/self/stat"
      let state = ThreadFile.state(
        UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self),
        $0.baseAddress.unsafelyUnwrapped, capacity: 512)
      return state == 0x5a  // Z
    }
  }
}
