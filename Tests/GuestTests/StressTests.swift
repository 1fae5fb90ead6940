// SPDX-License-Identifier: Apache-2.0
// Everything at once: threads, forks, plug-ins, signals, coroutines and dumps, and books that balance.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite(.serialized) struct StressTests {
  /// How long to go on; `make stress` asks for more.
  private static let seconds =
    ProcessInfo.processInfo.environment["HEAPTAP_STRESS"].flatMap { Double($0) } ?? 60

  private static func command(threads: Int, seconds: Double, seed: Int) throws -> [String] {
    // Sites are told apart by their functions' frames.
    let program = try Programs.build("stress.c", ["-O1", "-g", "-fno-optimize-sibling-calls"])
    let plugin = try Programs.build("stress.c", ["-O1", "-g", "-DPLUGIN", "-shared", "-fPIC"])
    return [program, "\(threads)", "\(seconds)", "\(seed)", plugin]
  }

  /// What the program says that it has left, by function.
  private static func books(_ output: String) -> [String: [Int]] {
    var books: [String: [Int]] = [:]
    for line in output.split(separator: "\n") where line.hasPrefix("site_") {
      let parts = line.split(separator: " ")
      books[String(parts[0])] = parts.dropFirst().compactMap { Int($0) }
    }
    return books
  }

  /// The same as a dump has it.
  private static func left(in dump: Snapshot) -> [String: [Int]] {
    var found: [String: [Int]] = [:]
    let named = dump.named()
    for sample in named.samples {
      guard let site = named.functions(of: sample).first(where: { $0.hasPrefix("site_") })
      else { continue }
      found[site, default: [0, 0]][0] += sample.liveBlocks
      found[site, default: [0, 0]][1] += sample.liveBytes
    }
    return found
  }

  @Test func `after forks, plug-ins, signals, coroutines and dumps the books agree to the byte`()
    throws
  {
    let box = try DumpBox()
    let seed = Int.random(in: 1...1_000_000)
    let guest = try Guest(
      Self.command(threads: 64, seconds: Self.seconds, seed: seed),
      environment: box.environment("record", ["HEAPTAP_LOG": "off"]))
    var dumpCount = 0
    while guest.isRunning {
      usleep(250_000)
      guest.send(SIGUSR2)
      // Each is read, and the last kept: the one at the end may be that.
      for file in box.dumps.dropLast() {
        let dump = try Snapshot(profile: [UInt8](Data(contentsOf: file)))
        try #require([dump].areSound, "seed \(seed): \(file.lastPathComponent)")
        try FileManager.default.removeItem(at: file)
        dumpCount += 1
      }
    }
    let result = guest.finish()
    try #require(result.status == 0, "seed \(seed): \(result.output) \(result.errors)")
    let last = try #require(box.snapshots().last)
    #expect(last.header.losses.allSatisfy { $0.count == 0 || !$0.key.hasPrefix("lost.") })
    let found = Self.left(in: last)
    #expect(found == Self.books(result.output), "seed \(seed): \(result.output)")
    #expect(found.count == 8 && dumpCount > 0)
  }

  @Test(arguments: AllocatorTests.Allocator.foreign)
  func `the books agree with other allocators too`(_ allocator: AllocatorTests.Allocator) throws {
    let box = try DumpBox()
    let seed = Int.random(in: 1...1_000_000)
    let result = try run(
      Self.command(threads: 16, seconds: Self.seconds / 18, seed: seed),
      environment: box.environment(
        "record", ["HEAPTAP_LOG": "off"].merging(allocator.environment) { $1 }))
    try #require(result.status == 0, "seed \(seed): \(result.output) \(result.errors)")
    // Its children wrote theirs before.
    let last = try #require(box.snapshots().last)
    #expect(Self.left(in: last) == Self.books(result.output), "seed \(seed)")
  }

  @Test func `recordings that begin and end amid turmoil leave the process whole`() throws {
    let box = try DumpBox()
    let seed = Int.random(in: 1...1_000_000)
    let guest = try Guest(
      Self.command(threads: 16, seconds: Self.seconds / 6, seed: seed),
      environment: box.environment("1", ["HEAPTAP_LOG": "off"]))
    while guest.isRunning {
      usleep(useconds_t.random(in: 1000...200_000))
      guest.send(SIGUSR1)
    }
    let result = guest.finish()
    #expect(result.status == 0, "seed \(seed): \(result.output) \(result.errors)")
    #expect(Self.books(result.output).count == 8)
    try #require(!box.dumps.isEmpty)
    #expect(try box.snapshots().areSound, "seed \(seed)")
  }
}
