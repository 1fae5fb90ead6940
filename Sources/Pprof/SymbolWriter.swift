// SPDX-License-Identifier: Apache-2.0
// Strings, functions and lines: each written once, just before what first refers to it.

import HeapModel

/// Writes a profile's fields to memory, and knows the numbers of what was written.
struct SymbolWriter: ~Copyable {
  private var wire = WireWriter(ArraySink())
  private var strings: [String: UInt64]
  private var stringCount: UInt64
  private var functions: [Function: UInt64] = [:]
  private var functionCount: UInt64 = 0
  /// The IDs of functions that somebody else wrote.
  private let takenFunctions: IDTable

  private struct Function: Hashable {
    let name: UInt64
    let file: UInt64
  }

  /// Begins a profile.
  init() {
    strings = ["": 0]
    stringCount = 1
    takenFunctions = IDTable(profileByteCount: 0)
    wire.write(ProfileField.string, text: "")
  }

  /// Goes on with a profile that has strings and functions already.
  init(afterStrings stringCount: Int, functions: IDTable) {
    strings = ["": 0]
    self.stringCount = UInt64(stringCount)
    takenFunctions = functions
  }

  consuming func finish() -> [UInt8] { wire.finish().bytes }

  // MARK: Fields

  /// The number of a string, which is written if it is new.
  mutating func string(_ text: String) -> UInt64 {
    if let known = strings[text] { return known }
    let index = stringCount
    strings[text] = index
    stringCount += 1
    var text = text
    text.withUTF8 { unsafe wire.write(ProfileField.string, bytes: UnsafeRawBufferPointer($0)) }
    return index
  }

  mutating func write(_ fields: [(UInt32, UInt64)]) {
    for (field, value) in fields { wire.write(field, varint: value) }
  }

  mutating func beginMessage(_ field: UInt32, byteCount: Int) {
    wire.beginMessage(field, byteCount: byteCount)
  }

  /// Writes a message of integers.
  mutating func write(_ field: UInt32, message: [(UInt32, UInt64)]) {
    wire.beginMessage(field, byteCount: Self.byteCount(of: message))
    write(message)
  }

  mutating func writePacked(_ field: UInt32, _ values: [UInt64]) {
    if values.isEmpty { return }
    wire.beginMessage(field, byteCount: values.reduce(0) { $0 + WireSize.varint($1) })
    for value in values { wire.writeVarint(value) }
  }

  /// Writes bytes that are fields already.
  mutating func copy(_ bytes: ArraySlice<UInt8>) {
    unsafe bytes.withUnsafeBytes { unsafe wire.append($0) }
  }

  static func byteCount(of fields: [(UInt32, UInt64)]) -> Int {
    fields.reduce(0) { $0 + WireSize.field($1.0, varint: $1.1) }
  }

  static func packedByteCount(_ field: UInt32, _ values: [UInt64]) -> Int {
    let size = values.reduce(0) { $0 + WireSize.varint($1) }
    return size == 0 ? 0 : WireSize.field(field, byteCount: size)
  }

  // MARK: Functions and lines

  /// Writes a location: fields of its own, and lines as `line(of:)` gave them, innermost first.
  mutating func write(location fields: [(UInt32, UInt64)], lines: [[(UInt32, UInt64)]]) {
    let size = Self.byteCount(of: fields) + Self.byteCount(ofLines: lines)
    wire.beginMessage(ProfileField.location, byteCount: size)
    write(fields)
    write(lines: lines)
  }

  mutating func write(lines: [[(UInt32, UInt64)]]) {
    for line in lines { write(LocationField.line, message: line) }
  }

  static func byteCount(ofLines lines: [[(UInt32, UInt64)]]) -> Int {
    lines.reduce(0) { $0 + WireSize.field(LocationField.line, byteCount: byteCount(of: $1)) }
  }

  /// The fields of a frame's line; its function is written if it is new.
  mutating func line(of frame: Frame) -> [(UInt32, UInt64)] {
    var fields: [(UInt32, UInt64)] = []
    if frame.function != nil || frame.file != nil {
      fields.append((LineField.function, function(of: frame)))
    }
    // Line 0 is written too: it is a line, and not the absence of one.
    if let line = frame.line {
      fields.append((LineField.line, UInt64(bitPattern: Int64(line))))
    }
    return fields
  }

  private mutating func function(of frame: Frame) -> UInt64 {
    let key = Function(name: string(frame.function ?? ""), file: string(frame.file ?? ""))
    if let known = functions[key] { return known }
    repeat { functionCount += 1 } while takenFunctions[functionCount] != nil
    functions[key] = functionCount
    // Without a system name, which would be the mangled one: pprof takes a name that is the system's
    // too for one that it may shorten by C++'s rules, Rust's `<T as Into<U>>::into` to `::into`.
    write(
      ProfileField.function,
      message: [
        (FunctionField.id, functionCount), (FunctionField.name, key.name),
        (FunctionField.fileName, key.file),
      ].filter { $0.1 != 0 })
    return functionCount
  }
}

/// What the frames of a module have, for `go tool pprof` to know that it need not look for a binary.
struct ModuleSymbols {
  var functions = false
  var files = false
  var lines = false
  var inlined = false

  mutating func add(_ frame: Frame) {
    functions = functions || frame.function != nil
    files = files || frame.file != nil
    lines = lines || frame.line != nil
    inlined = inlined || frame.isInlined
  }

  /// The fields of a mapping that say so.
  var fields: [(UInt32, UInt64)] {
    [
      (MappingField.hasFunctions, functions), (MappingField.hasFileNames, files),
      (MappingField.hasLineNumbers, lines), (MappingField.hasInlineFrames, inlined),
    ].filter { $0.1 }.map { ($0.0, 1) }
  }
}

/// Keeps what is written in an array.
private struct ArraySink: ByteSink {
  var bytes: [UInt8] = []

  mutating func append(_ byte: UInt8) {
    bytes.append(byte)
  }

  mutating func append(_ more: UnsafeRawBufferPointer) {
    unsafe bytes.append(contentsOf: more)
  }
}
