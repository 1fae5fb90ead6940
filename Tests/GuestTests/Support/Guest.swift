// SPDX-License-Identifier: Apache-2.0
// Real programs under the real library: how the tests build, start, ask and read them.

import Foundation
import HeapModel
import Pprof
import Testing

/// How long a test waits for what is to come: long enough for a machine with much else to do.
let patience = Duration.seconds(120)

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

  /// Where the package manager has left the modules that these tests were built with: beside them.
  static func modules() throws -> String {
    let tests = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
    return URL(fileURLWithPath: tests).deletingLastPathComponent()
      .appendingPathComponent("Modules").path
  }

  /// Everything that this run of the tests makes; removed when it ends.
  private static let root: URL = {
    let root = FileManager.default.temporaryDirectory
      .appendingPathComponent("heaptap-tests-\(getpid())")
    try? FileManager.default.createDirectory(at: root, withIntermediateDirectories: true)
    atexit { try? FileManager.default.removeItem(at: Workshop.root) }
    return root
  }()

  /// A fresh directory for one test.
  static func makeDirectory() throws -> URL {
    let directory = root.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(
      at: directory, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    return directory
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

  /// Where a source or a script of `Programs/` is.
  static func path(_ name: String) -> String {
    Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/\(name)").path
  }

  /// Compiles a source of `Programs/` and answers the path of the program, or of the library where
  /// the options say so.
  static func build(_ source: String, _ options: [String] = ["-O2", "-g"]) throws -> String {
    lock.lock()
    defer { lock.unlock() }
    let key = ([source] + options).joined(separator: " ")
    if let path = built[key] { return path }
    let input = path(source)
    let output = try directory.get().appendingPathComponent(
      "\(source.prefix { $0 != "." })-\(built.count)"
    ).path
    let compiler =
      ["swift": "swiftc", "cpp": "g++", "rs": "rustc"][URL(fileURLWithPath: input).pathExtension]
      ?? "gcc"
    let libraries = ["gcc", "g++"].contains(compiler) ? ["-lpthread", "-ldl"] : []
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
  _ command: [String], environment: [String: String] = [:], directory: URL? = nil,
  input: String? = nil
) throws -> Finished {
  // By env(1) and not in the child: no call that spawns changes the directory portably.
  let place = directory.map { ["/usr/bin/env", "-C", $0.path] } ?? []
  let guest = try Guest(place + command, environment: environment, input: input)
  return guest.finish()
}

/// A running program.
///
/// Started and awaited by the system's own calls. Foundation's `Process` learns of an end through a
/// descriptor that the child inherits: a guest that closes its descriptors has ended in its eyes, and
/// waiting for it holds up what it has to say of every other.
final class Guest: @unchecked Sendable {
  let pid: pid_t
  private let output = Collector()
  private let errors = Collector()
  private let lock = NSLock()
  private var waitStatus: Int32?

  init(
    _ command: [String], environment: [String: String] = [:], input: String? = nil
  ) throws {
    var all = ProcessInfo.processInfo.environment
    for name in all.keys where name.hasPrefix("HEAPTAP") { all[name] = nil }
    all.merge(environment) { $1 }
    let (stdin, feed) =
      try input == nil ? (open("/dev/null", O_RDONLY | O_CLOEXEC), -1) : makePipe()
    let (outputEnd, errorsEnd) = (try output.begin(), try errors.begin())
    defer { for end in [stdin, outputEnd, errorsEnd] { close(end) } }
    pid = try Self.spawn(
      command, all.map { "\($0)=\($1)" }, [stdin, outputEnd, errorsEnd])
    guard let input else { return }
    let handle = FileHandle(fileDescriptor: feed, closeOnDealloc: true)
    try handle.write(contentsOf: Data(input.utf8))
    try handle.close()
  }

  /// What a test leaves running, for instance where it failed, goes with it.
  deinit {
    if isRunning {
      kill(pid, SIGKILL)
      _ = waitForEnd()
    }
  }

  /// Starts a program with three descriptors and the signals of a login: a guest would inherit the
  /// calling thread's mask, and the test library's threads block most.
  static func spawn(
    _ command: [String], _ environment: [String], _ descriptors: [Int32]
  ) throws -> pid_t {
    var actions = posix_spawn_file_actions_t()
    var attributes = posix_spawnattr_t()
    posix_spawn_file_actions_init(&actions)
    posix_spawnattr_init(&attributes)
    defer {
      posix_spawn_file_actions_destroy(&actions)
      posix_spawnattr_destroy(&attributes)
    }
    for (number, descriptor) in descriptors.enumerated() {
      posix_spawn_file_actions_adddup2(&actions, descriptor, Int32(number))
    }
    var (none, every) = (sigset_t(), sigset_t())
    sigemptyset(&none)
    sigfillset(&every)
    posix_spawnattr_setsigmask(&attributes, &none)
    posix_spawnattr_setsigdefault(&attributes, &every)
    posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    let arguments = command.map { strdup($0) } + [nil]
    let variables = environment.map { strdup($0) } + [nil]
    defer { for text in arguments + variables { free(text) } }
    var pid: pid_t = 0
    let error = spawning.withLock {
      posix_spawn(&pid, command[0], &actions, &attributes, arguments, variables)
    }
    guard error == 0 else {
      throw GuestError("cannot start \(command[0]): \(String(cString: strerror(error)))")
    }
    return pid
  }

  var isRunning: Bool { status(waiting: false) == nil }

  private func waitForEnd() -> Int32 { status(waiting: true) ?? 0 }

  private func status(waiting: Bool) -> Int32? {
    lock.lock()
    defer { lock.unlock() }
    var status: Int32 = 0
    while waitStatus == nil {
      let result = waitpid(pid, &status, waiting ? 0 : WNOHANG)
      if result == pid { waitStatus = status }
      if result == 0 || (result < 0 && errno != EINTR) { break }
    }
    return waitStatus
  }

  /// What the program has written so far.
  var outputSoFar: String { output.text }
  var errorsSoFar: String { errors.text }

  /// Waits for the program's end.
  func finish() -> Finished {
    let status = waitForEnd()
    output.finish()
    errors.finish()
    let signal = status & 0x7f
    return Finished(
      status: signal == 0 ? status >> 8 & 0xff : 128 + signal, signal: signal == 0 ? nil : signal,
      output: output.text, errors: errors.text)
  }

  func send(_ signal: Int32) { kill(pid, signal) }

  /// Waits until the condition holds; throws what was waited for when it does not in time.
  func wait(for what: String, until condition: () throws -> Bool) throws {
    let end = ContinuousClock.now + patience
    while try !condition() {
      guard ContinuousClock.now < end else {
        throw GuestError("waited \(patience) for \(what); it said: \(outputSoFar) \(errorsSoFar)")
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

/// Held while a descriptor is open that would be inherited, and while somebody might inherit it.
private let spawning = NSLock()

/// A pipe that no other program inherits.
private func makePipe() throws -> (read: Int32, write: Int32) {
  try spawning.withLock {
    var ends: [Int32] = [-1, -1]
    guard pipe(&ends) == 0 else { throw GuestError("no pipe: errno \(errno)") }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }
}

/// Reads a pipe to its end, on a thread of its own, so that no guest waits for its reader.
private final class Collector: @unchecked Sendable {
  private let lock = NSLock()
  private var bytes = Data()
  private let done = DispatchSemaphore(value: 0)

  /// The end to write to, which is the caller's to close.
  func begin() throws -> Int32 {
    let (reading, writing) = try makePipe()
    Thread.detachNewThread { [self] in
      var chunk = [UInt8](repeating: 0, count: 65536)
      while case let count = read(reading, &chunk, chunk.count), count != 0 {
        if count < 0 {
          if errno == EINTR { continue }
          break
        }
        lock.lock()
        bytes.append(contentsOf: chunk[..<count])
        lock.unlock()
      }
      close(reading)
      done.signal()
    }
    return writing
  }

  /// Waits for the end of the pipe, which a daemon left behind may hold open.
  func finish() { _ = done.wait(timeout: .now() + 5) }

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
