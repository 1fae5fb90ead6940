// SPDX-License-Identifier: Apache-2.0
// The bytes on the pipe between symbolicator and worker: length-prefixed, little-endian.

/// The other side sent bytes that are not a message.
struct Garbled: Error {}

/// Writes a message; the length comes first, and is filled in by `finished`.
struct MessageWriter {
  private var bytes: [UInt8] = [0, 0, 0, 0]

  mutating func write<Value: FixedWidthInteger>(_ value: Value) {
    var rest = value
    for _ in 0..<(Value.bitWidth / 8) {
      bytes.append(UInt8(truncatingIfNeeded: rest))
      rest >>= 8
    }
  }

  mutating func write(_ string: String) {
    write(UInt32(string.utf8.count))
    bytes.append(contentsOf: string.utf8)
  }

  mutating func write(count: Int) { write(UInt32(count)) }

  func finished() -> [UInt8] {
    var message = bytes
    let byteCount = UInt32(bytes.count - MessageReader.prefixByteCount)
    for index in 0..<MessageReader.prefixByteCount {
      message[index] = UInt8(truncatingIfNeeded: byteCount >> (8 * UInt32(index)))
    }
    return message
  }
}

/// Reads a message without its length, never past its end.
struct MessageReader {
  static let prefixByteCount = 4
  /// More than 10,000 frames have ever needed, by a factor of a hundred.
  static let byteCountLimit = 256 << 20

  private let bytes: [UInt8]
  private var position = 0

  init(_ bytes: [UInt8]) {
    self.bytes = bytes
  }

  /// The length in a prefix; `nil` where no honest message is so long.
  static func byteCount(prefix: some Collection<UInt8>) -> Int? {
    let byteCount = prefix.reversed().reduce(0) { $0 << 8 | Int($1) }
    return byteCount <= byteCountLimit ? byteCount : nil
  }

  mutating func read<Value: FixedWidthInteger>(
    _ type: Value.Type = Value.self
  ) throws(Garbled) -> Value {
    let byteCount = Value.bitWidth / 8
    guard bytes.count - position >= byteCount else { throw Garbled() }
    var value: Value = 0
    for index in 0..<byteCount {
      value |= Value(truncatingIfNeeded: bytes[position + index]) << (8 * Value(index))
    }
    position += byteCount
    return value
  }

  mutating func readString() throws(Garbled) -> String {
    let byteCount = try readCount()
    defer { position += byteCount }
    return String(decoding: bytes[position..<(position + byteCount)], as: UTF8.self)
  }

  /// A count of things of which each takes a byte or more, so that it can never exceed the rest.
  mutating func readCount() throws(Garbled) -> Int {
    let count = Int(try read(UInt32.self))
    guard count <= bytes.count - position else { throw Garbled() }
    return count
  }

  mutating func readCase<Value: RawRepresentable<UInt8>>() throws(Garbled) -> Value {
    guard let value = Value(rawValue: try read()) else { throw Garbled() }
    return value
  }

  func finish() throws(Garbled) {
    guard position == bytes.count else { throw Garbled() }
  }
}

extension ModuleRequest {
  var message: [UInt8] {
    var writer = MessageWriter()
    writer.write(path)
    writer.write(buildID)
    writer.write(count: roots.count)
    for root in roots { writer.write(root) }
    writer.write(style.rawValue)
    writer.write(detail.rawValue)
    writer.write(secondsLimit)
    writer.write(mappingOffset)
    writer.write(count: offsets.count)
    for offset in offsets { writer.write(offset) }
    return writer.finished()
  }

  init(message: [UInt8]) throws(Garbled) {
    var reader = MessageReader(message)
    path = try reader.readString()
    buildID = try reader.readString()
    roots = []
    for _ in 0..<(try reader.readCount()) { roots.append(try reader.readString()) }
    style = try reader.readCase()
    detail = try reader.readCase()
    secondsLimit = try reader.read()
    mappingOffset = try reader.read()
    offsets = []
    for _ in 0..<(try reader.readCount()) { offsets.append(try reader.read()) }
    try reader.finish()
  }
}

extension ModuleAnswer {
  /// Names and paths repeat from call to call, so each is sent once and then by number; number 0
  /// is `nil`. A line is sent as the line and one, and 0 is `nil`.
  var message: [UInt8] {
    var writer = MessageWriter()
    writer.write(count: findings.count)
    for finding in findings { finding.write(to: &writer) }

    var numbers: [String: UInt32] = [:]
    var strings: [String] = []
    func number(_ string: String?) -> UInt32 {
      guard let string else { return 0 }
      if let known = numbers[string] { return known }
      strings.append(string)
      numbers[string] = UInt32(strings.count)
      return UInt32(strings.count)
    }
    // The strings must be numbered before they can be written.
    var words: [UInt32] = []
    for chain in calls {
      words.append(UInt32(chain.count))
      for call in chain {
        words.append(number(call.function))
        words.append(number(call.file))
        words.append(UInt32(clamping: (call.line ?? -1) + 1))
      }
    }
    writer.write(count: strings.count)
    for string in strings { writer.write(string) }
    writer.write(count: calls.count)
    for word in words { writer.write(word) }
    return writer.finished()
  }

  init(message: [UInt8]) throws(Garbled) {
    var reader = MessageReader(message)
    findings = []
    for _ in 0..<(try reader.readCount()) { findings.append(try Finding(from: &reader)) }
    var strings: [String?] = [nil]
    for _ in 0..<(try reader.readCount()) { strings.append(try reader.readString()) }
    func readString() throws(Garbled) -> String? {
      let number = Int(try reader.read(UInt32.self))
      guard strings.indices.contains(number) else { throw Garbled() }
      return strings[number]
    }
    calls = []
    for _ in 0..<(try reader.readCount()) {
      var chain: [Call] = []
      for _ in 0..<(try reader.readCount()) {
        let function = try readString()
        let file = try readString()
        let line = Int(try reader.read(UInt32.self))
        chain.append(Call(function: function, file: file, line: line == 0 ? nil : line - 1))
      }
      calls.append(chain)
    }
    try reader.finish()
  }
}

extension Finding {
  private enum Kind: UInt8 {
    case changed, missing, unreadable, noBuildID, buildIDNotRecorded, noDebugInformation
    case damagedDebugInformation, splitFileMissing, sharedFileMissing, unreadableCompression
  }

  fileprivate func write(to writer: inout MessageWriter) {
    let (kind, detail): (Kind, String) =
      switch self {
      case .changed(let buildID): (.changed, buildID)
      case .missing: (.missing, "")
      case .unreadable(let reason): (.unreadable, reason)
      case .noBuildID: (.noBuildID, "")
      case .buildIDNotRecorded: (.buildIDNotRecorded, "")
      case .noDebugInformation: (.noDebugInformation, "")
      case .damagedDebugInformation: (.damagedDebugInformation, "")
      case .splitFileMissing(let path): (.splitFileMissing, path)
      case .sharedFileMissing(let path): (.sharedFileMissing, path)
      case .unreadableCompression: (.unreadableCompression, "")
      }
    writer.write(kind.rawValue)
    writer.write(detail)
  }

  fileprivate init(from reader: inout MessageReader) throws(Garbled) {
    let kind: Kind = try reader.readCase()
    let detail = try reader.readString()
    self =
      switch kind {
      case .changed: .changed(buildID: detail)
      case .missing: .missing
      case .unreadable: .unreadable(reason: detail)
      case .noBuildID: .noBuildID
      case .buildIDNotRecorded: .buildIDNotRecorded
      case .noDebugInformation: .noDebugInformation
      case .damagedDebugInformation: .damagedDebugInformation
      case .splitFileMissing: .splitFileMissing(path: detail)
      case .sharedFileMissing: .sharedFileMissing(path: detail)
      case .unreadableCompression: .unreadableCompression
      }
  }
}
