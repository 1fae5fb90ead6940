// SPDX-License-Identifier: Apache-2.0
// The ends of processes: which of them leave a dump, and that they end as they would have.

import Foundation
import HeapModel
import Testing

@Suite struct ExitTests {
  @Test(arguments: ["return", "exit", "quick_exit", "_exit", "_Exit"])
  func `a program that ends leaves a dump and its own status`(manner: String) throws {
    for status in [0, 5] {
      let guest = try Obedient("record")
      try guest.tell("allocate 8 80")
      let result = guest.end(manner, status: status)
      #expect(result.status == Int32(status) && result.signal == nil)
      let snapshot = try guest.box.snapshot()
      #expect(snapshot.header.trigger == "exit")
      #expect(snapshot.header.isComplete)
      #expect(snapshot.liveBytes >= 640)
      #expect(guest.box.names.count == 1)
    }
  }

  @Test(arguments: [SIGTERM, SIGINT, SIGHUP])
  func `a program that a signal ends leaves a dump, and dies by that signal`(signal: Int32) throws {
    let guest = try Obedient("record")
    try guest.tell("allocate 8 80")
    try guest.tell("churn 2")
    guest.signal(signal)
    #expect(guest.guest.finish().signal == signal)
    let snapshot = try guest.box.snapshot()
    #expect(snapshot.header.trigger == "terminated")
    #expect(snapshot.header.isComplete)
    #expect(snapshot.liveBytes >= 640)
  }

  @Test func `a program that is killed or aborts leaves nothing`() throws {
    let killed = try Obedient("record")
    killed.signal(SIGKILL)
    #expect(killed.guest.finish().signal == SIGKILL)
    #expect(killed.box.names.isEmpty)
    let aborted = try Obedient("record")
    #expect(aborted.end("abort").signal == SIGABRT)
    #expect(aborted.box.names.isEmpty)
  }

  @Test func `without being asked to, the end writes nothing`() throws {
    let guest = try Obedient("1")
    try guest.start()
    #expect(guest.end("exit", status: 4).status == 4)
    #expect(guest.box.names.isEmpty)
    let other = try Obedient("1")
    other.signal(SIGTERM)
    #expect(other.guest.finish().signal == SIGTERM)
  }

  @Test(arguments: ["1", "record"])
  func `the process ends with its last thread, though the tracer's is left`(mode: String) throws {
    let guest = try Obedient(mode)
    let start = Date()
    let result = guest.end("pthread_exit")
    #expect(result.status == 0 && result.signal == nil)
    #expect(Date().timeIntervalSince(start) < 4)
    #expect(guest.box.dumps.count == (mode == "record" ? 1 : 0))
  }

  @Test func `two threads that end the process at once write one dump`() throws {
    let program = try Programs.build("race_to_exit.c")
    for _ in 0..<20 {
      let box = try DumpBox()
      let result = try run([program], environment: box.environment("record"))
      #expect(result.status == 3)
      #expect(try box.snapshot().header.isComplete)
    }
  }
}
