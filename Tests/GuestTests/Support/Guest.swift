// SPDX-License-Identifier: Apache-2.0
// Real programs under the real library: how the tests build, start, ask and read them.

import Foundation
import HeapModel
import Pprof
import Testing

/// Where the build put what is tested, and where the tests keep what they make.
enum Workshop {
  static let package = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// The optimised build, which is what users get: `make test` makes it first.
  static let products: URL = {
    if let path = ProcessInfo.processInfo.environment["HEAPTAP_PRODUCTS"] {
      return URL(fileURLWithPath: path)
    }
    return package.appendingPathComponent(".build/release")
  }()

  static let library = products.appendingPathComponent("libheaptap.so").path
  static let command = products.appendingPathComponent("heaptap-cli").path

  /// A fresh directory for one test.
  static func makeDirectory() throws -> URL {
    let template = FileManager.default.temporaryDirectory
      .appendingPathComponent("heaptap-test-\(UUID().uuidString)")
    try FileManager.default.createDirectory(
      at: template, withIntermediateDirectories: true,
      attributes: [.posixPermissions: 0o700])
    return template
  }

  /// Whether a program of the system is here; tests of guests that are not say so and are skipped.
  static func find(_ program: String) -> String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    let directories = path.split(separator: ":").map(String.init)
    for directory in directories + ["/usr/sbin", "/sbin", "/usr/local/bin"] {
      let candidate = "\(directory)/\(program)"
      if FileManager.default.isExecutableFile(atPath: candidate) { return candidate }
    }
    return nil
  }
}

/// Programs of `Programs/`, compiled once for each set of options.
enum Programs {
  private static let lock = NSLock()
  nonisolated(unsafe) private static var built: [String: String] = [:]
  private static let directory = Result { try Workshop.makeDirectory() }

  /// Compiles a source of `Programs/` and answers the path of the program.
  static func build(_ source: String, _ options: [String] = ["-O2", "-g"]) throws -> String {
    lock.lock()
    defer { lock.unlock() }
    let key = ([source] + options).joined(separator: " ")
    if let path = built[key] { return path }
    let input = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/\(source)").path
    let output = try directory.get().appendingPathComponent(
      "\(source.prefix { $0 != "." })-\(built.count)"
    ).path
    let compiler =
      source.hasSuffix(".swift") ? "swiftc" : source.hasSuffix(".cpp") ? "g++" : "gcc"
    let libraries = source.hasSuffix(".swift") ? [] : ["-lpthread", "-ldl"]
    let result = try run(
      ["/usr/bin/env", compiler, input, "-o", output] + options + libraries, environment: [:])
    guard result.status == 0 else {
      throw GuestError("\(source) does not compile: \(result.errors)")
    }
    built[key] = output
    return output
  }
}

struct GuestError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

/// A finished command.
struct Finished {
  var status: Int32
  /// The signal that ended it, if one did.
  var signal: Int32?
  var output: String
  var errors: String
}

/// Runs a command to its end. The environment is added to the test's own.
@discardableResult
func run(
  _ command: [String], environment: [String: String] = [:], input: String? = nil,
  directory: URL? = nil
) throws -> Finished {
  let guest = try Guest(command, environment: environment, input: input, directory: directory)
  return guest.finish()
}

/// A running program.
final class Guest: @unchecked Sendable {
  let process = Process()
  private let output = Collector()
  private let errors = Collector()

  var pid: pid_t { process.processIdentifier }

  init(
    _ command: [String], environment: [String: String] = [:], input: String? = nil,
    directory: URL? = nil
  ) throws {
    process.executableURL = URL(fileURLWithPath: command[0])
    process.arguments = Array(command.dropFirst())
    var all = ProcessInfo.processInfo.environment
    for name in all.keys where name.hasPrefix("HEAPTAP") { all[name] = nil }
    all.merge(environment) { $1 }
    process.environment = all
    if let directory { process.currentDirectoryURL = directory }
    process.standardOutput = output.pipe
    process.standardError = errors.pipe
    let stdin = Pipe()
    process.standardInput = input == nil ? FileHandle.nullDevice : stdin as Any
    output.begin()
    errors.begin()
    try Self.withoutBlockedSignals { try process.run() }
    if let input {
      stdin.fileHandleForWriting.write(Data(input.utf8))
      try? stdin.fileHandleForWriting.close()
    }
  }

  /// A guest inherits the calling thread's signal mask, and the test library's threads block most
  /// signals: a program would never see those that it is sent.
  static func withoutBlockedSignals(_ body: () throws -> Void) rethrows {
    var (none, before) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    pthread_sigmask(SIG_SETMASK, &none, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    try body()
  }

  /// What the program has written so far.
  var outputSoFar: String { output.text }
  var errorsSoFar: String { errors.text }

  /// Waits for the program's end.
  func finish() -> Finished {
    process.waitUntilExit()
    output.finish()
    errors.finish()
    let isSignal = process.terminationReason == .uncaughtSignal
    return Finished(
      status: isSignal ? 128 + process.terminationStatus : process.terminationStatus,
      signal: isSignal ? process.terminationStatus : nil, output: output.text,
      errors: errors.text)
  }

  func send(_ signal: Int32) { kill(pid, signal) }

  /// Waits until the condition holds; throws what was waited for when it does not in time.
  func wait(
    for what: String, seconds: Double = 20, until condition: () throws -> Bool
  ) throws {
    let end = Date().addingTimeInterval(seconds)
    while try !condition() {
      guard Date() < end else {
        throw GuestError("waited \(seconds) s for \(what); it said: \(outputSoFar) \(errorsSoFar)")
      }
      usleep(5000)
    }
  }

  /// Waits for a line of output that contains a text.
  func wait(forOutput text: String) throws {
    try wait(for: "'\(text)'") { outputSoFar.contains(text) }
  }

  func wait(forErrors text: String) throws {
    try wait(for: "'\(text)'") { errorsSoFar.contains(text) }
  }
}

/// Reads a pipe to its end, on a thread of its own, so that no guest waits for its reader.
private final class Collector: @unchecked Sendable {
  let pipe = Pipe()
  private let lock = NSLock()
  private var bytes = Data()
  private let done = DispatchSemaphore(value: 0)

  func begin() {
    let handle = pipe.fileHandleForReading
    Thread.detachNewThread { [self] in
      while case let chunk = handle.availableData, !chunk.isEmpty {
        lock.lock()
        bytes.append(chunk)
        lock.unlock()
      }
      done.signal()
    }
  }

  /// Waits for the end of the pipe, which a daemon left behind may hold open: two seconds.
  func finish() {
    try? pipe.fileHandleForWriting.close()
    _ = done.wait(timeout: .now() + 2)
  }

  var text: String {
    lock.lock()
    defer { lock.unlock() }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// A directory for the dumps of one test's guests, and the settings that send them there.
struct DumpBox {
  let directory: URL

  init() throws { directory = try Workshop.makeDirectory() }

  /// The environment of a traced guest.
  func environment(_ mode: String, _ more: [String: String] = [:]) -> [String: String] {
    var all = [
      "LD_PRELOAD": Workshop.library, "HEAPTAP": mode, "HEAPTAP_DIR": directory.path,
      "HEAPTAP_LOG": "stderr",
    ]
    if mode == "record" { all["HEAPTAP_EXIT"] = "dump" }
    all.merge(more) { $1 }
    return all
  }

  /// The finished dumps, oldest first.
  var dumps: [URL] {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []
    return names.filter { $0.hasSuffix(".pb") }.sorted().map(directory.appendingPathComponent)
  }

  /// Every name in the directory.
  var names: [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: directory.path)) ?? []).sorted()
  }

  /// The dumps, read.
  func snapshots() throws -> [Snapshot] {
    try dumps.map { try Snapshot(profile: [UInt8](Data(contentsOf: $0))) }
  }

  /// The only snapshot there is.
  func snapshot() throws -> Snapshot {
    let all = try snapshots()
    guard let only = all.first, all.count == 1 else {
      throw GuestError("\(all.count) dumps in \(directory.path), not one: \(names)")
    }
    return only
  }
}
