// SPDX-License-Identifier: Apache-2.0
// The forms that debug information takes: split, compressed, shared, reduced. Real files of each.

import Foundation
import HeapModel
import Symbolication
import Testing

@Suite struct DebugFormTests {
  let scratch: Scratch

  init() throws {
    scratch = try Scratch()
    try scratch.write("nested.c", LinesTests.nested)
  }

  /// Builds the program with a compiler's options and has it say where its calls are.
  private func build(_ options: String...) throws -> ProgramReport {
    try scratch.run(
      Tool.gcc.path,
      ["-O2", "-g", "-fno-optimize-sibling-calls", "-Wl,--build-id", "nested.c", "-o", "nested"]
        + options)
    return try ProgramReport(running: scratch.file("nested"), in: scratch)
  }

  private func symbolicated(
    _ report: ProgramReport, roots: [String] = ["/"]
  ) -> (frames: [[String]], warnings: [String]) {
    let outcome = Symbolicator(worker: .inProcess, roots: roots)
      .symbolicate(report.frames, modules: report.modules)
    return (outcome.frames.map { $0.map(\.summary) }, outcome.warnings)
  }

  private static let symbolsOnly = [["main ?:?"], ["outer ?:?"]]
  /// What line tables and symbols tell: the innermost line, in the outermost function.
  private static let withoutInlined = [["main nested.c:112"], ["outer nested.c:101"]]

  // MARK: Compressed

  @Test func `debug information that is compressed by zlib is read`() throws {
    let report = try build("-gz=zlib")
    #expect(try compression() == "ZLIB")
    let symbolicated = symbolicated(report)
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  /// elfutils reads it since 0.189.
  @Test(arguments: [false, true])
  func `debug information that is compressed by zstd is read, or a warning says why not`(
    inDebugFile: Bool
  ) throws {
    let report = try build("-Wl,--compress-debug-sections=zstd")
    #expect(try compression() == "ZSTD")
    if inDebugFile {
      try scratch.run(.objcopy, "--only-keep-debug", "nested", "nested.debug")
      try scratch.run(
        .objcopy, "--strip-debug", "--add-gnu-debuglink=nested.debug", "nested", "nested")
    }
    let symbolicated = symbolicated(report)
    if symbolicated.warnings.isEmpty {
      #expect(symbolicated.frames == LinesTests.expected)
    } else {
      #expect(symbolicated.frames == Self.symbolsOnly)
      #expect(
        symbolicated.warnings == [
          "debug information of '\(scratch.file("nested"))' is compressed in a way that elfutils does "
            + "not read here, continuing with symbol names only. "
            + "'objcopy --decompress-debug-sections' makes a copy that can be read"
        ])
    }
  }

  private func compression() throws -> String? {
    try scratch.run(.readelf, "-tW", "nested").split(separator: "\n")
      .drop { !$0.contains(".debug_info") }.dropFirst(3).first?
      .split(separator: ",").first?.trimmingCharacters(in: .whitespaces)
  }

  // MARK: Split

  @Test(arguments: ["-gdwarf-4", "-gdwarf-5"])
  func `a .dwo file is found where the compiler put it, and beside a binary that was moved`(
    version: String
  ) throws {
    let report = try build(version, "-gsplit-dwarf")
    #expect(symbolicated(report).frames == LinesTests.expected)
    // As a container's root may have it: there only the place beside the binary is looked at.
    let root = scratch.file("root")
    for name in ["nested", "nested.dwo"] {
      let copy = root + scratch.file(name)
      try FileManager.default.createDirectory(
        atPath: (copy as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
      try FileManager.default.moveItem(atPath: scratch.file(name), toPath: copy)
    }
    let symbolicated = symbolicated(report, roots: [root])
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  @Test(arguments: ["-gdwarf-4", "-gdwarf-5"])
  func `without its .dwo file a program has lines, and a warning says which file is missing`(
    version: String
  ) throws {
    let report = try build(version, "-gsplit-dwarf")
    try FileManager.default.removeItem(atPath: scratch.file("nested.dwo"))
    let symbolicated = symbolicated(report)
    #expect(symbolicated.frames == Self.withoutInlined)
    #expect(
      symbolicated.warnings == [
        "debug information of '\(scratch.file("nested"))' was split off, and "
          + "'\(scratch.file("nested.dwo"))' is not there (.dwp files are not read), "
          + "continuing without inlined calls"
      ])
  }

  // MARK: Shared

  @Test func `debug information that dwz made smaller is read`() throws {
    let report = try build()
    try scratch.run(.dwz, "nested")
    let symbolicated = symbolicated(report)
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  /// Two programs, whose common parts dwz moved to a third file.
  private func buildShared(as name: String) throws -> ProgramReport {
    let report = try build()
    try scratch.run(
      .gcc, "-O2", "-g", "-fno-optimize-sibling-calls", "-Dother=1", "-Wl,--build-id", "nested.c",
      "-o", "other")
    try scratch.run(.dwz, "-m", name, "-h", "nested", "other")
    return report
  }

  @Test func `debug information that dwz moved to a file of its own is read`() throws {
    let report = try buildShared(as: "common.debug")
    let whole = symbolicated(report)
    #expect(whole.frames == LinesTests.expected)
    #expect(whole.warnings == [])

    try FileManager.default.removeItem(atPath: scratch.file("common.debug"))
    let rest = symbolicated(report)
    #expect(
      rest.frames.map { $0.map { $0.split(separator: " ")[1] } } == [
        ["nested.c:112"], ["nested.c:101", "nested.c:105", "nested.c:108"],
      ])
    #expect(rest.frames.map { $0.last?.split(separator: " ").first } == ["main", "outer"])
    #expect(
      rest.warnings == [
        "debug information of '\(scratch.file("nested"))' refers to 'common.debug', "
          + "which is not there, continuing without some names"
      ])
  }

  /// As distributions do: debug files by build ID, which refer to the shared one by its whole path.
  @Test func `debug files below a root find what dwz moved there`() throws {
    let report = try build()
    try scratch.run(
      .gcc, "-O2", "-g", "-fno-optimize-sibling-calls", "-Wl,--build-id=sha1", "-Wl,-z,now",
      "nested.c", "-o", "other")
    var files: [String] = []
    for program in ["nested", "other"] {
      let buildID = try MappedFile(path: scratch.file(program)).buildID
      let name = "\(buildID.prefix(2))/\(buildID.dropFirst(2)).debug"
      let file = try scratch.write("root/usr/lib/debug/.build-id/\(name)", "")
      try scratch.run(.objcopy, "--only-keep-debug", program, file)
      files.append(file)
    }
    let shared = "usr/lib/debug/.dwz/x86_64-linux-gnu/common-heaptap-test.debug"
    try scratch.write("root/\(shared)", "")
    try scratch.run(
      Tool.dwz.path,
      ["-m", "root/\(shared)", "-M", "/\(shared)"] + files)
    try scratch.run(.objcopy, "--strip-all", "nested", "nested")
    let symbolicated = symbolicated(report, roots: [scratch.file("root"), "/"])
    #expect(symbolicated.frames == LinesTests.expected)
    #expect(symbolicated.warnings == [])
  }

  // MARK: Reduced

  /// What Fedora has in every binary: the symbol table, compressed by xz.
  @Test func `a stripped program has functions by its .gnu_debugdata`() throws {
    let report = try build()
    try scratch.run(.objcopy, "--only-keep-debug", "nested", "nested.debug")
    try scratch.run(.objcopy, "--strip-debug", "nested.debug", "nested.debugdata")
    // Or libdwfl finds it beside the program.
    try FileManager.default.removeItem(atPath: scratch.file("nested.debug"))
    try scratch.run(.xz, "nested.debugdata")
    try scratch.run(
      .objcopy, "--strip-all", "--add-section=.gnu_debugdata=nested.debugdata.xz", "nested",
      "nested")
    #expect(symbolicated(report).frames == Self.symbolsOnly)
  }
}
