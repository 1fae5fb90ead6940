// SPDX-License-Identifier: Apache-2.0
// heaptap report: dumps of the real tracer, told to a real journal.

import Foundation
import HeapModel
import JournalReader
import Pprof
import Testing

@Suite(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))
struct `heaptap report` {
  /// A directory with two dumps of a guest that has ended.
  private static func made() throws -> DumpBox { try Obedient.withTwoDumps().box }

  /// Runs shell text in a bed, and answers with it and the entries of reports.
  private func inBed(_ text: String) throws -> (result: Finished, entries: [[String: Any]]) {
    let journal = try Workshop.makeDirectory()
    let result = try run(
      JournalBed.prefix(journal: journal) + ["sh", "-c", text],
      // Not the tester's own, which knows the program from an earlier run.
      environment: ["XDG_CACHE_HOME": "/dev/null"])
    let read = try heaptap("journal", "-D", journal.path, "--json")
    let entries = try read.output.split(separator: "\n").map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    return (result, entries)
  }

  private let command = Workshop.command

  @Test func `an entry has the sites with files and lines, and is linked by the dump's path`()
    throws
  {
    let box = try Self.made()
    let (result, entries) = try inBed(
      "\(command) report \(box.dumps.map(\.path).joined(separator: " ")); journalctl -o json --all -t heaptap"
    )
    #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    try #require(entries.count == 2)
    let (first, second) = (entries[0], entries[1])
    #expect(first["event"] as? String == "report" && first["dump"] as? String == box.dumps[0].path)
    #expect(second["message_id"] as? String == HeapEvent.Kind.report.messageID)
    #expect(first["live_bytes"] as? Int == 1000 && second["live_bytes"] as? Int == 1500)
    #expect(first["growth_bytes"] as? Int == 1000 && second["growth_bytes"] as? Int == 500)
    let message = try #require(second["message"] as? String)
    #expect(
      message.hasPrefix("1500 B traced in 15 blocks, +500 B since the snapshot before"),
      "\(message)")
    let site = try #require(second["site_1"] as? String)
    #expect(
      site.hasPrefix("+500 bytes in 5 blocks, 1500 bytes in 15 blocks live: "), "\(site)")
    #expect(site.contains(#/ [^ ]*obedient\.c:\d+ < main [^ ]*obedient\.c:\d+/#), "\(site)")
    #expect(message.contains("grew most:\n  +500 B in 5 blocks: "))
    // As journalctl has it.
    let theirs = try result.output.split(separator: "\n").filter { $0.hasPrefix("{") }.map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    for (our, their) in zip(entries, theirs) {
      for (name, value) in their where name.hasPrefix("HEAPTAP_") {
        #expect("\(our[name.dropFirst(8).lowercased()] ?? "")" == value as? String, "\(name)")
      }
      #expect(our["message"] as? String == their["MESSAGE"] as? String)
    }
  }

  @Test func `--sysroot names what is gone from here`() throws {
    let box = try DumpBox()
    let directory = try Workshop.makeDirectory()
    let program = directory.appendingPathComponent("reported-inside")
    try copyProgram(try Programs.build("reported.cpp", ["-O1", "-g"]), to: program.path)
    #expect(try heaptap("run", "-o", box.directory.path, "--", program.path).status == 0)
    let dump = try #require(box.dumps.first).path
    let (result, entries) = try inBed(
      """
      mkdir -p \(directory.path)/root\(directory.path)
      mv \(program.path) \(directory.path)/root\(directory.path)
      \(command) report \(dump)
      \(command) report --sysroot \(directory.path)/root \(dump)
      """)
    #expect(result.status == 0, "\(result.errors)")
    try #require(entries.count == 2, "\(result.errors)")
    let sites = entries.map { $0["site_1"] as? String ?? "" }
    #expect(!sites[0].contains("reported.cpp:") && sites[1].contains("reported.cpp:"), "\(sites)")
  }

  @Test func `--symbolize puts names into a dump, which else stays what it was`() throws {
    let box = try Self.made()
    func facts(_ path: String) -> stat {
      var facts = stat()
      lstat(path, &facts)
      return facts
    }
    let paths = box.dumps.map(\.path)
    chmod(paths[0], 0o640)
    let before = paths.map(facts)
    // The second is compared with the first when that one has its names already.
    let (result, entries) = try inBed(
      "for dump in \(paths.joined(separator: " ")); do \(command) report --symbolize $dump; done")
    #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
    try #require(entries.count == 2)
    #expect(entries[1]["growth_bytes"] as? Int == 500)
    let site = try #require(entries[1]["site_1"] as? String)
    #expect(site.hasPrefix("+500 bytes in 5 blocks, 1500 bytes in 15 blocks live: "), "\(site)")
    for (path, before) in zip(paths, before) {
      let after = facts(path)
      #expect(after.st_mode == before.st_mode && after.st_uid == before.st_uid)
      #expect(after.st_mtim.tv_sec == before.st_mtim.tv_sec)
      #expect(after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
      #expect(after.st_ino != before.st_ino && after.st_size > before.st_size)
      let shown = try heaptap("show", "--no-symbols", "--by", "line", path)
      #expect(shown.output.contains("obedient.c:"), "\(shown.output)")
    }
    #expect(box.names.count == 2, "no draft is left: \(box.names)")
  }

  @Test func `what takes no names is reported all the same, and what has them is left alone`()
    throws
  {
    let box = try Self.made()
    let paths = box.dumps.map(\.path)
    let state = try Workshop.makeDirectory()
    let (result, entries) = try inBed(
      """
      \(command) symbolize --in-place \(paths[1]) > \(state.path)/said
      mount --bind \(box.directory.path) \(box.directory.path)
      mount -o remount,ro,bind \(box.directory.path)
      \(command) report --new --symbolize --state \(state.path) --dir \(box.directory.path)
      echo "ended $?"
      """)
    #expect(entries.count == 2, "\(result.errors)")
    #expect(result.output == "ended 0\n", "\(result.output) \(result.errors)")
    #expect(
      result.errors == """
        heaptap: cannot write '\(paths[0])': read-only file system, so it stays without names

        """)
  }

  @Test func `the process that reads binaries for --symbolize keeps no right but to read`() throws {
    let place = try Workshop.makeDirectory()
    let result = try run(
      [
        "/bin/sh", "-c",
        """
        mkfifo questions
        exec 3<>questions
        \(command) symbolicate-worker --confined <questions >said &
        until grep -q heaptap said; do kill -0 $! || exit 1; sleep 0.01; done
        grep -E '^Cap(Inh|Prm|Eff):' /proc/$!/status
        kill $!
        """,
      ], directory: place)
    let rights = result.output.split(separator: "\n").compactMap {
      $0.split(separator: "\t").last.flatMap { UInt64($0, radix: 16) }
    }
    // CAP_DAC_READ_SEARCH is the third.
    #expect(rights.count == 3 && rights.allSatisfy { $0 & ~4 == 0 }, "\(result.output)")
  }

  @Test func `without the dump before, nothing is said of growth`() throws {
    let box = try Self.made()
    try FileManager.default.removeItem(at: box.dumps[0])
    let (_, entries) = try inBed("\(command) report \(box.dumps[0].path)")
    let entry = try #require(entries.first)
    #expect(entry["growth_bytes"] == nil)
    #expect((entry["message"] as? String)?.hasPrefix("1500 B traced in 15 blocks") == true)
    #expect((entry["message"] as? String)?.contains("grew most") == false)
  }

  @Test func `new dumps are reported once each, and what cannot be read does not hold them up`()
    throws
  {
    let box = try Self.made()
    let (directory, own) = (box.directory, box.dumps.map(\.path))
    let state = try Workshop.makeDirectory()
    let junk = directory.appendingPathComponent("20200101T000000.000000Z-junk-1-1.pb")
    try Data(repeating: 0xff, count: 5000).write(to: junk)
    try Data().write(
      to: directory.appendingPathComponent("20200101T000000.000000Z-junk-1-2.pb.partial"))
    try FileManager.default.createSymbolicLink(
      at: directory.appendingPathComponent("20200101T000000.000000Z-link-1-1.pb"),
      withDestinationURL: box.dumps[1])
    let report = "\(command) report --new --state \(state.path) --dir \(directory.path)"
    let late = directory.appendingPathComponent("20261121T000000.000000Z-late-1-1.pb").path
    let (result, entries) = try inBed(
      """
      set -e
      \(report)
      \(report)
      cp \(box.dumps[1].path) \(late).new; mv \(late).new \(late)
      rm \(junk.path)
      STATE_DIRECTORY=\(state.path):/nowhere \(command) report --new --dir \(directory.path)
      """)
    #expect(result.status == 0 && result.output.isEmpty, "\(result.errors)")
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    #expect(
      result.errors.contains("'\(junk.path)'") && result.errors.contains("going on with the next"))
    let dumps = entries.compactMap { $0["dump"] as? String }
    #expect(dumps == own + [late], "\(dumps)")
    let remembered = try String(
      contentsOf: state.appendingPathComponent("reported"), encoding: .utf8)
    #expect(!remembered.contains("junk") && remembered.contains("done \(late)"))
  }

  @Test func `a dump that a run died of is left out of the next`() throws {
    let box = try Self.made()
    let state = try Workshop.makeDirectory()
    try Data("begun \(box.dumps[0].path)\ndone /gone\ngarb".utf8).write(
      to: state.appendingPathComponent("reported"))
    let (result, entries) = try inBed(
      "\(command) report --new --state \(state.path) --dir \(box.directory.path)")
    #expect(result.status == 0 && result.errors.contains("was begun before and not finished"))
    #expect(entries.compactMap { $0["dump"] as? String } == [box.dumps[1].path])
  }

  @Test func `where there is no journal nothing counts as reported`() throws {
    let box = try Self.made()
    let state = try Workshop.makeDirectory()
    let report = "\(command) report --new --state \(state.path) --dir \(box.directory.path)"
    let (result, entries) = try inBed(
      """
      mv /run/systemd/journal/socket /run/away
      \(report); echo "status $?"
      mv /run/away /run/systemd/journal/socket
      \(report); echo "status $?"
      """)
    #expect(result.output == "status 2\nstatus 0\n", "\(result.errors)")
    #expect(result.errors.contains("no journal takes entries on this machine"))
    #expect(entries.count == 2)
  }

  @Test func `several at once report each dump once, also one that comes meanwhile`() throws {
    let box = try Self.made()
    let directory = box.directory.path
    let state = try Workshop.makeDirectory()
    let report = "\(command) report --new --state \(state.path) --dir \(directory)"
    let (result, entries) = try inBed(
      """
      for i in $(seq 10 49); do
        cp \(box.dumps[0].path) \(directory)/20261121T0000$i.000000Z-burst-1-$i.tmp
        mv \(directory)/20261121T0000$i.000000Z-burst-1-$i.tmp \
          \(directory)/20261121T0000$i.000000Z-burst-1-$i.pb
        [ $(($i % 10)) = 0 ] && \(report) &
      done
      wait
      \(report)
      """)
    #expect(result.status == 0, "\(result.errors)")
    let dumps = entries.compactMap { $0["dump"] as? String }
    #expect(dumps.count == 42 && Set(dumps).count == 42)
  }

  @Test func `root does not lend its word to a unit that only a dump names`() throws {
    let box = try Self.made()
    let named = box.directory.appendingPathComponent(
      "20261121T000000.000000Z-obedient-3999999-1.pb")
    // A dump that claims a unit.
    var snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: box.dumps[0])))
    snapshot.header["unit"] = "claimed.service"
    try Data(snapshot.profileBytes()).write(to: named)
    let owned = { (user: uid_t) in
      """
      chown \(user) \(named.path)
      \(self.command) report \(named.path)
      journalctl --sync
      journalctl -o json -u claimed.service | grep -c HEAPTAP_DUMP
      """
    }
    let (root, rootEntries) = try inBed(owned(0))
    #expect(root.output.hasSuffix("\n1\n"), "\(root.output) \(root.errors)")
    #expect(rootEntries.first?["unit"] as? String == "claimed.service")
    let (other, otherEntries) = try inBed(owned(4242))
    #expect(other.output.hasSuffix("\n0\n"), "\(other.output)")
    #expect(otherEntries.count == 1 && otherEntries.first?["unit"] == nil)
  }
}

@Suite(.enabled(if: SystemdBed.isAvailable, SystemdBed.obstacle))
struct `heaptap-report.service` {
  @Test(arguments: [["User=daemon"], ["DynamicUser=yes", "PrivateTmp=yes"], []])
  func `a new dump of a service is told among its entries, with files and lines`(
    settings: [String]
  ) throws {
    let bed = try SystemdBed()
    try bed.add(program: "grower.c", as: "usr/local/bin/grower")
    try bed.add(service: "myd", settings)
    let result = try bed.succeed(
      """
      systemd-tmpfiles --create heaptap.conf
      heaptap enable myd
      systemctl start heaptap-report.path myd
      record myd
      snapshot myd
      reported() {
        journalctl --sync
        [ "$(heaptap journal myd --json | grep -c '"event":"report"')" = "$1" ]
      }
      idle() { [ "$(systemctl show --property=ActiveState --value heaptap-report)" = inactive ]; }
      wait_for 'reported 1'
      # systemd does not look for new dumps while the service ends; heaptap(7) says so.
      wait_for idle
      snapshot myd
      wait_for_reports 'reported 2'
      wait_for idle
      systemctl show --property=Result --value heaptap-report
      journalctl --output=json --all --unit=myd HEAPTAP_EVENT=report
      echo
      heaptap journal myd
      heaptap dumps myd
      journalctl --unit=heaptap-report --output=cat >&2
      """)
    #expect(result.output.contains("\nsuccess\n"), "\(result.output) \(result.errors)")
    let entries = try result.output.split(separator: "\n").filter { $0.hasPrefix("{") }.map {
      try #require(try JSONSerialization.jsonObject(with: Data($0.utf8)) as? [String: Any])
    }
    try #require(entries.count == 2, "\(result.output) \(result.errors)")
    for entry in entries {
      #expect(entry["HEAPTAP_UNIT"] as? String == "myd.service")
      // journald does not know the unit of a sender that has ended by the time it looks.
      if let sender = entry["_SYSTEMD_UNIT"] as? String {
        #expect(sender == "heaptap-report.service")
      }
      let site = entry["HEAPTAP_SITE_1"] as? String
      #expect(
        site?.contains(#/live: leak_one [^ ]*grower\.c:\d+ < main [^ ]*grower\.c:\d+$/#) == true,
        "\(entry)")
    }
    #expect((entries[1]["MESSAGE"] as? String)?.contains(" since the snapshot before") == true)
    #expect(!result.output.contains("myd.service?"), "\(result.output)")
    #expect(result.output.components(separatedBy: "  present  /var/lib/heaptap/").count == 3)
  }
}
