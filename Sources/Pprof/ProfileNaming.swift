// SPDX-License-Identifier: Apache-2.0
// Puts functions and lines into a profile and leaves everything else in it as it is.

import HeapModel

extension Snapshot {
  /// The bytes of a heap profile with the names that its frames lack, uncompressed.
  ///
  /// Not a snapshot written again: fields that this library has no use for stay too, and everything
  /// keeps its order and its number. What has lines keeps them. Of a profile that was cut short, the
  /// part that comes after its last whole field is left out; every prefix of the result is as good a
  /// profile as one of the original.
  ///
  /// - Parameters:
  ///   - bytes: What `init(profile:)` reads.
  ///   - calls: Asked about each frame without a function, as that reader has it. Answers with the
  ///     calls at its address, innermost first; with none, the frame stays as it was.
  public static func profile(
    _ bytes: [UInt8], naming calls: (Frame) -> [Frame], inflatedByteCountLimit: Int = 512 << 20
  ) throws(ProfileError) -> [UInt8] {
    let contents = try Gzip.contents(of: bytes, byteCountLimit: inflatedByteCountLimit)
    let naming = try ProfileNaming(contents.bytes)
    return try naming.named(by: calls)
  }
}

/// A profile's bytes, with what one must know of the whole to add to its parts.
private struct ProfileNaming: ~Copyable {
  private let bytes: [UInt8]
  /// The end of the last whole field.
  private var end = 0
  private var stringCount = 0
  private var functions: IDTable
  private var mappings: IDTable
  private var mappingCount = 0

  init(_ bytes: [UInt8]) throws(ProfileError) {
    self.bytes = bytes
    functions = IDTable(profileByteCount: bytes.count)
    mappings = IDTable(profileByteCount: bytes.count)
    var reader = WireReader(bytes)
    while !reader.isAtEnd {
      do {
        let tag = try reader.readTag()
        switch tag.field {
        case ProfileField.string:
          _ = try reader.readBytes(tag)
          stringCount += 1
        case ProfileField.function:
          let id = try Self.id(in: try reader.readBytes(tag), of: bytes, field: FunctionField.id)
          _ = functions.insert(id, 0)
        case ProfileField.mapping:
          let id = try Self.id(in: try reader.readBytes(tag), of: bytes, field: MappingField.id)
          _ = mappings.insert(id, mappingCount)
          mappingCount += 1
        default: try reader.skip(tag.type)
        }
      } catch {
        guard error.code == .truncated else { throw error }
        return
      }
      end = reader.position
    }
  }

  private static func id(
    in message: Range<Int>, of bytes: [UInt8], field: UInt32
  ) throws(ProfileError) -> UInt64 {
    var id: UInt64 = 0
    var reader = WireReader(bytes, from: message.lowerBound, to: message.upperBound)
    while !reader.isAtEnd {
      let tag = try reader.readTag()
      if tag.field == field { id = try reader.readInteger(tag) } else { try reader.skip(tag.type) }
    }
    return id
  }

  func named(by calls: (Frame) -> [Frame]) throws(ProfileError) -> [UInt8] {
    // A mapping comes before what it has symbols for, and says that it has them.
    var symbols = Array(repeating: ModuleSymbols(), count: mappingCount)
    try forEachField { tag, field, message throws(ProfileError) in
      guard tag == ProfileField.location, let message, let frame = try frame(of: message),
        let module = frame.module
      else { return }
      for call in Self.known(calls(frame)) { symbols[module].add(call) }
    }

    var out = SymbolWriter(afterStrings: stringCount, functions: functions)
    // First, since strings are known by their order: the new ones get the numbers after these.
    try forEachField { tag, field, _ throws(ProfileError) in
      if tag == ProfileField.string { out.copy(bytes[field]) }
    }
    var mapping = 0
    try forEachField { tag, field, message throws(ProfileError) in
      switch (tag, message) {
      case (ProfileField.string, _): break
      case (ProfileField.mapping, let message?):
        let fields = symbols[mapping].fields
        mapping += 1
        out.beginMessage(tag, byteCount: message.count + SymbolWriter.byteCount(of: fields))
        out.copy(bytes[message])
        out.write(fields)
      case (ProfileField.location, let message?):
        let known = try frame(of: message).map { Self.known(calls($0)) } ?? []
        // Written one after the other, functions come before the location.
        var lines: [[(UInt32, UInt64)]] = []
        for call in known { lines.append(out.line(of: call)) }
        out.beginMessage(tag, byteCount: message.count + SymbolWriter.byteCount(ofLines: lines))
        out.copy(bytes[message])
        out.write(lines: lines)
      default: out.copy(bytes[field])
      }
    }
    return out.finish()
  }

  /// Goes over the fields: their number, where all of each is, and the inside of those with a length.
  private func forEachField(
    _ body: (UInt32, _ field: Range<Int>, _ message: Range<Int>?) throws(ProfileError) -> Void
  ) throws(ProfileError) {
    var reader = WireReader(bytes, from: 0, to: end)
    while !reader.isAtEnd {
      let tag = try reader.readTag()
      var message: Range<Int>?
      if tag.type == .lengthDelimited {
        message = try reader.readBytes()
      } else {
        try reader.skip(tag.type)
      }
      try body(tag.field, tag.byteOffset..<reader.position, message)
    }
  }

  /// The frame of a location, or `nil` where it has lines or lies in no module.
  private func frame(of location: Range<Int>) throws(ProfileError) -> Frame? {
    var frame = Frame()
    var reader = WireReader(bytes, from: location.lowerBound, to: location.upperBound)
    while !reader.isAtEnd {
      let tag = try reader.readTag()
      switch tag.field {
      case LocationField.address: frame.address = try reader.readInteger(tag)
      case LocationField.mapping:
        frame.module = mappings[try reader.readInteger(tag)].map { Int($0) }
      case LocationField.line: return nil
      default: try reader.skip(tag.type)
      }
    }
    return frame.module == nil ? nil : frame
  }

  private static func known(_ calls: [Frame]) -> [Frame] {
    calls.allSatisfy { $0.function == nil && $0.file == nil && $0.line == nil } ? [] : calls
  }
}
