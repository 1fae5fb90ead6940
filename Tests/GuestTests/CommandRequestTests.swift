// SPDX-License-Identifier: Apache-2.0
// heaptap list, start, snapshot and stop, asked of real processes.

import Foundation
import HeapModel
import Pprof
import Testing

extension CommandTests {
  @Suite struct Requests {
    /// A guest under a name that no other has: tests run side by side.
    private static func named(
      _ mode: String? = "1", prefix: [String] = []
    ) throws -> (guest: Obedient, name: String) {
      let name = "obey-\(UInt32.random(in: 0...UInt32.max))"
      let program = try Workshop.makeDirectory().appendingPathComponent(name).path
      try copyProgram(try Programs.build("obedient.c"), to: program)
      let guest = try Obedient(mode, program: program, prefix: prefix)
      if mode == "1" || mode == "record" { _ = try guest.armed() }
      return (guest, name)
    }

    private func listed(_ pid: pid_t) throws -> [String: Any]? {
      let all = try JSONSerialization.jsonObject(
        with: Data(try heaptap("list", "--json").output.utf8))
      return try #require(all as? [[String: Any]]).first { $0["pid"] as? Int == Int(pid) }
    }

    // MARK: The usual way

    @Test func `a process is listed, started, asked for snapshots, and stopped`() throws {
      let (guest, name) = try Self.named()
      #expect(try listed(guest.pid)?["state"] as? String == "dormant")
      let start = try heaptap("start", name)
      #expect(start.status == 0)
      #expect(start.output == "'\(name)' (pid \(guest.pid)) is recording\n")
      try guest.tell("allocate 10 100")

      let list = try heaptap("list")
      let lines = list.output.split(separator: "\n").map(String.init)
      #expect(list.status == 0 && list.errors.isEmpty)
      #expect(lines[0].contains(/PID +UNIT +PROGRAM +STATE +TRACED +PEAK$/))
      let line = try #require(lines.first { $0.contains(name) })
      #expect(line.contains(/recording +1000 B +1000 B$/), "\(line)")
      let entry = try #require(try listed(guest.pid))
      #expect(entry["program"] as? String == name && entry["state"] as? String == "recording")
      #expect(entry["live_bytes"] as? Int == 1000 && entry["live_blocks"] as? Int == 10)

      let first = try heaptap("snapshot", "\(guest.pid)")
      #expect(first.status == 0 && first.errors.isEmpty)
      #expect(first.output == guest.ownDumps.map { $0.path + "\n" }.joined())
      #expect(try guest.snapshots().first?.liveBytes == 1000)
      let second = try heaptap("stop", name)
      #expect(second.status == 0 && second.output == guest.ownDumps.last!.path + "\n")
      #expect(guest.ownDumps.count == 2)
      #expect(try guest.snapshots().last?.header.trigger == "stop")
      #expect(try listed(guest.pid)?["state"] as? String == "dormant")
    }

    @Test func `asking again is no failure, except for a snapshot of what is not recorded`() throws
    {
      let (guest, name) = try Self.named()
      let stop = try heaptap("stop", name)
      #expect(stop.status == 0 && stop.output.isEmpty)
      #expect(stop.errors == "heaptap: '\(name)' (pid \(guest.pid)) was not recording\n")
      let snapshot = try heaptap("snapshot", name)
      #expect(snapshot.status == 2 && snapshot.output.isEmpty && guest.box.names.isEmpty)
      #expect(
        snapshot.errors == """
          heaptap: '\(name)' (pid \(guest.pid)) is not recording, so there is nothing to write; \
          'heaptap start \(guest.pid)' starts it

          """)
      #expect(try heaptap("start", name).status == 0)
      let again = try heaptap("start", name)
      #expect(again.status == 0)
      #expect(again.output == "'\(name)' (pid \(guest.pid)) was recording already\n")
    }

    @Test func `one that fails does not keep the others from being asked`() throws {
      let (guest, name) = try Self.named("record")
      let result = try heaptap("snapshot", "no-such-program-here", name, "\(guest.pid)")
      #expect(result.status == 2)
      #expect(result.output == guest.ownDumps[0].path + "\n", "asked once, under two names")
      #expect(
        result.errors == """
          heaptap: no program or unit 'no-such-program-here' is running; 'heaptap list' shows what \
          is armed

          """)
    }

    @Test func `a name stands for every armed process that has it`() throws {
      let (guest, name) = try Self.named()
      let child = try guest.fork()
      _ = try Obedient.armed(child.pid, guest.guest)
      let result = try heaptap("start", name)
      #expect(result.output.split(separator: "\n").count == 2)
      #expect(result.output.contains("(pid \(child.pid)) is recording"))
    }

    @Test(.enabled(if: ControlGroup.isAvailable, "no control group can be made here"))
    func `a process is found by its unit, with or without the ending`() throws {
      let group = try #require(ControlGroup(unit: "heaptap-test-\(getpid()).service"))
      let (guest, name) = try Self.named("record", prefix: group.entrance)
      defer {
        kill(guest.pid, SIGKILL)
        _ = guest.guest.finish()
        group.remove()
      }
      #expect(try listed(guest.pid)?["unit"] as? String == group.unit)
      for target in [group.unit, String(group.unit.dropLast(".service".count))] {
        let result = try heaptap("snapshot", target)
        #expect(result.status == 0 && result.output == guest.ownDumps.last!.path + "\n")
      }
      #expect(try guest.snapshots().last?.header.unit == group.unit)
      for target in [group.unit, String(group.unit.dropLast(".service".count))] {
        let diff = try heaptap(
          ["diff", target, "--json"], environment: ["HEAPTAP_DIR": guest.box.directory.path])
        try #require(diff.status == 0, "\(diff.errors)")
        #expect((try diff.json["header"] as? [String: Any])?["program"] as? String == name)
      }
    }

    // MARK: What is never signalled

    @Test(arguments: ["start", "snapshot", "stop"])
    func `a process that is not armed lives on, and the sentence says why`(verb: String) throws {
      let sleeper = try Guest(["/bin/sleep", "300"])
      defer { sleeper.send(SIGKILL) }
      let result = try heaptap(verb, "\(sleeper.pid)")
      #expect(result.status == 2 && result.output.isEmpty)
      #expect(
        result.errors == """
          heaptap: 'sleep' (pid \(sleeper.pid)) is not armed: libheaptap.so is not loaded; start it \
          with HEAPTAP=1 and LD_PRELOAD=…, or see heaptap(7)

          """)
      usleep(100_000)
      #expect(sleeper.isRunning)
    }

    @Test(arguments: [nil, "0"])
    func `a process with the library, and not armed, lives on`(mode: String?) throws {
      let (guest, _) = try Self.named(mode)
      let result = try heaptap("start", "\(guest.pid)")
      #expect(result.status == 2)
      #expect(result.errors.contains(mode == nil ? "HEAPTAP is not set" : "started with HEAPTAP=0"))
      #expect(try guest.tell("allocate 1 1") == "kept 1")
    }

    @Test func `a handler of the application's own is not called`() throws {
      let (guest, name) = try Self.named()
      try guest.tell("handle \(SIGUSR1)")
      try guest.tell("handle \(SIGUSR2)")
      #expect(try heaptap("start", name).status == 0)
      #expect(try heaptap("snapshot", name).status == 0)
      #expect(try heaptap("stop", name).status == 0)
      #expect(try guest.ask("handled") == 0)
      #expect(guest.ownDumps.count == 2)
    }

    // MARK: Who cannot be asked

    @Test(.enabled(if: geteuid() == 0, "only root can become somebody else"))
    func `another user's process is told whose it is`() throws {
      let (guest, name) = try Self.named()
      let command = try reachable(Workshop.command)
      let stranger = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
      for verb in ["start", "snapshot", "stop"] {
        let result = try run(stranger + [command, verb, "\(guest.pid)"])
        #expect(result.status == 2)
        #expect(
          result.errors == """
            heaptap: '\(name)' (pid \(guest.pid)) belongs to uid 0: run heaptap as that user or as \
            root

            """)
      }
      let list = try run(stranger + [command, "list"])
      #expect(
        list.output.split(separator: "\n").contains {
          $0.hasPrefix("\(guest.pid) ".leftPadded(to: 6))
            || $0.contains("\(guest.pid) ")
              && $0.contains("closed")
        })
    }

    /// The command where everybody may run it.
    private func reachable(_ command: String) throws -> String {
      let directory = FileManager.default.temporaryDirectory
        .appendingPathComponent("heaptap-test-\(UUID().uuidString)")
      try? FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
      chmod(directory.path, 0o755)
      let copy = directory.appendingPathComponent("heaptap").path
      try copyProgram(command, to: copy)
      return copy
    }

    @Test func `a process that is stopped is told so, and answers when it goes on`() throws {
      let (guest, name) = try Self.named()
      guest.signal(SIGSTOP)
      let result = try heaptap("start", "--timeout", "0.5", name)
      #expect(result.status == 2)
      #expect(
        result.errors == """
          heaptap: '\(name)' (pid \(guest.pid)) did not answer within 0.5 seconds: it is stopped, \
          'kill -CONT \(guest.pid)' continues it. The request stays and is carried out when it can be

          """)
      guest.signal(SIGCONT)
      try guest.wait(forMessage: "recording started")
    }

    @Test func `a process that dies while it is asked is told at once`() throws {
      let (guest, name) = try Self.named()
      guest.signal(SIGSTOP)
      let asking = try Guest([Workshop.command, "start", name])
      usleep(300_000)
      #expect(asking.isRunning)
      guest.signal(SIGKILL)
      let result = asking.finish()
      #expect(result.status == 2)
      #expect(
        result.errors == "heaptap: '\(name)' (pid \(guest.pid)) ended before it answered\n")
    }

    @Test func `a pid that nobody has is told`() throws {
      let result = try heaptap("start", "99999999")
      #expect(result.status == 2 && result.errors == "heaptap: there is no process 99999999\n")
    }

    @Test func `a snapshot that cannot be written says why, and the process goes on`() throws {
      let (guest, name) = try Self.named("record")
      try FileManager.default.removeItem(at: guest.box.directory)
      let result = try heaptap("snapshot", name)
      #expect(result.status == 2 && result.output.isEmpty)
      #expect(
        result.errors.hasPrefix(
          "heaptap: '\(name)' (pid \(guest.pid)) could not write its snapshot: "),
        "\(result.errors)")
      #expect(try guest.tell("allocate 1 1") == "kept 1")
    }
  }
}

extension String {
  fileprivate func leftPadded(to width: Int) -> String {
    String(repeating: " ", count: max(0, width - count)) + self
  }
}

/// A control group that looks like a unit's.
private struct ControlGroup {
  let unit: String
  private let path: String

  /// The hierarchies by which systemd knows its units, where they are mounted.
  private static var roots: [String] {
    ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"].filter {
      access("\($0)/cgroup.procs", W_OK) == 0
    }
  }

  static var isAvailable: Bool {
    guard let group = ControlGroup(unit: "heaptap-probe-\(getpid()).service") else { return false }
    group.remove()
    return true
  }

  init?(unit: String) {
    guard let root = Self.roots.first else { return nil }
    self.unit = unit
    path = "\(root)/system.slice/\(unit)"
    mkdir("\(root)/system.slice", 0o755)
    guard mkdir(path, 0o755) == 0 else { return nil }
  }

  /// What to put before a command, so that it begins its life in the group, as services do.
  var entrance: [String] {
    ["/bin/sh", "-c", "echo $$ > '\(path)/cgroup.procs' && exec \"$@\"", "sh"]
  }

  func remove() {
    rmdir(path)
    // Only if nobody else has a unit in there.
    rmdir(URL(fileURLWithPath: path).deletingLastPathComponent().path)
  }
}
