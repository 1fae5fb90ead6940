// SPDX-License-Identifier: Apache-2.0
// heaptap.h: a program that asks of its own heap, with the behaviours of tracemalloc's own tests.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite struct SelfTests {
  static let header = "-I\(Workshop.package.appendingPathComponent("Sources/CHeaptap").path)"

  /// A run of `self.c` in one of its modes: what it printed, and the files that it wrote.
  private struct Run {
    let words: [String]
    let errors: String
    let box: DumpBox

    /// The program is preloaded, and not armed: only the API starts anything.
    init(_ mode: String, _ more: [String: String] = [:], lines: ClosedRange<Int>? = nil) throws {
      box = try DumpBox()
      var environment = box.environment("", more)
      if environment["HEAPTAP"] == "" { environment["HEAPTAP"] = nil }
      let program = try Programs.build("self.c", ["-O1", "-g", SelfTests.header])
      let result = try run(
        ["/usr/bin/timeout", "120", program, mode, box.directory.path], environment: environment)
      #expect(result.status == 0, "\(mode): \(result.errors)")
      words = result.output.split { $0 == " " || $0 == "\n" }.map(String.init)
      errors = result.errors
    }

    var numbers: [Int] { words.compactMap { Int($0) } }

    func snapshot(_ name: String) throws -> Snapshot {
      let file = box.directory.appendingPathComponent(name)
      return try Snapshot(profile: [UInt8](Data(contentsOf: file)))
    }
  }

  // MARK: State

  @Test func `off, then started is on, then stopped is off; a second start or stop is no error`()
    throws
  {
    let alone = try Run("state")
    #expect(alone.numbers == [0, 0, 0, 1, 0, 0, 0])
    #expect(alone.errors == "", "nobody has armed it, and nobody is told")
    let armed = try Run("state", ["HEAPTAP": "1"])
    #expect(armed.numbers == [0, 0, 0, 1, 0, 0, 0])
    #expect(armed.errors.contains("recording started"))
    #expect(armed.errors.contains("without a last snapshot"))
  }

  @Test func `a depth beyond the limit is an error, 10 keeps 10 frames, and then 1 keeps 1`() throws
  {
    let run = try Run("depth")
    #expect(run.numbers == [Int(EINVAL), Int(EINVAL), 10, 0, 1, 0, 64])
    for limit in [10, 1] {
      let snapshot = try run.snapshot("\(limit).pb")
      #expect(snapshot.header.depthLimit == limit)
      let deep = try #require(snapshot.samples.first { $0.liveBytes == 4321 })
      #expect(snapshot.stack(of: deep).count == limit)
      #expect(snapshot.stack(of: deep).totalFrameCount > limit)
    }
  }

  @Test func `HEAPTAP_DEPTH is the depth of a start that names none`() throws {
    #expect(try Run("depth", ["HEAPTAP_DEPTH": "15"]).numbers.last == 15)
  }

  @Test func `what needs a recording is an error without one, and no empty file`() throws {
    let run = try Run("off")
    #expect(run.numbers == Array(repeating: Int(ESRCH), count: 7))
    #expect(run.box.names.isEmpty)
  }

  @Test func `a tracer that is off for good says so of everything`() throws {
    let run = try Run("off", ["HEAPTAP": "0"])
    #expect(run.numbers == Array(repeating: Int(EPERM), count: 7))
    #expect(try Run("state", ["HEAPTAP": "0"]).numbers == [0, 1, 1, 0, 1, 0, 1])
  }

  // MARK: Counters

  @Test func `1 MiB raises what is traced by 1 MiB, its free lowers it, and the peak stays`() throws
  {
    let figures = try Run("counters").numbers
    let mebibyte = 1 << 20
    #expect(figures == [0, 0, mebibyte, mebibyte, 0, mebibyte, 0, 0, 0, 0])
  }

  @Test func `a peak begun anew is what is alive, and grows from there`() throws {
    let run = try Run("peak")
    let figures = run.numbers
    #expect(figures[0] == 0)
    #expect(figures[1] == figures[2])
    #expect(figures[3] == figures[1] + 1 << 20)
    #expect(figures[4] == figures[3])
    #expect(try run.snapshot("peak.pb").header.peakBytes == figures[4])
    #expect(try run.snapshot("peak.pb").liveBlocks >= 2, "the blocks are still known")
  }

  @Test func `clear forgets every block: later frees count as unknown, and the tracer shrinks`()
    throws
  {
    let run = try Run("clear")
    #expect(run.numbers == [0, 1, 1, 0, 0, 7, 1])
    let snapshot = try run.snapshot("clear.pb")
    #expect(snapshot.samples.map(\.liveBytes) == [77])
    #expect(snapshot.header.beforeFreedBlocks == 60)
    #expect(snapshot.header.liveBytes == 77)
    #expect(snapshot.header.depthLimit == 7)
  }

  // MARK: Snapshots

  @Test func `marks part what was born before from what was born after, in one snapshot`() throws {
    let run = try Run("generations")
    #expect(run.numbers == [0, 0, 4, Int(ERANGE), 1023])
    let snapshot = try run.snapshot("generations.pb")
    for (bytes, generation) in [(111, 1), (222, 2), (333, 3)] {
      let sample = try #require(snapshot.samples.first { $0.liveBytes == bytes })
      #expect(sample.generation == generation)
    }
    #expect(snapshot.header.trigger == "api")
    #expect(snapshot.header.generationStarts.map(\.number) == [1, 2, 3, 4])
  }

  @Test func `a snapshot goes to the file that it names, whole, also in the place of another`()
    throws
  {
    let run = try Run("paths")
    #expect(
      run.numbers == [Int(ENOENT), Int(ENAMETOOLONG), Int(ENOENT), 0, 0, 0, 77],
      "the last is errno, which stays as it was")
    #expect(run.box.names == ["a.pb"])
    let snapshot = try run.snapshot("a.pb")
    #expect(snapshot.header.isComplete)
    #expect(snapshot.header.sequence == 3)
    #expect(!run.errors.contains("snapshot"), "nobody is told: \(run.errors)")
  }

  @Test func `calls from many threads wait for each other, and each gets its answer`() throws {
    #expect(try Run("calls").numbers == [0])
  }

  // MARK: Memory that malloc does not hand out

  @Test
  func `a tracked block is in the snapshot with its domain, its size and the stack of the call`()
    throws
  {
    let run = try Run("track")
    #expect(run.numbers == [0, 129, 4, 0, 206, 4, 0, 6, 3, 0, 0])
    let first = try run.snapshot("track-1.pb")
    let tracked = first.filtered(.domain(5))
    #expect(tracked.liveBytes == 123)
    #expect(tracked.liveBlocks == 1)
    #expect(first.filtered(.domain(6)).liveBlocks == 3)
    #expect(first.header["tracked_bytes"] == "129")
    #expect(first.header["tracked_blocks"] == "4")
    #expect(first.header.scannedBytes == first.filtered(.domain(0)).liveBytes)

    let addresses = tracked.stack(of: tracked.samples[0]).prefix(3).map(\.address)
    let program = try Programs.build("self.c", ["-O1", "-g", Self.header])
    let module = try #require(first.modules.first { $0.path == program })
    let offsets = addresses.map { String(module.fileOffset(of: $0 - 1), radix: 16) }
    let names = try GuestTests.run(["/usr/bin/env", "addr2line", "-f", "-e", program] + offsets)
    let functions = names.output.split(separator: "\n").filter { !$0.contains(":") }
    // The inline function has a frame of its own where the compiler has not inlined it.
    #expect(functions.filter { $0 != "heaptap_track" }.prefix(2) == ["track_here", "track"])
  }

  @Test func `a second track of an address replaces size and stack`() throws {
    let run = try Run("track")
    let first = try run.snapshot("track-1.pb").filtered(.domain(5))
    let second = try run.snapshot("track-2.pb").filtered(.domain(5))
    #expect(second.liveBytes == 200)
    #expect(second.liveBlocks == 1)
    #expect(second.stack(of: second.samples[0]) != first.stack(of: first.samples[0]))
    #expect(second.samples[0].generation == 2)
  }

  @Test func `untrack takes the block out, and does no harm where there is none`() throws {
    let run = try Run("track")
    #expect(try run.snapshot("track-3.pb").filtered(.domain(5)).liveBytes == 0)
    #expect(try run.snapshot("track-3.pb").filtered(.domain(6)).liveBytes == 6)
  }

  @Test func `blocks tracked by many threads at once add up`() throws {
    let run = try Run("many")
    // What `tracking` leaves of each thread's 500 addresses.
    var left = Set<Int>()
    for round in 0..<30000 {
      left.insert(round % 500)
      if round % 3 != 0 { left.remove((round - 1) % 500) }
    }
    #expect(run.numbers == [4 * left.count, 40 * left.count])
    let tracked = try run.snapshot("many.pb").filtered(.domain(1))
    #expect(tracked.liveBlocks == 4 * left.count)
    #expect(tracked.liveBytes == 40 * left.count)
  }

  @Test func `starts, stops, snapshots, tracks and untracks may race`() throws {
    let run = try Run("race")
    #expect(run.numbers == [0, 0])
    if let last = try? run.snapshot("race.pb") { #expect(last.header.isComplete) }
    #expect(!run.box.names.contains { $0.hasSuffix(".partial") })
  }

  @Test func `a child forked in the middle of a track can track`() throws {
    #expect(try Run("forks").numbers == [0])
  }
}

/// The header alone: compiled in every way, without the library.
@Suite struct HeaderOnlyTests {
  @Test(arguments: [
    ("gcc", ["-std=c99", "-D_GNU_SOURCE", "-pedantic-errors", "-Wall", "-Wextra", "-Werror"]),
    ("gcc", ["-std=c17", "-O2", "-no-pie", "-Wall", "-Wextra", "-Werror"]),
    ("gcc", ["-std=c17", "-pie", "-fPIE"]),
    ("clang", ["-std=c17", "-Wall", "-Wextra", "-Wnullability-completeness", "-Werror"]),
    ("g++", ["-x", "c++", "-std=c++11", "-no-pie", "-Wall", "-Wextra", "-Werror"]),
    ("g++", ["-x", "c++", "-std=c++20", "-O2", "-pie", "-fPIE", "-Wall", "-Wextra", "-Werror"]),
  ])
  func `a program links and runs without the library, and finds it where it is preloaded`(
    _ compiler: String, _ options: [String]
  ) throws {
    let directory = try Workshop.makeDirectory()
    let program = directory.appendingPathComponent("self").path
    let source = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/self.c").path
    let compiled = try run(
      ["/usr/bin/env", compiler] + options + [
        SelfTests.header, source, "-o", program, "-lpthread",
      ])
    try #require(compiled.status == 0, "\(compiled.errors)")
    let absent = Int(ENOSYS)
    let alone = try run([program, "state", directory.path])
    #expect(alone.output == "0 \(absent) \(absent) 0 \(absent) 0 \(absent)\n")
    #expect(alone.status == 0)
    let traced = try run(
      [program, "state", directory.path],
      environment: ["LD_PRELOAD": Workshop.library, "HEAPTAP_LOG": "off"])
    #expect(traced.output == "0 0 0 1 0 0 0\n")
  }
}

/// The Swift module on platforms that have no tracer.
@Suite struct ElsewhereTests {
  /// With every condition on Linux turned around: what this does not show is another C library.
  @Test func `the module compiles where there is no tracer`() throws {
    let directory = try Workshop.makeDirectory()
    let sources = Workshop.package.appendingPathComponent("Sources/Heaptap")
    var turned = 0
    let names = try FileManager.default.contentsOfDirectory(atPath: sources.path)
    let files = try names.filter { $0.hasSuffix(".swift") }.map { name in
      let text = try String(contentsOf: sources.appendingPathComponent(name), encoding: .utf8)
      turned += text.components(separatedBy: "os(Linux)").count - 1
      let file = directory.appendingPathComponent(name)
      try text.replacingOccurrences(of: "os(Linux)", with: "os(Windows)")
        .write(to: file, atomically: true, encoding: .utf8)
      return file.path
    }
    #expect(turned >= 3)
    let modules = try Workshop.modules()
    let result = try run(
      [
        "/usr/bin/env", "swiftc", "-typecheck", "-swift-version", "6", "-module-name", "Heaptap",
        "-package-name", Workshop.package.lastPathComponent.lowercased(), "-strict-memory-safety",
        "-enable-upcoming-feature", "MemberImportVisibility", "-warnings-as-errors",
        "-enable-upcoming-feature", "ExistentialAny", "-I", modules,
        "-I", Workshop.package.appendingPathComponent("Sources/CZlib").path,
      ] + files)
    #expect(result.status == 0, "\(result.errors)")
  }
}
