// SPDX-License-Identifier: Apache-2.0
// The one gate to the kernel: what Glibc does not offer to Swift, and files read without trust.

import Glibc

/// An errno, captured before anything else could change it.
package struct SystemError: Error, Equatable {
  package let code: Int32

  package init(_ code: Int32) { self.code = code }
  package static var last: SystemError { SystemError(errno) }

  /// strerror(3)'s words, beginning in lower case so that they fit after a colon.
  package var words: String {
    guard let text = unsafe strerror(code) else { return "error \(code)" }
    let whole = unsafe String(cString: text)
    // "Input/output error" and the like: no errno's words begin with a proper name.
    return whole.prefix(1).lowercased() + whole.dropFirst()
  }
}

/// The kernel's numbers and names that Swift's view of Glibc leaves out.
enum Kernel {
  #if arch(x86_64)
    static let futex = 202
    static let getxattr = 191
    static let getCapabilities = 125
    static let setCapabilities = 126
  #elseif arch(arm64)
    static let futex = 98
    static let getxattr = 8
    static let getCapabilities = 90
    static let setCapabilities = 91
  #else
    #error("heaptap runs on x86-64 and arm64")
  #endif
  static let pidfdSendSignal = 424
  static let pidfdOpen = 434

  static let futexWait = 0
  static let futexWake = 1
  static let getSeals: Int32 = 1034
  static let sealShrink: Int32 = 2
  static let sealGrow: Int32 = 4
}

typealias SystemCall = @convention(c) (Int, Int, Int, Int, Int, Int, Int) -> Int

// Swift does not import variadic functions. syscall(2) takes its arguments in registers, variadic
// or not, on both architectures, so it is called through a type that says how many there are.
let systemCall: SystemCall = unsafe unsafeBitCast(
  dlsym(nil, "syscall"), to: SystemCall.self)

func openProcessDescriptor(_ pid: Int32) throws(SystemError) -> Int32 {
  let descriptor = systemCall(Kernel.pidfdOpen, Int(pid), 0, 0, 0, 0, 0)
  if descriptor < 0 { throw .last }
  return Int32(descriptor)
}

/// Sends a signal with a value, as sigqueue(3) does, to the process behind a pidfd and no other.
func queueSignal(_ signal: Int32, value: Int, to processDescriptor: Int32) throws(SystemError) {
  // siginfo_t, which Swift sees as an opaque union: signal, errno, code, then from byte 16 the
  // sender's pid and uid and the value. The kernel wants all 128 bytes.
  let result = unsafe withUnsafeTemporaryAllocation(byteCount: 128, alignment: 8) { info in
    unsafe info.initializeMemory(as: UInt8.self, repeating: 0)
    unsafe info.storeBytes(of: signal, toByteOffset: 0, as: Int32.self)
    unsafe info.storeBytes(of: -1 /* SI_QUEUE */, toByteOffset: 8, as: Int32.self)
    unsafe info.storeBytes(of: getpid(), toByteOffset: 16, as: Int32.self)
    unsafe info.storeBytes(of: getuid(), toByteOffset: 20, as: UInt32.self)
    unsafe info.storeBytes(of: value, toByteOffset: 24, as: Int.self)
    return systemCall(
      Kernel.pidfdSendSignal, Int(processDescriptor), Int(signal),
      Int(bitPattern: info.baseAddress), 0, 0, 0)
  }
  if result < 0 { throw .last }
}

/// Sleeps while the word holds `value`, at most for the time given. May also return early.
func futexWait(_ word: UnsafeMutableRawPointer, while value: UInt32, milliseconds: Int) {
  var limit = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
  unsafe withUnsafePointer(to: &limit) { limit in
    // Not FUTEX_PRIVATE: the other side is another process.
    _ = systemCall(
      Kernel.futex, Int(bitPattern: word), Kernel.futexWait, Int(value),
      Int(bitPattern: limit), 0, 0)
  }
}

func futexWakeAll(_ word: UnsafeMutableRawPointer) {
  _ = systemCall(
    Kernel.futex, Int(bitPattern: word), Kernel.futexWake, Int(Int32.max), 0, 0, 0)
}

/// CLOCK_MONOTONIC in nanoseconds.
func monotonicNanoseconds() -> Int64 {
  var now = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &now)
  return Int64(now.tv_sec) * 1_000_000_000 + Int64(now.tv_nsec)
}

/// Opens without waiting for the other end of a pipe and without taking a terminal.
func openFile(_ path: String, _ mode: Int32) throws(SystemError) -> Int32 {
  let descriptor = unsafe open(path, mode | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
  if descriptor < 0 { throw .last }
  return descriptor
}

package func isAccessible(_ path: String, _ mode: Int32 = F_OK) -> Bool {
  unsafe access(path, mode) == 0
}

/// Whether the kernel gives a program capabilities for its file's sake.
func hasFileCapabilities(_ path: String) -> Bool {
  unsafe path.withCString { path in
    unsafe "security.capability".withCString { name in
      systemCall(Kernel.getxattr, Int(bitPattern: path), Int(bitPattern: name), 0, 0, 0, 0) > 0
    }
  }
}

/// The path without links, `.` or `..`.
package func resolvedPath(_ path: String) throws(SystemError) -> String {
  guard let resolved = unsafe realpath(path, nil) else { throw .last }
  defer { unsafe free(resolved) }
  return unsafe String(cString: resolved)
}

/// The bytes of a file, at most `limit` of them: the files read here are other people's.
package func contents(ofFile path: String, limit: Int = 1 << 20) throws(SystemError) -> [UInt8] {
  let descriptor = try openFile(path, O_RDONLY)
  defer { close(descriptor) }
  return try bytes(behind: descriptor, expected: 0, limit: limit)
}

/// Reads to the end or the limit. What is expected saves copying, and is otherwise not believed.
package func bytes(
  behind descriptor: Int32, expected: Int, limit: Int
) throws(SystemError) -> [UInt8] {
  var bytes: [UInt8] = []
  bytes.reserveCapacity(min(max(expected, 0), limit, 1 << 30))
  var chunk = [UInt8](repeating: 0, count: 65536)
  while bytes.count < limit {
    let count = unsafe read(descriptor, &chunk, min(chunk.count, limit - bytes.count))
    if count < 0 {
      if errno == EINTR { continue }
      throw .last
    }
    if count == 0 { break }
    bytes.append(contentsOf: chunk[..<count])
  }
  return bytes
}

/// The names in a directory but `.` and `..`, in the directory's order.
package func names(inDirectory path: String) throws(SystemError) -> [String] {
  guard let directory = unsafe opendir(path) else { throw .last }
  defer { unsafe closedir(directory) }
  var names: [String] = []
  while let entry = unsafe readdir(directory) {
    let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { name in
      unsafe name.withMemoryRebound(to: CChar.self, capacity: 256) { unsafe String(cString: $0) }
    }
    if name != "." && name != ".." { names.append(name) }
  }
  return names
}

/// Where a symbolic link points, without following it.
func destination(ofLink path: String) throws(SystemError) -> String {
  var buffer = [UInt8](repeating: 0, count: 4096)
  let count = unsafe buffer.withUnsafeMutableBytes { bytes in
    unsafe readlink(path, bytes.assumingMemoryBound(to: CChar.self).baseAddress!, bytes.count)
  }
  if count < 0 { throw .last }
  return String(decoding: buffer[..<count], as: UTF8.self)
}

package func status(ofFile path: String) throws(SystemError) -> stat {
  var status = stat()
  if unsafe stat(path, &status) != 0 { throw .last }
  return status
}
