// SPDX-License-Identifier: Apache-2.0
// Protocol buffers, read field by field without ever passing the end.

/// Reads the fields of a protocol buffer from bytes that nobody has checked.
///
/// A message inside a message is read in place: `enterMessage` draws the end closer until
/// `leaveMessage`, so that positions in errors are positions in the file. Every access is checked
/// by the array itself; there is nothing unsafe in here to get wrong, and it costs a few
/// milliseconds in the largest dumps.
package struct WireReader: ~Copyable {
  package let bytes: [UInt8]
  package private(set) var position: Int
  package private(set) var end: Int
  /// How many messages the reader is inside of.
  private var depth = 0

  package init(_ bytes: [UInt8]) {
    self.init(bytes, from: 0, to: bytes.count)
  }

  /// Reads a part, where `0 <= start <= end <= bytes.count`.
  package init(_ bytes: [UInt8], from start: Int, to end: Int) {
    precondition(0 <= start && start <= end && end <= bytes.count)
    self.bytes = bytes
    self.position = start
    self.end = end
  }

  package var isAtEnd: Bool { position == end }

  /// A field's number and how its value is encoded.
  package struct Tag {
    /// Clamped: numbers beyond 32 bits are as unknown as the largest.
    package let field: UInt32
    package let type: WireType
    /// Where the field begins in the file.
    package let byteOffset: Int
  }

  package mutating func readTag() throws(ProfileError) -> Tag {
    let start = position
    let tag = try readVarint()
    guard let type = WireType(rawValue: UInt8(tag & 7)) else {
      throw ProfileError(.unsupportedWireType, at: start, "\(tag & 7)")
    }
    guard tag >> 3 != 0 else { throw ProfileError(.malformedTag, at: start) }
    return Tag(field: UInt32(clamping: tag >> 3), type: type, byteOffset: start)
  }

  @inline(__always)
  package mutating func readVarint() throws(ProfileError) -> UInt64 {
    // Nearly all integers of a profile are below 128 or 16,384.
    if position < end {
      let first = bytes[position]
      if first < 0x80 {
        position += 1
        return UInt64(first)
      }
    }
    return try readLongVarint()
  }

  private mutating func readLongVarint() throws(ProfileError) -> UInt64 {
    var value: UInt64 = 0
    let start = position
    for shift in stride(from: UInt64(0), to: 70, by: 7) {
      guard position < end else { throw pastTheEnd(from: start) }
      let byte = bytes[position]
      position += 1
      // The tenth byte holds the 64th bit, and no more than that.
      guard shift < 63 || byte <= 1 else { break }
      value |= UInt64(byte & 0x7f) << shift
      if byte < 0x80 { return value }
    }
    throw ProfileError(.malformedVarint, at: start)
  }

  /// Reads a length and answers the bytes' range, leaving them behind.
  package mutating func readBytes() throws(ProfileError) -> Range<Int> {
    let start = position
    let length = try readVarint()
    guard length <= UInt64(end - position) else { throw pastTheEnd(from: start) }
    defer { position += Int(length) }
    return position..<position + Int(length)
  }

  package mutating func skip(_ type: WireType) throws(ProfileError) {
    switch type {
    case .varint: _ = try readVarint()
    case .lengthDelimited: _ = try readBytes()
    case .fixed64: try skip(byteCount: 8)
    case .fixed32: try skip(byteCount: 4)
    }
  }

  private mutating func skip(byteCount: Int) throws(ProfileError) {
    guard byteCount <= end - position else { throw pastTheEnd(from: position) }
    position += byteCount
  }

  /// Where the message around another one ends.
  package struct OuterEnd: ~Copyable {
    fileprivate let position: Int
  }

  /// Narrows the reader to the message that comes next. Give the answer to `leaveMessage`.
  package mutating func enterMessage() throws(ProfileError) -> OuterEnd {
    let outer = OuterEnd(position: end)
    let message = try readBytes()
    position = message.lowerBound
    end = message.upperBound
    depth += 1
    return outer
  }

  package mutating func leaveMessage(_ outer: consuming OuterEnd) {
    position = end
    end = outer.position
    depth -= 1
  }

  /// The integer of a field, or an error where the field is of another kind.
  package mutating func readInteger(_ tag: Tag) throws(ProfileError) -> UInt64 {
    guard tag.type == .varint else { throw unexpected(tag) }
    return try readVarint()
  }

  package mutating func readBytes(_ tag: Tag) throws(ProfileError) -> Range<Int> {
    guard tag.type == .lengthDelimited else { throw unexpected(tag) }
    return try readBytes()
  }

  package mutating func enterMessage(_ tag: Tag) throws(ProfileError) -> OuterEnd {
    guard tag.type == .lengthDelimited else { throw unexpected(tag) }
    return try enterMessage()
  }

  /// Reads a repeated integer field: one integer, or packed, several.
  @inline(__always)
  package mutating func readIntegers(
    _ tag: Tag, _ body: (UInt64, _ byteOffset: Int) throws(ProfileError) -> Void
  ) throws(ProfileError) {
    guard tag.type == .lengthDelimited else {
      return try body(try readInteger(tag), tag.byteOffset)
    }
    let outer = try enterMessage()
    while !isAtEnd {
      let start = position
      try body(try readVarint(), start)
    }
    leaveMessage(outer)
  }

  /// A whole message whose fields do not fit is damaged; a file may merely be cut.
  private func pastTheEnd(from start: Int) -> ProfileError {
    ProfileError(depth == 0 ? .truncated : .fieldOverrun, at: start)
  }

  private func unexpected(_ tag: Tag) -> ProfileError {
    ProfileError(
      .unexpectedWireType, at: tag.byteOffset,
      "field \(tag.field) has wire type \(tag.type.rawValue)")
  }
}
