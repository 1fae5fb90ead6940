// SPDX-License-Identifier: Apache-2.0
// Entries as the tracer sends them, sent by a program of the system.

import Foundation
import HeapModel
import JournalReader

/// An entry to be sent in a bed.
struct TestEntry {
  var kind: HeapEvent.Kind
  var message: String
  var fields: [(String, String)]

  init(
    _ kind: HeapEvent.Kind, _ message: String = "a sentence", pid: Int = 1234,
    program: String = "redis-server", unit: String? = "myd.service",
    _ more: KeyValuePairs<String, String> = [:]
  ) {
    self.kind = kind
    self.message = message
    fields =
      [("HEAPTAP_PID", "\(pid)"), ("HEAPTAP_PROGRAM", program)]
      + (unit.map { [("HEAPTAP_UNIT", $0)] } ?? []) + more.map { ("HEAPTAP_\($0.key)", $0.value) }
  }

  /// A snapshot with its figures.
  static func snapshot(
    live: Int, growth: Int, usage: Int = 52 << 20, limit: Int = 64 << 20, dump: String,
    unit: String? = "myd.service", pid: Int = 1234
  ) -> TestEntry {
    TestEntry(
      .snapshot, "\(live) bytes traced", pid: pid, unit: unit,
      [
        "LIVE_BYTES": "\(live)", "LIVE_BLOCKS": "8", "PEAK_BYTES": "\(live)",
        "GROWTH_BYTES": "\(growth)", "USAGE_BYTES": "\(usage)", "LIMIT_BYTES": "\(limit)",
        "LIMIT_SOURCE": "/sys/fs/cgroup/memory.max", "LOST": "0", "TRIGGER": "signal",
        "DUMP": dump, "SITE_1": "+8 bytes in 1 blocks, 8 bytes in 1 blocks live: leak < main",
      ])
  }

  /// The entry in journald's native protocol, where lengths and not line ends delimit values.
  var datagram: Data {
    var data = Data()
    let own: [(String, String)] = [
      ("MESSAGE", message), ("MESSAGE_ID", kind.messageID), ("HEAPTAP_EVENT", kind.rawValue),
      ("PRIORITY", "5"), ("SYSLOG_IDENTIFIER", "heaptap"),
    ]
    for (name, value) in own + fields {
      data += Data("\(name)\n".utf8)
      withUnsafeBytes(of: UInt64(value.utf8.count).littleEndian) { data += Data($0) }
      data += Data("\(value)\n".utf8)
    }
    return data
  }

  /// Shell text that sends entries, one datagram each, as a user of the system, and waits until they
  /// can be read. The sender stays until they are, for journald to look it up.
  static func sending(_ entries: [TestEntry], as user: Int = 0) throws -> String {
    let directory = try Workshop.makeDirectory()
    chmod(directory.path, 0o755)
    for (number, entry) in entries.enumerated() {
      try entry.datagram.write(to: directory.appendingPathComponent("\(100 + number)"))
    }
    let program = """
      import os, socket, subprocess, sys
      os.setgid(\(user)); os.setuid(\(user))
      to = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
      for name in sorted(os.listdir(sys.argv[1])):
        data = open(os.path.join(sys.argv[1], name), "rb").read()
        to.sendto(data, "/run/systemd/journal/socket")
      subprocess.run(["journalctl", "--sync"])
      """
    let script = directory.deletingLastPathComponent()
      .appendingPathComponent("\(UUID().uuidString).py")
    try program.write(to: script, atomically: true, encoding: .utf8)
    return "/usr/bin/python3 \(script.path) \(directory.path) && journalctl --sync"
  }
}
