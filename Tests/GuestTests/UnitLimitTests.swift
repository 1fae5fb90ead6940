// SPDX-License-Identifier: Apache-2.0
// The morning after: a service that ran into its MemoryMax=, its dump, and what the journal says.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite(.enabled(if: SystemdBed.isAvailable, SystemdBed.obstacle)) struct UnitLimitTests {
  @Test func `a service that is killed at its limit has left a dump, and its entries`() throws {
    let night = try Night(
      service: ["User=daemon", "ProtectSystem=strict"], step: "1048576 50",
      script: """
        heaptap enable myd
        systemctl start myd
        record myd
        snapshot myd
        """)
    try night.expectDumpOfLeak()
    // The one that was asked for, and the one that nobody asked for.
    #expect(night.dumps.contains { $0.header["trigger"] == "signal" })
    for event in ["armed", "started", "snapshot", "limit"] {
      #expect(night.entries.contains { $0["HEAPTAP_EVENT"] == event }, "\(event)")
    }
  }

  @Test func `a service that nobody asked begins to record at its mark, and dumps at the next`()
    throws
  {
    // Dormant, the limit is looked at once a second: slow enough for that.
    let night = try Night(
      service: ["DynamicUser=yes", "PrivateTmp=yes"], step: "1048576 100",
      script: "heaptap enable --start 20% --limit 60% myd; systemctl start myd")
    try night.expectDumpOfLeak()
  }

  /// A service under `MemoryMax=64M` that leaks until it is killed, and what is found afterwards.
  private struct Night {
    /// What each dump says of itself, and what `heaptap show --json` says of it, oldest first.
    let dumps: [(header: Header, report: [String: Any])]
    /// What the journal has of the tracer's under the unit's name.
    let entries: [[String: String]]

    init(service: [String], step: String, script: String) throws {
      let bed = try SystemdBed()
      try bed.add(program: "grower.c", as: "usr/local/bin/grower")
      try bed.add(
        service: "myd", ["MemoryMax=64M", "MemorySwapMax=0"] + service,
        command: "/usr/local/bin/grower \(step)")
      let result = try bed.succeed(
        """
        # On the disk: what is written to the container's own root is memory, and the unit's.
        mkdir -p /out/dumps /var/lib/heaptap
        mount --bind /out/dumps /var/lib/heaptap
        systemd-tmpfiles --create heaptap.conf
        systemctl start heaptap-report.path
        \(script)
        wait_for '! systemctl is-active --quiet myd'
        systemctl show --property=Result,ExecMainStatus myd
        # The reporter comes to it by itself.
        told() {
          journalctl --sync
          journalctl --quiet --unit=myd HEAPTAP_EVENT=report HEAPTAP_TRIGGER=limit | grep -q .
        }
        wait_for_reports told
        journalctl --output=json --unit=myd SYSLOG_IDENTIFIER=heaptap > /out/journal
        # Here, where the program is.
        for path in $(find /var/lib/heaptap -name '*.pb'); do
          heaptap show --json -n 1 "$path" > "/out/$(basename "$path").json"
        done
        for path in $(journalctl --output=cat --output-fields=HEAPTAP_DUMP --unit=myd); do
          [ ! -e "$path" ] || echo "there: $path"
        done
        """)
      // v1 does not tell systemd whose kill it was.
      #expect(
        result.output.contains("Result=signal\nExecMainStatus=9")
          || result.output.contains("Result=oom-kill\nExecMainStatus=9"), "\(result.output)")
      let root = bed.output.appendingPathComponent("dumps")
      let names = try FileManager.default.subpathsOfDirectory(atPath: root.path).sorted()
      dumps = try names.filter { $0.hasSuffix(".pb") }.map { name in
        let report = bed.output.appendingPathComponent(
          "\(name.split(separator: "/").last!).json")
        let text = try String(contentsOf: report, encoding: .utf8)
        return (
          try Snapshot(profile: [UInt8](Data(contentsOf: root.appendingPathComponent(name))))
            .header,
          try Finished(status: 0, output: text, errors: "").json
        )
      }
      let journal = try String(
        contentsOf: bed.output.appendingPathComponent("journal"), encoding: .utf8)
      entries = try journal.split(separator: "\n").map { line in
        let fields = try JSONSerialization.jsonObject(with: Data(line.utf8))
        return (try #require(fields as? [String: Any])).compactMapValues { $0 as? String }
      }
      // Every dump that the journal names is there under that name.
      let told = Set(entries.compactMap { $0["HEAPTAP_DUMP"] })
      #expect(!told.isEmpty)
      for path in told { #expect(result.output.contains("there: \(path)\n"), "\(path)") }
    }

    /// Expects that the last dump at the limit has the leaking line in its first row, and that the
    /// journal has it with file and line.
    func expectDumpOfLeak() throws {
      let last = try #require(dumps.last { $0.header["trigger"] == "limit" })
      #expect(last.header["unit"] == "myd.service")
      #expect(last.header["limit_bytes"] == "\(64 << 20)")
      #expect(last.header["limit_source"]?.contains("/myd.service/memory.") == true)
      let told = entries.last {
        $0["HEAPTAP_EVENT"] == "report" && $0["HEAPTAP_TRIGGER"] == "limit"
      }
      #expect(told?["HEAPTAP_SITE_1"]?.contains("leak_one") == true)
      #expect(told?["HEAPTAP_SITE_1"]?.contains("/grower.c:") == true)
      let row = try #require((last.report["rows"] as? [[String: Any]])?.first)
      #expect(row["function"] as? String == "leak_one")
      #expect((row["file"] as? String)?.hasSuffix("/grower.c") == true)
      // A dormant daemon looks once a second, and so may begin a second late.
      #expect(try #require(row["live_bytes"] as? Int) >= 4 << 20)
    }
  }
}
