// SPDX-License-Identifier: Apache-2.0
// What was found once is known the next time, and is never worse than looking again.

import Foundation
import HeapModel
import Testing

@testable import Symbolication

@Suite(.enabled(if: Tool.gcc.isInstalled && Tool.objcopy.isInstalled, "no gcc or binutils"))
struct SymbolCacheTests {
  let scratch: Scratch
  /// Apart from the program, whose directory changes when anything is made in it.
  private let cacheScratch: Scratch
  let program: String
  let report: ProgramReport

  init() throws {
    scratch = try Scratch()
    cacheScratch = try Scratch()
    program = scratch.file("nested")
    report = try ProgramReport(ofNestedCallsIn: scratch)
  }

  private var parent: String { cacheScratch.file("cache") }
  private var cache: SymbolCache { SymbolCache(parent: parent, maker: "this test") }
  private var buildID: String { report.modules.first { $0.path == program }!.buildID }
  private var entry: String { "\(parent)/heaptap/\(buildID).names" }
  private var names: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: parent + "/heaptap")) ?? []).sorted()
  }

  private func outcome(
    _ cache: SymbolCache?, worker: Symbolicator.Worker = .inProcess, roots: [String] = ["/"],
    style: Demangler.Style = .simplified, frames: [Frame]? = nil
  ) -> Symbolicator.Outcome {
    Symbolicator(worker: worker, roots: roots, style: style, cache: cache)
      .symbolicate(frames ?? report.frames, modules: report.modules)
  }

  private func summaries(_ outcome: Symbolicator.Outcome) -> [[String]] {
    outcome.frames.map { $0.map(\.summary) }
  }

  /// An outcome for which no file can be read: there is no worker that would.
  private func remembered(
    _ cache: SymbolCache, frames: [Frame]? = nil
  ) -> Symbolicator.Outcome {
    outcome(
      cache, worker: .subprocess(executable: "/nonexistent/worker", arguments: []), frames: frames)
  }

  private let symbolsOnly = [["main ?:?"], ["outer ?:?"]]

  // MARK: Known

  @Test func `what was found is known the next time, and nothing is read for it`() {
    let found = outcome(cache)
    #expect(found == outcome(nil))
    #expect(names == ["\(buildID).names"])
    #expect(remembered(cache) == found)
  }

  @Test func `what is new to a file is looked for, and known with the rest from then on`() {
    let (first, second) = ([report.frames[0]], [report.frames[1]])
    #expect(summaries(outcome(cache, frames: first)) == [LinesTests.expected[0]])
    #expect(!remembered(cache, frames: second).warnings.isEmpty)
    #expect(outcome(cache) == outcome(nil))
    #expect(remembered(cache) == outcome(nil))
  }

  @Test func `full names and simplified ones are kept apart`() throws {
    _ = outcome(cache)
    _ = outcome(cache, style: .full)
    #expect(names == ["\(buildID).full-names", "\(buildID).names"])
  }

  @Test func `a program that is gone, or was replaced, is still known by its build ID`() throws {
    let found = outcome(cache)
    try FileManager.default.removeItem(atPath: program)
    #expect(outcome(cache) == found)
    try scratch.write("other.c", "int unlike;\n" + LinesTests.nested)
    try scratch.run(.gcc, "-g", "-O2", "-Wl,--build-id", "other.c", "-o", "nested")
    #expect(outcome(cache) == found)

    // Only for what is not known does it matter what lies there now.
    var frames = report.frames
    frames.append(Frame(address: frames[0].address + 1, module: frames[0].module))
    let more = outcome(cache, frames: frames)
    #expect(Array(more.frames.prefix(2)) == found.frames)
    #expect(more.frames[2] == [frames[2]])
    #expect(more.warnings.first?.contains("has changed since the dump") == true)
    #expect(outcome(cache) == found)
  }

  // MARK: Names without lines

  @Test func `names without lines are known until a debug file comes`() throws {
    try scratch.run(.objcopy, "--only-keep-debug", "nested", "kept.debug")
    try scratch.run(.objcopy, "--strip-debug", "nested", "nested")
    let found = outcome(cache)
    #expect(summaries(found) == symbolsOnly)
    // The warning, too, is what it would be without a cache.
    #expect(found.warnings.count == 1)
    #expect(remembered(cache) == found)

    let name = "\(buildID.prefix(2))/\(buildID.dropFirst(2)).debug"
    let root = scratch.file("root")
    let debugFile = try scratch.write("root/usr/lib/debug/.build-id/\(name)", "")
    #expect(summaries(outcome(cache, roots: [root, "/"])) == symbolsOnly)
    try FileManager.default.removeItem(atPath: debugFile)
    try FileManager.default.moveItem(atPath: scratch.file("kept.debug"), toPath: debugFile)
    let better = outcome(cache, roots: [root, "/"])
    #expect(summaries(better) == LinesTests.expected)
    #expect(better.warnings == [])
    // And from then on, wherever it is looked.
    #expect(remembered(cache) == better)
  }

  @Test(arguments: ["missing", "debug"])
  func `names without lines are looked for anew when the binary changes, and stay if it is gone`(
    change: String
  ) throws {
    let original = try Data(contentsOf: URL(fileURLWithPath: program))
    try scratch.run(.objcopy, "--strip-debug", "nested", "nested")
    #expect(summaries(outcome(cache)) == symbolsOnly)
    try FileManager.default.removeItem(atPath: program)
    if change == "debug" { try original.write(to: URL(fileURLWithPath: program)) }
    let now = outcome(cache)
    #expect(summaries(now) == (change == "debug" ? LinesTests.expected : symbolsOnly))
  }

  @Test func `lines stay known where there is no debug information any more`() throws {
    let found = outcome(cache, frames: [report.frames[1]])
    try scratch.run(.objcopy, "--strip-debug", "nested", "nested")
    let now = outcome(cache)
    #expect(now.frames == [[now.frames[0][0]], found.frames[0]])
    #expect(summaries(now)[0] == symbolsOnly[0])
    #expect(remembered(cache, frames: [report.frames[1]]) == found)
  }

  // MARK: Not kept

  @Test func `a file without a build ID is not remembered`() throws {
    var report = report
    for index in report.modules.indices { report.modules[index].buildID = "" }
    let symbolicator = Symbolicator(worker: .inProcess, cache: cache)
    let found = symbolicator.symbolicate(report.frames, modules: report.modules)
    #expect(found.frames.map { $0.map(\.summary) } == LinesTests.expected)
    #expect(names == [])
  }

  @Test(arguments: [
    "../../evil", "/tmp/evil", "00", "0011223g", String(repeating: "0", count: 500),
  ])
  func `a build ID that is none is no file's name`(buildID: String) {
    let subject = SymbolCache.Subject(buildID: buildID, style: .simplified)
    var answer = ModuleAnswer(offsetCount: 1)
    answer.calls[0] = [Call(function: "f")]
    cache.keep(KnownCalls(offsets: [1], answer: answer, circumstances: 0)!, about: subject)
    #expect(cache.known(about: subject) == nil)
    #expect(!FileManager.default.fileExists(atPath: parent))
  }

  @Test func `what a worker did not survive is not remembered`() {
    let worker = Symbolicator.Worker.subprocess(
      executable: "/bin/sh",
      arguments: [
        "-c", "echo '\(workerGreeting.dropLast())'; head -c 4 > /dev/null; kill -SEGV $$",
      ])
    #expect(!outcome(cache, worker: worker).warnings.isEmpty)
    #expect(names == [])
    #expect(outcome(cache) == outcome(nil))
  }

  @Test func `another build of the program finds for itself`() {
    _ = outcome(cache)
    let other = SymbolCache(parent: parent, maker: "another")
    #expect(!remembered(other).warnings.isEmpty)
    #expect(outcome(other) == outcome(nil))
    #expect(remembered(other) == outcome(nil))
    #expect(names.count == 1)
  }

  // MARK: Damage

  @Test func `a file that was cut short or changed anywhere is as if it were not there`() throws {
    let found = outcome(cache)
    let whole = try Data(contentsOf: URL(fileURLWithPath: entry))
    let subject = SymbolCache.Subject(buildID: buildID, style: .simplified)
    #expect(cache.known(about: subject) != nil)
    for index in whole.indices {
      try whole.prefix(index).write(to: URL(fileURLWithPath: entry))
      #expect(cache.known(about: subject) == nil, "cut to \(index)")
      var changed = whole
      changed[index] ^= 0x10
      try changed.write(to: URL(fileURLWithPath: entry))
      #expect(cache.known(about: subject) == nil, "changed at \(index)")
    }
    #expect(outcome(cache) == found)
    #expect(try Data(contentsOf: URL(fileURLWithPath: entry)) == whole)
  }

  @Test(arguments: ["directory", "link", "pipe"])
  func `what lies in a file's place and is none is left alone`(kind: String) throws {
    try FileManager.default.createDirectory(
      atPath: parent + "/heaptap", withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700])
    let target = try scratch.write("target", "precious")
    switch kind {
    case "directory":
      try FileManager.default.createDirectory(atPath: entry, withIntermediateDirectories: false)
    case "link":
      try FileManager.default.createSymbolicLink(atPath: entry, withDestinationPath: target)
    default: #expect(unsafe mkfifo(entry, 0o600) == 0)
    }
    #expect(outcome(cache) == outcome(nil))
    #expect(try String(contentsOfFile: target, encoding: .utf8) == "precious")
  }

  @Test(arguments: ["/dev/null", "/proc/nowhere", "/proc/1"])
  func `a directory that cannot be written changes nothing`(parent: String) {
    let cache = SymbolCache(parent: parent, maker: "this test")
    #expect(outcome(cache) == outcome(nil))
  }

  // MARK: The directory

  @Test func `directories and files are the user's alone`() throws {
    _ = outcome(SymbolCache(parent: parent + "/made/as/needed", maker: "this test"))
    func mode(_ path: String) throws -> Int {
      let attributes = try FileManager.default.attributesOfItem(atPath: parent + path)
      return try #require(attributes[.posixPermissions] as? Int)
    }
    for path in ["", "/made", "/made/as", "/made/as/needed", "/made/as/needed/heaptap"] {
      #expect(try mode(path) == 0o700)
    }
    #expect(try mode("/made/as/needed/heaptap/\(buildID).names") == 0o600)
  }

  @Test(.enabled(if: geteuid() == 0, "only root can be someone else"), arguments: [true, false])
  func `root leaves nothing in the directory of somebody else`(isThere: Bool) throws {
    let home = scratch.file("home")
    let theirs = isThere ? home + "/.cache" : home
    try FileManager.default.createDirectory(atPath: theirs, withIntermediateDirectories: true)
    #expect(unsafe chown(home, 65534, 65534) == 0 && chown(theirs, 65534, 65534) == 0)
    let cache = try #require(SymbolCache(maker: "this test") { $0 == "HOME" ? home : nil })
    #expect(outcome(cache) == outcome(nil))
    #expect(
      try FileManager.default.subpathsOfDirectory(atPath: home) == (isThere ? [".cache"] : []))
  }

  @Test func `a directory that others may write to is not used`() throws {
    try FileManager.default.createDirectory(
      atPath: parent + "/heaptap", withIntermediateDirectories: true)
    #expect(unsafe chmod(parent + "/heaptap", 0o777) == 0)
    #expect(outcome(cache) == outcome(nil))
    #expect(names == [])
  }

  @Test(
    arguments: [
      (["XDG_CACHE_HOME": "/x", "HOME": "/h"], "/x"), (["HOME": "/h"], "/h/.cache"),
      (["XDG_CACHE_HOME": "", "HOME": "/h"], "/h/.cache"),
      (["XDG_CACHE_HOME": "relative", "HOME": "/h"], "/h/.cache"),
      ([:], nil), (["HOME": ""], nil),
    ] as [([String: String], String?)])
  func `the directory is where the XDG specification has it`(
    environment: [String: String], parent: String?
  ) {
    #expect(SymbolCache(maker: "") { environment[$0] }?.parent == parent)
  }

  @Test func `what was not used for longest goes when there is too much`() throws {
    let limited = SymbolCache(parent: parent, maker: "this test", byteCountLimit: 100_000)
    var answer = ModuleAnswer(offsetCount: 1)
    answer.calls[0] = [Call(function: String(repeating: "f", count: 20_000))]
    let known = KnownCalls(offsets: [1], answer: answer, circumstances: 0)!
    func subject(_ number: Int) -> SymbolCache.Subject {
      .init(buildID: "0000000\(number)", style: .simplified)
    }
    for number in 0..<4 {
      limited.keep(known, about: subject(number))
      // Hours ago, the first first.
      let time = Date(timeIntervalSinceNow: -36_000 + Double(number))
      try FileManager.default.setAttributes(
        [.modificationDate: time],
        ofItemAtPath: parent + "/heaptap/0000000\(number).names")
    }
    let unfinished = parent + "/heaptap/.unfinished-1-00000000.names"
    try Data("left by a process that was killed".utf8).write(to: URL(fileURLWithPath: unfinished))
    try FileManager.default.setAttributes(
      [.modificationDate: Date(timeIntervalSinceNow: -36_000)], ofItemAtPath: unfinished)
    // Used again, so no longer the oldest.
    #expect(limited.known(about: subject(0)) == known)
    limited.keep(known, about: subject(4))
    #expect(names == ["00000000.names", "00000003.names", "00000004.names"])
  }

  @Test func `several at once lose nothing that is whole`() async throws {
    let found = outcome(nil)
    let symbolicator = Symbolicator(worker: .inProcess, cache: cache)
    let (frames, modules) = (report.frames, report.modules)
    await withTaskGroup(of: Symbolicator.Outcome.self) { group in
      for _ in 0..<8 {
        group.addTask { symbolicator.symbolicate(frames, modules: modules) }
      }
      for await each in group { #expect(each == found) }
    }
    #expect(names == ["\(buildID).names"])
    #expect(remembered(cache) == found)
  }
}
