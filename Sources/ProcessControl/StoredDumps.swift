// SPDX-License-Identifier: Apache-2.0
// The dumps that are kept on this machine: listed, salvaged and removed, in directories of others too.

import Glibc

/// A directory with dumps in it, which may be somebody else's.
///
/// Only its root is opened by name. From there no link is followed: whoever owns a directory in
/// /var/lib/heaptap or /var/tmp may put one in its place at any time.
public struct DumpDirectory: Hashable, Sendable {
  /// Absolute and without links.
  private let root: String
  private let components: [String]

  public var path: String { ([root == "/" ? "" : root] + components).joined(separator: "/") }

  private init(_ root: String, _ components: [String] = []) {
    self.root = root
    self.components = components
  }

  /// Looked into at most: somebody might make directories until root's command gives up.
  private static let countLimit = 4096

  /// The directories to look in, those that are not there left out.
  ///
  /// - Parameter directory: Look only here and in what is below; else in `HEAPTAP_DIR`,
  ///   /var/lib/heaptap and /var/tmp/heaptap-<uid>; for root in those of all users.
  public static func all(
    _ directory: String?, environment: ProcessEnvironment, userID: uid_t = geteuid()
  ) throws(ProcessControlError) -> [DumpDirectory] {
    if let directory {
      do throws(SystemError) {
        return DumpDirectory(try resolvedPath(directory)).withDirectoriesBelow
      } catch {
        throw ProcessControlError(
          .noDump, "cannot look for dumps in '\(directory.plainText)': \(error.words)")
      }
    }
    var found: [DumpDirectory] = []
    if let own = environment["HEAPTAP_DIR"], let path = try? resolvedPath(own) {
      found += DumpDirectory(path).withDirectoriesBelow
    }
    if let path = try? resolvedPath(DumpDirectories.system) {
      let shared = DumpDirectory(path)
      found += shared.withDirectoriesBelow
      // Mode 1733 lets us in, and does not let us look around.
      let own = DumpDirectory(path, ["\(userID)"])
      if own.isBelievable { found.append(own) }
    }
    let prefix = "heaptap-"
    let temporary =
      userID == 0
      ? ((try? names(inDirectory: "/var/tmp")) ?? []).sorted().filter { $0.hasPrefix(prefix) }
      : ["\(prefix)\(userID)"]
    found += temporary.map { DumpDirectory("/var/tmp", [$0]) }.filter { directory in
      uid_t(directory.components[0].dropFirst(prefix.count)).map {
        directory.status?.st_uid == $0
      } ?? false
    }
    var seen: Set<DumpDirectory> = []
    return found.filter { seen.insert($0).inserted }
  }

  /// This directory, and two levels below: of users, of units, and of users in those of units.
  private var withDirectoriesBelow: [DumpDirectory] {
    var found = [self]
    var level = [self]
    for _ in 0..<2 {
      level = level.flatMap { $0.directoriesBelow }
      found += level.prefix(Self.countLimit - min(found.count, Self.countLimit))
    }
    return found
  }

  private var directoriesBelow: [DumpDirectory] {
    guard let handle = try? open() else { return [] }
    let names = handle.names.sorted().prefix(Self.countLimit)
    return names.filter { handle.status($0).map { $0.st_mode & S_IFMT == S_IFDIR } ?? false }
      .map { DumpDirectory(root, components + [$0]) }
      .filter { $0.isBelievable }
  }

  /// A directory that is called by a user's number and is another's was made to be taken for that
  /// user's.
  private var isBelievable: Bool {
    guard let status else { return false }
    return components.last.flatMap { uid_t($0) }.map { $0 == status.st_uid } ?? true
  }

  private var status: stat? {
    guard let handle = try? open() else { return nil }
    return handle.status
  }

  fileprivate func open() throws(SystemError) -> DirectoryHandle {
    // Mode 1733 lets others pass, and not look: what is on the way is opened for that only.
    let pathOnly: Int32 = 0o10000000  // O_PATH
    let flags = O_DIRECTORY | O_CLOEXEC
    var descriptor = unsafe Glibc.open(root, flags | (components.isEmpty ? O_RDONLY : pathOnly))
    if descriptor < 0 { throw .last }
    for (number, component) in components.enumerated() {
      let isLast = number == components.count - 1
      let next = unsafe openat(
        descriptor, component, flags | O_NOFOLLOW | (isLast ? O_RDONLY : pathOnly))
      let error = SystemError.last
      close(descriptor)
      if next < 0 { throw error }
      descriptor = next
    }
    return DirectoryHandle(descriptor)
  }

  /// The dumps in this directory, partial ones too, in no order.
  ///
  /// Files that are nobody's dump are left out: links, pipes, and what belongs to neither the
  /// directory's owner nor is in a directory of root's.
  public var dumps: [StoredDump] {
    guard let handle = try? open(), let directory = handle.status else { return [] }
    return handle.names.compactMap { name in
      let path = path == "/" ? "/\(name)" : "\(path)/\(name)"
      guard let file = DumpFile(path: path) ?? DumpFile(partialPath: path),
        let status = handle.status(name), status.st_mode & S_IFMT == S_IFREG,
        status.st_uid == directory.st_uid || directory.st_uid == 0
      else { return nil }
      return StoredDump(file: file, directory: self, name: name, status: status)
    }
  }
}

/// A dump as it lay on disk when it was looked at.
public struct StoredDump: Sendable {
  public let file: DumpFile
  public let directory: DumpDirectory
  public let byteCount: Int
  public let ownerID: uid_t
  /// The same file under another path has the same identity.
  public let identity: FileIdentity
  private let name: String

  fileprivate init(file: DumpFile, directory: DumpDirectory, name: String, status: stat) {
    self.file = file
    self.directory = directory
    self.name = name
    byteCount = Int(status.st_size)
    ownerID = status.st_uid
    identity = FileIdentity(status)
  }

  /// Which file, whatever its path.
  public struct FileIdentity: Hashable, Sendable {
    private let device: UInt64
    private let number: UInt64

    fileprivate init(_ status: stat) {
      device = UInt64(status.st_dev)
      number = UInt64(status.st_ino)
    }

    /// Of a file that is there, a link not followed.
    public init?(path: String) {
      var status = stat()
      guard unsafe lstat(path, &status) == 0 else { return nil }
      self.init(status)
    }
  }

  /// Removes the file, if it still is the one that was looked at.
  public func remove() throws(ProcessControlError) {
    do throws(SystemError) {
      let handle = try sameFile()
      if unsafe unlinkat(handle.descriptor, name, 0) != 0 { throw .last }
    } catch {
      throw ProcessControlError(
        .cannotRun, "cannot remove '\(file.path.plainText)': \(error.words)")
    }
  }

  /// Gives a partial dump the name that it would have got; never takes another file's place.
  public func salvage() throws(ProcessControlError) {
    do throws(SystemError) {
      let handle = try sameFile()
      let final = String(name.dropLast(DumpFile.partialSuffix.count))
      // A link and not rename, which would replace.
      let result = unsafe linkat(handle.descriptor, name, handle.descriptor, final, 0)
      if result != 0 { throw .last }
      if unsafe unlinkat(handle.descriptor, name, 0) != 0 { throw .last }
    } catch {
      throw ProcessControlError(
        .cannotRun,
        "cannot rename '\(file.path.plainText)' to '\(file.finalPath.plainText)': \(error.words)")
    }
  }

  private func sameFile() throws(SystemError) -> DirectoryHandle {
    let handle = try directory.open()
    guard let now = handle.status(name), now.st_mode & S_IFMT == S_IFREG,
      FileIdentity(now) == identity
    else { throw SystemError(ENOENT) }
    return handle
  }

  /// Who may still be at work on a partial dump.
  public enum Writer: Equatable, Sendable {
    /// The process that it is named after is there and carries the tracer.
    case process(Int32)
    /// Somebody has the file open for writing: a process that is seen from here by another number.
    case somebody
    /// Nobody: it was left by a kill.
    case none
  }

  /// Who may still be at work on this dump.
  ///
  /// - Parameter isOfThisBoot: Whether the dump's header names this boot: a process of another is
  ///   gone, whoever has its number now.
  public func writer(isOfThisBoot: Bool) -> Writer {
    if isOfThisBoot {
      let facts = ProcessFacts(pid: file.pid)
      // One that may not be looked at may be the one.
      if facts.exists, (try? facts.isTracerMapped()) ?? true, facts.status.state != "Z" {
        return .process(file.pid)
      }
    }
    return isOpenForWriting ? .somebody : .none
  }

  /// The kernel gives a read lease only where nobody has a file open for writing, in whatever
  /// container. On file systems that know no leases, the process's number has to do.
  private var isOpenForWriting: Bool {
    guard let handle = try? sameFile() else { return true }
    let descriptor = unsafe openat(
      handle.descriptor, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { return true }
    defer { close(descriptor) }
    // Whoever opens it in this moment makes the kernel send this signal, which is death by default.
    let before = signal(SIGIO, SIG_IGN)
    defer { _ = signal(SIGIO, before) }
    let setLease: Int32 = 1024
    guard fcntl(descriptor, setLease, Int32(F_RDLCK)) != 0 else {
      _ = fcntl(descriptor, setLease, Int32(F_UNLCK))
      return false
    }
    return errno == EAGAIN
  }
}

extension DumpFile {
  /// The systemd unit of the process that wrote the dump, by its control group; `nil` where it has
  /// ended, or is another user's than the dump's.
  public func unitOfLivingProcess(ofUser userID: uid_t) -> String? {
    guard let handle = try? ProcessHandle(pid) else { return nil }
    let facts = ProcessFacts(pid: pid)
    guard facts.status.userID == userID, (try? facts.isTracerMapped()) == true else { return nil }
    let unit = facts.controlGroups.unit
    return handle.isAlive ? unit : nil
  }
}

/// An open directory.
private final class DirectoryHandle {
  let descriptor: Int32

  init(_ descriptor: Int32) { self.descriptor = descriptor }
  deinit { close(descriptor) }

  var status: stat? {
    var status = stat()
    return unsafe fstat(descriptor, &status) == 0 ? status : nil
  }

  /// Of a name in the directory, a link not followed.
  func status(_ name: String) -> stat? {
    var status = stat()
    let result = unsafe fstatat(descriptor, name, &status, AT_SYMLINK_NOFOLLOW)
    return result == 0 ? status : nil
  }

  /// By way of /proc: the directory behind the descriptor, whatever has its name by now.
  var names: [String] {
    (try? ProcessControl.names(inDirectory: "/proc/self/fd/\(descriptor)")) ?? []
  }
}
