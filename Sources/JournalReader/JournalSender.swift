// SPDX-License-Identifier: Apache-2.0
// Tells the journal something, in fields of our own.

import CSystemd
import Glibc

/// Tells the journal something.
public enum JournalSender {
  private static let socket = "/run/systemd/journal/socket"

  /// Whether there is a journal to tell.
  public static func check() throws(JournalError) {
    // libsystemd calls it a success when there is nobody to tell.
    guard unsafe access(socket, W_OK) == 0 else {
      throw JournalError(
        .noJournal, "no journal takes entries on this machine: '\(socket)'", errno: errno)
    }
  }

  /// Sends an entry and waits until the journal has it in its queue.
  ///
  /// Values may hold anything, line ends included: they are sent by their length.
  public static func send(_ fields: [(name: String, value: String)]) throws(JournalError) {
    try check()
    var parts = fields.map { Array("\($0.name)=\($0.value)".utf8) }
    // One buffer, so that the pointers into it stand for as long as the call.
    let ends = parts.reduce(into: [0]) { $0.append($0.last! + $1.count) }
    var all = parts.flatMap { $0 }
    parts = []
    let result = unsafe all.withUnsafeMutableBytes { bytes in
      let vectors = unsafe zip(ends, ends.dropFirst()).map { start, end in
        unsafe iovec(iov_base: bytes.baseAddress! + start, iov_len: end - start)
      }
      return unsafe sd_journal_sendv(vectors, Int32(vectors.count))
    }
    if result < 0 { throw JournalError(.cannotSend, "cannot send to the journal", errno: result) }
  }
}

/// This machine, as its journal calls it.
public enum ThisMachine {
  /// 32 hexadecimal digits; `nil` where there is no /etc/machine-id.
  public static let id: String? = {
    var id = sd_id128_t()
    guard unsafe sd_id128_get_machine(&id) >= 0 else { return nil }
    return unsafe withUnsafeBytes(of: id) { bytes in
      unsafe bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
  }()
}
