// SPDX-License-Identifier: Apache-2.0
// Files from a debuginfod server: a directory that passes for one, and the real one.

import Foundation
import HeapModel
import Symbolication
import Testing

@Suite(
  .enabled(if: Tool.gcc.isInstalled && Tool.objcopy.isInstalled, "no gcc or binutils"),
  .enabled(if: unsafe dlopen("libdebuginfod.so.1", RTLD_LAZY) != nil, "no libdebuginfod"))
struct DebuginfodTests {
  let scratch: Scratch
  let report: ProgramReport

  init() throws {
    scratch = try Scratch()
    report = try ProgramReport(ofNestedCallsIn: scratch)
    let buildID = try MappedFile(path: scratch.file("nested")).buildID
    try scratch.write("server/buildid/\(buildID)/debuginfo", "")
    try scratch.run(
      .objcopy, "--only-keep-debug", "nested", "server/buildid/\(buildID)/debuginfo")
    try scratch.run(.objcopy, "--strip-all", "nested", "nested")
    try scratch.write("server/buildid/\(buildID)/executable", "")
    try scratch.run(.objcopy, "nested", "server/buildid/\(buildID)/executable")
  }

  /// Only the worker may see the setting: the tests beside this one share our environment.
  private func summaries(environment: String) -> [[String]] {
    let worker = ([Symbolicator.Worker.thisExecutable] + Symbolicator.Worker.thisArguments)
      .map { "'\($0)'" }.joined(separator: " ")
    let cache = "DEBUGINFOD_CACHE_PATH='\(scratch.file("cache"))'"
    let symbolicator = Symbolicator(
      worker: .subprocess(
        executable: "/bin/sh", arguments: ["-c", "\(cache) \(environment) exec \(worker)"]))
    return symbolicator.symbolicate(report.frames, modules: report.modules).frames
      .map { $0.map(\.summary) }
  }

  private var server: String { "DEBUGINFOD_URLS='file://\(scratch.file("server"))'" }

  @Test func `a stripped program gets its debug file from the server`() {
    #expect(summaries(environment: server) == LinesTests.expected)
  }

  @Test func `a program that is gone comes from the server`() throws {
    try FileManager.default.removeItem(atPath: scratch.file("nested"))
    #expect(summaries(environment: server) == LinesTests.expected)
  }

  @Test func `without a setting no server is asked`() {
    #expect(summaries(environment: "DEBUGINFOD_URLS=''") == [["? ?:?"], ["? ?:?"]])
  }

  @Test(.enabled(if: Tool.debuginfod.isInstalled, "no debuginfod"))
  func `a real server that runs is asked`() throws {
    try FileManager.default.removeItem(atPath: scratch.file("nested"))
    let port = try freePort()
    let server = Process()
    server.executableURL = URL(fileURLWithPath: Tool.debuginfod.path)
    server.arguments = [
      "-F", "-d", ":memory:", "-p", "\(port)", scratch.file("server"),
    ]
    server.environment = ["PATH": "/usr/bin:/bin", "HOME": scratch.path]
    server.standardOutput = FileHandle.nullDevice
    server.standardError = FileHandle.nullDevice
    try server.run()
    defer {
      // It takes its time to end when it is asked to, and has nothing to save.
      kill(server.processIdentifier, SIGKILL)
      server.waitUntilExit()
    }
    // It answers before it has looked at its files, and until then knows none; and that would be
    // remembered, so that each question has a cache of its own.
    var found: [[String]] = []
    for attempt in 0..<600 where found != LinesTests.expected {
      if attempt > 0 { usleep(100_000) }
      found = summaries(
        environment: "DEBUGINFOD_URLS='http://127.0.0.1:\(port)' "
          + "DEBUGINFOD_CACHE_PATH='\(scratch.file("cache-\(attempt)"))'")
    }
    #expect(found == LinesTests.expected)
  }
}
