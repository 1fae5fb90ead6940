// SPDX-License-Identifier: Apache-2.0
// What real daemons tell a real journald.

import Foundation
import Testing
import TracerCore

@Suite(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle)) struct JournalEntryTests {
  /// The journal of one bed, read from outside of it.
  private struct Journal {
    let directory: URL

    init() throws { directory = try Workshop.makeDirectory() }

    /// The entries of a process, oldest first, field by field.
    func entries(_ matches: String...) throws -> [[String: String]] {
      let result = try run(
        ["/usr/bin/env", "journalctl", "-q", "-D", directory.path, "-o", "json", "--all"] + matches)
      return try result.output.split(separator: "\n").map { line in
        let object = try JSONSerialization.jsonObject(with: Data(line.utf8))
        let fields = try #require(object as? [String: Any])
        // What is not text, or not only once in the entry, comes as a list.
        return fields.mapValues { $0 as? String ?? "\($0)" }
      }
    }

    /// Waits for an entry, and answers with all that match.
    func wait(
      _ guest: Guest, _ matches: String..., count: Int = 1
    ) throws -> [[String: String]] {
      var found: [[String: String]] = []
      try guest.wait(for: "\(count) entries of \(matches)") {
        found = try entries(matches)
        return found.count >= count
      }
      return found
    }

    private func entries(_ matches: [String]) throws -> [[String: String]] {
      switch matches.count {
      case 1: try entries(matches[0])
      default: try entries(matches[0], matches[1])
      }
    }
  }

  /// A guest beside a journald of its own, which hears of nothing else.
  private func guest(
    _ journal: Journal, unit: String? = nil, box: DumpBox? = nil, program: String? = nil,
    log: String = "journal"
  ) throws -> Obedient {
    // The library by env(1), behind the bed: its own programs are not to be traced.
    let box = try box ?? DumpBox()
    let variables = box.environment("1", ["HEAPTAP_LOG": log]).map { "\($0)=\($1)" }
    return try Obedient(
      nil, ["LD_PRELOAD": ""], box: box, program: program,
      prefix: JournalBed.prefix(journal: journal.directory, unit: unit)
        + ["/usr/bin/env"] + variables)
  }

  private func journald(of guest: Obedient) throws -> pid_t {
    let environment = try Data(contentsOf: URL(fileURLWithPath: "/proc/\(guest.pid)/environ"))
    let entry = environment.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
      .first { $0.hasPrefix("JOURNALD_PID=") }
    return try #require(entry.flatMap { pid_t($0.dropFirst(13)) })
  }

  /// Waits for so many dumps, without asking the journal.
  private func snapshot(_ guest: Obedient, dumps count: Int) throws {
    guest.signal(SIGUSR2)
    try guest.guest.wait(for: "\(count) dumps") { guest.ownDumps.count >= count }
  }

  // MARK: What is in an entry

  @Test func `an entry holds all that is known`() throws {
    let journal = try Journal()
    let unit = "heaptap-entries-\(getpid())"
    let guest = try guest(journal, unit: unit)
    let pid = "\(guest.pid)"
    _ = try journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=armed")
    guest.signal(SIGUSR1)
    _ = try journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=started")
    try guest.tell("allocate 10 1000")
    try snapshot(guest, dumps: 1)
    try guest.tell("allocate 5 2000")
    try snapshot(guest, dumps: 2)
    guest.signal(SIGUSR1)
    _ = try journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=stopped")
    // Nothing is recorded any more: that is trouble.
    guest.signal(SIGUSR2)
    let all = try journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", count: 7)
    #expect(
      all.map { $0["HEAPTAP_EVENT"] }
        == ["armed", "started", "snapshot", "snapshot", "snapshot", "stopped", "trouble"])
    #expect(all.map { $0["PRIORITY"] } == ["6", "5", "5", "5", "5", "5", "4"])
    #expect(
      all.map { $0["MESSAGE_ID"] } == [
        "4899c9ca97d4445da6d17da3a41d1d5b", "e38e56705c624673b3d6df1fe35bdf13",
        "df410400cfe645f782a4aa451255e28e", "df410400cfe645f782a4aa451255e28e",
        "df410400cfe645f782a4aa451255e28e", "7193ff597ca24f1bac42ae3a87112d65",
        "2aa88f8c6b734d918dd40d9334af4417",
      ])
    let executable = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/exe")
    for entry in all {
      #expect(entry["SYSLOG_IDENTIFIER"] == "heaptap")
      #expect(entry["HEAPTAP_UNIT"] == "\(unit).service")
      #expect(entry["HEAPTAP_EXE"] == executable)
      #expect(entry["HEAPTAP_PROGRAM"] == URL(fileURLWithPath: executable).lastPathComponent)
      #expect(entry["HEAPTAP_VERSION"] == "\(tracerVersion)")
      #expect(entry["HEAPTAP_DROPPED"] == nil)
    }
    try check(second: all[3], dump: guest.ownDumps[1].path)
    #expect(all[2]["HEAPTAP_GROWTH_BYTES"] == all[2]["HEAPTAP_LIVE_BYTES"])
    #expect(all[4]["HEAPTAP_TRIGGER"] == "stop")
    #expect(all[4]["HEAPTAP_GROWTH_BYTES"] == "0")
    #expect(all[5]["HEAPTAP_LIVE_BYTES"] == "20000")
    #expect(all[5]["HEAPTAP_DUMP"] == nil)
    #expect(all[0]["HEAPTAP_LIVE_BYTES"] == nil)
    #expect(all[6]["HEAPTAP_TRIGGER"] == nil)
    #expect(guest.guest.errorsSoFar == "")
  }

  private func check(second entry: [String: String], dump: String) throws {
    #expect(entry["HEAPTAP_DUMP"] == dump)
    #expect(entry["HEAPTAP_TRIGGER"] == "signal")
    #expect(entry["HEAPTAP_LIVE_BYTES"] == "20000")
    #expect(entry["HEAPTAP_LIVE_BLOCKS"] == "15")
    #expect(entry["HEAPTAP_PEAK_BYTES"] == "20000")
    #expect(entry["HEAPTAP_GROWTH_BYTES"] == "10000")
    #expect(entry["HEAPTAP_LOST"] == "0")
    #expect(entry["HEAPTAP_LEFT_OUT_BYTES"] == nil)
    let site = try #require(entry["HEAPTAP_SITE_1"])
    #expect(site.hasPrefix("+10000 bytes in 5 blocks, "), "\(site)")
    #expect(site.contains("bytes in ") && site.contains(" blocks live: allocate"), "\(site)")
    let lines = try #require(entry["MESSAGE"]).split(separator: "\n").map(String.init)
    #expect(
      lines[0].hasPrefix("20 KiB traced in 15 blocks, +10000 B since the snapshot before"),
      "\(lines[0])")
    #expect(lines[0].hasSuffix("; written to '\(dump)'"))
    #expect(lines.contains("grew most:") && lines.contains("largest:"))
    #expect(lines.contains { $0.hasPrefix("  +10000 B in 5 blocks: allocate") })
  }

  @Test func `long names are read, and cut to a line`() throws {
    let journal = try Journal()
    let box = try DumpBox()
    let program = try Programs.build("named.cpp")
    let variables = box.environment("record", ["HEAPTAP_LOG": "journal"])
    let guest = try Guest(
      JournalBed.prefix(journal: journal.directory) + ["/usr/bin/env"]
        + variables.map { "\($0)=\($1)" } + [program],
      environment: ["LD_PRELOAD": ""], input: ".")
    let armed = try journal.wait(guest, "HEAPTAP_EVENT=armed")
    let pid = try #require(armed.first?["HEAPTAP_PID"].flatMap { pid_t($0) })
    defer { kill(pid, SIGKILL) }
    try guest.wait(forOutput: "done")
    kill(pid, SIGUSR2)
    let entry = try #require(journal.wait(guest, "HEAPTAP_EVENT=snapshot").first)
    let message = try #require(entry["MESSAGE"])
    for name in [
      "  1024 KiB in 1 block: … < (anonymous namespace)::hide < main",
      "std::__cxx11::basic_string<…>::_M_append < ", " < Sessions::visit < main",
    ] {
      #expect(message.contains(name), "\(name): \(message)")
    }
    #expect(!message.contains("_ZN"))
  }

  @Test func `no value of somebody else's can forge a field`() throws {
    let journal = try Journal()
    let evil = "x\nPRIORITY=0\nHEAPTAP_EVENT=report\nMESSAGE=forged\n"
    let place = try Workshop.makeDirectory().appendingPathComponent(evil)
    try FileManager.default.createDirectory(
      at: place, withIntermediateDirectories: false, attributes: [.posixPermissions: 0o700])
    let program = place.appendingPathComponent("pro\ngram=1")
    // A link: what this process has open for writing while another test forks cannot be executed.
    try FileManager.default.linkItem(atPath: Programs.build("obedient.c"), toPath: program.path)
    let box = try DumpBox()
    let variables = box.environment("1", ["HEAPTAP_LOG": "journal", "HEAPTAP_DIR": place.path])
    let guest = try Obedient(
      nil, ["LD_PRELOAD": ""], box: box, program: program.path,
      prefix: JournalBed.prefix(journal: journal.directory) + ["/usr/bin/env"]
        + variables.map { "\($0)=\($1)" }
        // env(1) takes a path with a sign in it for a variable.
        + ["sh", "-c", "exec \"$@\"", "sh"])
    guest.signal(SIGUSR1)
    let pid = "\(guest.pid)"
    _ = try journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=started")
    try guest.tell("allocate 1 100")
    guest.signal(SIGUSR2)
    let entry = try #require(
      journal.wait(guest.guest, "HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=snapshot").first)
    #expect(entry["PRIORITY"] == "5")
    #expect(entry["HEAPTAP_DUMP"]?.hasPrefix(place.path + "/") == true)
    #expect(entry["HEAPTAP_PROGRAM"] == "pro_gram_1")
    #expect(entry["HEAPTAP_EXE"]?.hasSuffix("/pro?gram=1") == true)
    #expect(
      entry["MESSAGE"]?.contains("written to '\(place.path.replacing("\n", with: "?"))/") == true)
    #expect(try journal.entries("HEAPTAP_EVENT=report").isEmpty)
    #expect(try journal.entries("MESSAGE=forged").isEmpty)
  }

  @Test func `journalctl explains an entry by the catalog`() throws {
    let catalog = Workshop.package.appendingPathComponent("systemd/heaptap.catalog")
    let box = try DumpBox()
    let variables = box.environment("record", ["HEAPTAP_LOG": "journal", "HEAPTAP_EXIT": "dump"])
    let program = try Programs.build("reported.cpp")
    let script = """
      env "$@"; journalctl --sync; journalctl -q -x --no-pager SYSLOG_IDENTIFIER=heaptap
      """
    let result = try run(
      JournalBed.prefix(catalogs: [catalog]) + ["sh", "-c", script, "sh"]
        + variables.map { "\($0)=\($1)" } + [program],
      environment: ["LD_PRELOAD": ""])
    #expect(result.status == 0, "\(result.errors)")
    let dump = try #require(box.dumps.first?.path)
    for text in [
      "Subject: Heap snapshot of reported-", "Defined-By: heaptap",
      "Documentation: man:heaptap(1) man:heaptap(7)", "heaptap show \(dump)",
      "Asked for by: exit",
      // No demangler is called while a process ends, and this one needs none.
      "cache::Store::insert < main",
    ] {
      #expect(result.output.contains(text), "\(text): \(result.output)")
    }
  }

  // MARK: A journald that is not there

  @Test func `a journald that stands still keeps nobody waiting, and is told what it missed`()
    throws
  {
    let journal = try Journal()
    let guest = try guest(journal)
    let pid = "HEAPTAP_PID=\(guest.pid)"
    guest.signal(SIGUSR1)
    _ = try journal.wait(guest.guest, pid, "HEAPTAP_EVENT=started")
    let journald = try journald(of: guest)
    kill(journald, SIGSTOP)
    defer { kill(journald, SIGCONT) }
    // More than the socket's queue takes of datagrams, or of bytes.
    let limit = Int(
      try String(contentsOfFile: "/proc/sys/net/unix/max_dgram_qlen", encoding: .utf8)
        .trimmingCharacters(in: .whitespacesAndNewlines))
    let count = min(try #require(limit), 300) + 20
    for number in 1...count { try snapshot(guest, dumps: number) }
    try guest.tell("allocate 1 100")
    kill(journald, SIGCONT)
    // Those that the queue held are read first.
    _ = try journal.wait(guest.guest, pid, "HEAPTAP_EVENT=snapshot")
    try snapshot(guest, dumps: count + 1)
    var entries: [[String: String]] = []
    try guest.guest.wait(for: "an entry that tells of those dropped") {
      entries = try journal.entries(pid, "HEAPTAP_EVENT=snapshot")
      return entries.contains { $0["HEAPTAP_DROPPED"] != nil }
    }
    let dropped = entries.compactMap { $0["HEAPTAP_DROPPED"].flatMap { Int($0) } }.reduce(0, +)
    #expect(dropped > 0)
    #expect(entries.count + dropped == count + 1)
    // Told once.
    try snapshot(guest, dumps: count + 2)
    entries = try journal.wait(
      guest.guest, pid, "HEAPTAP_EVENT=snapshot", count: entries.count + 1)
    #expect(entries.last?["HEAPTAP_DROPPED"] == nil)
  }

  @Test func `a journald that was started again gets the next entry`() throws {
    let journal = try Journal()
    let guest = try guest(journal)
    let pid = "HEAPTAP_PID=\(guest.pid)"
    guest.signal(SIGUSR1)
    _ = try journal.wait(guest.guest, pid, "HEAPTAP_EVENT=started")
    let first = try journald(of: guest)
    kill(first, SIGKILL)
    try guest.guest.wait(for: "journald's end") { kill(first, 0) != 0 || isZombie(first) }
    try snapshot(guest, dumps: 1)
    let second = try Guest(
      [
        "/usr/bin/env", "nsenter", "--mount=/proc/\(guest.pid)/ns/mnt", "env", "-i",
        "/lib/systemd/systemd-journald",
      ])
    try guest.guest.wait(for: "the next journald") {
      let result = try run([
        "/usr/bin/env", "nsenter", "--mount=/proc/\(guest.pid)/ns/mnt", "journalctl", "--flush",
      ])
      return result.status == 0
    }
    try guest.guest.wait(for: "an entry") {
      try snapshot(guest, dumps: guest.ownDumps.count + 1)
      return try !journal.entries(pid, "HEAPTAP_EVENT=snapshot").isEmpty
    }
    // The first that got through tells of all before it.
    let entry = try #require(journal.entries(pid, "HEAPTAP_EVENT=snapshot").first)
    let dumps = guest.ownDumps.map(\.path)
    let place = try #require(dumps.firstIndex(of: entry["HEAPTAP_DUMP"] ?? ""))
    #expect(place > 0)
    #expect(entry["HEAPTAP_DROPPED"] == "\(place)")
    second.send(SIGTERM)
  }

  private func isZombie(_ pid: pid_t) -> Bool {
    let status = try? String(contentsOfFile: "/proc/\(pid)/stat", encoding: .utf8)
    return status?.contains(") Z ") ?? true
  }

  @Test func `an entry knows its sender, who is gone when journald looks`() throws {
    let journal = try Journal()
    let unit = "heaptap-dying-\(getpid())"
    let guest = try guest(journal, unit: unit)
    let pid = guest.pid
    let executable = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/exe")
    kill(try journald(of: guest), SIGSTOP)
    guest.signal(SIGUSR1)
    try guest.guest.wait(for: "recording") {
      (try? guest.armed())?.state == .recording
    }
    try snapshot(guest, dumps: 1)
    let dump = guest.ownDumps[0].path
    // The dump is under its name before it is told of.
    usleep(200_000)
    kill(pid, SIGKILL)
    // The bed lets journald go on, and ends when it has read everything.
    _ = guest.guest.finish()
    let entry = try #require(
      journal.entries("HEAPTAP_PID=\(pid)", "HEAPTAP_EVENT=snapshot").first)
    #expect(entry["HEAPTAP_UNIT"] == "\(unit).service")
    #expect(entry["HEAPTAP_EXE"] == executable)
    #expect(entry["HEAPTAP_DUMP"] == dump)
  }

  // MARK: Where messages go

  @Test(arguments: ["journal", "auto", "stderr", "off"])
  func `messages go where they are sent`(_ log: String) throws {
    let journal = try Journal()
    let guest = try guest(journal, log: log)
    guest.signal(SIGUSR1)
    try guest.guest.wait(for: "recording") { (try? guest.armed())?.state == .recording }
    try guest.tell("allocate 3 100")
    try snapshot(guest, dumps: 1)
    guest.signal(SIGUSR1)
    try guest.guest.wait(for: "the end of recording") {
      (try? guest.armed())?.state == .dormant
    }
    _ = guest.end("exit")
    let events = try journal.entries("HEAPTAP_PID=\(guest.pid)").map { $0["HEAPTAP_EVENT"] }
    let lines = guest.messages()
    switch log {
    case "journal", "auto":
      #expect(events == ["armed", "started", "snapshot", "snapshot", "stopped"])
      #expect(lines.isEmpty)
    case "stderr":
      #expect(events.isEmpty)
      #expect(lines.contains { $0.contains("300 B traced in 3 blocks; written to '") })
      #expect(lines.contains { $0.contains("  +300 B in 3 blocks: allocate") })
      #expect(lines.count > 8)
    default:
      #expect(events.isEmpty)
      #expect(lines.isEmpty)
    }
  }

  @Test func `what the journal does not take goes to standard error`() throws {
    let journal = try Journal()
    let guest = try guest(journal, log: "auto")
    _ = try journal.wait(guest.guest, "HEAPTAP_PID=\(guest.pid)", "HEAPTAP_EVENT=armed")
    kill(try journald(of: guest), SIGKILL)
    usleep(100_000)
    guest.signal(SIGUSR1)
    try guest.wait(forMessage: "recording started")
    try snapshot(guest, dumps: 1)
    try guest.wait(forMessage: "written to '")
  }

  // MARK: A file in place of a datagram

  @Test func `a journald takes an entry that is too large for a datagram`() throws {
    let journal = try Journal()
    let guest = try guest(journal)
    var path = "/proc/\(try journald(of: guest))/root/run/systemd/journal/socket"
    let text = String(repeating: "large ", count: 60_000)
    var entry = "PRIORITY=6\nHEAPTAP_TEST=large\nMESSAGE=\(text)\n"
    let isSent = path.withUTF8 { path in
      entry.withUTF8 {
        JournalSocket.send(UnsafeRawBufferPointer($0), to: UnsafeRawBufferPointer(path))
      }
    }
    #expect(isSent)
    let found = try #require(journal.wait(guest.guest, "HEAPTAP_TEST=large").first)
    #expect(found["MESSAGE"] == text)
  }

  // MARK: The catalog

  private func identifiers(_ text: String, _ prefix: String = "") -> Set<String> {
    let pattern = "\(prefix)\\b([0-9a-f]{32})\\b"
    let expression = try? NSRegularExpression(pattern: pattern, options: [.anchorsMatchLines])
    let whole = NSRange(text.startIndex..., in: text)
    return Set(
      (expression?.matches(in: text, range: whole) ?? []).compactMap {
        Range($0.range(at: 1), in: text).map { String(text[$0]) }
      })
  }

  private func text(_ path: String) throws -> String {
    try String(contentsOf: Workshop.package.appendingPathComponent(path), encoding: .utf8)
  }

  @Test func `sources, catalog and manual have the same events`() throws {
    let catalog = try text("systemd/heaptap.catalog")
    let explained = identifiers(catalog, "^-- ")
    #expect(explained.count == 7)
    #expect(identifiers(catalog) == explained)
    #expect(identifiers(try text("docs/man/heaptap.7")) == explained)
    let tracers = identifiers(try text("Sources/TracerCore/Journal/Notice.swift"))
    #expect(tracers.count == 6)
    #expect(explained.subtracting(tracers) == ["18fa44eba8024acd8cbf9813ffac2de7"])
  }

  @Test func `every event is explained: what to do, which setting, which page`() throws {
    let catalog = try text("systemd/heaptap.catalog")
    let fields = Set(
      try text("docs/man/heaptap.7").matches(of: /\.It Va (.*)|, Va ([A-Z_]+)/)
        .flatMap { "\($0.output.0)".split { !($0.isUppercase || $0.isNumber || $0 == "_") } }
        .map(String.init))
    for entry in catalog.components(separatedBy: "\n-- ").dropFirst() {
      let lines = entry.split(separator: "\n", omittingEmptySubsequences: false)
      #expect(lines[1].hasPrefix("Subject: ") && lines[1].contains("@HEAPTAP_PID@"))
      #expect(lines[2] == "Defined-By: heaptap")
      #expect(lines[3].hasPrefix("Documentation: man:heaptap("))
      #expect(lines[4].isEmpty)
      #expect(entry.contains(/HEAPTAP[A-Z_]*=|DEBUGINFOD_URLS=/), "no setting: \(lines[1])")
      for match in entry.matches(of: /@([A-Z_]+)@/) {
        #expect(fields.contains(String(match.output.1)), "\(match.output.1) is in no manual")
      }
    }
  }
}
