// SPDX-License-Identifier: Apache-2.0
// What /proc says about a process, parsed without trust.

import Glibc

/// What /proc says about one process, read anew at every question.
///
/// A process that ended answers with `nil` and empty lists. Hold a `ProcessHandle` while asking,
/// and check that it is alive afterwards: then the answers are this process's.
struct ProcessFacts {
  let pid: Int32

  private func file(_ name: String, limit: Int = 1 << 20) -> [UInt8]? {
    try? contents(ofFile: "/proc/\(pid)/\(name)", limit: limit)
  }

  private func text(_ name: String) -> String? {
    file(name).map { String(decoding: $0, as: UTF8.self) }
  }

  var exists: Bool { isAccessible("/proc/\(pid)") }

  /// The name of the main thread: what the program is called, at most 15 bytes of it.
  var name: String? {
    text("comm").map { $0.hasSuffix("\n") ? String($0.dropLast()) : $0 }
  }

  /// The last component of the executable's path; `nil` for kernel threads and where we may not look.
  var executableName: String? {
    guard let path = try? destination(ofLink: "/proc/\(pid)/exe") else { return nil }
    let name = path.split(separator: "/").last ?? Substring(path)
    return String(name.hasSuffix(Self.deleted) ? name.dropLast(Self.deleted.count) : name)
  }

  /// The kernel appends this to the path of a file that is no longer there.
  static let deleted = " (deleted)"

  var controlGroups: ControlGroups { ControlGroups(text("cgroup") ?? "") }
  var status: ProcessStatus { ProcessStatus(text("status") ?? "") }

  /// The environment that the program was started with, which is also when the tracer reads it.
  func environment() throws(SystemError) -> ProcessEnvironment {
    let bytes = try contents(ofFile: "/proc/\(pid)/environ", limit: 4 << 20)
    return ProcessEnvironment(entries: bytes.split(separator: 0).map { Array($0) })
  }

  func isTracerMapped() throws(SystemError) -> Bool {
    let maps = try contents(ofFile: "/proc/\(pid)/maps", limit: 64 << 20)
    return Self.namesTracer(maps: maps)
  }

  static func namesTracer(maps: [UInt8]) -> Bool {
    let name = Array("/libheaptap.so".utf8)
    return maps.split(separator: UInt8(ascii: "\n")).contains { line in
      var line = line
      if line.ends(with: deleted.utf8) { line = line.dropLast(deleted.utf8.count) }
      return line.ends(with: name)
    }
  }

  /// The threads that carry the tracer's name. Names can be had by anyone: the page decides.
  var workerThreads: [Int32] {
    let threads = (try? names(inDirectory: "/proc/\(pid)/task")) ?? []
    let workerName = Array("heaptap\n".utf8)
    return threads.compactMap { Int32($0) }
      .filter { file("task/\($0)/comm", limit: 64) == workerName }
  }
}

extension ArraySlice<UInt8> {
  fileprivate func ends(with suffix: some Collection<UInt8>) -> Bool {
    count >= suffix.count && self.suffix(suffix.count).elementsEqual(suffix)
  }
}

/// The lines of /proc/PID/status that matter here.
struct ProcessStatus {
  /// The pid that the process itself sees: the innermost of its pid namespaces.
  private(set) var innermostPID: Int32?
  private(set) var userID: UInt32?
  /// One letter, as in ps(1): `T` is stopped.
  private(set) var state: Character?
  private var caughtSignals: UInt64 = 0

  init(_ text: String) {
    for line in text.split(separator: "\n") {
      let fields = line.split(whereSeparator: { $0 == "\t" || $0 == " " })
      guard let key = fields.first else { continue }
      switch key {
      case "NSpid:": innermostPID = fields.last.flatMap { Int32($0) }
      case "Uid:": userID = fields.count > 2 ? UInt32(fields[2]) : nil
      case "State:": state = fields.count > 1 ? fields[1].first : nil
      case "SigCgt:": caughtSignals = fields.last.flatMap { UInt64($0, radix: 16) } ?? 0
      default: break
      }
    }
  }

  func hasHandler(for signal: Int32) -> Bool {
    (1...64).contains(signal) && caughtSignals >> UInt64(signal - 1) & 1 == 1
  }
}

/// The control groups of a process, as /proc/PID/cgroup lists them.
struct ControlGroups {
  /// The path by which systemd manages the process: the v2 hierarchy's, or v1's `name=systemd`.
  let path: String?

  init(_ text: String) {
    var unified: Substring?
    var named: Substring?
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard fields.count == 3 else { continue }
      if fields[0] == "0" && fields[1].isEmpty { unified = fields[2] }
      if fields[1] == "name=systemd" { named = fields[2] }
    }
    // Where both are mounted, v1 with a bare v2 beside it, systemd's own hierarchy decides.
    path = (named ?? unified).map { String($0) }
  }

  /// The innermost unit in the path: a service, or the scope of a login or a container.
  var unit: String? {
    components.last { $0.hasSuffix(".service") || $0.hasSuffix(".scope") }.map { String($0) }
  }

  /// Whether the process belongs to a unit, named with or without its `.service`.
  func isInside(unit name: String) -> Bool {
    let unitName = name.hasSuffix(".service") || name.hasSuffix(".scope") ? name : name + ".service"
    return components.contains { $0 == unitName }
  }

  private var components: [Substring] { path?.split(separator: "/") ?? [] }
}
