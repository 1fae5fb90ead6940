// SPDX-License-Identifier: Apache-2.0
// Standard output and error: a reader that has seen enough is no failure.

import Glibc
import ProcessControl

enum Output {
  /// Writes to standard output; ends the process well when nobody reads any more (`… | head`).
  static func write(_ text: String) {
    _ = brokenPipeHandler
    write(text, to: STDOUT_FILENO)
  }

  /// Writes to standard output what a report makes piece by piece: of all rows it may be gigabytes.
  static func write(_ body: (inout Pieces) -> Void) {
    var pieces = Pieces()
    body(&pieces)
    pieces.flush()
  }

  struct Pieces: TextOutputStream {
    private var text = ""

    mutating func write(_ piece: String) {
      text += piece
      if text.utf8.count >= 1 << 16 { flush() }
    }

    fileprivate mutating func flush() {
      Output.write(text)
      text.removeAll(keepingCapacity: true)
    }
  }

  static func writeError(_ text: String) { write(text, to: STDERR_FILENO) }

  /// Whether colours are wanted: on a terminal that has them, unless NO_COLOR says otherwise.
  static func wantsColour(environment: ProcessEnvironment) -> Bool {
    isatty(STDOUT_FILENO) == 1 && environment["TERM"] != "dumb"
      && (environment["NO_COLOR"] ?? "").isEmpty
  }

  /// Whether text is shown as UTF-8, as far as the environment tells: where nothing is set, it is.
  ///
  /// By the variables and not by setlocale(3), which knows only the locales that are installed here.
  static func showsUTF8(environment: ProcessEnvironment) -> Bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].lazy.compactMap { environment[$0] }
      .first { !$0.isEmpty }
    guard let locale = locale?.lowercased() else { return true }
    return locale.contains("utf-8") || locale.contains("utf8")
  }

  /// How many characters fit on a line; `nil` where standard output is no terminal.
  static var terminalWidth: Int? {
    var size = winsize()
    guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0 else {
      return nil
    }
    return Int(size.ws_col)
  }

  /// Has signals end the process well: whoever interrupts a command that goes on for ever has seen
  /// enough.
  static func endWell(at signals: [Int32]) {
    for number in signals { _ = signal(number) { _ in _exit(0) } }
  }

  /// Whether somebody still reads standard output, as far as a pipe tells before it is written to.
  static var isWanted: Bool {
    var question = pollfd(fd: STDOUT_FILENO, events: 0, revents: 0)
    return unsafe poll(&question, 1, 0) <= 0
      || question.revents & Int16(POLLERR | POLLNVAL) == 0
  }

  /// A handler and not SIG_IGN: a command that `run` starts must find the signal at its default.
  private static let brokenPipeHandler: Void = {
    _ = signal(SIGPIPE) { _ in _exit(0) }
  }()

  private static let terminalsShowUTF8 = showsUTF8(environment: .current)

  private static func write(_ text: String, to descriptor: Int32) {
    var text = text
    // A file keeps every byte. A terminal of another character set would take some for commands.
    if !terminalsShowUTF8, isatty(descriptor) == 1 {
      text = String(
        String.UnicodeScalarView(
          text.unicodeScalars.map { $0.isASCII ? $0 : $0 == "…" ? "~" : "?" }))
    }
    text.withUTF8 { bytes in
      var written = 0
      while written < bytes.count {
        let count = unsafe Glibc.write(
          descriptor, bytes.baseAddress! + written, bytes.count - written)
        if count >= 0 {
          written += count
        } else if errno == EPIPE && descriptor == STDOUT_FILENO {
          _exit(0)
        } else if errno != EINTR {
          // A full disk must not pass for a whole report.
          if descriptor == STDOUT_FILENO { fail(errno) }
          return
        }
      }
    }
  }

  private static func fail(_ code: Int32) -> Never {
    let words = unsafe String(cString: strerror(code))
    let lowered = words.prefix(1).lowercased() + words.dropFirst()
    writeError("heaptap: cannot write to standard output: \(lowered)\n")
    exit(Failure.exitStatus)
  }
}
