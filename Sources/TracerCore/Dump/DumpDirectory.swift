// SPDX-License-Identifier: Apache-2.0
// Where dumps go, and why nobody else's directory is ever written to.

import CTracerPlatform

/// What kept a dump from its directory.
enum DirectoryProblem {
  case cannotOpen(Int32)
  case isNotOurs
  case isOpenToAll
  case cannotMake(Int32)
}

/// The directory of this process's dumps.
///
/// A directory that everybody may write to (sticky, like /var/lib/heaptap with mode 1733) gets a
/// subdirectory of our own. No link is followed on the way to it, and owner and mode are read from
/// the open descriptor, so that nobody can put another directory in its place in between.
struct DumpDirectory {
  let descriptor: Int32
  /// The directory that everybody may write to, if this is one in it; else -1.
  private var parent: Int32 = -1

  private init(descriptor: Int32, parent: Int32 = -1) {
    self.descriptor = descriptor
    self.parent = parent
  }

  func close() {
    System.close(descriptor)
    if parent >= 0 { System.close(parent) }
  }

  /// Makes a dump known to who watches the directory that is everybody's, by a name that comes and
  /// goes there: a watch is not told of what happens in the directories inside.
  func ring(process: Int32) {
    guard parent >= 0 else { return }
    var bytes = InlineArray<32, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      var name = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 32)
      name.append(".new-")
      name.append(decimal: UInt64(UInt32(bitPattern: process)))
      let made = System.open(
        name.cString(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600, in: parent)
      if made >= 0 { System.close(made) }
      // Also one that was left by a kill: that it goes is told as well.
      _ = System.call(SYS_unlinkat, Int(parent), Int(bitPattern: name.cString()), 0)
    }
  }

  /// Opens the directory that was asked for, or the default. On failure, `path` names the culprit.
  static func open(
    _ settings: Settings, path: inout TextBuffer
  ) -> (DumpDirectory?, DirectoryProblem) {
    path.clear()
    let user = UInt64(UInt32(truncatingIfNeeded: System.call(SYS_geteuid)))
    if settings.directoryByteCount > 0 {
      for position in 0..<settings.directoryByteCount { path.append(settings.directory[position]) }
      return open(&path, user)
    }
    path.append("/var/lib/heaptap")
    let (found, problem) = open(&path, user)
    if found != nil { return (found, problem) }
    path.clear()
    path.append("/var/tmp/heaptap-")
    path.append(decimal: user)
    let made = System.call(
      SYS_mkdirat, Int(AT_FDCWD), Int(bitPattern: path.cString()), 0o700)
    if made < 0, made != -Int(EEXIST) { return (nil, .cannotMake(Int32(-made))) }
    return open(&path, user)
  }

  private static func open(
    _ path: inout TextBuffer, _ user: UInt64
  ) -> (DumpDirectory?, DirectoryProblem) {
    // Mode 1733 leaves reading it to root.
    let descriptor = System.open(path.cString(), O_DIRECTORY | O_NOFOLLOW | System.pathOnly)
    guard descriptor >= 0 else { return (nil, .cannotOpen(-descriptor)) }
    guard let facts = System.facts(of: descriptor) else { return closing(descriptor, .isNotOurs) }
    if facts.st_mode & 0o1002 == 0o1002 { return openOwn(in: descriptor, &path, user) }
    guard facts.st_mode & 0o002 == 0 else { return closing(descriptor, .isOpenToAll) }
    guard UInt64(facts.st_uid) == user || facts.st_uid == 0 else {
      return closing(descriptor, .isNotOurs)
    }
    // For reading where it may be read: only then can it be synced.
    let itself: StaticString = "."
    let readable = System.open(
      UnsafeRawPointer(itself.utf8Start).assumingMemoryBound(to: CChar.self),
      O_DIRECTORY | O_RDONLY, in: descriptor)
    guard readable >= 0 else { return (DumpDirectory(descriptor: descriptor), .isNotOurs) }
    System.close(descriptor)
    return (DumpDirectory(descriptor: readable), .isNotOurs)
  }

  /// The user's own directory inside one that is everybody's.
  private static func openOwn(
    in parent: Int32, _ path: inout TextBuffer, _ user: UInt64
  ) -> (DumpDirectory?, DirectoryProblem) {
    var digits = InlineArray<24, UInt8>(repeating: 0)
    let (descriptor, problem): (Int32, DirectoryProblem) = withUnsafeMutableBytes(of: &digits) {
      var name = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 24)
      name.append(decimal: user)
      let made = System.call(
        SYS_mkdirat, Int(parent), Int(bitPattern: name.cString()), 0o700)
      if made < 0, made != -Int(EEXIST) { return (-1, .cannotMake(Int32(-made))) }
      let opened = System.open(
        name.cString(), O_DIRECTORY | O_NOFOLLOW | O_RDONLY, in: parent)
      return (opened, .cannotOpen(-opened))
    }
    path.append(0x2f)
    path.append(decimal: user)
    guard descriptor >= 0 else { return closing(parent, problem) }
    guard let facts = System.facts(of: descriptor), UInt64(facts.st_uid) == user,
      facts.st_mode & 0o077 == 0
    else {
      System.close(parent)
      return closing(descriptor, .isNotOurs)
    }
    return (DumpDirectory(descriptor: descriptor, parent: parent), .isNotOurs)
  }

  private static func closing(
    _ descriptor: Int32, _ problem: DirectoryProblem
  ) -> (DumpDirectory?, DirectoryProblem) {
    System.close(descriptor)
    return (nil, problem)
  }
}
