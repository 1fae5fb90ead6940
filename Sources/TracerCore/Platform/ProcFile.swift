// SPDX-License-Identifier: Apache-2.0
// The kernel's text files, line by line, in memory that was set aside.

import CTracerPlatform

/// Reads a file of lines through a buffer of the caller's. A line longer than the buffer is cut.
struct ProcFile {
  private let descriptor: Int32
  private let buffer: UnsafeMutableRawPointer
  private let capacity: Int
  private var start = 0
  private var end = 0
  private var isAtEnd = false

  /// Opens a file; `nil` where it cannot be read: no /proc, or none of that name.
  init?(_ path: StaticString, _ buffer: UnsafeMutableRawPointer, capacity: Int) {
    self.init(
      path: UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self), buffer,
      capacity: capacity)
  }

  init?(path: UnsafePointer<CChar>, _ buffer: UnsafeMutableRawPointer, capacity: Int) {
    descriptor = System.open(path, O_RDONLY)
    guard descriptor >= 0 else { return nil }
    self.buffer = buffer
    self.capacity = capacity
  }

  func close() { System.close(descriptor) }

  /// The next line without its end; it lies in the buffer until the next call.
  mutating func nextLine() -> UnsafeRawBufferPointer? {
    var scanned = start
    while true {
      while scanned < end {
        if buffer.load(fromByteOffset: scanned, as: UInt8.self) == 0x0a {
          defer { start = scanned &+ 1 }
          return UnsafeRawBufferPointer(start: buffer + start, count: scanned &- start)
        }
        scanned &+= 1
      }
      if isAtEnd || (start == 0 && end == capacity) {
        guard end > start else { return nil }
        defer { start = end }
        return UnsafeRawBufferPointer(start: buffer + start, count: end &- start)
      }
      let kept = end &- start
      buffer.copyMemory(from: buffer + start, byteCount: kept)
      scanned &-= start
      start = 0
      end = kept
      let count = System.read(descriptor, buffer + end, capacity &- end)
      if count <= 0 { isAtEnd = true } else { end &+= count }
    }
  }
}

/// A thread's own file in /proc.
enum ThreadFile {
  /// Appends the path of one of a thread of this process; `name` begins with a slash.
  static func appendPath(of thread: UInt32, _ name: StaticString, to path: inout TextBuffer) {
    path.append("/proc/self/task/")
    path.append(decimal: UInt64(thread))
    path.append(name)
  }

  /// The letter of a thread's state, from its `stat`; `nil` where it has none any more.
  static func state(
    _ path: UnsafePointer<CChar>, _ buffer: UnsafeMutableRawPointer, capacity: Int
  ) -> UInt8? {
    guard var file = ProcFile(path: path, buffer, capacity: capacity) else { return nil }
    defer { file.close() }
    guard let line = file.nextLine() else { return nil }
    // `pid (comm) state`: the name may hold anything, so the last parenthesis ends it.
    var end = line.count &- 1
    while end > 0, line[end] != 0x29 { end &-= 1 }
    return end > 0 && end &+ 2 < line.count ? line[end &+ 2] : nil
  }
}

extension UnsafeRawBufferPointer {
  /// What follows a prefix; `nil` where the bytes do not begin with it.
  func after(_ prefix: StaticString) -> UnsafeRawBufferPointer? {
    guard count >= prefix.utf8CodeUnitCount else { return nil }
    for position in 0..<prefix.utf8CodeUnitCount
    where self[position] != prefix.utf8Start[position] { return nil }
    return UnsafeRawBufferPointer(rebasing: self[prefix.utf8CodeUnitCount...])
  }

  func contains(_ text: StaticString) -> Bool {
    var start = 0
    while start &+ text.utf8CodeUnitCount <= count {
      if dropping(start).after(text) != nil { return true }
      start &+= 1
    }
    return false
  }

  func hasSuffix(_ suffix: StaticString) -> Bool {
    guard count >= suffix.utf8CodeUnitCount else { return false }
    return UnsafeRawBufferPointer(rebasing: self[(count &- suffix.utf8CodeUnitCount)...])
      .after(suffix) != nil
  }

  /// A decimal number after any blanks, and how many bytes it took; 0 bytes where there is none.
  func number(radix: UInt64 = 10) -> (value: UInt64, byteCount: Int) {
    var position = 0
    while position < count, self[position] == 0x20 || self[position] == 0x09 { position &+= 1 }
    var value: UInt64 = 0
    while position < count {
      let byte = self[position]
      let digit: UInt8
      switch byte {
      case 0x30...0x39: digit = byte &- 0x30
      case 0x61...0x66: digit = byte &- 0x61 &+ 10
      default: return (value, position)
      }
      guard UInt64(digit) < radix else { break }
      value = value &* radix &+ UInt64(digit)
      position &+= 1
    }
    return (value, position)
  }

  func dropping(_ byteCount: Int) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(rebasing: self[Swift.min(byteCount, count)...])
  }

  /// The part after the last slash.
  var lastComponent: UnsafeRawBufferPointer {
    var start = count
    while start > 0, self[start &- 1] != 0x2f { start &-= 1 }
    return dropping(start)
  }
}
