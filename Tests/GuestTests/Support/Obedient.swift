// SPDX-License-Identifier: Apache-2.0
// A guest that does one thing after another, when it is told to, and its processes from outside.

import Foundation
import HeapModel
import Pprof
import ProcessControl
import Testing

/// `obedient.c` under the tracer: allocates nothing but what it is told to.
final class Obedient {
  let guest: Guest
  let box: DumpBox
  private let commands: FileHandle
  private let reader: Reader
  /// Of the process that obeys, which after `fork` and `daemon` is not the guest's.
  let pid: pid_t

  /// How far the answers have been read; shared with children, who write to the same pipe.
  private final class Reader {
    var lines = 0
  }

  init(
    _ mode: String?, _ settings: [String: String] = [:], box: DumpBox? = nil,
    program: String? = nil, prefix: [String] = []
  ) throws {
    let box = try box ?? DumpBox()
    let fifo = try Self.makeFIFO()
    var environment = mode.map { box.environment($0) } ?? ["LD_PRELOAD": Workshop.library]
    environment.merge(settings) { $1 }
    let program = try program ?? Programs.build("obedient.c")
    guest = try Guest(prefix + [program, fifo.path], environment: environment)
    self.box = box
    commands = try FileHandle(forUpdating: fifo)
    reader = Reader()
    let ready = try Self.next(guest, reader)
    guard ready.hasPrefix("ready "), let pid = pid_t(ready.dropFirst(6)) else {
      throw GuestError("not ready: \(ready)")
    }
    self.pid = pid
  }

  private init(_ parent: Obedient, pid: pid_t, commands: FileHandle) {
    guest = parent.guest
    box = parent.box
    reader = parent.reader
    self.pid = pid
    self.commands = commands
  }

  deinit {
    // The guest itself ends with its object; a child or a daemon is nobody else's.
    if pid != guest.pid { kill(pid, SIGKILL) }
  }

  static func makeFIFO() throws -> URL {
    let fifo = try Workshop.makeDirectory().appendingPathComponent("commands")
    guard mkfifo(fifo.path, 0o666) == 0 else { throw GuestError("no FIFO") }
    // Also for guests that give up their rights.
    chmod(fifo.deletingLastPathComponent().path, 0o755)
    chmod(fifo.path, 0o666)
    return fifo
  }

  private static func next(_ guest: Guest, _ reader: Reader) throws -> String {
    var line = ""
    try guest.wait(for: "an answer") {
      let lines = guest.outputSoFar.split(separator: "\n", omittingEmptySubsequences: false)
      // The last piece has no end yet.
      guard lines.count > reader.lines + 1 else { return false }
      line = String(lines[reader.lines])
      return true
    }
    reader.lines += 1
    return line
  }

  func send(_ command: String) { commands.write(Data((command + "\n").utf8)) }

  /// Gives a command and waits until it is carried out.
  @discardableResult
  func tell(_ command: String) throws -> String {
    send(command)
    return try nextAnswer()
  }

  func nextAnswer() throws -> String { try Self.next(guest, reader) }

  /// The number at the end of the answer to a command.
  func ask(_ command: String) throws -> Int {
    let answer = try tell(command)
    guard let word = answer.split(separator: " ").last, let number = Int(word) else {
      throw GuestError("no number in '\(answer)'")
    }
    return number
  }

  /// Has it fork, and answers with the child, which obeys from now on by itself.
  func fork() throws -> Obedient {
    let fifo = try Self.makeFIFO()
    send("fork \(fifo.path)")
    let answers = try [nextAnswer(), nextAnswer()]
    guard let line = answers.first(where: { $0.hasPrefix("child ") }),
      let child = pid_t(line.dropFirst(6))
    else { throw GuestError("no child: \(answers)") }
    return Obedient(self, pid: child, commands: try FileHandle(forUpdating: fifo))
  }

  /// Has it become a daemon; this object then has no process to command any more.
  func daemon(user: uid_t = 0) throws -> Obedient {
    let answer = try tell("daemon \(user)")
    guard answer.hasPrefix("daemon "), let pid = pid_t(answer.dropFirst(7)) else {
      throw GuestError("no daemon: \(answer)")
    }
    return Obedient(self, pid: pid, commands: commands)
  }

  /// Has it end as the manner says, and waits for it.
  func end(_ manner: String, status: Int = 0) -> Finished {
    send("end \(manner) \(status)")
    return guest.finish()
  }

  // MARK: Asking the tracer

  func signal(_ signal: Int32) { kill(pid, signal) }

  /// Waits for a message of the tracer in this process.
  func wait(forMessage text: String, count: Int = 1) throws {
    try guest.wait(for: "\(count) × '\(text)'") { messages(with: text).count >= count }
  }

  /// The tracer's messages of this process that contain a text.
  func messages(with text: String = "") -> [String] {
    guest.errorsSoFar.split(separator: "\n").map(String.init)
      // Foundation finds no empty text in anything.
      .filter { $0.hasPrefix("heaptap[\(pid)]: ") && (text.isEmpty || $0.contains(text)) }
  }

  /// Waits until the process has so many finished dumps of its own; answers with all of them.
  @discardableResult
  func wait(forDumps count: Int) throws -> [Snapshot] {
    try guest.wait(for: "\(count) dumps") { ownDumps.count >= count }
    return try snapshots()
  }

  var ownDumps: [URL] {
    box.dumps.filter { $0.lastPathComponent.contains("-\(pid)-") }
  }

  func snapshots() throws -> [Snapshot] {
    try ownDumps.map { try Snapshot(profile: [UInt8](Data(contentsOf: $0))) }
  }

  /// Starts recording by signal, and waits until it has begun.
  func start() throws {
    let before = messages(with: "recording started").count
    signal(SIGUSR1)
    try wait(forMessage: "recording started", count: before + 1)
  }

  /// Stops recording by signal, and waits until it is over.
  func stop() throws {
    let before = messages(with: "recording stopped").count
    signal(SIGUSR1)
    try wait(forMessage: "recording stopped", count: before + 1)
  }

  /// A dump by signal.
  func snapshot() throws -> Snapshot {
    let count = ownDumps.count
    signal(SIGUSR2)
    return try wait(forDumps: count + 1).last!
  }

  /// One that has written two dumps by signal: of 10 blocks, and of 15.
  static func withTwoDumps() throws -> Obedient {
    let guest = try Obedient("1")
    try guest.start()
    try guest.tell("allocate 10 100")
    _ = try guest.snapshot()
    try guest.tell("allocate 5 100")
    _ = try guest.snapshot()
    return guest
  }

  /// The process as the command's library finds it.
  func armed() throws -> ArmedProcess { try Self.armed(pid, guest) }

  /// Waits until a process has its control page.
  static func armed(_ pid: pid_t, _ guest: Guest) throws -> ArmedProcess {
    var found: ArmedProcess?
    try guest.wait(for: "the control page of \(pid)") {
      found = try? ProcessTable().processes(.pid(pid)).first { $0.counters != nil }
      return found != nil
    }
    return found!
  }

  // MARK: From outside

  var facts: OutsideFacts { OutsideFacts(pid: pid) }
}

/// What the kernel shows of a process to others.
struct OutsideFacts {
  let pid: pid_t

  /// A file of the kernel's, which hands out large ones a piece at a time.
  private func text(_ name: String) -> String {
    guard let file = FileHandle(forReadingAtPath: "/proc/\(pid)/\(name)") else { return "" }
    var bytes = Data()
    while let piece = try? file.read(upToCount: 65536), !piece.isEmpty { bytes += piece }
    return String(decoding: bytes, as: UTF8.self)
  }

  private func names(_ directory: String) -> [String] {
    ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/\(directory)")) ?? [])
      .sorted()
  }

  /// Where the main thread's descriptors lead.
  var descriptors: [String: String] {
    var all: [String: String] = [:]
    for name in names("fd") {
      all[name] = try? FileManager.default.destinationOfSymbolicLink(
        atPath: "/proc/\(pid)/fd/\(name)")
    }
    return all
  }

  /// The names of the threads.
  var threads: [String] {
    names("task").map {
      text("task/\($0)/comm").trimmingCharacters(in: .whitespacesAndNewlines)
    }
  }

  /// Signals with a handler, as bits.
  var caughtSignals: UInt64 {
    let line = text("status").split(separator: "\n").first { $0.hasPrefix("SigCgt:") } ?? ""
    return UInt64(line.dropFirst(7).trimmingCharacters(in: .whitespaces), radix: 16) ?? 0
  }

  func catches(_ signal: Int32) -> Bool { caughtSignals & (1 << (UInt64(signal) - 1)) != 0 }

  /// The mapped files, and the number of anonymous mappings that are neither heap nor stack.
  var mappedFiles: Set<String> {
    Set(
      text("maps").split(separator: "\n").compactMap { line in
        line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true).dropFirst(5)
          .first.map { $0.trimmingCharacters(in: .whitespaces) }
      })
  }

  var anonymousMappingCount: Int {
    text("maps").split(separator: "\n").filter {
      $0.split(separator: " ", omittingEmptySubsequences: true).count == 5
    }.count
  }

  /// The resident set, from `/proc/PID/statm`.
  var residentBytes: Int {
    (text("statm").split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
  }

  /// Resident bytes of the tracer's own mappings: those that the kernel shows by their name or, where
  /// it cannot name anonymous memory, as advised against huge pages and without reserve.
  var tracerResidentBytes: Int {
    var sum = 0
    var resident = 0
    var isNamed = false
    var isAnonymous = false
    for line in text("smaps").split(separator: "\n") {
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      if fields[0].contains("-"), !fields[0].hasSuffix(":") {
        isNamed = line.hasSuffix("[anon:heaptap]")
        isAnonymous = fields.count == 5
      } else if fields[0] == "Rss:" {
        resident = (Int(fields[1]) ?? 0) * 1024
      } else if fields[0] == "VmFlags:" {
        let isAdvised = fields.contains("nh") && fields.contains("nr")
        if isNamed || (isAnonymous && isAdvised) { sum += resident }
      }
    }
    return sum
  }
}

extension [Snapshot] {
  /// Whether each is whole, and adds up to what its own scan says.
  var areSound: Bool {
    allSatisfy {
      $0.header.isComplete && $0.warnings.isEmpty
        && $0.header.integer("scanned_bytes") == $0.liveBytes
        && $0.header.integer("scanned_blocks") == $0.liveBlocks
    }
  }
}
