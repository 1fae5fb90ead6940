// SPDX-License-Identifier: Apache-2.0
// The process's standard error, for messages that the journal does not take or is not to get.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// No line is longer than a pipe takes in one piece.
  private static var lineByteCount: Int { 4096 }

  /// Writes each line of a message, as far as they can be written without waiting; `false` where not
  /// even the first could.
  func writeToStandardError(_ message: UnsafeRawBufferPointer) -> Bool {
    var line = InlineArray<4096, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &line) { bytes in
      var text = TextBuffer(bytes.baseAddress.unsafelyUnwrapped, capacity: Self.lineByteCount)
      return withStandardError { descriptor in
        guard isStandardError(descriptor) else { return false }
        var rest = message
        var isFirst = true
        repeat {
          var end = 0
          while end < rest.count, rest[end] != 0x0a { end &+= 1 }
          composeLine(UnsafeRawBufferPointer(rebasing: rest[..<end]), into: &text)
          guard Self.takesAtOnce(descriptor),
            System.call(SYS_write, Int(descriptor), Int(bitPattern: text.base), text.count)
              == text.count
          else { return !isFirst }
          isFirst = false
          rest = rest.dropping(end &+ 1)
        } while rest.count > 0
        return true
      }
    }
  }

  /// `heaptap[PID]: ` before the line, so that it can be told from the program's own.
  private func composeLine(_ line: UnsafeRawBufferPointer, into text: inout TextBuffer) {
    text.clear()
    text.append("heaptap[")
    text.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
    text.append("]: ")
    text.append(printable: line.prefixOfCharacters(text.capacity &- text.count &- 1))
    text.append(0x0a)
  }

  /// Notes what descriptor 2 is, when the library is loaded.
  package func noteStandardError() {
    guard let facts = System.facts(of: 2) else { return }
    pointee.notices.errorDevice = UInt64(facts.st_dev)
    pointee.notices.errorNumber = UInt64(facts.st_ino)
  }

  /// Whether the descriptor is still what it was: a daemon that closes its standard error may have a
  /// database or a client there by now.
  private func isStandardError(_ descriptor: Int32) -> Bool {
    guard let facts = System.facts(of: descriptor) else { return false }
    return pointee.notices.errorNumber != 0 && UInt64(facts.st_dev) == pointee.notices.errorDevice
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
    // The worker's own table does not have it: a copy of the main thread's, for as long as the lines
    // take.
    let descriptor = System.isFiltered ? reopenStandardError() : copyStandardError()
    guard descriptor >= 0 else { return false }
    defer { System.close(descriptor) }
    return body(descriptor)
  }

  private func copyStandardError() -> Int32 {
    let process = System.call(SYS_pidfd_open, Int(pointee.processID), 0)
    guard process >= 0 else { return -1 }
    defer { System.close(Int32(process)) }
    return Int32(truncatingIfNeeded: System.call(SYS_pidfd_getfd, process, 2, 0))
  }

  /// Opens what descriptor 2 leads to once more, if that is a pipe or a terminal: a file would be
  /// written to at another place, and a socket cannot be opened.
  ///
  /// systemd's `@system-service` has no pidfd_getfd, and ends who calls it.
  private func reopenStandardError() -> Int32 {
    var name = InlineArray<32, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &name) {
      var path = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 32)
      path.append("/proc/")
      path.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
      path.append("/fd/2")
      // Looked at before it is opened: to open a device may be to do something with it.
      let look = System.open(path.cString(), System.pathOnly)
      guard look >= 0 else { return look }
      defer { System.close(look) }
      guard isStandardError(look), let facts = System.facts(of: look) else { return -1 }
      switch FileKind(facts) {
      case .pipe, .characterDevice: break
      default: return -1
      }
      return System.open(path.cString(), O_WRONLY | O_NOCTTY | O_NONBLOCK)
    }
  }
}
