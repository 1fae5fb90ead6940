// SPDX-License-Identifier: Apache-2.0
// Where dumps may go, and what happens where they may not or do not fit.

import Foundation
import HeapModel
import Pprof
import ProcessControl
import Testing

@Suite struct DirectoryTests {
  private static let isRoot = getuid() == 0

  private static func mode(_ url: URL) -> mode_t {
    var facts = stat()
    return lstat(url.path, &facts) == 0 ? facts.st_mode & 0o7777 : 0
  }

  /// A guest that records, with four blocks alive, and dumps into a directory.
  private static func guest(_ directory: String, user: uid_t = 0) throws -> Obedient {
    let guest = try Obedient("1", ["HEAPTAP_DIR": directory])
    if user != 0 {
      _ = try guest.armed()
      try guest.tell("user \(user)")
    }
    try guest.start()
    try guest.tell("allocate 4 25")
    return guest
  }

  /// Asks for a dump that cannot be written: one message, nothing on disk, and the guest goes on.
  private static func expectRefusal(
    _ guest: Obedient, _ reason: String, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: reason)
    #expect(guest.messages(with: reason).count == 1, sourceLocation: sourceLocation)
    #expect(try guest.tell("allocate 1 1") == "kept 5", sourceLocation: sourceLocation)
    let armed = try guest.armed()
    #expect(throws: ProcessControlError.self, sourceLocation: sourceLocation) {
      try armed.snapshot(timeout: patience)
    }
    #expect(armed.state == .recording, sourceLocation: sourceLocation)
  }

  @Test func `a dump is its owner's alone`() throws {
    let box = try DumpBox()
    let guest = try Self.guest(box.directory.path)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "4 blocks; written to '\(box.directory.path)/")
    #expect(Self.mode(box.dumps[0]) == 0o600)
  }

  @Test func `a directory that is not there is named, and made use of once it is`() throws {
    let box = try DumpBox()
    let missing = box.directory.appendingPathComponent("later")
    let guest = try Self.guest(missing.path)
    try Self.expectRefusal(guest, "cannot open the directory '\(missing.path)' for dumps")
    mkdir(missing.path, 0o700)
    let path = try guest.armed().snapshot(timeout: patience)
    #expect(path.hasPrefix(missing.path))
  }

  @Test func `a link is not followed`() throws {
    let box = try DumpBox()
    let link = box.directory.appendingPathComponent("link")
    symlink(try DumpBox().directory.path, link.path)
    try Self.expectRefusal(try Self.guest(link.path), "not a directory, or a link")
  }

  @Test func `a directory that everybody may write to is refused`() throws {
    let box = try DumpBox()
    chmod(box.directory.path, 0o777)
    try Self.expectRefusal(try Self.guest(box.directory.path), "has no sticky bit")
    #expect(box.names.isEmpty)
  }

  @Test func `a directory of another user is refused`() throws {
    try #require(Self.isRoot, "only root can give a directory away")
    let box = try DumpBox()
    chown(box.directory.path, 65534, 65534)
    try Self.expectRefusal(try Self.guest(box.directory.path), "belongs to another user")
    #expect(box.names.isEmpty)
  }

  @Test(arguments: [0, 65534] as [uid_t])
  func `in a sticky directory each user has one of its own`(user: uid_t) throws {
    try #require(Self.isRoot, "only root can be several users")
    let box = try DumpBox()
    chmod(box.directory.path, 0o1733)
    let guest = try Self.guest(box.directory.path, user: user)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "written to '\(box.directory.path)/\(user)/")
    let own = box.directory.appendingPathComponent("\(user)")
    #expect(box.names == ["\(user)"])
    #expect(Self.mode(own) == 0o700)
    var facts = stat()
    #expect(stat(own.path, &facts) == 0 && facts.st_uid == user)
  }

  @Test func `a directory that somebody else made in a user's name is refused`() throws {
    try #require(Self.isRoot, "only root can be several users")
    let box = try DumpBox()
    chmod(box.directory.path, 0o1733)
    let trap = box.directory.appendingPathComponent("65534")
    // Of another user, open to others, or a link to somewhere else.
    mkdir(trap.path, 0o700)
    chown(trap.path, 65533, 65533)
    let guest = try Self.guest(box.directory.path, user: 65534)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "for dumps: permission denied")
    chown(trap.path, 65534, 65534)
    chmod(trap.path, 0o770)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "belongs to another user or is open to others")
    rmdir(trap.path)
    symlink(try DumpBox().directory.path, trap.path)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "not a directory, or a link")
    unlink(trap.path)
    let path = try guest.armed().snapshot(timeout: patience)
    #expect(path.hasPrefix(trap.path + "/"))
  }

  @Test func `root does not trust another user's directory in its name`() throws {
    try #require(Self.isRoot, "only root can be several users")
    let box = try DumpBox()
    chmod(box.directory.path, 0o1733)
    let trap = box.directory.appendingPathComponent("0")
    mkdir(trap.path, 0o700)
    chown(trap.path, 65534, 65534)
    try Self.expectRefusal(try Self.guest(box.directory.path), "belongs to another user")
    #expect(try FileManager.default.contentsOfDirectory(atPath: trap.path).isEmpty)
  }

  @Test func `without a common directory there is one in the user's name`() throws {
    try #require(Self.isRoot, "only root can be several users")
    try #require(
      !FileManager.default.fileExists(atPath: "/var/lib/heaptap"), "the common directory is here")
    // A user number that nobody has.
    let user: uid_t = 61000 + uid_t(getpid() % 1000)
    let own = URL(fileURLWithPath: "/var/tmp/heaptap-\(user)")
    defer { try? FileManager.default.removeItem(at: own) }
    let guest = try Self.guest("", user: user)
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "written to '\(own.path)/")
    #expect(Self.mode(own) == 0o700)
  }

  // MARK: No room

  /// A guest in a mount namespace of its own, where a small file system lies on a directory.
  private static func guestOnSmallDisk(
    _ directory: URL, options: String
  ) throws -> Obedient? {
    let probe = try run(["/usr/bin/unshare", "-m", "/bin/true"])
    guard isRoot, probe.status == 0 else { return nil }
    let mount = "mount -t tmpfs -o \(options) tmpfs '\(directory.path)' && exec \"$@\""
    // The shells on the way are not traced: they would be the first to fill the disk.
    return try Obedient(
      "1", ["HEAPTAP_DIR": directory.path, "LD_PRELOAD": ""],
      prefix: ["/usr/bin/unshare", "-m", "/bin/sh", "-c", mount, "sh"]
        + ["/usr/bin/env", "LD_PRELOAD=\(Workshop.library)"])
  }

  static func canMount() -> Bool {
    isRoot && (try? run(["/usr/bin/unshare", "-m", "/bin/true"]).status) == 0
  }

  @Test(.enabled("needs root and mount namespaces") { canMount() })
  func `a full disk costs the dump and nothing else`() throws {
    let box = try DumpBox()
    let guest = try #require(try Self.guestOnSmallDisk(box.directory, options: "size=16k,mode=700"))
    // As the guest sees it: the mount is in its namespace.
    let seen = "/proc/\(guest.pid)/root\(box.directory.path)"
    func names() -> [String] {
      (try? FileManager.default.contentsOfDirectory(atPath: seen))?.sorted() ?? ["?"]
    }
    #expect(
      FileManager.default.createFile(
        atPath: seen + "/ballast", contents: Data(repeating: 1, count: 16384)))
    try guest.start()
    try guest.tell("allocate 4 25")
    try Self.expectRefusal(guest, "no space left on the device")
    #expect(names() == ["ballast"])
    try FileManager.default.removeItem(atPath: seen + "/ballast")
    let path = try guest.armed().snapshot(timeout: patience)
    #expect(path.hasSuffix(names()[0]) && names().count == 1)
  }

  @Test(.enabled("needs root and mount namespaces") { canMount() })
  func `a read-only disk costs the dump and nothing else`() throws {
    let box = try DumpBox()
    let guest = try #require(try Self.guestOnSmallDisk(box.directory, options: "ro,mode=700"))
    try guest.start()
    try guest.tell("allocate 4 25")
    try Self.expectRefusal(guest, "the file system is read-only")
  }

  @Test func `a limit on the size of files costs the dump and nothing else`() throws {
    let box = try DumpBox()
    let guest = try Self.guest(box.directory.path)
    try guest.tell("limit-files 512")
    try Self.expectRefusal(guest, "RLIMIT_FSIZE")
    #expect(box.names.isEmpty)
    try guest.tell("limit-files 100000000")
    let path = try guest.armed().snapshot(timeout: patience)
    let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: path))))
    #expect(snapshot.liveBlocks == 5)
  }
}
