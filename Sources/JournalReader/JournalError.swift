// SPDX-License-Identifier: Apache-2.0
// Why the journal could not be read or written: one sentence with its place.

import Glibc

/// Why the journal could not be read or written.
public struct JournalError: Error, Sendable, CustomStringConvertible {
  public enum Code: Sendable {
    /// There is no such file or directory, or it may not be read, or is none of a journal.
    case cannotOpen
    /// Opened, but what is in it cannot be followed.
    case damaged
    /// No journal takes entries on this machine.
    case noJournal
    case cannotSend
    case badTime
  }

  public let code: Code
  /// One sentence without its full stop. Paths are as they were given.
  public let description: String

  init(_ code: Code, _ description: String) {
    self.code = code
    self.description = description
  }

  /// libsystemd answers with errno's numbers, negated.
  init(_ code: Code, _ what: String, errno number: Int32) {
    let words =
      unsafe strerror(number.magnitude < 4096 ? abs(number) : EIO)
      .map { unsafe String(cString: $0) } ?? "error \(number)"
    self.init(code, "\(what): \(words.prefix(1).lowercased() + words.dropFirst())")
  }
}
