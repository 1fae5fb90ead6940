// SPDX-License-Identifier: Apache-2.0
// Dumps on disk: their names, and the directories in which tracers leave them.

import Glibc

/// A dump by its name: `20261121T102757.123456Z-redis-server-1234-7.pb`.
///
/// Ordered by time, then by sequence number, then by path.
public struct DumpFile: Hashable, Comparable, Sendable {
  public let path: String
  /// UTC, in the form that names have: it sorts as text.
  public let time: String
  /// The program, with what names cannot hold written `_`.
  public let program: String
  /// In the traced process's own pid namespace.
  public let pid: Int32
  /// The number of the dump since its process began.
  public let sequence: UInt64
  /// Whether it is being written, or was left unfinished by a kill: then `.partial` ends its name.
  public let isPartial: Bool

  /// Reads a name; `nil` for a file that is not a dump, or not one yet.
  public init?(path: String) {
    self.init(path: path, isPartial: false)
  }

  /// Reads the name of a dump that is not one yet; `nil` for any other.
  public init?(partialPath path: String) {
    guard path.hasSuffix(Self.partialSuffix) else { return nil }
    self.init(path: path, isPartial: true)
  }

  static let partialSuffix = ".partial"

  /// The path that a partial dump gets when it is whole; of a whole one its own.
  public var finalPath: String {
    isPartial ? String(path.dropLast(Self.partialSuffix.count)) : path
  }

  private init?(path: String, isPartial: Bool) {
    guard var name = path.split(separator: "/").last else { return nil }
    if isPartial { name = name.dropLast(Self.partialSuffix.count) }
    guard name.hasSuffix(".pb") else { return nil }
    let fields = name.dropLast(3).split(separator: "-", omittingEmptySubsequences: false)
    guard fields.count >= 4, Self.isTime(fields[0]),
      let sequence = UInt64(fields[fields.count - 1]),
      let pid = Int32(fields[fields.count - 2]), pid > 0
    else { return nil }
    self.path = path
    self.time = String(fields[0])
    self.program = fields[1..<(fields.count - 2)].joined(separator: "-")
    self.pid = pid
    self.sequence = sequence
    self.isPartial = isPartial
  }

  /// When the dump began, by its name: microseconds since 1970.
  public var timeMicroseconds: Int {
    let digits = time.utf8.filter { (0x30...0x39).contains($0) }.map { Int($0) - 0x30 }
    func number(_ range: Range<Int>) -> Int { digits[range].reduce(0) { $0 * 10 + $1 } }
    var parts = unsafe tm()
    unsafe (parts.tm_year, parts.tm_mon) = (Int32(number(0..<4)) - 1900, Int32(number(4..<6)) - 1)
    unsafe (parts.tm_mday, parts.tm_hour) = (Int32(number(6..<8)), Int32(number(8..<10)))
    unsafe (parts.tm_min, parts.tm_sec) = (Int32(number(10..<12)), Int32(number(12..<14)))
    return unsafe timegm(&parts) * 1_000_000 + number(14..<20)
  }

  private static func isTime(_ text: Substring) -> Bool {
    let pattern = "00000000T000000.000000Z"
    return text.utf8.count == pattern.utf8.count
      && zip(text.utf8, pattern.utf8).allSatisfy { byte, model in
        model == UInt8(ascii: "0") ? (0x30...0x39).contains(byte) : byte == model
      }
  }

  public static func < (a: Self, b: Self) -> Bool {
    (a.time, a.sequence, a.path) < (b.time, b.sequence, b.path)
  }

  /// A program's name as names of dumps have it: at most 48 bytes of `[A-Za-z0-9._+-]`.
  public static func fileName(ofProgram program: String) -> String {
    let kept = program.utf8.prefix(48).map { byte -> UInt8 in
      switch byte {
      case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: byte
      case UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "+"), UInt8(ascii: "-"): byte
      default: UInt8(ascii: "_")
      }
    }
    return String(decoding: kept, as: UTF8.self)
  }

  /// The dumps in a directory, in no order; none where it cannot be read.
  public static func all(inDirectory directory: String) -> [DumpFile] {
    ((try? names(inDirectory: directory)) ?? []).compactMap { name in
      DumpFile(path: directory == "." ? name : "\(directory)/\(name)")
    }
  }

  /// The dumps of one process, oldest first, out of many.
  ///
  /// Numbers restart in a new process: an earlier dump with this pid and a number that is not
  /// smaller is from a process that had the pid before.
  public func ofTheSameProcess(in dumps: [DumpFile]) -> [DumpFile] {
    var result: [DumpFile] = []
    var number = UInt64.max
    for dump in dumps.sorted().reversed()
    where dump <= self && dump.pid == pid && dump.program == program
      && dump.directory == directory
    {
      guard dump.sequence < number else { break }
      number = dump.sequence
      result.append(dump)
    }
    return result.reversed()
  }

  private var directory: Substring {
    path.lastIndex(of: "/").map { path[..<$0] } ?? ""
  }
}

/// Where dumps are left, and looked for.
public enum DumpDirectories {
  static let system = "/var/lib/heaptap"

  /// Where a process of this user and environment writes: its own setting, or the defaults.
  static func written(by userID: uid_t, environment: ProcessEnvironment) -> [String] {
    if let directory = environment["HEAPTAP_DIR"] { return [directory] }
    return ["\(system)/\(userID)", "/var/tmp/heaptap-\(userID)"]
  }

  /// Where this user's dumps may be: `HEAPTAP_DIR`, the current directory, the defaults; and for
  /// root everybody's.
  public static func searched(environment: ProcessEnvironment, userID: uid_t = geteuid())
    -> [String]
  {
    var directories = environment["HEAPTAP_DIR"].map { [$0] } ?? []
    directories.append(".")
    directories += written(by: userID, environment: [:])
    if userID == 0 {
      let everybodys = try? DumpDirectory.all(nil, environment: [:], userID: userID)
      directories += (everybodys ?? []).map(\.path)
    }
    // One directory may be there under two names; a dump must not be counted twice.
    var seen: Set<FileIdentity> = []
    return directories.filter { directory in
      guard let identity = FileIdentity(directory, userID: userID) else { return false }
      return seen.insert(identity).inserted
    }
  }

  /// Anyone may make a directory in /var/tmp: one is believed only if its owner is the one in its
  /// name.
  private struct FileIdentity: Hashable {
    let device: UInt64
    let number: UInt64

    init?(_ path: String, userID: uid_t) {
      guard let status = try? status(ofFile: path), status.st_mode & S_IFMT == S_IFDIR else {
        return nil
      }
      if let owner = path.split(separator: "/").last.flatMap({ Self.owner(inName: $0) }),
        path.hasPrefix("/var/tmp/"), owner != status.st_uid
      {
        return nil
      }
      device = UInt64(status.st_dev)
      number = UInt64(status.st_ino)
    }

    private static func owner(inName name: Substring) -> uid_t? {
      name.hasPrefix("heaptap-") ? uid_t(name.dropFirst("heaptap-".count)) : nil
    }
  }
}

/// The dumps that `show` and `diff` choose from when they are given no file.
public struct DumpSelection: Sendable {
  private let dumps: [DumpFile]
  private let directories: [String]

  public init(directories: [String]) {
    self.directories = directories
    dumps = directories.flatMap { DumpFile.all(inDirectory: $0) }.sorted()
  }

  /// The newest dumps of one process, oldest first: of the process that wrote the newest dump of
  /// all, or of the newest one that has the name.
  ///
  /// - Parameter name: A program, a systemd unit or a pid.
  /// - Parameter unit: the systemd unit that a dump was written in, read from its header. Asked
  ///   only for dumps whose program has another name.
  public func newest(
    _ count: Int, of name: String?, unit: (DumpFile) -> String?
  ) throws(ProcessControlError) -> [DumpFile] {
    try ofNewestProcess(atLeast: count, of: name, unit: unit).suffix(count)
  }

  /// All dumps of that process, oldest first.
  public func ofNewestProcess(
    atLeast count: Int, of name: String?, unit: (DumpFile) -> String?
  ) throws(ProcessControlError) -> [DumpFile] {
    let places = directories.map { "'\($0)'" }.joined(separator: ", ")
    let newest = dumps.last { dump in
      guard let name else { return true }
      return dump.program == DumpFile.fileName(ofProgram: name) || "\(dump.pid)" == name
        || unit(dump).map { $0 == name || $0 == name + ".service" } ?? false
    }
    guard let newest else {
      let sentence =
        name.map {
          "'\($0.plainText)' is no file, and no program, unit or process of that name has a dump"
        } ?? "there is no dump"
      throw ProcessControlError(
        .noDump, "\(sentence) in \(places.plainText); HEAPTAP_DIR names another directory")
    }
    let found = newest.ofTheSameProcess(in: dumps)
    guard found.count >= count else {
      let wayOut =
        ProcessFacts(pid: newest.pid).exists
        ? "'heaptap snapshot \(newest.pid)' writes another"
        : "it has ended, so name the two files to compare"
      throw ProcessControlError(
        .noDump,
        "'\(newest.program)' (pid \(newest.pid)) has only one dump, '\(newest.path.plainText)':"
          + " \(wayOut)")
    }
    return found
  }
}

extension DumpFile {
  /// Who named a dump: that decides how far its path is followed.
  public enum Origin: Sendable {
    /// A person: links and pipes are what they asked for.
    case named
    /// A directory that others may write to: a link or a pipe is nobody's dump.
    case found
  }

  /// No dump is larger: this keeps a mistake from filling memory.
  static let byteCountLimit = 1 << 30

  /// The bytes of a dump, or only the first of them.
  public static func contents(
    of path: String, _ origin: Origin, prefix: Int? = nil
  ) throws(ProcessControlError) -> [UInt8] {
    try read(path, origin, prefix: prefix).bytes
  }

  /// The bytes of a dump, and whose they are: the very file's that they came from, whatever lies at the
  /// path by then.
  package static func read(
    _ path: String, _ origin: Origin, prefix: Int? = nil
  ) throws(ProcessControlError) -> (bytes: [UInt8], file: stat) {
    func refusal(_ why: String) -> ProcessControlError {
      ProcessControlError(.noDump, "cannot read '\(path.plainText)': \(why)")
    }
    // Not waiting in open: a pipe that nobody writes to would never let us go.
    let flags = origin == .found ? O_NOFOLLOW : 0
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY | flags)
    if descriptor < 0 { throw refusal(SystemError.last.words) }
    defer { close(descriptor) }
    var file = stat()
    unsafe fstat(descriptor, &file)
    let kind = file.st_mode & S_IFMT
    if kind == S_IFDIR { throw refusal("it is a directory") }
    if origin == .found && kind != S_IFREG { throw refusal("it is not a file") }
    if kind == S_IFIFO {
      var question = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      var byte: UInt8 = 0
      // A writer that is there and writes nothing yet makes read say EAGAIN.
      if unsafe poll(&question, 1, 2000) == 0, unsafe Glibc.read(descriptor, &byte, 1) == 0 {
        throw refusal("it is a pipe, and nobody writes to it")
      }
    }
    if kind == S_IFREG && prefix == nil {
      // Said before and not after a gigabyte was read.
      if file.st_size > byteCountLimit { throw refusal("it is larger than 1 GiB, as no dump is") }
      guard Memory.hasRoom(for: Int(file.st_size)) else {
        throw refusal(
          "its \(file.st_size >> 20) MiB do not fit into the memory that is left; read it on a machine with more"
        )
      }
    }
    _ = fcntl(descriptor, F_SETFL, O_RDONLY)
    let contents: [UInt8]
    do throws(SystemError) {
      contents = try bytes(
        behind: descriptor, expected: Int(file.st_size), limit: prefix ?? byteCountLimit + 1)
    } catch {
      throw refusal(error.words)
    }
    if contents.count > byteCountLimit { throw refusal("it is larger than 1 GiB, as no dump is") }
    return (contents, file)
  }
}

/// What memory there is to read into.
private enum Memory {
  /// Files below this are read whatever is said: what is missing then is missing for all else too.
  private static let alwaysRead = 16 << 20

  /// Whether a file's bytes, and what is made of them, find room: within this process's own limits, and on
  /// the machine as far as the kernel can tell.
  static func hasRoom(for byteCount: Int) -> Bool {
    guard byteCount > alwaysRead else { return true }
    // About as much again is made of them. Without a write it takes no memory.
    let wanted = 2 * byteCount
    let probe = unsafe mmap(
      nil, wanted, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let probe = unsafe probe, unsafe probe != MAP_FAILED else { return false }
    unsafe munmap(probe, wanted)
    return availableByteCount.map { byteCount <= $0 } ?? true
  }

  /// What the machine can give without anything being ended for it; `nil` where that is not told.
  private static var availableByteCount: Int? {
    guard let bytes = try? contents(ofFile: "/proc/meminfo", limit: 65536) else { return nil }
    let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n")
    func value(_ name: String) -> Int? {
      lines.first { $0.hasPrefix(name + ":") }
        .flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Int($0) }
    }
    return value("MemAvailable").map { ($0 + (value("SwapFree") ?? 0)) * 1024 }
  }
}
