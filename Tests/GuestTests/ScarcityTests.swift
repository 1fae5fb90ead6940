// SPDX-License-Identifier: Apache-2.0
// Where the kernel gives little: the tracer does with less, or without itself, and says so.

import Foundation
import HeapModel
import Testing

@Suite struct ScarcityTests {
  /// A guest whose limit is set before the tracer is in the process.
  private static func guest(_ mode: String, _ limit: String) throws -> Obedient {
    try Obedient(
      mode, ["LD_PRELOAD": ""],
      prefix: [
        "/usr/bin/prlimit", limit, "/usr/bin/env", "LD_PRELOAD=\(Workshop.library)",
      ])
  }

  @Test(arguments: ["--as=62914560", "--data=67108864"])
  func `without address space for its tables recording does not start, and says why`(
    limit: String
  ) throws {
    let reason = "recording did not start: the kernel gave no memory for the tables"
    let armed = try Self.guest("1", limit)
    armed.signal(SIGUSR1)
    try armed.wait(forMessage: reason)
    #expect(try armed.tell("allocate 10 1000") == "kept 10")
    let recording = try Self.guest("record", limit)
    try recording.wait(forMessage: reason)
    #expect(recording.messages(with: "armed and recording").isEmpty)
    #expect(try recording.tell("allocate 10 1000") == "kept 10")
    #expect(recording.end("exit", status: 5).status == 5)
    #expect(recording.box.names.isEmpty)
  }

  @Test func `with two descriptors to spare a dump is written`() throws {
    let box = try DumpBox()
    let program = try Programs.build("leak.c", ["-O1", "-g"])
    // Its directory and its file, where the process ends before the tracer's thread has a table of its own.
    let result = try run(
      ["/usr/bin/prlimit", "--nofile=5", program, "1000", "1000", "5"],
      environment: box.environment("record"), input: "")
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try #require(box.snapshots().last)
    #expect(snapshot.samples(ofSize: 1000).sum(\.liveBlocks) == 5)
  }

  @Test(.enabled("needs root and mount namespaces") { DirectoryTests.canMount() })
  func `without /proc stacks are walked and a dump is written`() throws {
    let box = try DumpBox()
    let program = try Programs.build("leak.c", ["-O1", "-g"])
    let result = try run(
      [
        "/usr/bin/unshare", "-m", "/bin/sh", "-c", "mount -t tmpfs tmpfs /proc && exec \"$@\"",
        "sh",
        "/usr/bin/env",
      ] + box.environment("record").map { "\($0.key)=\($0.value)" } + [
        program, "1000", "1000", "5",
      ],
      input: "")
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    #expect(snapshot.samples(ofSize: 1000).sum(\.liveBlocks) == 5)
  }
}
