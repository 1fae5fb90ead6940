// SPDX-License-Identifier: Apache-2.0
// A real memory limit: a cgroup below the test's own, of whichever version the machine has.

import Foundation
import Testing

/// A cgroup with a memory limit, and one above it; both go when this does, with all that runs there.
final class MemoryCgroup {
  /// Where tests may make cgroups with a memory limit; the reason, where they may not.
  private enum Ground {
    case versionOne(String)
    case versionTwo(String)
    case none(String)
  }

  private static let ground: Ground = findGround()

  static var isThere: Bool {
    if case .none = ground { return false }
    return true
  }

  /// For `.enabled(if:)`.
  static var whyNot: Comment {
    if case .none(let reason) = ground { return "skipped: \(reason)" }
    return "there are memory cgroups"
  }

  let directory: String
  private let parent: String
  private let isVersionOne: Bool

  init(limit: Int? = nil, parentLimit: Int? = nil) throws {
    switch Self.ground {
    case .versionOne(let base): (parent, isVersionOne) = (Self.name(in: base), true)
    case .versionTwo(let base): (parent, isVersionOne) = (Self.name(in: base), false)
    case .none(let reason): throw GuestError(reason)
    }
    directory = parent + "/leaf"
    try Self.make(parent)
    if !isVersionOne { try Self.write("+memory", to: parent + "/cgroup.subtree_control") }
    try Self.make(directory)
    if let parentLimit { try setLimit(parentLimit, of: parent) }
    if let limit { try setLimit(limit) }
  }

  deinit {
    for _ in 0..<200 {
      let processes = (try? String(contentsOfFile: directory + "/cgroup.procs", encoding: .utf8))
      for number in (processes ?? "").split(separator: "\n") {
        if let pid = pid_t(number) { kill(pid, SIGKILL) }
      }
      rmdir(directory)
      if rmdir(parent) == 0 || errno == ENOENT { return }
      usleep(20_000)
    }
  }

  /// The file that the limit is in.
  var limitFile: String { directory + (isVersionOne ? "/memory.limit_in_bytes" : "/memory.max") }

  func setLimit(_ bytes: Int) throws { try setLimit(bytes, of: directory) }

  private func setLimit(_ bytes: Int, of directory: String) throws {
    // Without swap, so that the limit bites; a kernel that does not count swap has no such file.
    if isVersionOne {
      // That with swap is never below the other: first where both rise, last where they fall.
      try? Self.write("\(bytes)", to: directory + "/memory.memsw.limit_in_bytes")
      try Self.write("\(bytes)", to: directory + "/memory.limit_in_bytes")
      try? Self.write("\(bytes)", to: directory + "/memory.memsw.limit_in_bytes")
    } else {
      try Self.write("\(bytes)", to: directory + "/memory.max")
      try? Self.write("0", to: directory + "/memory.swap.max")
    }
  }

  /// How many processes of the cgroup the kernel has killed for want of memory.
  var killCount: Int {
    let file = directory + (isVersionOne ? "/memory.oom_control" : "/memory.events")
    let text = (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
    return text.split(separator: "\n").compactMap { line in
      line.hasPrefix("oom_kill ") ? Int(line.dropFirst("oom_kill ".count)) : nil
    }.first ?? 0
  }

  /// A command as it is run in here.
  func command(_ command: [String]) -> [String] {
    ["/bin/sh", "-c", "echo 0 > \"$0/cgroup.procs\" && exec \"$@\"", directory] + command
  }

  // MARK: Where

  private static func findGround() -> Ground {
    guard geteuid() == 0 else { return .none("only root may make cgroups") }
    let mounts = lines("/proc/self/mountinfo").map { $0.split(separator: " ").map(String.init) }
    let groups = lines("/proc/self/cgroup").map {
      $0.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).map(String.init)
    }
    for mount in mounts {
      guard let dash = mount.firstIndex(of: "-"), mount.count > dash + 3 else { continue }
      let options = mount[dash + 3].split(separator: ",")
      if mount[dash + 1] == "cgroup", options.contains("memory") {
        let own = groups.first { $0[1].split(separator: ",").contains("memory") }?[2] ?? "/"
        let base = mount[4] + (own == "/" ? "" : own)
        return canMake(in: base) ? .versionOne(base) : .none("'\(base)' cannot be written to")
      }
    }
    for mount in mounts {
      guard let dash = mount.firstIndex(of: "-"), mount[dash + 1] == "cgroup2" else { continue }
      return findVersionTwo(mount[4], own: groups.first { $0[0] == "0" }?[2] ?? "/")
    }
    return .none("no cgroup file system with a memory controller is mounted")
  }

  /// The nearest cgroup that hands the memory controller down.
  private static func findVersionTwo(_ mount: String, own: String) -> Ground {
    var base = mount + (own == "/" ? "" : own)
    while base.count > mount.count {
      let handed = (try? String(contentsOfFile: base + "/cgroup.subtree_control", encoding: .utf8))
      if handed?.contains("memory") == true { return .versionTwo(base) }
      base = String(base[..<(base.lastIndex(of: "/") ?? base.startIndex)])
    }
    try? write("+memory", to: mount + "/cgroup.subtree_control")
    let handed = try? String(contentsOfFile: mount + "/cgroup.subtree_control", encoding: .utf8)
    return handed?.contains("memory") == true && canMake(in: mount)
      ? .versionTwo(mount) : .none("cgroup2 at '\(mount)' hands down no memory controller")
  }

  private static func canMake(in base: String) -> Bool {
    let probe = name(in: base)
    defer { rmdir(probe) }
    return mkdir(probe, 0o755) == 0
  }

  private static func name(in base: String) -> String {
    base + "/heaptap-test-\(getpid())-\(UUID().uuidString.prefix(8))"
  }

  private static func make(_ directory: String) throws {
    guard mkdir(directory, 0o755) == 0 else {
      throw GuestError("cannot make '\(directory)': errno \(errno)")
    }
  }

  private static func lines(_ path: String) -> [Substring] {
    ((try? String(contentsOfFile: path, encoding: .utf8)) ?? "").split(separator: "\n")
  }

  /// In one write(2), as the kernel's files want it.
  private static func write(_ text: String, to path: String) throws {
    let descriptor = open(path, O_WRONLY | O_CLOEXEC)
    defer { if descriptor >= 0 { close(descriptor) } }
    guard descriptor >= 0, Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count else {
      throw GuestError("cannot write '\(text)' to '\(path)': errno \(errno)")
    }
  }
}
