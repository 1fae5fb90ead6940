// SPDX-License-Identifier: Apache-2.0
// A process that would answer, and what it can be asked: start, snapshot, stop.

import CControlPage
import Glibc

/// A process that carries an armed tracer.
public struct ArmedProcess: Sendable {
  public let pid: Int32
  /// What the process calls itself, safe to print.
  public let program: String
  /// The systemd unit by the process's control group.
  public let unit: String?

  let handle: ProcessHandle
  let way: Way

  /// How the process is reached.
  enum Way: Sendable {
    /// The worker thread keeps its page open for as long as it lives.
    case page(ControlPage, worker: Int32)
    /// There is no page: a handler of the tracer's is known to be installed.
    case signals(SignalSettings)
    /// It is armed, but we may not reach it.
    case closed(ProcessControlError)
  }

  /// The process as sentences name it.
  public var place: String { "'\(program)' (pid \(pid))" }

  // MARK: What it is doing

  public enum State: String, Sendable {
    case off, dormant, recording
    /// It is reached by signals, which do not answer.
    case unknown
    /// It belongs to somebody else, or its page is not to be trusted.
    case closed
  }

  /// The tracer's own counters. They were right at one moment of the last second.
  public struct Counters: Sendable {
    public let liveBytes: UInt64
    public let liveBlocks: UInt64
    public let peakBytes: UInt64
    public let tracerBytes: UInt64
    public let lostRecords: UInt64
    public let snapshotCount: UInt64
    public let depthLimit: UInt32
    public let signals: String
    /// Bytes for each sample, on average, of which the figures are estimates; 0 where every block is
    /// recorded.
    public let sampleBytes: UInt64
  }

  public var state: State {
    switch way {
    case .page(let page, _):
      switch page.word(\.state) {
      case TRACER_STATE_DORMANT.rawValue: .dormant
      case TRACER_STATE_RECORDING.rawValue: .recording
      case TRACER_STATE_OFF.rawValue: .off
      default: .unknown
      }
    case .signals: .unknown
    case .closed: .closed
    }
  }

  /// The counters as they stand in the page; `nil` where there is no page to read.
  public var counters: Counters? {
    guard case .page(let page, _) = way else { return nil }
    return Counters(
      liveBytes: page.word64(\.live_bytes), liveBlocks: page.word64(\.live_blocks),
      peakBytes: page.word64(\.peak_bytes), tracerBytes: page.word64(\.tracer_bytes),
      lostRecords: page.word64(\.lost), snapshotCount: page.word64(\.snapshots),
      depthLimit: page.word(\.depth), signals: page.text(\.signals),
      sampleBytes: page.word64(\.sample_bytes))
  }

  /// Asks for fresh counters. A process that does not answer in time keeps its old ones.
  public func refresh(timeout: Duration = .milliseconds(250)) {
    guard case .page(let page, let worker) = way else { return }
    try? ask(TRACER_COMMAND_REFRESH, page, worker, timeout: timeout)
  }

  // MARK: What it can be asked

  public enum StartAnswer: Sendable {
    case started, wasRecording
    /// The request went out as a signal, which nothing answers.
    case signalled
  }

  /// Starts recording. Asking a process that records already is no error.
  public func start(timeout: Duration) throws(ProcessControlError) -> StartAnswer {
    switch way {
    case .closed(let error): throw error
    case .signals(let settings):
      try signal(settings, .start)
      return .signalled
    case .page(let page, let worker):
      let wasRecording = page.word(\.state) == TRACER_STATE_RECORDING.rawValue
      try ask(TRACER_COMMAND_START, page, worker, timeout: timeout)
      guard page.word(\.state) == TRACER_STATE_RECORDING.rawValue else {
        throw refusal("did not start recording", page, errno: page.word(\.start_result))
      }
      return wasRecording ? .wasRecording : .started
    }
  }

  /// Asks for a snapshot, waits until it is written, and returns the path to open it by.
  public func snapshot(timeout: Duration) throws(ProcessControlError) -> String {
    switch way {
    case .closed(let error): throw error
    case .signals(let settings): return try snapshot(by: settings, timeout: timeout)
    case .page(let page, let worker):
      try ask(TRACER_COMMAND_SNAPSHOT, page, worker, timeout: timeout)
      switch page.word(\.snapshot_result) {
      case TRACER_SNAPSHOT_WRITTEN.rawValue: return readablePath(page.text(\.dump_path))
      case TRACER_SNAPSHOT_DORMANT.rawValue:
        throw ProcessControlError(
          .dormant,
          "\(place) is not recording, so there is nothing to write;"
            + " 'heaptap start \(pid)' starts it")
      case TRACER_SNAPSHOT_FAILED.rawValue:
        throw refusal("could not write its snapshot", page, errno: page.word(\.error))
      case let result:
        throw ProcessControlError(
          .refused, "\(place) answered with snapshot result \(result), which means nothing")
      }
    }
  }

  public enum StopAnswer: Equatable, Sendable {
    /// Recording ended; the last snapshot is at `dump`, or `problem` says why there is none.
    case stopped(dump: String?, problem: String?)
    case wasDormant
    /// The request went out as a signal, which nothing answers.
    case signalled
  }

  /// Ends recording after a last snapshot. Asking a process that sleeps is no error.
  public func stop(timeout: Duration) throws(ProcessControlError) -> StopAnswer {
    switch way {
    case .closed(let error): throw error
    case .signals(let settings):
      try signal(settings, .stop)
      return .signalled
    case .page(let page, let worker):
      let wasRecording = page.word(\.state) == TRACER_STATE_RECORDING.rawValue
      let snapshotCount = page.word64(\.snapshots)
      try ask(TRACER_COMMAND_STOP, page, worker, timeout: timeout)
      guard page.word(\.state) != TRACER_STATE_RECORDING.rawValue else {
        throw refusal("did not stop recording", page, errno: 0)
      }
      guard wasRecording else { return .wasDormant }
      if page.word64(\.snapshots) != snapshotCount {
        return .stopped(dump: readablePath(page.text(\.dump_path)), problem: nil)
      }
      let problem = refusal("stopped without a last snapshot", page, errno: page.word(\.error))
      return .stopped(dump: nil, problem: problem.description)
    }
  }

  // MARK: By the page

  /// Makes a request and waits for its answer, or for the process to be gone.
  private func ask(
    _ command: tracer_command, _ page: ControlPage, _ worker: Int32, timeout: Duration
  ) throws(ProcessControlError) {
    guard handle.isAlive else { throw ended }
    let deadline = Deadline(after: timeout)
    let ticket = page.request(command)
    // In slices, since a futex and a pidfd cannot be waited for together: an answer wakes us at
    // once, and a process that is gone is noticed within a slice.
    while true {
      let slice = min(100, deadline.remainingMilliseconds)
      if page.waitForAnswer(to: ticket, milliseconds: slice) { return }
      guard handle.isAlive else { throw ended }
      guard isAccessible("/proc/\(pid)/task/\(worker)") else {
        throw ProcessControlError(
          .ended, "\(place) became another program, or lost its tracer, before it answered")
      }
      if deadline.isPast { throw timedOut(timeout) }
    }
  }

  private var ended: ProcessControlError {
    ProcessControlError(.ended, "\(place) ended before it answered")
  }

  private func timedOut(_ timeout: Duration) -> ProcessControlError {
    let stopped = ["T", "t"].contains(ProcessFacts(pid: pid).status.state)
    let reason =
      stopped
      ? "it is stopped, 'kill -CONT \(pid)' continues it"
      : "it may be frozen or short of CPU; --timeout waits longer"
    return ProcessControlError(
      .timedOut,
      "\(place) did not answer within \(timeout): \(reason)."
        + " The request stays and is carried out when it can be")
  }

  private func refusal(
    _ what: String, _ page: ControlPage, errno code: UInt32
  ) -> ProcessControlError {
    let message = page.text(\.message)
    let words = code == 0 ? nil : SystemError(Int32(truncatingIfNeeded: code)).words
    let reason = message.isEmpty ? words ?? "it does not say why" : message
    return ProcessControlError(.refused, "\(place) \(what): \(reason)")
  }

  /// A path of the process's, as it can be opened from here: containers have their own root.
  func readablePath(_ path: String) -> String {
    let namespace = try? destination(ofLink: "/proc/\(pid)/ns/mnt")
    let ours = try? destination(ofLink: "/proc/self/ns/mnt")
    if namespace == nil || namespace == ours { return path }
    let inside = "/proc/\(pid)/root\(path)"
    // A sandbox has most directories where they are outside; that name lasts longer than the process.
    if let found = try? status(ofFile: path), let asked = try? status(ofFile: inside),
      found.st_dev == asked.st_dev, found.st_ino == asked.st_ino
    {
      return path
    }
    return inside
  }
}

/// A moment on the monotonic clock.
struct Deadline {
  private let nanoseconds: Int64

  init(after timeout: Duration) {
    let (seconds, attoseconds) = timeout.components
    let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    let wait = overflow ? Int64.max / 2 : whole + attoseconds / 1_000_000_000
    nanoseconds = monotonicNanoseconds().addingReportingOverflow(wait).partialValue
  }

  var remainingMilliseconds: Int {
    Int(max(0, (nanoseconds - monotonicNanoseconds() + 999_999) / 1_000_000))
  }
  var isPast: Bool { monotonicNanoseconds() >= nanoseconds }
}
