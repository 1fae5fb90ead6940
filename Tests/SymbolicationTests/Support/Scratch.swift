// SPDX-License-Identifier: Apache-2.0
// A directory that is gone after the test, and the tools that fill it.

import Foundation
import Testing

/// A directory for one test.
final class Scratch {
  let path: String

  init() throws {
    let name = "heaptap-symbols-\(UUID().uuidString)"
    // Debug information has the path as the compiler saw it, so no symbolic link may be in it.
    path =
      FileManager.default.temporaryDirectory.resolvingSymlinksInPath()
      .appendingPathComponent(name).path
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }

  /// Writes a source file.
  @discardableResult
  func write(_ name: String, _ text: String) throws -> String {
    let file = URL(fileURLWithPath: file(name))
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try Data(text.utf8).write(to: file)
    return file.path
  }

  /// Runs a tool here, and gives its standard output.
  @discardableResult
  func run(_ tool: Tool, _ arguments: String..., input: String = "") throws -> String {
    try run(tool.path, arguments, input: input)
  }

  @discardableResult
  func run(_ executable: String, _ arguments: [String], input: String = "") throws -> String {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: executable)
    process.arguments = arguments
    process.currentDirectoryURL = URL(fileURLWithPath: path)
    // Through files: a tool that talks while it is being talked to would fill both pipes.
    try write("standard-input", input)
    try write("standard-output", "")
    try write("standard-error", "")
    process.standardInput = FileHandle(forReadingAtPath: file("standard-input"))
    process.standardOutput = FileHandle(forWritingAtPath: file("standard-output"))
    process.standardError = FileHandle(forWritingAtPath: file("standard-error"))
    try process.run()
    process.waitUntilExit()
    let output = try String(contentsOfFile: file("standard-output"), encoding: .utf8)
    guard process.terminationStatus == 0 else {
      let complaint = try String(contentsOfFile: file("standard-error"), encoding: .utf8)
      throw ToolFailure(
        description: "\(executable) \(arguments.joined(separator: " ")): \(complaint)")
    }
    return output
  }
}

struct ToolFailure: Error, CustomStringConvertible {
  var description: String
}

/// A program that tests need, and that a machine may lack.
enum Tool: String, CaseIterable, CustomTestStringConvertible {
  case gcc, gxx = "g++", clang, clangxx = "clang++", swiftc, objcopy, strip, readelf, dwz, xz,
    debuginfod
  case symbolizer = "llvm-symbolizer"

  var isInstalled: Bool { found != nil }

  var path: String { found ?? "/nonexistent/\(rawValue)" }

  var isClang: Bool { self == .clang || self == .clangxx }

  var testDescription: String { rawValue }

  private var found: String? {
    var directories = (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
      .map(String.init)
    // The toolchain's own is newer than a distribution's, and knows what its compilers write.
    if let toolchain = directories.first(where: { Self.isExecutable("\($0)/swiftc") }) {
      directories.insert(toolchain, at: 0)
    }
    return directories.map { "\($0)/\(rawValue)" }.first { Self.isExecutable($0) }
  }

  private static func isExecutable(_ path: String) -> Bool {
    FileManager.default.isExecutableFile(atPath: path)
  }
}
