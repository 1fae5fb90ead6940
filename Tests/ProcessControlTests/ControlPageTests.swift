// SPDX-License-Identifier: Apache-2.0
// The control page from the asker's side, against a stand-in worker in this process.

import CControlPage
import Glibc
import Testing

@testable import ProcessControl

private func thisProcess() throws -> ArmedProcess { try ProcessTable().process(getpid()) }

/// What is printed when asking fails.
private func sentence(_ body: () throws -> Void) -> String {
  do {
    try body()
    return "no error"
  } catch {
    return "\(error)"
  }
}

// Serialized: the stand-in is found by the name of a thread of this process, and there must be one.
@Suite(.serialized) struct `Control page` {
  @Test func `a process with a page is found, and says what it is doing`() throws {
    let tracer = StandInTracer(program: "my daemon")
    defer { tracer.end() }
    tracer.page[\.live_bytes] = 4096
    tracer.page[\.peak_bytes] = 8192
    tracer.page.write("USR1,USR2", to: \.signals)
    let process = try #require(ProcessTable().armedProcesses().first { $0.pid == getpid() })
    #expect(process.program == "my daemon")
    #expect(process.state == .dormant)
    #expect(process.counters?.liveBytes == 4096)
    #expect(process.counters?.peakBytes == 8192)
    #expect(process.counters?.signals == "USR1,USR2")
    #expect(try ProcessTable().processes(Target("my daemon")).map(\.pid) == [getpid()])
  }

  @Test func `start is answered, and starting again is no error`() throws {
    let tracer = StandInTracer { commands, page in
      if commands & TRACER_COMMAND_START.rawValue != 0 {
        page[\.state] = TRACER_STATE_RECORDING.rawValue
      }
    }
    defer { tracer.end() }
    #expect(try thisProcess().start(timeout: patience) == .started)
    #expect(try thisProcess().start(timeout: patience) == .wasRecording)
    #expect(try thisProcess().state == .recording)
  }

  @Test func `a start that could not be is told with its reason`() throws {
    let tracer = StandInTracer { _, page in
      page[\.start_result] = UInt32(ENOMEM)
    }
    defer { tracer.end() }
    #expect(
      sentence { _ = try thisProcess().start(timeout: patience) }
        .contains("did not start recording: cannot allocate memory"))
    tracer.page.write("no room for the live map under RLIMIT_AS", to: \.message)
    #expect(
      sentence { _ = try thisProcess().start(timeout: patience) }
        .hasSuffix("did not start recording: no room for the live map under RLIMIT_AS"))
  }

  @Test func `snapshot waits for the dump and returns its path`() throws {
    let tracer = StandInTracer { commands, page in
      guard commands & TRACER_COMMAND_SNAPSHOT.rawValue != 0 else { return }
      usleep(200_000)
      page.write("/var/tmp/a.pb", to: \.dump_path)
      page[\.snapshots] += 1
      page[\.snapshot_result] = TRACER_SNAPSHOT_WRITTEN.rawValue
    }
    defer { tracer.end() }
    #expect(try thisProcess().snapshot(timeout: patience) == "/var/tmp/a.pb")
  }

  @Test func `a snapshot of what does not record says how to start it`() throws {
    let tracer = StandInTracer { _, page in
      page[\.snapshot_result] = TRACER_SNAPSHOT_DORMANT.rawValue
    }
    defer { tracer.end() }
    let error = sentence { _ = try thisProcess().snapshot(timeout: patience) }
    #expect(error.contains("is not recording"))
    #expect(error.contains("'heaptap start \(getpid())'"))
  }

  @Test func `a snapshot that failed is told in the tracer's words`() throws {
    let tracer = StandInTracer { _, page in
      page.write("no space left in '/var/tmp'", to: \.message)
      page[\.snapshot_result] = TRACER_SNAPSHOT_FAILED.rawValue
      page[\.error] = UInt32(ENOSPC)
    }
    defer { tracer.end() }
    #expect(
      sentence { _ = try thisProcess().snapshot(timeout: patience) }
        .hasSuffix("could not write its snapshot: no space left in '/var/tmp'"))
  }

  @Test func `stop returns the last dump, and stopping again is no error`() throws {
    let tracer = StandInTracer { commands, page in
      guard page[\.state] == TRACER_STATE_RECORDING.rawValue else { return }
      page.write("/var/tmp/last.pb", to: \.dump_path)
      page[\.snapshots] += 1
      page[\.state] = TRACER_STATE_DORMANT.rawValue
    }
    defer { tracer.end() }
    tracer.page[\.state] = TRACER_STATE_RECORDING.rawValue
    #expect(
      try thisProcess().stop(timeout: patience)
        == .stopped(dump: "/var/tmp/last.pb", problem: nil))
    #expect(try thisProcess().stop(timeout: patience) == .wasDormant)
  }

  @Test func `requests are numbered past the end of their counter`() throws {
    let tracer = StandInTracer { _, page in
      page[\.state] = TRACER_STATE_RECORDING.rawValue
    }
    defer { tracer.end() }
    tracer.page[\.handled] = .max
    tracer.page[\.requested] = .max
    #expect(try thisProcess().start(timeout: patience) == .started)
    #expect(tracer.page[\.handled] == 0)
  }

  @Test func `a process that does not answer is not waited for longer than asked`() throws {
    let tracer = StandInTracer { _, _ in sleep(1) }
    defer { tracer.end() }
    let before = monotonicNanoseconds()
    let error = sentence { _ = try thisProcess().start(timeout: .milliseconds(300)) }
    #expect(error.contains("did not answer within 0.3 seconds"))
    #expect(monotonicNanoseconds() - before < 900_000_000)
  }

  @Test func `the end of the process ends the wait`() throws {
    let tracer = StandInTracer { _, _ in sleep(1) }
    defer { tracer.end() }
    let child = Child(["sleep", "0.3"])
    let page = try ControlPage(descriptor: tracer.descriptor, pid: getpid(), place: "it")
    let process = ArmedProcess(
      pid: child.pid, program: "sleep", unit: nil, handle: try ProcessHandle(child.pid),
      way: .page(page, worker: child.pid))
    #expect(
      sentence { _ = try process.start(timeout: patience) }
        == "'sleep' (pid \(child.pid)) ended before it answered")
  }

  @Test func `exec into another program ends the wait`() throws {
    let tracer = StandInTracer { _, _ in sleep(1) }
    defer { tracer.end() }
    let page = try ControlPage(descriptor: tracer.descriptor, pid: getpid(), place: "it")
    let child = Child(["sleep", "60"])
    let process = ArmedProcess(
      pid: child.pid, program: "sleep", unit: nil, handle: try ProcessHandle(child.pid),
      // The worker's thread is gone, as exec leaves it.
      way: .page(page, worker: 1))
    #expect(
      sentence { _ = try process.start(timeout: patience) }.contains("became another program"))
  }

  // MARK: What is refused

  /// What asking says. The process is found all the same: it is there to be listed.
  private func refusal() -> String {
    sentence {
      let process = try thisProcess()
      #expect(process.state == .closed)
      _ = try process.start(timeout: .seconds(1))
    }
  }

  @Test(arguments: [StandInTracer.Seals.none, .shrinkOnly])
  func `a page that could change its size is refused`(seals: StandInTracer.Seals) {
    let tracer = StandInTracer(seals: seals)
    defer { tracer.end() }
    #expect(refusal().hasSuffix("not sealed against a change of size"))
  }

  @Test func `a page of another size is refused`() {
    let tracer = StandInTracer(byteCount: 4096)
    defer { tracer.end() }
    #expect(refusal().hasSuffix("it is not 8192 bytes long"))
  }

  @Test func `a page of another version, magic or process is refused`() {
    let tracer = StandInTracer()
    defer { tracer.end() }
    tracer.page[\.version] = 7
    #expect(refusal().contains("its version is 7"))
    tracer.page[\.version] = 1
    tracer.page[\.pid] = 1
    #expect(refusal().hasSuffix("it describes another process"))
    tracer.page[\.magic] = 0
    #expect(refusal().hasSuffix("its magic is wrong"))
  }

  @Test func `strings without an end stay inside their field, and cannot move the cursor`() throws {
    let tracer = StandInTracer()
    defer { tracer.end() }
    tracer.page.fill(\.program, with: Array(repeating: 0x1b, count: 64))
    tracer.page.fill(\.message, with: Array(repeating: UInt8(ascii: "m"), count: 512))
    #expect(try thisProcess().program == String(repeating: "\\u{1b}", count: 64))
  }
}
