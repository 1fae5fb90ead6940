// SPDX-License-Identifier: Apache-2.0
// From the first call of a hook to an armed process, and from there to its end.

import CTracerHooks
import CTracerPlatform
import Synchronization

/// The originals are known: the first thing that runs, before any constructor may have.
@c(tracer_did_resolve)
public func didResolve(_ resolution: UnsafePointer<tracer_resolution>, _ hasBootBlocks: Int32) {
  let allocatorIsGlibc = resolution.pointee.allocator_is_glibc
  tracer_provide_services()
  core.pointee.processID = System.processID
  core.pointee.settings = Settings()
  core.pointee.allocatorIsGlibc = allocatorIsGlibc != 0
  core.pointee.hasBootBlocks = hasBootBlocks != 0
  // glibc's chunks are 32 bytes apart by themselves.
  tracer_minimum_request = allocatorIsGlibc != 0 ? 0 : 32
  noteOwnCode()
  core.noteStandardError()
  // Another copy, linked or preloaded under another name, is the one that traces.
  guard resolution.pointee.is_first_copy != 0, let environment = tracer_environment() else {
    core.pointee.isOff = true
    return
  }
  let signals =
    (tracer_services.signal_minimum?() ?? 34)...(tracer_services.signal_maximum?() ?? 64)
  if let problem = core.pointee.settings.read(environment, signalRange: signals) {
    tell(problem)
    core.pointee.isOff = true
  }
  if core.pointee.settings.mode == .off { core.pointee.isOff = true }
  if core.pointee.settings.mode == .unset {
    // No signal is asked for, and so none is looked after.
    core.pointee.settings.startSignal = 0
    core.pointee.settings.snapshotSignal = 0
  }
  if !core.pointee.isOff, tracer_can_find_objects() == 0 {
    if core.pointee.settings.mode != .unset {
      core.notify(
        .trouble,
        "glibc is older than 2.35, without which stacks cannot be walked: Heaptap stays off")
    }
    core.pointee.isOff = true
  }
  if !core.pointee.isOff, let path = resolution.pointee.bypassed_for {
    if core.pointee.settings.mode != .unset { tellBypassed(path) }
    core.pointee.isOff = true
  }
  if !core.pointee.isOff, let path = resolution.pointee.sanitizer {
    if core.pointee.settings.mode != .unset { tellSanitized(path) }
    core.pointee.isOff = true
  }
  if !core.pointee.settings.tracesChildren { keepToThisProcess(environment) }
  guard !core.pointee.isOff, core.pointee.settings.mode == .recording else { return }
  _ = core.startRecording(.firstAllocation)
}

/// The constructor: arms the process, if it is to be armed.
@c(tracer_did_load)
public func didLoad() {
  // Later, the first call of an operator might find the loader's lock taken, and wait for who has it.
  core.withoutRecording { tracer_find_present_operators() }
  guard !core.pointee.isOff,
    core.pointee.settings.mode == .armed || core.pointee.settings.mode == .recording
  else { return }
  _ = tracer_watch_threads_and_forks()
  // Nothing could be said while the originals were being looked for.
  if core.pointee.settings.mode == .recording,
    core.pointee.isRecording.load(ordering: .relaxed) == 0
  {
    core.tellNotStarted(ENOMEM)
  }
  install(core.pointee.settings.startSignal, .foreignStartHandler)
  install(core.pointee.settings.snapshotSignal, .foreignSnapshotHandler)
  if core.pointee.settings.dumpsAtExit { watchEnd() }
  startWorker()
}

/// The range of the tracer's own code, which no stack shows.
private func noteOwnCode() {
  var object = tracer_object()
  let here = unsafeBitCast(
    tracer_provide_services as @convention(c) () -> Void, to: UInt.self)
  guard tracer_find_object(UInt64(here), &object) == 0 else { return }
  core.pointee.ownStart = object.start
  core.pointee.ownEnd = object.end
}

private func install(_ signal: Int32, _ trouble: Trouble) {
  guard signal != 0, let installSignal = tracer_services.install_signal else { return }
  if installSignal(signal) != 0, core.isNews(trouble) {
    core.tellForeignHandler(signal, "already has")
  }
}

private func watchEnd() {
  tracer_services.watch_exit?()
  _ = tracer_watch_quick_exit()
  for position in 0..<3 { _ = tracer_services.install_signal?(exitSignals[position]) }
}

private func startWorker() {
  let started = core.pointee.requests.workerIsStarted
    .exchange(1, ordering: .acquiringAndReleasing)
  guard started == 0 else { return }
  let error = core.withoutRecording { tracer_services.start_worker?() ?? 0 }
  guard error != 0 else { return }
  core.pointee.requests.workerIsStarted.store(0, ordering: .releasing)
  if core.isNews(.noWorker) {
    core.notify(.trouble, "no thread could be started, so that nothing can be asked for")
  }
}

private func tell(_ problem: Settings.Problem) {
  core.withMessage { message in
    message.append(problem.variable)
    message.append(" takes ")
    message.append(problem.takes)
    message.append(", not '")
    message.append(cString: problem.value, limit: 200)
    message.append("': Heaptap stays off")
    core.notify(.trouble, message.bytes)
  }
}

private func tellBypassed(_ path: UnsafePointer<CChar>) {
  core.withMessage { message in
    message.append("malloc is that of '")
    message.append(cString: path, limit: 512)
    message.append(
      "', which comes before libheaptap.so: nothing can be traced, and Heaptap stays off")
    message.append(" (in LD_PRELOAD, put libheaptap.so first)")
    core.notify(.trouble, message.bytes)
  }
}

private func tellSanitized(_ path: UnsafePointer<CChar>) {
  core.withMessage { message in
    message.append("the program was built with the sanitizer '")
    message.append(cString: path, limit: 512)
    message.append(
      "', which cannot be traced: Heaptap stays off (trace a build without -fsanitize)")
    core.notify(.trouble, message.bytes)
  }
}

// MARK: Children

/// Leaves the children of this process untraced.
///
/// Started by `heaptap run`, the process stays traced through every exec, so its environment keeps
/// the library; a child finds that its parent is not the runner. Otherwise the entry goes at once.
private func keepToThisProcess(_ environment: UnsafeMutablePointer<UnsafePointer<CChar>?>) {
  let runner = core.pointee.settings.runner
  let parent = Int32(truncatingIfNeeded: System.call(SYS_getppid))
  if runner != 0, runner == parent { return }
  Preload.removeOwnEntry(from: environment)
  if runner != 0 { core.pointee.isOff = true }
}

@c(tracer_forked_child)
public func forkedChild() {
  guard !core.pointee.isOff else { return }
  core.becomeChild()
  guard core.pointee.settings.tracesChildren else {
    core.turnOff()
    if let environment = tracer_environment() { Preload.removeOwnEntry(from: environment) }
    return
  }
  startWorker()
}

// MARK: Threads, signals and the end

@c(tracer_worker_main)
public func workerMain() { core.work() }

@c(tracer_will_change_identity)
public func willChangeIdentity() {
  // In a child that is not traced another thread may have the place of the parent's worker.
  if !core.pointee.isOff { core.willChangeIdentity() }
}

@c(tracer_did_change_identity)
public func didChangeIdentity() {
  if !core.pointee.isOff { core.didChangeIdentity() }
}

@c(tracer_should_follow)
public func shouldFollow() {
  if !core.pointee.isOff { core.askToFollow() }
}

@c(tracer_thread_ended)
public func threadEnded(_ state: UnsafeMutableRawPointer) {
  core.threadEnded(state.assumingMemoryBound(to: ThreadState.self))
}

@c(tracer_on_signal)
public func onSignal(_ signal: Int32, _ code: Int32, _ value: Int32) {
  core.didReceive(signal, code: code, value: value)
}

@c(tracer_exiting)
public func exiting() { core.dumpBeforeEnd(.exit) }

// MARK: The C ABI

/// Whether the calls below can be carried out: there is a worker, or one could be started.
private func isReady() -> Bool {
  guard !core.pointee.isOff else { return false }
  if core.pointee.settings.mode == .unset { _ = tracer_watch_threads_and_forks() }
  startWorker()
  return true
}

private func call(_ request: Request, _ prepare: () -> Void = {}) -> Int32 {
  guard isReady() else { return EPERM }
  return core.callWorker(request, prepare)
}

@c(heaptap_start)
public func start(_ depth: UInt32) -> Int32 {
  guard depth <= Settings.depthLimit else { return EINVAL }
  return call(.start) {
    core.pointee.calledDepth = depth
    core.pointee.calledSampling = .max
  }
}

@c(heaptap_start_sampling)
public func startSampling(_ depth: UInt32, _ byteCount: Int) -> Int32 {
  let byteCount = UInt64(UInt(bitPattern: byteCount))
  guard depth <= Settings.depthLimit, byteCount == 0 || SampleMean.range.contains(byteCount) else {
    return EINVAL
  }
  return call(.start) {
    core.pointee.calledDepth = depth
    core.pointee.calledSampling = byteCount
  }
}

@c(heaptap_stop)
public func stop() -> Int32 { call(.stop) }

@c(heaptap_discard)
public func discard() -> Int32 { call(.drop) }

@c(heaptap_clear)
public func clear() -> Int32 { call(.clear) }

@c(heaptap_mark)
public func mark() -> Int32 { call(.mark) }

@c(heaptap_traceback)
public func traceback(
  _ block: UnsafeRawPointer?, _ addresses: UnsafeMutablePointer<UInt>?, _ limit: Int,
  _ total: UnsafeMutablePointer<Int>?
) -> Int {
  let found = core.traceback(
    of: UInt(bitPattern: block), into: addresses,
    limit: Int(truncatingIfNeeded: min(UInt(bitPattern: limit), UInt(Int.max))))
  total?.pointee = found.total
  return found.written
}

@c(heaptap_snapshot)
public func snapshot() -> Int32 { call(.snapshot) }

@c(heaptap_snapshot_to)
public func snapshot(to path: UnsafePointer<CChar>) -> Int32 {
  var byteCount = 0
  while byteCount < 4096, path[byteCount] != 0 { byteCount &+= 1 }
  guard byteCount > 0 else { return ENOENT }
  guard byteCount < 4096 else { return ENAMETOOLONG }
  return call(.file) {
    // With its NUL.
    for position in 0...byteCount {
      core.pointee.calledPath[position] = UInt8(bitPattern: path[position])
    }
  }
}

@c(heaptap_is_recording)
public func isRecording() -> Int32 {
  core.pointee.isRecording.load(ordering: .acquiring) == 1 ? 1 : 0
}

@c(heaptap_read_figures)
public func readFigures(_ result: UnsafeMutableRawPointer, _ byteCount: Int) -> Int32 {
  guard !core.pointee.isOff else { return EPERM }
  var figures = core.recordingFigures()
  // A program of another version knows fewer of them, or more.
  let known = min(byteCount, RecordingFigures.count &* 8)
  result.initializeMemory(as: UInt8.self, repeating: 0, count: max(0, byteCount))
  withUnsafeBytes(of: &figures) { bytes in
    if known > 0 { result.copyMemory(from: bytes.baseAddress.unsafelyUnwrapped, byteCount: known) }
  }
  return 0
}

@c(heaptap_reset_peak)
public func resetPeak() -> Int32 { core.pointee.isOff ? EPERM : core.resetPeak() }

/// `heaptap_track`, which CTracerHooks enters with the caller's registers.
@c(tracer_track)
public func track(
  _ domain: UInt32, _ address: UInt, _ byteCount: UInt,
  _ registers: UnsafePointer<tracer_registers>
) -> Int32 {
  guard !core.pointee.isOff else { return EPERM }
  return core.track(
    domain: domain, address: UInt64(address), byteCount: UInt64(byteCount), registers)
}

@c(heaptap_untrack)
public func untrack(_ domain: UInt32, _ address: UInt) -> Int32 {
  guard !core.pointee.isOff else { return EPERM }
  return core.untrack(domain: domain, address: UInt64(address))
}
