// SPDX-License-Identifier: Apache-2.0
// Workers that work, that die, that hang and that lie.

import Foundation
import HeapModel
import Testing

@testable import Symbolication

@Suite(.enabled(if: Tool.gcc.isInstalled, "no gcc")) struct WorkerTests {
  let scratch: Scratch
  let report: ProgramReport

  init() throws {
    scratch = try Scratch()
    report = try ProgramReport(ofNestedCallsIn: scratch)
  }

  private func symbolicated(
    _ worker: Symbolicator.Worker, secondsPerFile: UInt32 = 120
  ) -> Symbolicator.Outcome {
    Symbolicator(worker: worker, secondsPerFile: secondsPerFile)
      .symbolicate(report.frames, modules: report.modules)
  }

  /// A worker that greets and then does something else, by the shell.
  private func shell(_ script: String) -> Symbolicator.Worker {
    let greeting = workerGreeting.dropLast()
    return .subprocess(
      executable: "/bin/sh", arguments: ["-c", "echo '\(greeting)'; \(script)"])
  }

  /// A worker that does something else the first time it is started, and is a real one then.
  private func shellOnce(_ script: String) -> Symbolicator.Worker {
    let mark = scratch.file("started")
    let worker = ([Symbolicator.Worker.thisExecutable] + Symbolicator.Worker.thisArguments)
      .map { "'\($0)'" }.joined(separator: " ")
    return .subprocess(
      executable: "/bin/sh",
      arguments: [
        "-c",
        "if [ -e '\(mark)' ]; then exec \(worker); fi; : > '\(mark)'; "
          + "echo '\(workerGreeting.dropLast())'; \(script)",
      ])
  }

  private func summaries(_ outcome: Symbolicator.Outcome) -> [[String]] {
    outcome.frames.map { $0.map(\.summary) }
  }

  @Test func `a worker knows what this process knows`() {
    let outcome = symbolicated(.thisTest)
    #expect(summaries(outcome) == LinesTests.expected)
    #expect(outcome == symbolicated(.inProcess))
  }

  @Test func `a worker lowers its limits`() throws {
    let worker = try WorkerProcess.start(
      executable: Symbolicator.Worker.thisExecutable,
      arguments: Symbolicator.Worker.thisArguments, secondsLimit: 60)
    let limits = try String(
      contentsOfFile: "/proc/\(worker.process!)/limits", encoding: .utf8
    ).split(separator: "\n").map { $0.split(separator: " ").joined(separator: " ") }
    #expect(limits.contains { $0.hasPrefix("Max core file size 0 ") })
    #expect(limits.contains { $0.hasPrefix("Max address space 4294967296 ") })
    let score = try String(
      contentsOfFile: "/proc/\(worker.process!)/oom_score_adj", encoding: .utf8)
    #expect(score == "1000\n")
  }

  @Test func `questions and answers may be larger than any buffer between`() throws {
    let module = report.modules.firstIndex { $0.path == scratch.file("nested") }!
    let start = report.modules[module].start
    // More than a megabyte each way; most lie outside the code, and are answered all the same.
    var modules = report.modules
    modules[module].limit = start + 1_000_000
    let frames = (1...200_000).map { Frame(address: start + UInt64($0), module: module) }
    let outcome = Symbolicator(worker: .thisTest).symbolicate(frames, modules: modules)
    let expected = Symbolicator(worker: .inProcess).symbolicate(frames, modules: modules)
    #expect(outcome.frames.count == frames.count)
    #expect(outcome == expected)
    #expect(outcome.frames.contains { $0.count == 3 })
  }

  @Test func `a worker that crashes costs lines, and its file gets another worker for symbols`() {
    let outcome = symbolicated(shellOnce("head -c 4 > /dev/null; kill -SEGV $$"))
    #expect(summaries(outcome) == [["main ?:?"], ["outer ?:?"]])
    #expect(
      outcome.warnings == [
        "reading 'nested' ended the worker by signal 11, continuing with symbol names only"
      ])
  }

  @Test func `a worker that always crashes costs names, file by file`() throws {
    let frames =
      report.frames
      + report.modules.indices.map { Frame(address: report.modules[$0].start + 64, module: $0) }
    let outcome = Symbolicator(worker: shell("head -c 4 > /dev/null; kill -SEGV $$"))
      .symbolicate(frames, modules: report.modules)
    #expect(outcome.frames == frames.map { [$0] })
    #expect(
      outcome.warnings.contains(
        "reading 'nested' ended the worker by signal 11, continuing with module offsets only"))
    #expect(outcome.warnings.contains { $0.contains("libc.so") })
  }

  @Test func `after a crash the next file has its names`() throws {
    try scratch.run(.gcc, "-g", "-O2", "-DOTHER", "-Wl,--build-id", "nested.c", "-o", "other")
    var frames = report.frames
    var modules = report.modules
    // A first file, so that the second is the one that the program was run from.
    modules.append(try MappedFile(path: scratch.file("other")).module)
    frames.insert(Frame(address: modules.last!.start + 8, module: modules.count - 1), at: 0)
    modules.swapAt(0, modules.count - 1)
    for index in frames.indices {
      switch frames[index].module {
      case 0: frames[index].module = modules.count - 1
      case modules.count - 1: frames[index].module = 0
      default: break
      }
    }
    let outcome = Symbolicator(worker: shellOnce("head -c 4 > /dev/null; kill -ABRT $$"))
      .symbolicate(frames, modules: modules)
    #expect(Array(summaries(outcome).dropFirst()) == LinesTests.expected)
    #expect(outcome.warnings.count == 1)
    #expect(outcome.warnings[0].hasPrefix("reading 'other' ended the worker by signal 6"))
  }

  @Test func `a worker that hangs is given up on`() {
    let outcome = symbolicated(shell("exec sleep 100"), secondsPerFile: 1)
    #expect(outcome.frames == report.frames.map { [$0] })
    #expect(
      outcome.warnings == [
        "reading 'nested' took more than 1 seconds, continuing with module offsets only"
      ])
  }

  @Test(arguments: [
    "echo no", "head -c 4000 /dev/zero; sleep 100", "printf '\\377\\377\\377\\377'",
  ])
  func `a worker that talks nonsense is not believed`(script: String) {
    let outcome = symbolicated(shell(script), secondsPerFile: 2)
    #expect(outcome.frames == report.frames.map { [$0] })
    #expect(outcome.warnings.count == 1)
  }

  @Test(arguments: ["/bin/true", "/bin/echo", "/nonexistent/worker", "/"])
  func `an executable that is no worker is tried once`(executable: String) {
    let frames =
      report.frames
      + report.modules.indices.map { Frame(address: report.modules[$0].start + 64, module: $0) }
    let outcome = Symbolicator(worker: .subprocess(executable: executable, arguments: []))
      .symbolicate(frames, modules: report.modules)
    #expect(outcome.frames == frames.map { [$0] })
    #expect(outcome.warnings.count == 1)
    #expect(outcome.warnings.first?.contains("'\(executable)'") == true)
  }

  // MARK: Damaged files

  /// The worker is what keeps a damaged file from being the host's end, so these are read in one.
  @Test(arguments: 0..<8)
  func `garbage in debug information costs lines, and no more`(seed: UInt64) throws {
    let path = scratch.file("nested")
    let file = try MappedFile(path: path)
    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    var random = SplitMix(state: seed)
    let sections = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_rnglists", ".debug_str"]
    for section in sections {
      guard let range = file.section(section), !range.isEmpty else { continue }
      // From a few bytes to all of them.
      for _ in 0..<(seed < 4 ? 1 << (2 * seed) : UInt64(range.count)) {
        bytes[Int.random(in: range, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
    }
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    let outcome = symbolicated(.thisTest, secondsPerFile: 20)
    #expect(outcome.frames.count == report.frames.count)
    #expect(outcome.frames.allSatisfy { !$0.isEmpty })
    if seed >= 4 {
      #expect(summaries(outcome) == [["main ?:?"], ["outer ?:?"]])
      #expect(outcome.warnings.count == 1)
    }
  }

  /// The size of the debug information is one that the file tells, and memory is asked for by it.
  @Test(arguments: [3 << 30, 1 << 40, 1 << 62] as [UInt64])
  func `compressed debug information that asks for memory costs lines, and no more`(
    byteCount: UInt64
  ) throws {
    // The program stays the same build, at the same addresses.
    try scratch.run(.objcopy, "--compress-debug-sections=zlib", "nested", "nested")
    let path = scratch.file("nested")
    let range = try #require(try MappedFile(path: path).section(".debug_info"))
    var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    // Elf64_Chdr: the type, which is zlib's, nothing, and the size.
    try #require(bytes[range.lowerBound] == 1)
    for index in 0..<8 {
      bytes[range.lowerBound + 8 + index] = UInt8(
        truncatingIfNeeded: byteCount >> (8 * UInt64(index)))
    }
    try Data(bytes).write(to: URL(fileURLWithPath: path))
    let outcome = symbolicated(.thisTest, secondsPerFile: 60)
    #expect(summaries(outcome) == [["main ?:?"], ["outer ?:?"]])
    #expect(outcome.warnings.count == 1, "\(outcome.warnings)")
  }

  @Test(arguments: [16, 64, 100, 1000, 4096, 5000, 8000, 12_000, 16_000])
  func `a file that was cut short costs names, and no more`(byteCount: Int) throws {
    let path = scratch.file("nested")
    let bytes = try Data(contentsOf: URL(fileURLWithPath: path))
    try bytes.prefix(byteCount).write(to: URL(fileURLWithPath: path))
    let outcome = symbolicated(.thisTest, secondsPerFile: 20)
    #expect(outcome.frames.count == report.frames.count)
    #expect(!outcome.warnings.isEmpty)
  }
}

/// Random numbers that are the same each time.
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var z = state
    z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
    z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
    return z ^ (z >> 31)
  }
}
