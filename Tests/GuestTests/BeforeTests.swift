// SPDX-License-Identifier: Apache-2.0
// Blocks that were born before recording: never invented, and counted when they go.

import Foundation
import HeapModel
import Testing

/// A guest that does as it is told, by a pipe.
private struct ToldGuest {
  let guest: Guest
  private let pipe: FileHandle
  private var questions = 0

  init(_ program: String, environment: [String: String]) throws {
    let path = try Workshop.makeDirectory().appendingPathComponent("pipe").path
    guard mkfifo(path, 0o600) == 0 else { throw GuestError("no pipe at \(path)") }
    guest = try Guest([program, path], environment: environment)
    pipe = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
  }

  /// Has the guest do something, and waits until it is done.
  mutating func tell(_ lines: [String]) throws {
    questions += 1
    pipe.write(Data((lines + ["?\(questions)", ""]).joined(separator: "\n").utf8))
    try guest.wait(forOutput: "done \(questions).")
  }

  func end() throws -> Finished {
    try pipe.close()
    return guest.finish()
  }
}

@Suite struct BeforeTests {
  @Test func `frees of unknown blocks are counted by their usable size, and totals stay true`()
    throws
  {
    let box = try DumpBox()
    let program = try Programs.build("before.c", ["-O1", "-g", "-fno-builtin"])
    var told = try ToldGuest(program, environment: box.environment("1"))
    try told.tell(Array(repeating: "+1000", count: 100))
    told.guest.send(SIGUSR1)
    try told.guest.wait(forErrors: "recording started")
    // 60 of the old ones freed, one reallocated; 10 new ones, of which none is freed.
    try told.tell(Array(repeating: "-", count: 60) + ["~5000"])
    try told.tell(Array(repeating: "+70", count: 10))
    told.guest.send(SIGUSR2)
    try told.guest.wait(for: "the dump") { box.dumps.count == 1 }
    let first = try box.snapshot()
    first.expectSound()
    #expect(first.header.trigger == "signal")
    #expect(first.liveBlocks == 11)
    #expect(first.liveBytes == 5000 + 10 * 70)
    #expect(first.header.totalBlocks == 11)
    #expect(first.header.freedBlocks == 0)
    #expect(first.header.beforeFreedBlocks == 61)
    // 1000 bytes are a chunk of 1008, of which 1000 can be used.
    #expect(first.header.beforeFreedBytes == 61 * 1000)
    let before = try #require(first.header.beforeHeapBytes)
    #expect(before >= 100_000)
    #expect(first.header.beforeRemainingBytes == before - 61 * 1000)

    // The rest of the old ones and more: nothing becomes negative.
    try told.tell(Array(repeating: "-", count: 50))
    told.guest.send(SIGUSR2)
    try told.guest.wait(for: "the second dump") { box.dumps.count == 2 }
    let second = try #require(try box.snapshots().last)
    second.expectSound()
    #expect(second.header.beforeFreedBlocks == 100)
    #expect(second.liveBlocks == 0)
    #expect(second.header.beforeRemainingBytes ?? -1 >= 0)
    #expect(try told.end().status == 0)
  }
}
