// SPDX-License-Identifier: Apache-2.0
// Surroundings that tests bring along: the scripts of `Tests/Beds`, which run a command in them.

import Foundation
import Testing

/// A real systemd-journald of a test's own, in a mount namespace.
///
/// The command's process numbers are those outside, so that a test can ask and signal it:
///
///     let guest = try Obedient("record", prefix: JournalBed.prefix(journal: directory))
///     try run(JournalBed.prefix(unit: "myd") + ["sh", "-c", "…; journalctl --sync; journalctl -u myd"])
///
/// Tests say `@Suite(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))`.
enum JournalBed {
  private static let script =
    Workshop.package.appendingPathComponent("Tests/Beds/with-journald").path

  /// What is put before a command to run it in the bed.
  /// - Parameters:
  ///   - journal: Where the journal is kept, for `journalctl -D`; else it ends with the command.
  ///   - catalogs: Message catalogs for `journalctl -x`.
  ///   - unit: Whose control group the command runs in. Of all tests that run at once only one can
  ///     use a name.
  ///   - hostname: What becomes `_HOSTNAME`.
  ///   - queuesLikeSystemd: Whether journald's socket queues as many datagrams as under systemd.
  ///   - options: Lines of journald.conf.
  static func prefix(
    journal: URL? = nil, catalogs: [URL] = [], unit: String? = nil, hostname: String? = nil,
    queuesLikeSystemd: Bool = false, options: [String] = []
  ) -> [String] {
    var prefix = [script]
    if let journal { prefix += ["--journal-dir", journal.path] }
    for catalog in catalogs { prefix += ["--catalog", catalog.path] }
    if let unit { prefix += ["--unit", unit] }
    if let hostname { prefix += ["--hostname", hostname] }
    if queuesLikeSystemd { prefix += ["--queue"] }
    for option in options { prefix += ["--option", option] }
    return prefix + ["--"]
  }

  /// Why the bed can't be had on this machine; empty where it can.
  static let obstacle: Comment = {
    do {
      let result = try run(prefix() + ["true"])
      return result.status == 0 ? "" : "no journald: \(result.errors)"
    } catch {
      return "no journald: \("\(error)")"
    }
  }()

  static var isAvailable: Bool { obstacle.rawValue.isEmpty }
}
