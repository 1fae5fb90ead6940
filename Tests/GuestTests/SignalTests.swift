// SPDX-License-Identifier: Apache-2.0
// Whose signals they are: the application's own handlers win, and there are other signals.

import Foundation
import HeapModel
import ProcessControl
import Testing

@Suite struct SignalTests {
  @Test func `a handler that was there before stays, and is named`() throws {
    let early = try Programs.build("early_handler.c", ["-O2", "-shared", "-fPIC"])
    let guest = try Obedient("1", ["LD_PRELOAD": "\(Workshop.library) \(early)"])
    try guest.wait(forMessage: "handler of its own for USR1, and keeps it")
    #expect(guest.messages(with: "HEAPTAP_SIGNALS=").count == 1)
    guest.signal(SIGUSR1)
    try guest.guest.wait(for: "the early handler") {
      guest.guest.outputSoFar.contains("early handler")
    }
    // Nor does it begin to record; the other signal is still ours, and says so.
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "no snapshot was written")
    #expect(try guest.armed().state == .dormant)
  }

  @Test func `a signal that is ignored from birth stays ignored`() throws {
    let guest = try Obedient(
      "1", prefix: ["/bin/sh", "-c", "trap '' USR1 && exec \"$@\"", "sh"])
    _ = try guest.armed()
    try guest.wait(forMessage: "handler of its own for USR1")
    #expect(!guest.facts.catches(SIGUSR1))
    #expect(guest.facts.catches(SIGUSR2))
    guest.signal(SIGUSR1)
    #expect(try guest.tell("allocate 1 1") == "kept 1")
    #expect(try guest.armed().state == .dormant)
  }

  @Test func `a handler that comes later wins, and is named once`() throws {
    let guest = try Obedient("1")
    let armed = try guest.armed()
    try guest.tell("handle \(SIGUSR1)")
    try guest.wait(forMessage: "has installed a handler of its own for USR1")
    guest.signal(SIGUSR1)
    try guest.guest.wait(for: "its own handler") { try guest.ask("handled") == 1 }
    #expect(armed.state == .dormant)
    sleep(2)
    #expect(guest.messages(with: "handler of its own").count == 1)
    // The page still works.
    _ = try armed.start(timeout: patience)
    #expect(armed.state == .recording)
  }

  @Test func `real-time signals do as well, and the others are left alone`() throws {
    let guest = try Obedient("1", ["HEAPTAP_SIGNALS": "RTMIN+3,RTMIN+4"])
    let armed = try guest.armed()
    #expect(armed.counters?.signals == "RTMIN+3,RTMIN+4")
    let (start, snapshot) = (__libc_current_sigrtmin() + 3, __libc_current_sigrtmin() + 4)
    #expect(guest.facts.catches(start) && guest.facts.catches(snapshot))
    #expect(!guest.facts.catches(SIGUSR1) && !guest.facts.catches(SIGUSR2))
    guest.signal(start)
    try guest.wait(forMessage: "recording started")
    try guest.tell("allocate 2 2")
    for _ in 0..<100 { guest.signal(snapshot) }
    #expect(try guest.wait(forDumps: 1).first?.liveBlocks == 2)
    guest.signal(start)
    try guest.wait(forMessage: "recording stopped")
    #expect(try guest.snapshots().areSound)
    guest.signal(SIGUSR1)
    #expect(guest.guest.finish().signal == SIGUSR1)
  }

  @Test(arguments: [SIGUSR1, SIGUSR2])
  func `without signals the defaults stay, and the page works`(signal: Int32) throws {
    let guest = try Obedient("1", ["HEAPTAP_SIGNALS": "none"])
    let armed = try guest.armed()
    #expect(armed.counters?.signals == "none")
    #expect(guest.facts.caughtSignals & (1 << 9 | 1 << 11) == 0)
    _ = try armed.start(timeout: patience)
    guest.signal(signal)
    #expect(guest.guest.finish().signal == signal)
  }

  @Test func `a signal with a value says what it asks for`() throws {
    let guest = try Obedient("1")
    func send(_ value: Int) {
      guest.queue(SIGUSR1, value: value)
    }
    send(1)
    try guest.wait(forMessage: "recording started")
    // Starting what records is no toggle.
    send(1)
    try guest.tell("allocate 3 3")
    send(3)
    #expect(try guest.wait(forDumps: 1).last?.liveBlocks == 3)
    #expect(try guest.armed().state == .recording)
    send(2)
    try guest.wait(forMessage: "recording stopped")
    #expect(try guest.snapshots().map(\.header.trigger) == ["signal", "stop"])
  }

  @Test(arguments: ["sigwait", "signalfd"])
  func `signals that the application waits for are the application's`(way: String) throws {
    let box = try DumpBox()
    let guest = try Guest(
      [Programs.build("waiting.c"), way], environment: box.environment("1"))
    try guest.wait(forOutput: "ready")
    for _ in 0..<20 {
      let before = guest.outputSoFar.count
      guest.send(SIGUSR1)
      try guest.wait(for: "the signal") { guest.outputSoFar.count > before }
    }
    // By the page it can be asked all the same.
    let armed = try Obedient.armed(guest.pid, guest)
    #expect(armed.state == .dormant)
    _ = try armed.start(timeout: patience)
    _ = try armed.snapshot(timeout: patience)
    guest.send(SIGUSR2)
    let result = guest.finish()
    #expect(result.status == 0)
    #expect(result.output.hasSuffix("got USR1\ngot USR2\n"))
    #expect(box.dumps.count == 1)
  }

  @Test func `an exit that is traced leaves the default of termination to the application`() throws
  {
    // Its own handler for SIGTERM, installed later, runs, and the process goes on.
    let guest = try Obedient("record")
    try guest.tell("handle \(SIGTERM)")
    guest.signal(SIGTERM)
    try guest.guest.wait(for: "its own handler") { try guest.ask("handled") == 1 }
    #expect(guest.box.names.isEmpty)
    #expect(try guest.tell("allocate 1 1") == "kept 1")
  }
}

extension Obedient {
  func queue(_ signal: Int32, value: Int) {
    _ = sigqueue(pid, signal, sigval(sival_ptr: UnsafeMutableRawPointer(bitPattern: value)))
  }
}
