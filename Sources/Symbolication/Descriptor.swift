// SPDX-License-Identifier: Apache-2.0
// File descriptors: every system call of this library that is about one is here.

import Glibc

/// An open file descriptor, closed when it goes.
struct Descriptor: ~Copyable {
  let number: CInt

  init(_ number: CInt) {
    self.number = number
  }

  deinit { close(number) }

  /// Gives the descriptor away, to someone who will close it.
  consuming func release() -> CInt {
    let number = number
    discard self
    return number
  }

  /// Opens a regular file, or says in the operating system's words why not.
  ///
  /// Paths come from dumps, and a pipe or a device at such a path must neither block nor be read.
  static func open(regularFile path: String) throws(SystemError) -> Descriptor {
    let number = unsafe Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
    guard number >= 0 else { throw SystemError(errno) }
    let descriptor = Descriptor(number)
    var status = stat()
    guard unsafe fstat(number, &status) == 0 else { throw SystemError(errno) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw SystemError(EINVAL) }
    return descriptor
  }

  func begins(with bytes: [UInt8]) -> Bool {
    var found = [UInt8](repeating: 0, count: bytes.count)
    return unsafe pread(number, &found, found.count, 0) == bytes.count && found == bytes
  }
}

/// An error number of the operating system.
struct SystemError: Error, Equatable, CustomStringConvertible {
  let code: CInt

  init(_ code: CInt) {
    self.code = code
  }

  /// Nothing lies at the path: the ordinary case where several places are tried.
  var isNotFound: Bool { code == ENOENT || code == ENOTDIR }

  /// Begins in lower case: it stands after a colon.
  var description: String {
    if code == EINVAL { return "not a regular file" }
    var buffer = [CChar](repeating: 0, count: 128)
    guard unsafe strerror_r(code, &buffer, buffer.count) == 0 else { return "error \(code)" }
    let text = buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    let sentence = String(decoding: text, as: UTF8.self)
    return sentence.prefix(1).lowercased() + sentence.dropFirst()
  }
}
