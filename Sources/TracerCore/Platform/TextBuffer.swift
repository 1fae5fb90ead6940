// SPDX-License-Identifier: Apache-2.0
// Text without a string: bytes appended to memory that somebody else owns.

import CTracerPlatform

/// Appends text to a fixed buffer. What does not fit is dropped, and `isFull` says so.
package struct TextBuffer {
  package let base: UnsafeMutablePointer<UInt8>
  package let capacity: Int
  package private(set) var count = 0
  package private(set) var isFull = false

  package init(_ base: UnsafeMutableRawPointer, capacity: Int) {
    self.base = base.assumingMemoryBound(to: UInt8.self)
    self.capacity = capacity
  }

  package var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(start: base, count: count) }

  package mutating func clear() {
    count = 0
    isFull = false
  }

  package mutating func append(_ byte: UInt8) {
    guard count < capacity else {
      isFull = true
      return
    }
    base[count] = byte
    count &+= 1
  }

  package mutating func append(_ text: StaticString) {
    append(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  package mutating func append(_ bytes: UnsafeRawBufferPointer) {
    for byte in bytes { append(byte) }
  }

  /// Appends a C string, up to its NUL.
  package mutating func append(cString text: UnsafePointer<CChar>, limit: Int = 4096) {
    var position = 0
    while position < limit, text[position] != 0 {
      append(UInt8(bitPattern: text[position]))
      position &+= 1
    }
  }

  /// Appends foreign text: control bytes become `?`, so that it can forge no line and no field.
  package mutating func append(printable bytes: UnsafeRawBufferPointer) {
    for byte in bytes { append(byte < 0x20 || byte == 0x7f ? 0x3f : byte) }
  }

  /// Appends foreign text of which nothing is known: what is no UTF-8 becomes `?` as well, and of a text
  /// that does not fit no half of a character is kept.
  package mutating func append(utf8 bytes: UnsafeRawBufferPointer) {
    var position = 0
    while position < bytes.count {
      let length = Self.characterLength(UnsafeRawBufferPointer(rebasing: bytes[position...]))
      guard count &+ max(length, 1) <= capacity else {
        isFull = true
        return
      }
      if length == 0 { append(0x3f) }
      append(printable: UnsafeRawBufferPointer(rebasing: bytes[position..<(position &+ length)]))
      position &+= max(length, 1)
    }
  }

  /// The bytes of the character that a text begins with; 0 where it begins with none. (Unicode 15.0,
  /// table 3-7.)
  private static func characterLength(_ bytes: UnsafeRawBufferPointer) -> Int {
    let first = bytes[0]
    if first < 0x80 { return 1 }
    let length = first < 0xc2 || first > 0xf4 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4
    guard length > 0, bytes.count >= length else { return 0 }
    for position in 1..<length where bytes[position] & 0xc0 != 0x80 { return 0 }
    switch (first, bytes[1]) {
    case (0xe0, ..<0xa0), (0xed, 0xa0...), (0xf0, ..<0x90), (0xf4, 0x90...): return 0
    // U+0080 to U+009F are control characters too.
    case (0xc2, ..<0xa0): return 0
    default: return length
    }
  }

  package mutating func append(decimal value: UInt64, width: Int = 1) {
    var digits = InlineArray<20, UInt8>(repeating: 0x30)
    var left = value
    var used = 0
    repeat {
      digits[used] = 0x30 &+ UInt8(truncatingIfNeeded: left % 10)
      left /= 10
      used &+= 1
    } while left != 0
    var position = max(used, min(width, 20))
    while position > 0 {
      position &-= 1
      append(digits[position])
    }
  }

  package mutating func append(signed value: Int64) {
    if value < 0 { append(0x2d) }
    append(decimal: value.magnitude)
  }

  /// A byte count as a person reads it: three digits or so, binary units.
  package mutating func append(byteCount value: UInt64) {
    let units: StaticString = "BKMGTPE"
    var scaled = value
    var unit = 0
    while scaled >= 10240, unit < 6 {
      scaled = (scaled &+ 512) / 1024
      unit &+= 1
    }
    append(decimal: scaled)
    append(0x20)
    append(units.utf8Start[unit])
    if unit > 0 {
      append("iB")
    }
  }

  package mutating func append(hexadecimal byte: UInt8) {
    let digits: StaticString = "0123456789abcdef"
    append(digits.utf8Start[Int(byte >> 4)])
    append(digits.utf8Start[Int(byte & 15)])
  }

  /// Appends a number in hexadecimal, without zeros before it.
  package mutating func append(hexadecimal value: UInt64) {
    let digits: StaticString = "0123456789abcdef"
    var shift = 60
    while shift > 0, value >> UInt64(shift) == 0 { shift &-= 4 }
    while shift >= 0 {
      append(digits.utf8Start[Int(value >> UInt64(shift) & 15)])
      shift &-= 4
    }
  }

  /// Ends the text with a NUL in the buffer, for the kernel; the text must leave room for it.
  package mutating func cString() -> UnsafePointer<CChar> {
    base[min(count, capacity &- 1)] = 0
    return UnsafeRawPointer(base).assumingMemoryBound(to: CChar.self)
  }
}
