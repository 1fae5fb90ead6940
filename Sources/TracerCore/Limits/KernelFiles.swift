// SPDX-License-Identifier: Apache-2.0
// The kernel's files about memory, read whole or by key, under a root that tests choose.

import CTracerPlatform

/// Files below a root, which is empty but for a captured tree; read through a buffer of the caller's.
package struct KernelFiles {
  private let root: UnsafeRawBufferPointer
  private let buffer: UnsafeMutableRawPointer
  private let capacity: Int

  package init(
    root: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
    buffer: UnsafeMutableRawPointer, capacity: Int
  ) {
    self.root = root
    self.buffer = buffer
    self.capacity = capacity
  }

  /// Calls the body for each line of a file, until it answers `false`; `false` where there is no file.
  ///
  /// - Parameter directory: What comes before the name; empty for a name that is a path.
  @discardableResult
  func forEachLine(
    _ directory: UnsafeRawBufferPointer, _ name: StaticString,
    _ body: (UnsafeRawBufferPointer) -> Bool
  ) -> Bool {
    var bytes = InlineArray<2048, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      var path = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 2048)
      path.append(root)
      path.append(directory)
      path.append(name)
      guard path.count < 2047,
        var file = ProcFile(path: path.cString(), buffer, capacity: capacity)
      else { return false }
      defer { file.close() }
      while let line = file.nextLine() {
        if !body(line) { break }
      }
      return true
    }
  }

  /// Whether a directory is there. Does not use the buffer.
  func isDirectory(_ path: UnsafeRawBufferPointer) -> Bool {
    var bytes = InlineArray<2048, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      var whole = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 2048)
      whole.append(root)
      whole.append(path)
      guard whole.count < 2047 else { return false }
      let descriptor = System.open(whole.cString(), O_DIRECTORY | System.pathOnly)
      guard descriptor >= 0 else { return false }
      System.close(descriptor)
      return true
    }
  }

  func forEachLine(_ path: StaticString, _ body: (UnsafeRawBufferPointer) -> Bool) -> Bool {
    forEachLine(UnsafeRawBufferPointer(start: nil, count: 0), path, body)
  }

  /// The number that a file consists of; `UInt64.max` for the word `max`, `nil` where there is none.
  func number(_ directory: UnsafeRawBufferPointer, _ name: StaticString) -> UInt64? {
    var found: UInt64?
    forEachLine(directory, name) { line in
      if line.after("max") != nil {
        found = UInt64.max
      } else if case let (value, byteCount) = line.number(), byteCount > 0 {
        found = value
      }
      return false
    }
    return found
  }
}

extension UnsafeRawBufferPointer {
  /// The number after a key and blanks or a colon; `nil` where the line begins otherwise.
  func value(of key: StaticString) -> UInt64? {
    guard let rest = after(key), rest.count > 0 else { return nil }
    switch rest[0] {
    case 0x20, 0x09: return rest.number().value
    case 0x3a: return rest.dropping(1).number().value
    default: return nil
    }
  }

  /// The field of a line of fields between blanks, from 0; empty where there are fewer.
  func field(_ number: Int) -> UnsafeRawBufferPointer {
    var position = 0
    var left = number
    while true {
      while position < count, self[position] == 0x20 { position &+= 1 }
      let start = position
      while position < count, self[position] != 0x20 { position &+= 1 }
      if left == 0 || start == count {
        return UnsafeRawBufferPointer(rebasing: self[start..<position])
      }
      left &-= 1
    }
  }

  func isEqual(_ text: StaticString) -> Bool {
    count == text.utf8CodeUnitCount && after(text) != nil
  }

  /// Whether a word is among those between commas.
  func containsBetweenCommas(_ word: StaticString) -> Bool {
    var rest = self
    while true {
      var end = 0
      while end < rest.count, rest[end] != 0x2c { end &+= 1 }
      if UnsafeRawBufferPointer(rebasing: rest[..<end]).isEqual(word) { return true }
      if end == rest.count { return false }
      rest = rest.dropping(end &+ 1)
    }
  }
}
