// SPDX-License-Identifier: Apache-2.0
// Files that appear whole or not at all.

import Glibc
import ProcessControl

enum OutputFile {
  /// What a new file may take the place of.
  enum Replaceable {
    case nothing
    case anyFile
    /// This very file, whose owner, mode and times the new one gets.
    case file(stat)
  }

  /// Writes a file under another name in the same directory, and gives it its own at the end.
  static func write(_ bytes: [UInt8], to path: String, replacing replaceable: Replaceable) throws {
    func failure(_ words: String) -> Failure {
      Failure("cannot write '\(path.plainText)': \(words)")
    }
    let place = path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex
    let (parent, name) = (path[..<place].isEmpty ? "." : String(path[..<place]), path[place...])
    guard !name.isEmpty, name != ".", name != ".." else { throw failure("it is a directory") }
    // Held, since others may be able to put a link in its place meanwhile.
    let directory = unsafe open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard directory >= 0 else { throw failure(SystemError.last.words) }
    defer { close(directory) }
    try check(String(name), in: directory, replaceable, path)

    let draft = ".heaptap-\(getpid())-\(UInt32.random(in: .min ... .max))"
    let descriptor = unsafe openat(
      directory, draft, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failure(SystemError.last.words) }
    // After a rename there is nothing to remove any more.
    defer {
      close(descriptor)
      unsafe unlinkat(directory, draft, 0)
    }
    if case .file(let original) = replaceable {
      // The owner first: that takes set-user bits away, and others' right to read comes last.
      if original.st_uid != geteuid() || original.st_gid != getegid(),
        fchown(descriptor, original.st_uid, original.st_gid) != 0
      {
        throw failure("its owner cannot be kept: \(SystemError.last.words); pass --output instead")
      }
      fchmod(descriptor, original.st_mode & 0o777)
    }
    try write(bytes, to: descriptor, failure)
    if case .file(let original) = replaceable {
      // To whoever sorts by it, what was written is no newer than what it is about.
      let times = [original.st_atim, original.st_mtim]
      unsafe futimens(descriptor, times)
    }
    guard fsync(descriptor) == 0 else { throw failure(SystemError.last.words) }

    switch replaceable {
    case .nothing:
      // A link and not rename, which would replace.
      guard unsafe linkat(directory, draft, directory, String(name), 0) == 0 else {
        throw errno == EEXIST ? exists(path) : failure(SystemError.last.words)
      }
    case .anyFile, .file:
      try check(String(name), in: directory, replaceable, path)
      guard unsafe renameat(directory, draft, directory, String(name)) == 0 else {
        throw failure(SystemError.last.words)
      }
    }
  }

  /// The path without links; the file has to be there.
  static func resolved(_ path: String) throws -> String {
    guard let resolved = unsafe realpath(path, nil) else {
      throw Failure("cannot read '\(path.plainText)': \(SystemError.last.words)")
    }
    defer { unsafe free(resolved) }
    return unsafe String(cString: resolved)
  }

  /// What lies at a path, a link not followed.
  static func status(of path: String, in directory: CInt = AT_FDCWD) -> stat? {
    var status = stat()
    return unsafe fstatat(directory, path, &status, AT_SYMLINK_NOFOLLOW) == 0 ? status : nil
  }

  private static func check(
    _ name: String, in directory: CInt, _ replaceable: Replaceable, _ path: String
  ) throws {
    let present = status(of: name, in: directory)
    switch replaceable {
    case .nothing:
      if present != nil { throw exists(path) }
    case .anyFile:
      // A link or a device is never what was meant to go.
      if let present, present.st_mode & S_IFMT != S_IFREG {
        throw Failure("'\(path.plainText)' is no ordinary file, name another one to write to")
      }
    case .file(let original):
      guard let present, present.st_dev == original.st_dev, present.st_ino == original.st_ino,
        present.st_size == original.st_size
      else {
        throw Failure("'\(path.plainText)' has changed meanwhile, so it is left as it is")
      }
    }
  }

  private static func exists(_ path: String) -> Failure {
    Failure("'\(path.plainText)' exists, pass --force to replace it")
  }

  private static func write(
    _ bytes: [UInt8], to descriptor: CInt, _ failure: (String) -> Failure
  ) throws {
    var rest = bytes[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes {
        unsafe Glibc.write(descriptor, $0.baseAddress!, $0.count)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw failure(SystemError.last.words) }
      rest = rest.dropFirst(count)
    }
  }
}
