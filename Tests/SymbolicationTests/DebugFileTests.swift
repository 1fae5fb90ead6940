// SPDX-License-Identifier: Apache-2.0
// Where debug information is found, and what is left when it is not, or is another build's.

import Foundation
import HeapModel
import Symbolication
import Testing

@Suite(.enabled(if: Tool.gcc.isInstalled && Tool.objcopy.isInstalled, "no gcc or binutils"))
struct DebugFileTests {
  let scratch: Scratch
  let program: String
  let report: ProgramReport

  init() throws {
    scratch = try Scratch()
    program = scratch.file("nested")
    try scratch.write("nested.c", LinesTests.nested)
    try scratch.run(
      .gcc, "-g", "-O2", "-fno-optimize-sibling-calls", "-Wl,--build-id", "nested.c", "-o", "nested"
    )
    report = try ProgramReport(running: program, in: scratch)
  }

  private var buildID: String { get throws { try MappedFile(path: program).buildID } }

  private func symbolicated(roots: [String] = ["/"]) -> (frames: [[String]], warnings: [String]) {
    let outcome = Symbolicator(worker: .inProcess, roots: roots)
      .symbolicate(report.frames, modules: report.modules)
    return (outcome.frames.map { $0.map(\.summary) }, outcome.warnings)
  }

  private let symbolsOnly = [["main ?:?"], ["outer ?:?"]]
  private let offsetsOnly = [["? ?:?"], ["? ?:?"]]

  // MARK: Debug files

  @Test func `a stripped program finds its debug file by its debug link`() throws {
    try scratch.run(.objcopy, "--only-keep-debug", "nested", "nested.debug")
    try scratch.run(
      .objcopy, "--strip-all", "--add-gnu-debuglink=nested.debug", "nested", "nested")
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  @Test func `a stripped program finds its debug file by build ID under a root`() throws {
    let name = try "\(buildID.prefix(2))/\(buildID.dropFirst(2)).debug"
    let debugFile = "root/usr/lib/debug/.build-id/\(name)"
    try scratch.write(debugFile, "")
    try scratch.run(.objcopy, "--only-keep-debug", "nested", debugFile)
    try scratch.run(.objcopy, "--strip-all", "nested", "nested")
    let symbolicated = symbolicated(roots: [scratch.file("root"), "/"])
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  @Test func `a program that is gone is known by its debug file`() throws {
    let name = try "\(buildID.prefix(2))/\(buildID.dropFirst(2)).debug"
    let debugFile = "root/usr/lib/debug/.build-id/\(name)"
    try scratch.write(debugFile, "")
    try scratch.run(.objcopy, "--only-keep-debug", "nested", debugFile)
    try FileManager.default.removeItem(atPath: program)
    let symbolicated = symbolicated(roots: [scratch.file("root"), "/"])
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  @Test func `a debug file of another build is not believed`() throws {
    try scratch.write("other.c", LinesTests.nested.replacingOccurrences(of: "outer", with: "wrong"))
    try scratch.run(.gcc, "-g", "-O2", "-Wl,--build-id", "other.c", "-o", "nested.debug")
    try scratch.run(
      .objcopy, "--strip-debug", "--add-gnu-debuglink=nested.debug", "nested", "nested")
    #expect(symbolicated().frames == symbolsOnly)
  }

  @Test func `a root is where paths begin`() throws {
    let copy = try scratch.write("sysroot" + program, "")
    try FileManager.default.removeItem(atPath: copy)
    try FileManager.default.moveItem(atPath: program, toPath: copy)
    #expect(symbolicated().frames == offsetsOnly)
    #expect(symbolicated(roots: [scratch.file("sysroot/")]).frames == LinesTests.expected)
  }

  // MARK: Symbols only

  @Test func `without debug information there are the names of the symbol table`() throws {
    try scratch.run(.objcopy, "--strip-debug", "nested", "nested")
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == symbolsOnly)
    let short = try buildID.prefix(8)
    #expect(
      symbolicated.warnings == [
        "no debug information for '\(program)' (build ID \(short)…), "
          + "continuing with symbol names only"
      ])
  }

  @Test func `without a symbol table there are the names of the dynamic one`() throws {
    try scratch.run(
      .gcc, "-O2", "-fno-optimize-sibling-calls", "-rdynamic", "-s", "-Wl,--build-id", "nested.c",
      "-o", "nested")
    let report = try ProgramReport(running: program, in: scratch)
    let outcome = Symbolicator(worker: .inProcess)
      .symbolicate(report.frames, modules: report.modules)
    #expect(outcome.frames.map { $0.map(\.summary) } == symbolsOnly)
  }

  @Test func `without any symbols there are addresses`() throws {
    try scratch.run(.objcopy, "--strip-all", "nested", "nested")
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == offsetsOnly)
    #expect(symbolicated.warnings.count == 1)
  }

  // MARK: The right build

  @Test func `a program of another build is refused`() throws {
    let old = try buildID
    try scratch.write("other.c", "int unlike;\n" + LinesTests.nested)
    try scratch.run(.gcc, "-g", "-O2", "-Wl,--build-id", "other.c", "-o", "nested")
    let new = try buildID
    #expect(old != new)
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == offsetsOnly)
    #expect(
      symbolicated.warnings == [
        "'\(program)' has changed since the dump (build ID \(old.prefix(8))… then, "
          + "\(new.prefix(8))… now), continuing with module offsets only. "
          + "Install the old build or its debug symbols, or look under a root that has them"
      ])
  }

  @Test func `a program that was deleted and replaced is refused like any other`() throws {
    var report = report
    for index in report.modules.indices where report.modules[index].path == program {
      report.modules[index].path += " (deleted)"
    }
    let symbolicator = Symbolicator(worker: .inProcess)
    let same = symbolicator.symbolicate(report.frames, modules: report.modules)
    #expect(same.frames.map { $0.map(\.summary) } == LinesTests.expected)

    try scratch.write("other.c", "int unlike;\n" + LinesTests.nested)
    try scratch.run(.gcc, "-g", "-O2", "-Wl,--build-id", "other.c", "-o", "nested")
    let replaced = symbolicator.symbolicate(report.frames, modules: report.modules)
    #expect(replaced.frames.map { $0.map(\.summary) } == offsetsOnly)
    #expect(replaced.warnings.first?.contains("has changed since the dump") == true)
  }

  @Test func `a program that is gone is said to be gone`() throws {
    let short = try buildID.prefix(8)
    try FileManager.default.removeItem(atPath: program)
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == offsetsOnly)
    #expect(
      symbolicated.warnings == [
        "'\(program)' (build ID \(short)…) is not on this machine, "
          + "continuing with module offsets only"
      ])
  }

  @Test func `a program without a build ID is believed, and a warning says so`() throws {
    try scratch.run(
      .gcc, "-g", "-O2", "-fno-optimize-sibling-calls", "-Wl,--build-id=none", "nested.c", "-o",
      "nested")
    let report = try ProgramReport(running: program, in: scratch)
    let outcome = Symbolicator(worker: .inProcess)
      .symbolicate(report.frames, modules: report.modules)
    #expect(outcome.frames.map { $0.map(\.summary) } == LinesTests.expected)
    #expect(
      outcome.warnings == [
        "'\(program)' has no build ID, continuing as if it had not changed since the dump"
      ])
  }

  @Test(arguments: ["text", "pipe", "directory"])
  func `what lies at the path and is no program is only reported`(kind: String) throws {
    try FileManager.default.removeItem(atPath: program)
    switch kind {
    case "text": try scratch.write("nested", "#!/bin/sh\n")
    case "pipe": #expect(unsafe mkfifo(program, 0o600) == 0)
    default:
      try FileManager.default.createDirectory(atPath: program, withIntermediateDirectories: false)
    }
    let reason = kind == "text" ? "not an ELF file" : "not a regular file"
    let symbolicated = symbolicated()
    #expect(symbolicated.frames == offsetsOnly)
    #expect(
      symbolicated.warnings == [
        "cannot read '\(program)': \(reason), continuing with module offsets only"
      ])
  }
}
