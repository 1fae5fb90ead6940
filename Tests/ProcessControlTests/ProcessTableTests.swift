// SPDX-License-Identifier: Apache-2.0
// Who is found by pid, program and unit, who is not, and that nobody else is ever signalled.

import Glibc
import Testing

@testable import ProcessControl

private func error(_ body: () throws -> Void) -> ProcessControlError? {
  do {
    try body()
    return nil
  } catch {
    return error as? ProcessControlError
  }
}

@Suite struct `Process table` {
  @Test func `a process that is not armed is told apart, and lives on`() throws {
    let child = Child(["sleep", "60"])
    #expect(eventually { ProcessFacts(pid: child.pid).executableName == "sleep" })
    let refused = try #require(
      error {
        for process in try ProcessTable().processes(.pid(child.pid)) {
          _ = try process.start(timeout: .seconds(1))
        }
      })
    #expect(refused.code == .notArmed)
    #expect(
      refused.description
        == "'sleep' (pid \(child.pid)) is not armed: libheaptap.so is not loaded;"
        + " start it with HEAPTAP=1 and LD_PRELOAD=…, or see heaptap(7)")
    #expect(child.isAlive)
  }

  @Test func `a program by name is found, and told why it would not answer`() throws {
    let directory = TemporaryDirectory()
    let program = directory.file(
      "heaptap-odd-name", try contents(ofFile: "/bin/sleep"), mode: 0o700)
    let child = Child([program, "60"])
    #expect(eventually { ProcessFacts(pid: child.pid).executableName == "heaptap-odd-name" })
    let refused = try #require(
      error { _ = try ProcessTable().processes(Target("heaptap-odd-name")) })
    #expect(refused.code == .notArmed)
    #expect(refused.description.hasPrefix("'heaptap-odd-name' (pid \(child.pid)) is not armed"))
  }

  @Test func `a name that nothing has is an error`() {
    #expect(
      error { _ = try ProcessTable().processes(Target("no-such\u{1b}[31mdaemon")) }?.description
        == "no program or unit 'no-such\\u{1b}[31mdaemon' is running;"
        + " 'heaptap list' shows what is armed")
  }

  @Test func `a pid that nothing has is an error`() {
    // Above the largest pid that the kernel gives.
    #expect(
      error { _ = try ProcessTable().processes(.pid(5_000_000)) }?.code == .noSuchProcess)
  }

  @Test func `a loaded library alone does not make a process armed`() throws {
    let directory = TemporaryDirectory()
    let library = try directory.decoyLibrary()
    let off = Child(["sleep", "60"], environment: ["LD_PRELOAD": library])
    #expect(eventually { (try? ProcessFacts(pid: off.pid).isTracerMapped()) == true })
    #expect(
      error { _ = try ProcessTable().process(off.pid) }?.description.contains("HEAPTAP is not set")
        == true)
    let bare = Child(["sleep", "60"], environment: ["LD_PRELOAD": library, "HEAPTAP": "1"])
    #expect(eventually { (try? ProcessFacts(pid: bare.pid).isTracerMapped()) == true })
    #expect(
      error { _ = try ProcessTable().process(bare.pid) }?.description
        .contains("neither a control page nor its signal handlers") == true)
    #expect(off.isAlive && bare.isAlive)
  }

  @Test func `without a page, signals go out only to their handlers`() throws {
    let directory = TemporaryDirectory()
    let library = try directory.decoyLibrary()
    let script = """
      trap 'echo toggle >> \(directory.path)/log' USR1
      trap 'touch "\(directory.path)/20990101T000000.000000Z-sh-$$-1.pb"' USR2
      while :; do sleep 0.02; done
      """
    let child = Child(
      ["sh", "-c", script],
      environment: ["LD_PRELOAD": library, "HEAPTAP": "1", "HEAPTAP_DIR": directory.path])
    #expect(eventually { ProcessFacts(pid: child.pid).status.hasHandler(for: SIGUSR2) })
    let process = try #require(try ProcessTable().processes(.pid(child.pid)).first)
    #expect(process.state == .unknown)
    #expect(try process.start(timeout: .seconds(1)) == .signalled)
    #expect(
      eventually { (try? contents(ofFile: "\(directory.path)/log")) == Array("toggle\n".utf8) })
    #expect(
      try process.snapshot(timeout: patience)
        == "\(directory.path)/20990101T000000.000000Z-sh-\(child.pid)-1.pb")
    #expect(child.isAlive)
  }

  @Test func `a handler that has gone is not signalled`() throws {
    let child = Child(["sleep", "60"])
    let process = ArmedProcess(
      pid: child.pid, program: "sleep", unit: nil, handle: try ProcessHandle(child.pid),
      way: .signals(.standard))
    #expect(error { _ = try process.start(timeout: .seconds(1)) }?.code == .notArmed)
    #expect(error { _ = try process.snapshot(timeout: .seconds(1)) }?.code == .notArmed)
    #expect(error { _ = try process.stop(timeout: .seconds(1)) }?.code == .notArmed)
    #expect(child.isAlive)
  }
}

@Suite struct `What /proc says` {
  @Test(arguments: [
    ("0::/system.slice/myd.service\n", "myd.service"),
    ("0::/system.slice/myd.service/payload\n", "myd.service"),
    ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/myd.service\n", "myd.service"),
    ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
    (
      "12:memory:/system.slice/other.service\n1:name=systemd:/system.slice/myd.service\n0::/\n",
      "myd.service"
    ),
    ("0::/system.slice/getty@tty1.service\n", "getty@tty1.service"),
    ("0::/\n", nil), ("", nil), ("nonsense", nil), ("0::", nil),
  ])
  func `the unit is the innermost of systemd's own hierarchy`(text: String, unit: String?) {
    #expect(ControlGroups(text).unit == unit)
  }

  @Test func `a unit is named with or without its suffix`() {
    let groups = ControlGroups("0::/system.slice/my.d.service/worker\n")
    #expect(groups.isInside(unit: "my.d"))
    #expect(groups.isInside(unit: "my.d.service"))
    #expect(!groups.isInside(unit: "my"))
    #expect(!groups.isInside(unit: "d"))
    #expect(!groups.isInside(unit: "system.slice"))
  }

  @Test func `the status line of caught signals is a mask from signal 1`() {
    let status = ProcessStatus(
      "Name:\tx\nState:\tT (stopped)\nUid:\t1\t2\t3\t4\nNSpid:\t900\t7\nSigCgt:\t0000000200000a00\n"
    )
    #expect(status.hasHandler(for: SIGUSR1))
    #expect(status.hasHandler(for: SIGUSR2))
    #expect(status.hasHandler(for: 34))
    #expect(!status.hasHandler(for: SIGTERM))
    #expect(!status.hasHandler(for: 0) && !status.hasHandler(for: 65))
    #expect(status.innermostPID == 7)
    #expect(status.userID == 2)
    #expect(status.state == "T")
  }

  @Test func `the tracer is known by the name of its file`() {
    let line = "7f00-7f01 r-xp 00000000 fe:00 12 "
    func names(_ path: String) -> Bool { ProcessFacts.namesTracer(maps: Array((line + path).utf8)) }
    #expect(names("/usr/local/lib/libheaptap.so\n"))
    #expect(names("/opt/libheaptap.so (deleted)\n"))
    #expect(!names("/usr/lib/libheaptap.so.bak\n"))
    #expect(!names("/usr/lib/notlibheaptap.so\n"))
    #expect(!names("\n"))
  }

  @Test(arguments: [
    ("USR1,USR2", SIGUSR1, SIGUSR2), ("USR2,USR1", SIGUSR2, SIGUSR1),
    ("RTMIN,RTMIN+5", 34, 39), ("RTMIN+1,USR2", 35, SIGUSR2),
  ])
  func `signals are read as the tracer reads them`(text: String, toggle: Int32, snapshot: Int32) {
    #expect(SignalSettings(text)?.toggle == toggle)
    #expect(SignalSettings(text)?.snapshot == snapshot)
  }

  @Test(arguments: [
    "none", "", "USR1", "USR1,USR1", "USR1,TERM", "RTMIN+99,USR2", "USR1,USR2,USR1",
  ])
  func `signals that the tracer would not take are not sent`(text: String) {
    #expect(SignalSettings(text) == nil)
  }

  @Test func `a target of digits is a pid`() {
    #expect(Target("42") == .pid(42))
    #expect(Target("42d") == .name("42d"))
    #expect(Target("-1") == .name("-1"))
  }

  @Test func `text from elsewhere cannot steer a terminal`() {
    #expect("plain ünï 日本".plainText == "plain ünï 日本")
    #expect("a\u{1b}[2Jb\nc\u{202e}d".plainText == "a\\u{1b}[2Jb\\u{a}c\\u{202e}d")
  }
}
