// SPDX-License-Identifier: Apache-2.0
// Moments in the time zone of whoever reads: the journal is read beside journalctl, which does so.

import Glibc

/// Moments in the time zone of whoever reads.
public enum LocalTime {
  /// `2026-11-21 10:27:57`, for microseconds since 1970.
  public static func text(microseconds: Int) -> String {
    var seconds = time_t(microseconds / 1_000_000)
    var parts = unsafe tm()
    guard unsafe localtime_r(&seconds, &parts) != nil else { return "?" }
    let date = unsafe [Int(parts.tm_year) + 1900, Int(parts.tm_mon) + 1, Int(parts.tm_mday)]
    let time = unsafe [parts.tm_hour, parts.tm_min, parts.tm_sec]
    func joined(_ numbers: some Sequence<some BinaryInteger>, _ separator: String) -> String {
      numbers.map { $0 < 10 ? "0\($0)" : "\($0)" }.joined(separator: separator)
    }
    return joined(date, "-") + " " + joined(time, ":")
  }
}
