// SPDX-License-Identifier: Apache-2.0
// A profile's strings, by number, made when somebody asks.

/// A profile's strings, by number, made when somebody asks.
///
/// Only where a string lies is kept: a hostile file of a million empty strings costs four bytes
/// for each, and one long string that everything refers to is made once.
struct StringTable {
  private let bytes: [UInt8]
  /// Where each string's length is.
  private var offsets: [UInt32] = []
  private var made: [UInt64: String] = [:]

  init(of bytes: [UInt8]) {
    self.bytes = bytes
  }

  mutating func append(lengthAt offset: Int) {
    offsets.append(UInt32(offset))
  }

  /// The string of a number, with what is not UTF-8 in it replaced.
  mutating func text(_ index: UInt64, for place: Int) throws(ProfileError) -> String {
    if let text = made[index] { return text }
    let text = String(decoding: bytes[try range(of: index, for: place)], as: UTF8.self)
    made[index] = text
    return text
  }

  /// The string of a number that may be 0 or name an empty string: both say that there is none.
  mutating func optionalText(_ index: UInt64, for place: Int) throws(ProfileError) -> String? {
    if index == 0 { return nil }
    let text = try text(index, for: place)
    return text.isEmpty ? nil : text
  }

  /// Whether a string is another one, without making it.
  func isEqual(
    _ index: UInt64, to text: StaticString, for place: Int
  ) throws(ProfileError) -> Bool {
    let range = try range(of: index, for: place)
    guard range.count == text.utf8CodeUnitCount else { return false }
    return unsafe bytes[range].elementsEqual(
      UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  func byteCount(of index: UInt64, for place: Int) throws(ProfileError) -> Int {
    try range(of: index, for: place).count
  }

  private func range(of index: UInt64, for place: Int) throws(ProfileError) -> Range<Int> {
    guard index < UInt64(offsets.count) else {
      throw ProfileError(.danglingReference, at: place, "string \(index)")
    }
    var reader = WireReader(bytes, from: Int(offsets[Int(index)]), to: bytes.count)
    return try reader.readBytes()
  }
}
