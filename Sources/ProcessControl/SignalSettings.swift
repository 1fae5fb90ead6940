// SPDX-License-Identifier: Apache-2.0
// The way in where there is no control page: a signal with a value, and only to a known handler.

import Glibc

/// The two signals that a tracer listens to, by `HEAPTAP_SIGNALS`.
struct SignalSettings: Equatable, Sendable {
  /// Toggles recording when it comes bare; its value says start or stop.
  let toggle: Int32
  let snapshot: Int32

  /// Reads a value of `HEAPTAP_SIGNALS`; `nil` for `none` and for what the tracer would refuse.
  init?(_ value: String) {
    let parts = value.split(separator: ",", omittingEmptySubsequences: false)
    guard parts.count == 2, let toggle = Self.number(parts[0]),
      let snapshot = Self.number(parts[1]), toggle != snapshot
    else { return nil }
    self.toggle = toggle
    self.snapshot = snapshot
  }

  private static func number(_ name: Substring) -> Int32? {
    switch name {
    case "USR1": return SIGUSR1
    case "USR2": return SIGUSR2
    default: break
    }
    guard name.hasPrefix("RTMIN") else { return nil }
    // glibc keeps the first two for itself; this is the first that programs may use.
    let first = __libc_current_sigrtmin()
    let rest = name.dropFirst("RTMIN".count)
    if rest.isEmpty { return first }
    guard rest.hasPrefix("+"), let offset = Int32(rest.dropFirst()),
      (0...(__libc_current_sigrtmax() - first)).contains(offset)
    else { return nil }
    return first + offset
  }

  static let standard = SignalSettings("USR1,USR2")!
}

extension ArmedProcess {
  /// What the tracer reads in a signal's value. A bare signal has none, and toggles.
  enum SignalValue: Int {
    case start = 1
    case stop = 2
    case snapshot = 3
  }

  /// Sends a signal, after looking once more that it has a handler: the default action is death.
  func signal(_ settings: SignalSettings, _ value: SignalValue) throws(ProcessControlError) {
    let signal = value == .snapshot ? settings.snapshot : settings.toggle
    // The program may have been replaced by exec since it was found. What is read here is this
    // process's as long as the handle is alive, and exec puts every handler back to its default.
    guard ProcessFacts(pid: pid).status.hasHandler(for: signal), handle.isAlive else {
      throw ProcessControlError(
        .notArmed, "\(place) no longer handles signal \(signal), so none was sent")
    }
    do {
      try handle.queueSignal(signal, value: value.rawValue)
    } catch {
      switch error.code {
      case ESRCH: throw ProcessControlError(.ended, "\(place) ended before it could be asked")
      case EPERM: throw .notPermitted(place, owner: ProcessFacts(pid: pid).status.userID)
      default:
        throw ProcessControlError(.refused, "cannot send a signal to \(place): \(error.words)")
      }
    }
  }

  /// Asks by signal, and watches the dump directory, since a signal brings no answer.
  func snapshot(
    by settings: SignalSettings, timeout: Duration
  ) throws(ProcessControlError) -> String {
    let facts = ProcessFacts(pid: pid)
    let status = facts.status
    let innerPID = status.innermostPID ?? pid
    let directories = DumpDirectories.written(
      by: status.userID ?? geteuid(), environment: (try? facts.environment()) ?? [:]
    ).map(readablePath)
    func dumps() -> [DumpFile] {
      directories.flatMap { DumpFile.all(inDirectory: $0) }.filter { $0.pid == innerPID }
    }
    let known = Set(dumps().map(\.path))
    let deadline = Deadline(after: timeout)
    try signal(settings, .snapshot)
    while true {
      if let dump = dumps().filter({ !known.contains($0.path) }).max() { return dump.path }
      guard handle.isAlive else {
        throw ProcessControlError(.ended, "\(place) ended before it wrote its snapshot")
      }
      if deadline.isPast {
        let places = directories.map { "'\($0)'" }.joined(separator: " or ")
        throw ProcessControlError(
          .timedOut,
          "\(place) was asked by signal, and no dump appeared in \(places) within \(timeout);"
            + " it may not be recording, its log says more")
      }
      usleep(50_000)
    }
  }
}

extension ProcessControlError {
  static func notPermitted(_ place: String, owner: UInt32?) -> ProcessControlError {
    if geteuid() == 0 {
      return ProcessControlError(
        .notPermitted,
        "\(place) may not be looked into, even by root here: a security module or another user"
          + " namespace forbids it")
    }
    let owner = owner.map { "uid \($0)" } ?? "another user"
    return ProcessControlError(
      .notPermitted, "\(place) belongs to \(owner): run heaptap as that user or as root")
  }
}
