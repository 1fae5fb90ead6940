// SPDX-License-Identifier: Apache-2.0
// What the tracer says, and to whom: the journal, standard error, or nobody.

import CTracerPlatform
import Synchronization

/// What a message is about; `HEAPTAP_EVENT` in the journal.
package enum NoticeEvent {
  case armed, started, snapshot, limit, stopped, trouble

  var name: StaticString {
    switch self {
    case .armed: "armed"
    case .started: "started"
    case .snapshot: "snapshot"
    case .limit: "limit"
    case .stopped: "stopped"
    case .trouble: "trouble"
    }
  }

  /// syslog's levels: 4 a warning, 5 worth a look, 6 for information.
  var priority: StaticString {
    switch self {
    case .armed: "6"
    case .started, .snapshot, .stopped: "5"
    case .limit, .trouble: "4"
    }
  }
}

/// Troubles that are told once a process.
package struct NoticeState: ~Copyable {
  package let told: Atomic<UInt32>
  /// Which file standard error was when the library was loaded; 0 where it was closed.
  package var errorDevice: UInt64
  package var errorNumber: UInt64
  /// Messages that nobody took.
  package let dropped: Atomic<UInt64>
}

package enum Trouble: UInt32 {
  case foreignStartHandler = 1
  case foreignSnapshotHandler = 2
  case takenStartHandler = 4
  case takenSnapshotHandler = 8
  case noWorker = 16
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Whether a trouble has not been told yet; from now on it has.
  package func isNews(_ trouble: Trouble) -> Bool {
    let told = pointee.notices.told.bitwiseOr(trouble.rawValue, ordering: .relaxed).oldValue
    return told & trouble.rawValue == 0
  }

  package func notify(_ event: NoticeEvent, _ message: StaticString) {
    notify(
      event, UnsafeRawBufferPointer(start: message.utf8Start, count: message.utf8CodeUnitCount))
  }

  /// Says a sentence. Never waits: a journal that does not take it at once does not get it.
  ///
  /// - Parameter dump: The path of a dump that the message is about; empty for none.
  package func notify(
    _ event: NoticeEvent, _ message: UnsafeRawBufferPointer,
    dump: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0)
  ) {
    let isTaken: Bool
    switch pointee.settings.log {
    case .off: return
    case .journal: isTaken = sendToJournal(event, message, dump)
    case .standardError: isTaken = writeToStandardError(message)
    case .automatic:
      // That nothing has happened yet is not worth a line in every program's output.
      isTaken =
        sendToJournal(event, message, dump) || event == .armed || writeToStandardError(message)
    }
    if !isTaken { _ = pointee.notices.dropped.wrappingAdd(1, ordering: .relaxed) }
  }

  /// One datagram of the journal's native protocol: `FIELD=value` lines. The values are printable,
  /// so that none can begin a field. (systemd, Native Journal Protocol.)
  private func sendToJournal(
    _ event: NoticeEvent, _ message: UnsafeRawBufferPointer, _ dump: UnsafeRawBufferPointer
  ) -> Bool {
    var entry = InlineArray<3072, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &entry) { bytes in
      var text = TextBuffer(bytes.baseAddress.unsafelyUnwrapped, capacity: 3072)
      text.append("SYSLOG_IDENTIFIER=heaptap\nPRIORITY=")
      text.append(event.priority)
      text.append("\nHEAPTAP_EVENT=")
      text.append(event.name)
      text.append("\nHEAPTAP_PID=")
      text.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
      if dump.count > 0 {
        text.append("\nHEAPTAP_DUMP=")
        text.append(printable: dump)
      }
      text.append("\nMESSAGE=")
      text.append(printable: UnsafeRawBufferPointer(rebasing: message.prefix(1024)))
      text.append(0x0a)
      return !text.isFull && Self.send(text.bytes)
    }
  }

  private static func send(_ entry: UnsafeRawBufferPointer) -> Bool {
    let socket = System.call(
      SYS_socket, Int(AF_UNIX), Int(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return false }
    defer { System.close(Int32(socket)) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let path: StaticString = "/run/systemd/journal/socket"
    return withUnsafeMutableBytes(of: &address) { bytes in
      for position in 0..<path.utf8CodeUnitCount {
        bytes[2 &+ position] = path.utf8Start[position]
      }
      // With the address each time: a connected socket is dead for good after journald restarts.
      let sent = System.call(
        SYS_sendto, socket, Int(bitPattern: entry.baseAddress), entry.count,
        MSG_DONTWAIT | MSG_NOSIGNAL, Int(bitPattern: bytes.baseAddress),
        bytes.count)
      return sent == entry.count
    }
  }

  /// Writes a line to the process's standard error, which the worker's own table does not have.
  private func writeToStandardError(_ message: UnsafeRawBufferPointer) -> Bool {
    var line = InlineArray<1200, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &line) { bytes in
      var text = TextBuffer(bytes.baseAddress.unsafelyUnwrapped, capacity: 1200)
      text.append("heaptap[")
      text.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
      text.append("]: ")
      text.append(printable: UnsafeRawBufferPointer(rebasing: message.prefix(1100)))
      text.append(0x0a)
      return withStandardError { descriptor in
        guard isStandardError(descriptor), Self.takesAtOnce(descriptor) else { return false }
        let written = System.call(
          SYS_write, Int(descriptor), Int(bitPattern: text.base), text.count)
        return written == text.count
      }
    }
  }

  /// Notes what descriptor 2 is, when the library is loaded.
  package func noteStandardError() {
    var facts = stat()
    let answer = withUnsafeMutablePointer(to: &facts) {
      System.call(SYS_fstat, 2, Int(bitPattern: $0))
    }
    guard answer == 0 else { return }
    pointee.notices.errorDevice = UInt64(facts.st_dev)
    pointee.notices.errorNumber = UInt64(facts.st_ino)
  }

  /// Whether the descriptor is still what it was: a daemon that closes its standard error may have a
  /// database or a client there by now.
  private func isStandardError(_ descriptor: Int32) -> Bool {
    var facts = stat()
    let answer = withUnsafeMutablePointer(to: &facts) {
      System.call(SYS_fstat, Int(descriptor), Int(bitPattern: $0))
    }
    return answer == 0 && pointee.notices.errorNumber != 0
      && UInt64(facts.st_dev) == pointee.notices.errorDevice
      && UInt64(facts.st_ino) == pointee.notices.errorNumber
  }

  /// Whether a line can be written without waiting, and without a SIGPIPE: a pipe that poll calls
  /// writable has room for PIPE_BUF bytes, and one without a reader is in error.
  private static func takesAtOnce(_ descriptor: Int32) -> Bool {
    let writable: Int16 = 4  // POLLOUT
    var query: (descriptor: Int32, events: Int16, answer: Int16) = (descriptor, writable, 0)
    let ready = withUnsafeMutableBytes(of: &query) {
      System.call(SYS_poll, Int(bitPattern: $0.baseAddress), 1, 0)
    }
    return ready == 1 && query.answer == writable
  }

  private func withStandardError(_ body: (Int32) -> Bool) -> Bool {
    guard pointee.requests.workerHasOwnDescriptors.load(ordering: .acquiring) != 0,
      pointee.requests.worker.load(ordering: .acquiring) == UInt32(bitPattern: System.threadID)
    else { return body(2) }
    // Under a filter of system calls pidfd_getfd may be death: it is not in systemd's
    // @system-service, and there is no way to ask but to try.
    guard System.call(SYS_prctl, Int(PR_GET_SECCOMP)) == 0 else {
      return withReopenedStandardError(body)
    }
    // A copy of the main thread's descriptor, for as long as the line takes.
    let process = System.call(SYS_pidfd_open, Int(pointee.processID), 0)
    guard process >= 0 else { return false }
    defer { System.close(Int32(process)) }
    let descriptor = System.call(SYS_pidfd_getfd, process, 2, 0)
    guard descriptor >= 0 else { return false }
    defer { System.close(Int32(descriptor)) }
    return body(Int32(descriptor))
  }

  /// Opens once more what the main thread has as its standard error.
  ///
  /// A pipe or a terminal, as containers give: a socket cannot be opened so, and a file would be
  /// written without the program's own position in it.
  private func withReopenedStandardError(_ body: (Int32) -> Bool) -> Bool {
    // The main thread's table, also where this thread has another.
    let path: StaticString = "/proc/self/fd/2"
    let descriptor = System.open(
      UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self),
      O_WRONLY | O_NONBLOCK | O_NOCTTY)
    guard descriptor >= 0 else { return false }
    defer { System.close(descriptor) }
    var facts = stat()
    let answer = withUnsafeMutablePointer(to: &facts) {
      System.call(SYS_fstat, Int(descriptor), Int(bitPattern: $0))
    }
    let kind = Int32(truncatingIfNeeded: facts.st_mode) & S_IFMT
    guard answer == 0, kind == S_IFIFO || kind == S_IFCHR else { return false }
    return body(descriptor)
  }
}
