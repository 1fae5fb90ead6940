// SPDX-License-Identifier: Apache-2.0
// What was found once, by build ID, so that it is not looked for again.

import Glibc

/// Keeps what symbolication found, in a directory of the user's own, one file for a build ID.
///
/// A build ID names the code, so what is known by it stays right: when the binary is upgraded or its
/// container is gone, and below whatever root it was found. Names without lines are different, since
/// there may be lines tomorrow: they hold only while everything is as it was where debug information
/// was looked for (see `Circumstances`). Answers about files without a build ID, from damaged debug
/// information, or from what a worker did not survive, are not kept.
///
/// Never a reason to fail. What cannot be read, was cut short, or comes from another build of the
/// program is as if it were not there, and what cannot be written is not. Any number of processes
/// may use one directory: files appear whole, and where two write at once, one's findings are found
/// again another day. When there is more than `byteCountLimit`, what was not used for longest goes.
public struct SymbolCache: Sendable, Equatable {
  /// Of all files together, in bytes.
  public static let byteCountLimit = 256 << 20
  /// Of one file, in bytes: some hundred thousand frames. More is not kept.
  static let fileByteCountLimit = 64 << 20

  /// Where the directory `heaptap` is, or is made.
  let parent: String
  /// Which program found it: another one may name or cut functions in another way.
  let maker: String
  let byteCountLimit: Int

  /// The user's cache: in `XDG_CACHE_HOME`, else in `.cache` below `HOME`.
  ///
  /// - Parameters:
  ///   - maker: What changes with every build of the program.
  ///   - variable: The value of a variable of the environment.
  /// - Returns: `nil` where neither variable has an absolute path.
  public init?(maker: String, variable: (String) -> String?) {
    func directory(_ name: String, _ below: String) -> String? {
      // By its specification, XDG_CACHE_HOME counts as not set where it is relative.
      variable(name).flatMap { $0.hasPrefix("/") ? $0 + below : nil }
    }
    guard let parent = directory("XDG_CACHE_HOME", "") ?? directory("HOME", "/.cache") else {
      return nil
    }
    self.init(parent: parent, maker: maker)
  }

  init(parent: String, maker: String, byteCountLimit: Int = Self.byteCountLimit) {
    self.parent = parent
    self.maker = maker
    self.byteCountLimit = byteCountLimit
  }

  // MARK: Reading and writing

  /// What is known of a file; `nil` if nothing is, or it has no build ID.
  func known(about file: Subject) -> KnownCalls? {
    guard let name = file.name, let directory = openDirectory(making: false),
      let bytes = Self.contents(of: name, in: directory)
    else { return nil }
    return try? KnownCalls(file: bytes, maker: maker, subject: file)
  }

  /// Keeps what is known of a file, in the place of what was.
  func keep(_ known: KnownCalls, about file: Subject) {
    guard let name = file.name else { return }
    let bytes = known.file(maker: maker, subject: file)
    guard bytes.count <= min(Self.fileByteCountLimit, byteCountLimit),
      let directory = openDirectory(making: true),
      Self.write(bytes, to: name, in: directory)
    else { return }
    Self.tidy(directory, to: byteCountLimit)
  }

  /// What a file's entry is called by.
  struct Subject: Equatable {
    var buildID: String
    var style: Demangler.Style

    /// `nil` where there is no build ID: it comes from a dump, and whatever is no hexadecimal number
    /// might be a way to some other file.
    fileprivate var name: String? {
      let isBuildID = buildID.utf8.allSatisfy {
        (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
          || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0)
      }
      guard isBuildID, (8...128).contains(buildID.utf8.count) else { return nil }
      return buildID + (style == .full ? ".full-names" : ".names")
    }
  }

  // MARK: The directory

  /// The directory, if it is ours alone.
  ///
  /// Root that was given another user's `HOME`, as some configurations of sudo do, leaves nothing in
  /// it: the user could neither use nor remove it.
  private func openDirectory(making: Bool) -> Descriptor? {
    if making {
      guard Self.make(parent) else { return nil }
      unsafe mkdir(parent + "/heaptap", 0o700)
    }
    guard Self.isTrusted(parent) else { return nil }
    let number = unsafe open(parent + "/heaptap", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
    guard number >= 0 else { return nil }
    let directory = Descriptor(number)
    var status = stat()
    guard unsafe fstat(number, &status) == 0, status.st_uid == geteuid(),
      status.st_mode & 0o022 == 0
    else { return nil }
    return directory
  }

  /// Makes a directory and those above it, if the nearest that is there is this user's or root's.
  private static func make(_ path: String) -> Bool {
    var status = stat()
    if unsafe stat(path, &status) == 0 { return isTrusted(path) }
    guard let slash = path.lastIndex(of: "/"), slash > path.startIndex else { return false }
    let above = String(path[..<slash])
    guard above.hasPrefix("/"), make(above) else { return false }
    return unsafe mkdir(path, 0o700) == 0 || errno == EEXIST
  }

  private static func isTrusted(_ path: String) -> Bool {
    var status = stat()
    return unsafe stat(path, &status) == 0
      && (status.st_uid == geteuid() || status.st_uid == 0)
  }

  private static func contents(of name: String, in directory: borrowing Descriptor) -> [UInt8]? {
    let number = unsafe openat(
      directory.number, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK)
    guard number >= 0 else { return nil }
    let file = Descriptor(number)
    var status = stat()
    guard unsafe fstat(number, &status) == 0, status.st_mode & S_IFMT == S_IFREG,
      status.st_uid == geteuid(), (0...fileByteCountLimit).contains(Int(status.st_size))
    else { return nil }
    let byteCount = Int(status.st_size)
    var filled = 0
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
      while filled < byteCount {
        let read = unsafe pread(
          file.number, buffer.baseAddress! + filled, byteCount - filled, off_t(filled))
        if read < 0, errno == EINTR { continue }
        guard read > 0 else { break }
        filled += read
      }
      count = filled
    }
    // What is used stays longest. Once an hour will do.
    if status.st_mtim.tv_sec < time(nil) - 3600 { futimens(number, nil) }
    return filled == byteCount ? bytes : nil
  }

  private static let unfinishedPrefix = ".unfinished-"

  private static func write(
    _ bytes: [UInt8], to name: String, in directory: borrowing Descriptor
  ) -> Bool {
    let unfinished = "\(unfinishedPrefix)\(getpid())-\(name)"
    // Left by a process of the same number.
    unsafe unlinkat(directory.number, unfinished, 0)
    let number = unsafe openat(
      directory.number, unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
      mode_t(0o600))
    guard number >= 0 else { return false }
    let file = Descriptor(number)
    var written = 0
    while written < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe Glibc.write(
          file.number, buffer.baseAddress! + written, bytes.count - written)
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { break }
      written += count
    }
    // Not synchronised: what a crash of the machine leaves is recognised by its checksum.
    if written == bytes.count,
      unsafe renameat(directory.number, unfinished, directory.number, name) == 0
    {
      return true
    }
    unsafe unlinkat(directory.number, unfinished, 0)
    return false
  }

  /// Removes the oldest files while all together are larger than the limit, and what processes that
  /// were killed have left.
  private static func tidy(_ directory: borrowing Descriptor, to byteCountLimit: Int) {
    // The stream takes its descriptor, and its place in the directory, for itself.
    let copy = unsafe openat(directory.number, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard copy >= 0 else { return }
    guard let stream = unsafe fdopendir(copy) else {
      close(copy)
      return
    }
    defer { unsafe closedir(stream) }
    var files: [(name: String, byteCount: Int, used: timespec)] = []
    let now = time(nil)
    while let entry = unsafe readdir(stream) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) {
        unsafe $0.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
      }
      var status = stat()
      guard unsafe fstatat(directory.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0,
        status.st_mode & S_IFMT == S_IFREG
      else { continue }
      if name.hasPrefix(unfinishedPrefix), status.st_mtim.tv_sec < now - 3600 {
        unsafe unlinkat(directory.number, name, 0)
      } else {
        files.append((name, Int(status.st_size), status.st_mtim))
      }
    }
    var byteCount = files.reduce(0) { $0 + $1.byteCount }
    guard byteCount > byteCountLimit else { return }
    files.sort { ($0.used.tv_sec, $0.used.tv_nsec) < ($1.used.tv_sec, $1.used.tv_nsec) }
    // Some more than needed, so that not every command has to.
    for file in files where byteCount > byteCountLimit / 4 * 3 {
      unsafe unlinkat(directory.number, file.name, 0)
      byteCount -= file.byteCount
    }
  }
}

// MARK: What is known

/// The calls at some offsets of a file.
struct KnownCalls: Equatable {
  /// Sorted, each once.
  private(set) var offsets: [UInt64]
  /// What lies at each of them, and what there was to tell.
  private(set) var answer: ModuleAnswer
  /// What it hangs on that this is all that can be known; `nil` where nothing can make it better.
  private(set) var circumstances: UInt64?

  /// An answer that is worth keeping; `nil` where it is not.
  init?(offsets: [UInt64], answer: ModuleAnswer, circumstances: UInt64) {
    switch answer.findings {
    case []: self.circumstances = nil
    case [.noDebugInformation]: self.circumstances = circumstances
    // Nothing was found, or it may be mended, or the path alone was believed.
    default: return nil
    }
    self.offsets = offsets
    self.answer = answer
  }

  /// What an answer has at those offsets that it knows anything of, for a merger.
  init(of answer: ModuleAnswer, at offsets: [UInt64]) {
    let named = offsets.indices.filter { !answer.calls[$0].isEmpty }
    self.offsets = named.map { offsets[$0] }
    self.answer = ModuleAnswer(offsetCount: 0)
    self.answer.calls = named.map { answer.calls[$0] }
  }

  /// Whether nothing can make it better.
  var isFinal: Bool { circumstances == nil }

  func holds(under current: UInt64) -> Bool { circumstances == nil || circumstances == current }

  /// Those of the offsets that are not known; both are sorted.
  func missing(of wanted: [UInt64]) -> [UInt64] {
    var missing: [UInt64] = []
    var position = 0
    for offset in wanted {
      while position < offsets.count, offsets[position] < offset { position += 1 }
      if position == offsets.count || offsets[position] != offset { missing.append(offset) }
    }
    return missing
  }

  /// With what was found since, which wins where both know.
  func merged(with newer: KnownCalls) -> KnownCalls {
    var merged = self
    merged.offsets.removeAll(keepingCapacity: true)
    merged.answer.calls.removeAll(keepingCapacity: true)
    var (old, new) = (0, 0)
    while old < offsets.count || new < newer.offsets.count {
      let isNewer =
        new < newer.offsets.count && (old == offsets.count || newer.offsets[new] <= offsets[old])
      if isNewer {
        if old < offsets.count, offsets[old] == newer.offsets[new] { old += 1 }
        merged.offsets.append(newer.offsets[new])
        merged.answer.calls.append(newer.answer.calls[new])
        new += 1
      } else {
        merged.offsets.append(offsets[old])
        merged.answer.calls.append(answer.calls[old])
        old += 1
      }
    }
    return merged
  }

  /// The calls at sorted offsets, none where they are not known.
  func calls(at wanted: [UInt64]) -> [[Call]] {
    var position = 0
    return wanted.map { offset in
      while position < offsets.count, offsets[position] < offset { position += 1 }
      return position < offsets.count && offsets[position] == offset ? answer.calls[position] : []
    }
  }

  // MARK: As a file

  /// Changes with what follows it in the file.
  private static let magic = "heaptap names 1\n"

  func file(maker: String, subject: SymbolCache.Subject) -> [UInt8] {
    var writer = MessageWriter()
    writer.write(Self.magic)
    writer.write(maker)
    writer.write(subject.buildID)
    writer.write(subject.style.rawValue)
    writer.write(UInt8(circumstances == nil ? 0 : 1))
    writer.write(circumstances ?? 0)
    writer.write(count: offsets.count)
    for offset in offsets { writer.write(offset) }
    var bytes = writer.finished() + answer.message
    let sum = checksum(of: bytes)
    for shift in stride(from: UInt64(0), to: 64, by: 8) {
      bytes.append(UInt8(truncatingIfNeeded: sum >> shift))
    }
    return bytes
  }

  init(
    file: [UInt8], maker: String, subject: SymbolCache.Subject
  ) throws(Garbled) {
    let prefix = MessageReader.prefixByteCount
    guard file.count > 2 * prefix + 8 else { throw Garbled() }
    let end = file.count - 8
    guard checksum(of: file[..<end]) == file[end...].reversed().reduce(0, { $0 << 8 | UInt64($1) }),
      let headByteCount = MessageReader.byteCount(prefix: file[..<prefix]),
      headByteCount <= end - 2 * prefix
    else { throw Garbled() }
    var head = MessageReader(Array(file[prefix..<(prefix + headByteCount)]))
    guard try head.readString() == Self.magic, try head.readString() == maker,
      try head.readString() == subject.buildID, try head.read() == subject.style.rawValue
    else { throw Garbled() }
    let isConditional = try head.read(UInt8.self) != 0
    let condition = try head.read(UInt64.self)
    circumstances = isConditional ? condition : nil
    offsets = []
    for _ in 0..<(try head.readCount()) { offsets.append(try head.read()) }
    try head.finish()
    answer = try ModuleAnswer(message: Array(file[(2 * prefix + headByteCount)..<end]))
    guard answer.calls.count == offsets.count else { throw Garbled() }
  }
}

/// FNV-1a. Tells damage and not malice: nobody else can write to the files.
func checksum(of bytes: some Collection<UInt8>) -> UInt64 {
  bytes.reduce(into: 0xcbf2_9ce4_8422_2325) { $0 = ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
}

// MARK: Circumstances

/// What decides whether debug information would be found: the places where it is looked for.
enum Circumstances {
  /// A number that changes when a debug file may have come: with the binary itself, the directories
  /// beside it and those of debug files below each root, and the servers that are asked. Servers learn
  /// too, so that it changes once a day where there are any.
  static func current(path: String, buildID: String, roots: [String]) -> UInt64 {
    let directory = path.lastIndex(of: "/").map { String(path[..<$0]) } ?? ""
    var places = roots.flatMap { root -> [String] in
      let root = root.asRoot
      let debugFiles = root + "/usr/lib/debug"
      return [
        root + path, root + directory, root + directory + "/.debug", debugFiles + directory,
        "\(debugFiles)/.build-id/\(buildID.prefix(2))",
      ].map { "\($0) \(identity(of: $0))" }
    }
    if let servers = unsafe getenv("DEBUGINFOD_URLS"), unsafe servers.pointee != 0 {
      places.append("\(unsafe String(cString: servers)) \(time(nil) / 86400)")
    }
    return checksum(of: Array(places.joined(separator: "\n").utf8))
  }

  /// A file that changes gets another time; a directory does when a file comes or goes.
  private static func identity(of path: String) -> String {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return "" }
    return "\(status.st_ino) \(status.st_size) \(status.st_mtim.tv_sec).\(status.st_mtim.tv_nsec)"
  }
}
