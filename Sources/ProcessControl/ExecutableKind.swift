// SPDX-License-Identifier: Apache-2.0
// Whether the dynamic loader will heed LD_PRELOAD for a program, by its file.

import Glibc

/// What keeps a program from loading a preloaded library, as far as its file shows.
public enum PreloadObstacle: Equatable, Sendable {
  /// There is no dynamic loader to ask.
  case staticallyLinked
  /// The loader ignores LD_PRELOAD for programs that gain privileges.
  case privileged
  /// Its loader is not glibc's.
  case foreignLoader(String)
  /// Its loader is that of a glibc which lacks what the library needs.
  case oldLoader(String)
  /// Another word size or processor.
  case foreignMachine

  public var words: String {
    switch self {
    case .staticallyLinked: "it is statically linked, so nothing can be preloaded into it"
    case .privileged:
      "it is set-user-ID or set-group-ID, or has file capabilities, for which the loader ignores"
        + " LD_PRELOAD"
    case .foreignLoader(let loader):
      "its loader is '\(loader.plainText)', and libheaptap.so needs glibc's"
    case .oldLoader(let loader):
      "its loader '\(loader.plainText)' is of a glibc before 2.35, which libheaptap.so needs"
    case .foreignMachine: "it is built for another processor than libheaptap.so"
    }
  }

  /// Who runs a program: that decides whether its file gives it privileges.
  public struct Runner: Sendable {
    /// `nil` where nobody knows yet, so that every set-ID bit changes it.
    public var userID: UInt32?
    public var groupID: UInt32?
    /// Not where `NoNewPrivileges=` is set: then the bits and capabilities of the file do nothing.
    public var gainsPrivileges = true

    public init(userID: UInt32?, groupID: UInt32?, gainsPrivileges: Bool = true) {
      self.userID = userID
      self.groupID = groupID
      self.gainsPrivileges = gainsPrivileges
    }

    public static var thisProcess: Runner { Runner(userID: geteuid(), groupID: getegid()) }
  }

  /// Looks at a program, following `#!` to its interpreter.
  public init?(program path: String, run runner: Runner = .thisProcess) {
    var path = path
    // As deep as the kernel goes.
    for _ in 0..<5 {
      guard let head = try? contents(ofFile: path, limit: 65536) else { return nil }
      guard head.starts(with: "#!".utf8) else {
        guard let obstacle = Self(elf: head) ?? Self.privileges(path, runner) ?? Self.age(head)
        else { return nil }
        self = obstacle
        return
      }
      let line = head.dropFirst(2).prefix { $0 != UInt8(ascii: "\n") }
      let words = line.split { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: "\t") }
      guard let interpreter = words.first else { return nil }
      path = String(decoding: interpreter, as: UTF8.self)
    }
    return nil
  }

  private static func privileges(_ path: String, _ runner: Runner) -> PreloadObstacle? {
    guard runner.gainsPrivileges, let file = try? status(ofFile: path) else { return nil }
    let changesUser = file.st_mode & S_ISUID != 0 && file.st_uid != runner.userID
    let changesGroup = file.st_mode & S_ISGID != 0 && file.st_gid != runner.groupID
    // Root has them anyway, and the loader trusts it.
    let hasCapabilities = runner.userID != 0 && hasFileCapabilities(path)
    return changesUser || changesGroup || hasCapabilities ? .privileged : nil
  }

  /// Whether the loader has the version of glibc's interface that the library was linked to: without
  /// it the loader ends the program.
  private static func age(_ head: [UInt8]) -> PreloadObstacle? {
    guard case .loader(let path) = Kind(elf: head),
      let loader = try? contents(ofFile: path, limit: 16 << 20)
    else { return nil }
    // Names of versions are strings like others.
    let version = Array("GLIBC_2.35".utf8)
    return loader.split(separator: 0).contains { $0.elementsEqual(version) }
      ? nil : .oldLoader(path)
  }

  /// Looks at an ELF file's head; what is not ELF is left to the kernel to refuse.
  init?(elf head: [UInt8]) {
    switch Kind(elf: head) {
    case .unknown: return nil
    case .foreignMachine: self = .foreignMachine
    case .staticallyLinked: self = .staticallyLinked
    case .loader(let loader):
      // glibc's are named ld-linux-x86-64.so.2 and ld-linux-aarch64.so.1; musl's ld-musl-….
      if loader.contains("/ld-linux") { return nil }
      self = .foreignLoader(loader)
    }
  }
}

/// What an ELF file's head says of how it is run.
private enum Kind {
  case unknown, foreignMachine, staticallyLinked
  /// The path of the loader that it names.
  case loader(String)

  init(elf head: [UInt8]) {
    self = .unknown
    func number(_ offset: Int, _ byteCount: Int) -> Int? {
      guard offset >= 0, offset <= head.count - byteCount else { return nil }
      let value = (0..<byteCount).reduce(UInt64(0)) { $0 | UInt64(head[offset + $1]) << (8 * $1) }
      return Int(exactly: value)
    }
    guard head.starts(with: [0x7f, 0x45, 0x4c, 0x46]) else { return }
    #if arch(x86_64)
      let ourMachine = 62
    #else
      let ourMachine = 183
    #endif
    // Class 64, little-endian, e_machine.
    guard number(4, 1) == 2, number(5, 1) == 1, number(18, 2) == ourMachine else {
      self = .foreignMachine
      return
    }
    guard let table = number(32, 8), let entrySize = number(54, 2), let count = number(56, 2),
      table < head.count
    else { return }
    for index in 0..<count {
      let entry = table + index * entrySize
      guard let type = number(entry, 4) else { return }
      guard type == 3 /* PT_INTERP */ else { continue }
      guard let offset = number(entry + 8, 8), let byteCount = number(entry + 32, 8),
        byteCount > 0, offset < head.count, byteCount <= head.count - offset
      else { return }
      let name = head[offset..<(offset + byteCount)].prefix { $0 != 0 }
      self = .loader(String(decoding: name, as: UTF8.self))
      return
    }
    self = .staticallyLinked
  }
}
