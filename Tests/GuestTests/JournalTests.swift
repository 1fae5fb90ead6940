// SPDX-License-Identifier: Apache-2.0
// heaptap journal, on entries that a real journald took.

import Foundation
import HeapModel
import JournalReader
import Testing

@Suite(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))
struct `heaptap journal` {
  /// Runs shell text beside a journald.
  private func inBed(
    _ text: String, _ prefix: [String] = JournalBed.prefix(),
    environment: [String: String] = [:]
  ) throws -> Finished {
    try run(prefix + ["sh", "-c", text], environment: environment.merging(["TZ": "UTC"]) { $1 })
  }

  private let command = Workshop.command

  private func objects(_ text: String) throws -> [[String: Any]] {
    try text.split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
  }

  private static let dump = "/var/lib/heaptap/0/20261121T102757.123456Z-redis-server-1234-7.pb"

  // MARK: What it shows

  @Test func `an event is a line with how full it was, what was traced, and the dump`() throws {
    let directory = try Workshop.makeDirectory()
    let there = directory.appendingPathComponent(
      "20261121T102757.123456Z-redis-server-1234-2.pb"
    ).path
    _ = FileManager.default.createFile(atPath: there, contents: Data())
    let entries: [TestEntry] = [
      TestEntry(.armed, "armed, asleep\nand a second line"),
      .snapshot(live: 40 << 20, growth: 40 << 20, usage: 48 << 20, dump: Self.dump),
      .snapshot(live: 50 << 20, growth: -(1 << 20), usage: 60 << 20, dump: there),
    ]
    let result = try inBed("\(try TestEntry.sending(entries)) && \(command) journal myd")
    #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    let lines = result.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 3, "\(result.output)")
    let start = #/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  myd\.service\[1234\]  /#
    #expect(lines.allSatisfy { $0.prefixMatch(of: start) != nil }, "\(result.output)")
    #expect(lines[0].contains(/armed +- +armed, asleep$/), "\(lines[0])")
    #expect(
      lines[1].hasSuffix(
        "snapshot  ████████░░   75 %  40.0 MiB  +40.0 MiB  \(Self.dump) (missing)"), "\(lines[1])")
    #expect(
      lines[2].hasSuffix("snapshot  █████████░   94 %  50.0 MiB  -1024 KiB  \(there)"),
      "\(lines[2])")
  }

  @Test func `every field is an object's member, as journalctl has it`() throws {
    let hostile = "a\u{1b}[31m\nHEAPTAP_LIVE_BYTES=1\n\u{9b}x\u{202e}"
    let entries: [TestEntry] = [
      .snapshot(live: 8, growth: 8, dump: Self.dump),
      TestEntry(.trouble, hostile, program: hostile, unit: nil, ["EXE": hostile]),
    ]
    let result = try inBed(
      """
      \(try TestEntry.sending(entries)) && \(command) journal --json && echo && \
      journalctl -o json --all -t heaptap
      """)
    #expect(result.status == 0, "\(result.errors)")
    let parts = result.output.components(separatedBy: "\n\n")
    let (ours, theirs) = (try objects(parts[0]), try objects(parts[1]))
    try #require(ours.count == 2 && theirs.count == 2)
    for (our, their) in zip(ours, theirs) { expectAgreement(of: our, with: their) }
    #expect(ours[0]["live_bytes"] as? Int == 8 && ours[0]["dump_state"] as? String == "missing")
    #expect(ours[1]["live_bytes"] == nil && ours[1]["program"] as? String == hostile)
  }

  @Test func `control bytes of an entry never reach the terminal`() throws {
    let hostile = "a\u{1b}[31m\u{9b}x\u{202e}\rb\u{7}"
    let entries = [
      TestEntry(.trouble, hostile, program: hostile, unit: nil),
      TestEntry(
        .limit, "full", program: hostile, unit: hostile,
        ["DUMP": "/x\u{1b}[2J/20261121T102757.123456Z-a-1-1.pb", "MARK": hostile]),
    ]
    for option in ["", "--json"] {
      let result = try inBed("\(try TestEntry.sending(entries)) && \(command) journal \(option)")
      #expect(result.status == 0 && result.output.split(separator: "\n").count == 2)
      let raw = result.output.unicodeScalars.filter {
        $0.properties.generalCategory == .control && $0 != "\n"
      }
      #expect(raw.isEmpty, "\(result.output.debugDescription)")
    }
  }

  /// Field by field, an object of ours and the same entry as journalctl has it.
  private func expectAgreement(of our: [String: Any], with their: [String: Any]) {
    for (name, value) in their where name.hasPrefix("HEAPTAP_") {
      let member = our[name.dropFirst(8).lowercased()]
      // journalctl prints what has control bytes as an array of bytes.
      let bytes = (value as? [Int])?.map { UInt8($0) }
      let text = bytes.map { String(decoding: $0, as: UTF8.self) } ?? value as? String
      #expect(member.map { "\($0)" } == text, "\(name)")
    }
    for (name, field) in [
      ("message", "MESSAGE"), ("message_id", "MESSAGE_ID"), ("priority", "PRIORITY"),
      ("sender_unit", "_SYSTEMD_UNIT"), ("sender_pid", "_PID"), ("sender_uid", "_UID"),
      ("sender_host", "_HOSTNAME"), ("sender_machine_id", "_MACHINE_ID"),
    ] where !(their[field] is [Int]) {
      #expect(our[name].map { "\($0)" } == their[field] as? String, "\(name)")
    }
    let time = (their["__REALTIME_TIMESTAMP"] as? String).flatMap { Int($0) } ?? 0
    let ending = String("\(1_000_000 + time % 1_000_000)".dropFirst()) + "Z"
    #expect((our["timestamp"] as? String)?.hasSuffix(ending) == true)
    let names = our.keys.filter { their["HEAPTAP_" + $0.uppercased()] == nil }
    let expected: Set = [
      "timestamp", "message", "message_id", "priority", "sender_host", "sender_machine_id",
      "sender_pid", "sender_uid", "sender_unit", "dump_state",
    ]
    #expect(Set(names).isSubset(of: expected), "\(names)")
  }

  @Test func `the tracer's own entries are read field by field as journalctl has them`() throws {
    let journal = try Workshop.makeDirectory()
    let unit = "heaptap-told-\(getpid()).service"
    let box = try DumpBox()
    // Only the guest is armed, and not what the bed runs before it.
    let settings = box.environment("1", ["HEAPTAP_LOG": "journal", "HEAPTAP_LIMIT": "off"])
    let guest = try Obedient(
      nil, ["LD_PRELOAD": ""], box: box,
      prefix: JournalBed.prefix(journal: journal, unit: unit) + ["env"]
        + settings.map { "\($0.key)=\($0.value)" })
    _ = try guest.armed()
    #expect(try heaptap("start", "\(guest.pid)").status == 0)
    try guest.tell("allocate 10 100")
    #expect(try heaptap("snapshot", "\(guest.pid)").status == 0)
    try guest.tell("allocate 5 100")
    #expect(try heaptap("stop", "\(guest.pid)").status == 0)
    #expect(guest.end("return").status == 0)

    let ours = try objects(try heaptap("journal", "-D", journal.path, "--json").output)
    let theirs = try objects(
      try run([
        "/usr/bin/env", "journalctl", "-D", journal.path, "-o", "json", "--all", "-t", "heaptap",
      ])
      .output)
    #expect(
      ours.map { $0["event"] as? String } == [
        "armed", "started", "snapshot", "snapshot", "stopped",
      ])
    try #require(ours.count == theirs.count)
    for (our, their) in zip(ours, theirs) { expectAgreement(of: our, with: their) }
    let identifiers = Dictionary(
      uniqueKeysWithValues: HeapEvent.Kind.allCases.map { ($0.rawValue, $0.messageID) })
    for our in ours {
      #expect(our["message_id"] as? String == identifiers[our["event"] as? String ?? ""])
      #expect(our["pid"] as? Int == Int(guest.pid) && our["sender_pid"] as? Int == Int(guest.pid))
      #expect(our["unit"] as? String == unit && our["sender_unit"] as? String == unit)
    }
    #expect(ours[2]["live_bytes"] as? Int == 1000 && ours[3]["growth_bytes"] as? Int == 500)
    let dumps = guest.ownDumps.map(\.path)
    #expect(ours[2]["dump"] as? String == dumps[0] && ours[3]["dump"] as? String == dumps[1])
    let site = ours[3]["site_1"] as? String
    #expect(site?.hasPrefix("+500 bytes in 5 blocks, 1500 bytes in 15 blocks live: ") == true)

    // What the desk says of the same dumps adds files and lines, and is the same otherwise.
    let again = try Workshop.makeDirectory()
    _ = try inBed("\(command) report \(dumps[1])", JournalBed.prefix(journal: again))
    let report = try #require(
      try objects(try heaptap("journal", "-D", again.path, "--json").output).first)
    for name in [
      "pid", "program", "exe", "unit", "version", "live_bytes", "live_blocks", "peak_bytes",
      "growth_bytes", "lost", "trigger", "dump", "usage_bytes", "limit_bytes", "limit_source",
    ] {
      #expect("\(report[name] ?? "")" == "\(ours[3][name] ?? "")", "\(name)")
    }
    #expect((report["site_1"] as? String)?.contains("obedient.c:") == true)
  }

  // MARK: Who is believed

  @Test func `a unit is the journal's word, and another's own word is marked`() throws {
    let name = "heaptap-bed-\(getpid()).service"
    // A sender in the unit's group, who claims another unit; one outside who claims this one.
    let inside = TestEntry(.armed, "inside", pid: 1, unit: "other.service")
    let outside = TestEntry(.armed, "outside", pid: 2, unit: name)
    let journal = try Workshop.makeDirectory()
    let user = 4242
    _ = try inBed(
      try TestEntry.sending([inside], as: user), JournalBed.prefix(journal: journal, unit: name))
    _ = try inBed(try TestEntry.sending([outside], as: user), JournalBed.prefix(journal: journal))
    let result = try heaptap("journal", "-D", journal.path, name)
    let lines = result.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 2, "\(result.output) \(result.errors)")
    #expect(lines[0].contains("  \(name)[1]  ") && lines[0].hasSuffix("inside"))
    #expect(lines[1].contains("  \(name)?[2]  ") && lines[1].hasSuffix("outside"))
    #expect(try heaptap("journal", "-D", journal.path, "other").status == 1)
    // Root may say of whom it speaks.
    _ = try inBed(try TestEntry.sending([outside]), JournalBed.prefix(journal: journal))
    let last = try heaptap("journal", "-D", journal.path, "-n", "1").output
    #expect(last.contains("  \(name)[2]  "), "\(last)")
  }

  @Test func `an entry that only calls itself ours is none`() throws {
    var other = TestEntry(.armed)
    other.fields.append(("MESSAGE_ID", "0123456789abcdef0123456789abcdef"))
    let result = try inBed(
      "systemd-cat -t heaptap echo HEAPTAP_EVENT=armed; journalctl --sync; \(command) journal")
    #expect(result.status == 1 && result.output.isEmpty)
    #expect(result.errors == "heaptap: the journal has no entry of a tracer\n")
  }

  // MARK: Which events

  @Test func `events are chosen by name, time and number`() throws {
    let entries = [
      TestEntry(.armed, "one", program: "a", unit: nil),
      TestEntry(.armed, "two", program: "b", unit: nil),
      TestEntry(.armed, "three", program: "a", unit: nil),
    ]
    let journal = try Workshop.makeDirectory()
    let sent = try inBed(try TestEntry.sending(entries), JournalBed.prefix(journal: journal))
    #expect(sent.status == 0, "\(sent.errors)")
    func messages(_ arguments: String...) throws -> [String] {
      let result = try heaptap(["journal", "-D", journal.path, "--json"] + arguments)
      #expect(result.status == (result.output.isEmpty ? 1 : 0))
      return try objects(result.output).map { $0["message"] as? String ?? "" }
    }
    #expect(try messages() == ["one", "two", "three"])
    #expect(try messages("a") == ["one", "three"])
    #expect(try messages("-n", "2") == ["two", "three"])
    #expect(try messages("-n", "1", "b") == ["two"])
    #expect(try messages("--since", "-10min") == ["one", "two", "three"])
    #expect(try messages("--since", "tomorrow") == [])
    #expect(try messages("--since", "tomorrow", "-n", "5") == [])
    #expect(try messages("--until", "yesterday") == [])
    #expect(try messages("--until", "10 min ago", "-n", "1") == [])
    #expect(try messages("--since", "today", "--until", "now") == ["one", "two", "three"])
    #expect(try messages("c") == [])
    let none = try heaptap("journal", "-D", journal.path, "c", "--since", "-1h")
    #expect(none.errors == "heaptap: the journal has no entry of a tracer of 'c' in that time\n")
  }

  @Test func `what is no journal is refused in one sentence`() throws {
    let directory = try Workshop.makeDirectory()
    let file = directory.appendingPathComponent("a.journal").path
    _ = FileManager.default.createFile(atPath: file, contents: Data(repeating: 7, count: 9000))
    for (arguments, sentence) in [
      (["--file", file], "cannot open '\(file)': "),
      (["--file", file + "x"], "cannot open '\(file)x': no such file or directory"),
      (["-D", file], "cannot open the journal in '\(file)': not a directory"),
      (
        ["-D", directory.path + "/x"], "cannot open the journal in '\(directory.path)/x': no such "
      ),
    ] {
      let result = try heaptap(["journal"] + arguments)
      #expect(result.status == 2 && result.output.isEmpty, "\(arguments)")
      #expect(result.errors.contains(sentence), "\(result.errors)")
      #expect(result.errors.split(separator: "\n").count == 1)
    }
  }

  // MARK: Following

  @Test func `a follower shows the newest, then what comes, and ends well`() throws {
    let old = (0..<12).map { TestEntry(.armed, "old \($0)") }
    let new = try TestEntry.sending([TestEntry(.started, "new one")])
    for (signal, first) in [("INT", old), ("TERM", [])] {
      let send = first.isEmpty ? ":" : try TestEntry.sending(first)
      let result = try inBed(
        """
        \(send)
        \(command) journal --follow >out 2>err & follower=$!
        for i in $(seq 100); do [ \(first.isEmpty ? "$i = 20" : "-s out") ] && break; sleep 0.05; done
        \(new)
        for i in $(seq 100); do grep -q 'new one' out && break; sleep 0.05; done
        kill -\(signal) $follower
        wait $follower; echo "status $?"
        cat out err
        """.replacingOccurrences(of: "out", with: "/run/out")
          .replacingOccurrences(of: "err", with: "/run/err"))
      let lines = result.output.split(separator: "\n").map(String.init)
      // A shell has its background jobs ignore INT; the command's handler is set all the same.
      #expect(lines.first == "status 0", "\(result.output) \(result.errors)")
      #expect(lines.count == min(first.count, 10) + 2, "\(result.output)")
      #expect(lines.last?.hasSuffix("new one") == true)
    }
  }

  @Test func `a follower whose reader has gone ends`() throws {
    let result = try inBed(
      """
      \(try TestEntry.sending([TestEntry(.armed)]))
      timeout 20 sh -c '\(command) journal -f; echo "status $?" >&2' | head -n 1
      """)
    #expect(result.output.split(separator: "\n").count == 1)
    #expect(result.errors.contains("status 0"), "\(result.errors)")
  }

  // MARK: From other hosts

  @Test(
    .enabled(
      if: FileManager.default.isExecutableFile(atPath: "/lib/systemd/systemd-journal-remote"),
      "needs systemd-journal-remote"))
  func `entries collected from other hosts are shown with their host, and their dumps not judged`()
    throws
  {
    let collected = try Workshop.makeDirectory()
    for host in ["web-1", "web-2"] {
      let entry = TestEntry.snapshot(live: 8, growth: 8, dump: Self.dump)
      let result = try inBed(
        """
        \(try TestEntry.sending([entry])) && journalctl -o export -t heaptap | \
        /lib/systemd/systemd-journal-remote -o \(collected.path)/\(host).journal -
        """, JournalBed.prefix(hostname: host))
      try #require(result.status == 0, "\(result.errors)")
    }
    let all = try heaptap("journal", "-D", collected.path)
    #expect(all.status == 0 && all.errors.isEmpty)
    let lines = all.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 2, "\(all.output)")
    #expect(lines[0].contains("  web-1  myd.service[1234]  ") && lines[1].contains("  web-2  "))
    #expect(lines.allSatisfy { $0.hasSuffix(Self.dump) })
    let one = try heaptap(
      "journal", "--file", collected.appendingPathComponent("web-2.journal").path, "--json")
    let object = try #require(try objects(one.output).first)
    #expect(object["sender_host"] as? String == "web-2" && object["dump_state"] == nil)
  }
}
