// SPDX-License-Identifier: Apache-2.0
// heaptap dumps: list, info and gc, on dumps of the real tracer and on what a kill leaves.

import Foundation
import HeapModel
import JournalReader
import Pprof
import Testing

@Suite struct `heaptap dumps` {
  /// A directory with dumps of one guest, which is still there: two by signal.
  private static func made() throws -> (guest: Obedient, dumps: [URL]) {
    let guest = try Obedient.withTwoDumps()
    return (guest, guest.ownDumps)
  }

  private func objects(_ result: Finished) throws -> [[String: Any]] {
    let value = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
    return try #require(value as? [[String: Any]])
  }

  /// Copies a dump under the name of another time, program or pid, and cut to some of its bytes.
  @discardableResult
  private func copy(
    _ dump: URL, as name: String, bytes: Int? = nil, to directory: URL? = nil
  ) throws -> URL {
    let place = (directory ?? dump.deletingLastPathComponent()).appendingPathComponent(name)
    let data = try Data(contentsOf: dump)
    // By way of another process: a descriptor of ours that is open for writing may be in another
    // test's child for a while, and gc would know.
    let draft = try Workshop.makeDirectory().appendingPathComponent("draft")
    try data.prefix(bytes ?? data.count).write(to: draft)
    try copyProgram(draft.path, to: place.path)
    return place
  }

  private static let gone = "20200101T000000.000000Z-gone-3999999-1.pb"

  // MARK: list

  @Test func `dumps are listed with whose they are, why, how much, and where`() throws {
    let (guest, dumps) = try Self.made()
    let directory = guest.box.directory.path
    let result = try heaptap("dumps", "--dir", directory)
    #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    let lines = result.output.split(separator: "\n").map(String.init)
    #expect(lines[0].contains(/^TIME +PROGRAM +PID +UNIT +TRIGGER +LIVE +SIZE +STATE +PATH$/))
    try #require(lines.count == 3)
    #expect(lines[1].contains("\(guest.pid)") && lines[1].contains("1000 B"))
    #expect(lines[2].contains("signal") && lines[2].hasSuffix("present  \(dumps[1].path)"))

    let all = try objects(try heaptap("dumps", "list", "--dir", directory, "--json"))
    #expect(all.map { $0["live_bytes"] as? Int } == [1000, 1500])
    #expect(all.allSatisfy { $0["state"] as? String == "present" })
    #expect(all.allSatisfy { $0["pid"] as? Int == Int(guest.pid) })
  }

  @Test func `they are matched by program, pid, path and time, and the newest can be asked for`()
    throws
  {
    let (guest, dumps) = try Self.made()
    let old = try copy(dumps[0], as: Self.gone)
    let directory = guest.box.directory.path
    func paths(_ arguments: String...) throws -> [String] {
      let result = try heaptap(["dumps", "list", "--json", "--dir", directory] + arguments)
      if result.status == 1 {
        #expect(result.output.isEmpty && result.errors == "heaptap: no dump matches\n")
        return []
      }
      return try objects(result).map { $0["path"] as? String ?? "" }
    }
    let own = dumps.map(\.path)
    #expect(try paths() == [old.path] + own)
    #expect(try paths("gone") == [old.path])
    #expect(try paths("\(guest.pid)") == own)
    #expect(try paths("gone", "\(guest.pid)") == [old.path] + own)
    #expect(try paths(own[1]) == [own[1]])
    #expect(try paths(dumps[1].lastPathComponent) == [own[1]])
    #expect(try paths("-1") == [own[1]])
    #expect(try paths("-n", "2") == own)
    #expect(try paths("--since", "-1h") == own)
    #expect(try paths("--until", "2021-01-01") == [old.path])
    #expect(try paths("nobody") == [])
    let empty = try heaptap("dumps", "--dir", try Workshop.makeDirectory().path)
    #expect(empty.status == 1 && empty.errors.contains("no dump is kept"))
    let missing = try heaptap("dumps", "--dir", directory + "/nowhere")
    #expect(missing.status == 2 && missing.errors.contains("no such file or directory"))
  }

  @Test func `directories of users and units below are looked into, and links are not followed`()
    throws
  {
    let (guest, dumps) = try Self.made()
    let root = try Workshop.makeDirectory()
    let user = root.appendingPathComponent("\(geteuid())")
    let unit = root.appendingPathComponent("myd.service")
    let inUnit = unit.appendingPathComponent("\(geteuid())")
    let another = root.appendingPathComponent("4242")
    for place in [user, inUnit, another] {
      try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
      try copy(dumps[0], as: dumps[0].lastPathComponent, to: place)
    }
    let link = root.appendingPathComponent("link")
    try FileManager.default.createSymbolicLink(at: link, withDestinationURL: guest.box.directory)
    try FileManager.default.createSymbolicLink(
      at: root.appendingPathComponent(Self.gone), withDestinationURL: dumps[0])
    // A directory called by another user's number than its owner's is nobody's.
    let listed = try objects(try heaptap("dumps", "list", "--json", "--dir", root.path))
    #expect(
      Set(listed.map { $0["path"] as? String ?? "" })
        == Set([user, inUnit].map { $0.appendingPathComponent(dumps[0].lastPathComponent).path }))
  }

  @Test(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))
  func `a user finds what is his below a directory that he may not list, and root finds it all`()
    throws
  {
    let (_, dumps) = try Self.made()
    let shared = try Workshop.makeDirectory()
    // Where the command is, another user may not be able to look.
    let command = shared.appendingPathComponent("heaptap").path
    try copyProgram(Workshop.command, to: command)
    chmod(shared.path, 0o755)
    chmod(shared.deletingLastPathComponent().path, 0o755)
    let name = dumps[0].lastPathComponent
    // The program's name may have dashes of its own.
    let program = name.split(separator: "-").dropFirst().dropLast(2).joined(separator: "-")
    let result = try run(
      JournalBed.prefix() + [
        "sh", "-c",
        """
        set -e
        mount -t tmpfs -o mode=755 tmpfs /var/lib
        mkdir -m 1733 /var/lib/heaptap
        for user in 4242 4243; do
          mkdir -m 0700 /var/lib/heaptap/$user
          cp \(dumps[0].path) /var/lib/heaptap/$user
          chown -R $user /var/lib/heaptap/$user
        done
        mkdir -m 0755 /var/lib/heaptap/myd.service /var/lib/heaptap/myd.service/4244
        cp \(dumps[0].path) /var/lib/heaptap/myd.service/4244
        chown -R 4244 /var/lib/heaptap/myd.service/4244
        unset HEAPTAP_DIR
        setpriv --reuid 4242 --clear-groups \(command) dumps --json
        setpriv --reuid 4242 --clear-groups \(command) show --json \(program) >/dev/null
        \(command) dumps list --json 4242 \(name) | tr ',' '\\n' | grep -c '"path":"/var/lib/heaptap/'
        \(command) dumps gc --keep 0 \(program) | wc -l
        ls /var/lib/heaptap/* | grep -c pb || :
        """,
      ])
    let lines = result.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 4, "\(result.output) \(result.errors)")
    #expect(lines[0].contains("\"/var/lib/heaptap/4242/\(name)\"") && !lines[0].contains("4243"))
    #expect(lines[1] == "3" && lines[2] == "3" && lines[3] == "0", "\(lines)")
  }

  @Test(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))
  func `a dump that the journal tells of and that is gone is missing`() throws {
    let (guest, dumps) = try Self.made()
    let directory = guest.box.directory.path
    let lost = "\(directory)/20261121T102757.123456Z-redis-server-1234-7.pb"
    let entries: [TestEntry] = [
      .snapshot(live: 4096, growth: 1, dump: lost),
      .snapshot(live: 77, growth: 1, dump: dumps[0].path, pid: Int(guest.pid)),
      .snapshot(live: 5, growth: 1, dump: "/etc/passwd"),
    ]
    let result = try run(
      JournalBed.prefix() + [
        "sh", "-c",
        """
        \(try TestEntry.sending(entries)) && \(Workshop.command) dumps --json --dir \(directory) \
        && \(Workshop.command) dumps info redis-server >&2
        """,
      ])
    let all = try objects(result)
    try #require(all.count == 3, "\(result.output)")
    let missing = try #require(all.first { $0["state"] as? String == "missing" })
    #expect(missing["path"] as? String == lost && missing["pid"] as? Int == 1234)
    #expect(missing["unit"] as? String == "myd.service" && missing["live_bytes"] as? Int == 4096)
    #expect(missing["size_bytes"] is NSNull)
    // The dump itself is believed before what was told of it.
    #expect(all.filter { $0["state"] as? String == "present" }.count == 2)
    #expect(!all.contains { $0["live_bytes"] as? Int == 77 })
    #expect(result.errors.contains("(missing)") && result.errors.contains("4096 bytes traced"))
  }

  // MARK: info

  @Test func `info tells whose a dump is, why, and what is largest in it`() throws {
    let (guest, dumps) = try Self.made()
    let result = try heaptap("dumps", "info", "-1", "--dir", guest.box.directory.path)
    #expect(result.status == 0, "\(result.errors)")
    #expect(result.output.hasPrefix("\(dumps[1].path) (present, "))
    for part in ["(\(guest.pid))", "dump 2 by signal", "total: size=1500 B", "obedient.c:"] {
      #expect(result.output.contains(part), "\(part) in \(result.output)")
    }
    #expect(!result.output.contains("dump 1 by"))
  }

  // MARK: gc

  private func names(_ directory: URL) throws -> [String] {
    try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
  }

  @Test func `gc removes the oldest of each program, and nothing that is no dump`() throws {
    let (_, dumps) = try Self.made()
    let directory = try Workshop.makeDirectory()
    let size = try Data(contentsOf: dumps[0]).count
    for program in ["a", "b"] {
      for day in 1...4 {
        try copy(
          dumps[0], as: "2026010\(day)T000000.000000Z-\(program)-7-\(day).pb", to: directory)
      }
    }
    try copy(dumps[0], as: "mine.pb", to: directory)
    try FileManager.default.createSymbolicLink(
      at: directory.appendingPathComponent("20200101T000000.000000Z-a-7-1.pb"),
      withDestinationURL: dumps[0])
    let before = try names(directory)
    let dry = try heaptap("dumps", "gc", "--keep", "1", "--dry-run", "--dir", directory.path)
    #expect(dry.status == 0 && dry.output.components(separatedBy: "would remove").count == 7)
    #expect(try names(directory) == before)

    let nothing = try heaptap("dumps", "gc", "--dir", directory.path)
    #expect(nothing.status == 0 && nothing.output.isEmpty)
    #expect(try names(directory) == before)

    #expect(try heaptap("dumps", "gc", "a", "--keep", "3", "--dir", directory.path).status == 0)
    #expect(try names(directory) == before.filter { $0 != "20260101T000000.000000Z-a-7-1.pb" })
    #expect(
      try heaptap(
        "dumps", "gc", "--keep-bytes", "\(2 * size + 1)", "--dir", directory.path
      ).status == 0)
    let kept = try names(directory)
    #expect(kept.filter { $0.contains("-a-") && !$0.hasPrefix("2020") }.count == 2)
    #expect(kept.filter { $0.contains("-b-") } == before.filter { $0.contains("-b-") }.suffix(2))
    #expect(try heaptap("dumps", "gc", "--older-than", "1d", "--dir", directory.path).status == 0)
    #expect(try names(directory) == ["20200101T000000.000000Z-a-7-1.pb", "mine.pb"])
    #expect(FileManager.default.fileExists(atPath: dumps[0].path))
  }

  @Test func `gc salvages what a kill left, and what cannot be read stays and is reported`() throws
  {
    let (_, dumps) = try Self.made()
    let directory = try Workshop.makeDirectory()
    let size = try Data(contentsOf: dumps[0]).count
    let cut = try copy(dumps[0], as: Self.gone + ".partial", bytes: size - 2, to: directory)
    let broken = try copy(
      dumps[0], as: Self.gone.replacingOccurrences(of: "1.pb", with: "2.pb.partial"), bytes: 20,
      to: directory)
    // Its place is taken.
    let taken = Self.gone.replacingOccurrences(of: "1.pb", with: "3.pb")
    try copy(dumps[1], as: taken, to: directory)
    try copy(dumps[0], as: taken + ".partial", to: directory)

    let list = try objects(try heaptap("dumps", "list", "--json", "--dir", directory.path))
    #expect(list.filter { $0["state"] as? String == "partial" }.count == 3)
    let show = try heaptap("show", cut.path)
    #expect(show.status == 0 && show.errors.contains("profile ends"), "\(show.errors)")
    #expect(try heaptap("diff", cut.path, dumps[1].path).status == 0)

    let result = try heaptap("dumps", "gc", "--dir", directory.path)
    #expect(result.status == 2)
    #expect(result.output == "salvaged '\(directory.path)/\(Self.gone)'\n")
    #expect(result.errors.contains("'\(broken.path)' cannot be salvaged: "), "\(result.errors)")
    #expect(result.errors.contains("/\(taken)': file exists"), "\(result.errors)")
    #expect(
      try names(directory) == [
        Self.gone, broken.lastPathComponent, taken, taken + ".partial",
      ])
    #expect(
      try Data(contentsOf: directory.appendingPathComponent(taken))
        == (try Data(contentsOf: dumps[1])))
    // What can't be read goes with its age.
    _ = try heaptap("dumps", "gc", "--older-than", "1d", "--dir", directory.path)
    #expect(!FileManager.default.fileExists(atPath: broken.path))
  }

  @Test func `a partial dump of a living process, or that somebody writes, is left alone`() throws {
    let (guest, dumps) = try Self.made()
    let directory = try Workshop.makeDirectory()
    let living = "20260101T000000.000000Z-obedient-\(guest.pid)-9.pb.partial"
    let written = Self.gone + ".partial"
    for name in [living, written] { try copy(dumps[0], as: name, to: directory) }
    let place = directory.appendingPathComponent(written).path
    let writer = try Guest(["/bin/sh", "-c", "exec 3>>'\(place)'; echo open; exec sleep 100"])
    try writer.wait(forOutput: "open")
    let first = try heaptap("dumps", "gc", "--keep", "0", "--dir", directory.path)
    #expect(first.status == 0 && first.output.isEmpty)
    #expect(first.errors.contains("process \(guest.pid) may still be writing it"))
    #expect(first.errors.contains("somebody has it open for writing"), "\(first.errors)")
    #expect(try names(directory) == [written, living].sorted())
    writer.send(SIGKILL)
    _ = writer.finish()
    kill(guest.pid, SIGKILL)
    try guest.guest.wait(for: "its end") { !guest.guest.isRunning }
    #expect(try heaptap("dumps", "gc", "--dir", directory.path).status == 0)
    #expect(try names(directory).allSatisfy { $0.hasSuffix(".pb") })
  }
}
