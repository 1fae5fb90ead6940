// SPDX-License-Identifier: Apache-2.0
// An entry of the journal's native protocol, in which no value can pass for a field.

import CTracerPlatform

/// Fields one after the other in a buffer. (systemd, Native Journal Protocol.)
///
/// A value is written after its length where anybody else than the tracer has a say in it: newlines
/// and zeros in it are then nothing but its bytes. Only words of our own and numbers are `NAME=value`.
package struct JournalEntry {
  package private(set) var text: TextBuffer

  package init(_ bytes: UnsafeMutableRawPointer, capacity: Int) {
    text = TextBuffer(bytes, capacity: capacity)
  }

  package mutating func add(_ name: StaticString, _ word: StaticString) {
    text.append(name)
    text.append("=")
    text.append(word)
    text.append("\n")
  }

  package mutating func add(_ name: StaticString, _ number: UInt64) {
    text.append(name)
    text.append("=")
    text.append(decimal: number)
    text.append("\n")
  }

  /// Adds whatever bytes the body appends.
  package mutating func add(_ name: StaticString, _ body: (inout TextBuffer) -> Void) {
    add(name, suffix: 0, body)
  }

  /// Adds a field of a numbered series: `NAME` and the number.
  package mutating func add(
    _ name: StaticString, suffix: UInt64, _ body: (inout TextBuffer) -> Void
  ) {
    text.append(name)
    if suffix > 0 { text.append(decimal: suffix) }
    text.append("\n")
    let lengthPosition = text.count
    for _ in 0..<8 { text.append(0) }
    let start = text.count
    body(&text)
    let byteCount = UInt64(text.count &- start)
    if !text.isFull {
      UnsafeMutableRawPointer(text.base + lengthPosition)
        .storeBytes(of: byteCount.littleEndian, as: UInt64.self)
    }
    text.append("\n")
  }

  /// Adds text, or as much of it as there is room for: the last field, and the one that may be long.
  package mutating func add(_ name: StaticString, cutting value: UnsafeRawBufferPointer) {
    let room = text.capacity &- text.count &- name.utf8CodeUnitCount &- 10
    let kept = value.prefixOfCharacters(room)
    add(name) { $0.append(kept) }
  }
}

extension UnsafeRawBufferPointer {
  /// At most so many bytes, and no part of a character. (UTF-8: bytes of 10xxxxxx go on with one.)
  package func prefixOfCharacters(_ limit: Int) -> UnsafeRawBufferPointer {
    guard limit < count else { return self }
    var end = Swift.max(limit, 0)
    while end > 0, self[end] & 0xc0 == 0x80 { end &-= 1 }
    return UnsafeRawBufferPointer(rebasing: self[..<end])
  }
}
