// SPDX-License-Identifier: Apache-2.0
// The messages of profile.proto, in the order that makes every prefix of a dump a profile.

import CTracerPlatform

/// Writes a profile field by field. The layout is described in docs/dump-format.md.
struct ProfileEncoder: ~Copyable {
  private var wire: WireWriter<FileSink>
  private var stringCount: UInt64 = 0
  /// How many values a sample has.
  private var valueCount = 4

  /// - Parameter strings: How many the file has already, where this is the end of one.
  init(_ sink: consuming FileSink, strings: UInt64 = 0) {
    wire = WireWriter(sink)
    stringCount = strings
  }

  /// Bytes so far, those that are still buffered included.
  var position: Int { wire.sink.position }

  /// Notes that the file could end here, after so many sites.
  mutating func mark(sites: Int) { wire.sink.mark(sites: sites, strings: stringCount) }

  var error: Int32 { wire.sink.error }

  /// Writes out what is buffered; answers the first error, or 0, and where the file can be cut off.
  consuming func finish() -> (error: Int32, safeMark: SinkMark) {
    wire.sink.flush()
    return (wire.sink.error, wire.sink.safeMark)
  }

  /// The strings that every dump begins with, in this order.
  enum Fixed: UInt64 {
    case empty, allocObjects, count, allocSpace, bytes, inuseObjects, inuseSpace, space, generation
    case truncated, frames, broken, truncatedRoot, brokenRoot, generatedCode, domain
    case type, thread, tid, reach, lost, indirect, temporary
    case peakObjects, peakSpace, sampledBlocks, standardError, totalStandardError
  }

  mutating func string(_ bytes: UnsafeRawBufferPointer) -> UInt64 {
    wire.write(6, bytes: bytes)
    stringCount &+= 1
    return stringCount &- 1
  }

  private mutating func string(_ text: StaticString) {
    _ = string(UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// - Parameter period: Bytes for each sample, on average; 1 where every block is in the dump.
  mutating func writeTypes(wall: UInt64, duration: UInt64, hasPeak: Bool, period: UInt64) {
    string("")
    string("alloc_objects")
    string("count")
    string("alloc_space")
    string("bytes")
    string("inuse_objects")
    string("inuse_space")
    string("space")
    string("generation")
    string("truncated")
    string("frames")
    string("broken")
    string("[truncated]")
    string("[broken]")
    string("[jit]")
    string("domain")
    string("type")
    string("thread")
    string("tid")
    string("reach")
    string("lost")
    string("indirect")
    string("temporary")
    string("peak_objects")
    string("peak_space")
    string("sampled_blocks")
    string("standard_error")
    string("total_standard_error")
    writeValueType(1, .allocObjects, .count)
    writeValueType(1, .allocSpace, .bytes)
    writeValueType(1, .inuseObjects, .count)
    writeValueType(1, .inuseSpace, .bytes)
    if hasPeak {
      writeValueType(1, .peakObjects, .count)
      writeValueType(1, .peakSpace, .bytes)
      valueCount = 6
    }
    writeValueType(11, .space, .bytes)
    wire.write(12, varint: period)
    wire.write(9, varint: wall)
    wire.write(10, varint: duration)
    wire.write(14, varint: Fixed.inuseSpace.rawValue)
  }

  private mutating func writeValueType(_ field: UInt32, _ type: Fixed, _ unit: Fixed) {
    wire.beginMessage(
      field,
      byteCount: WireSize.field(1, varint: type.rawValue)
        &+ WireSize.field(2, varint: unit.rawValue))
    wire.write(1, varint: type.rawValue)
    wire.write(2, varint: unit.rawValue)
  }

  mutating func writeComment(_ text: UnsafeRawBufferPointer) {
    let index = string(text)
    wire.write(13, varint: index)
  }

  mutating func writeMapping(
    _ number: UInt64, _ module: LoadedModule, path: UnsafeRawBufferPointer,
    buildID: UnsafeRawBufferPointer
  ) {
    let pathIndex = string(path)
    let buildIndex = string(buildID)
    wire.beginMessage(
      3,
      byteCount: WireSize.field(1, varint: number) &+ WireSize.field(2, varint: module.start)
        &+ WireSize.field(3, varint: module.limit) &+ WireSize.field(4, varint: module.fileOffset)
        &+ WireSize.field(5, varint: pathIndex) &+ WireSize.field(6, varint: buildIndex))
    wire.write(1, varint: number)
    wire.write(2, varint: module.start)
    wire.write(3, varint: module.limit)
    wire.write(4, varint: module.fileOffset)
    wire.write(5, varint: pathIndex)
    wire.write(6, varint: buildIndex)
  }

  /// The mapping of code that was generated: no file, and all of its names are in the dump.
  mutating func writeGeneratedMapping(_ number: UInt64) {
    let name = Fixed.generatedCode.rawValue
    wire.beginMessage(
      3,
      byteCount: WireSize.field(1, varint: number) &+ WireSize.field(5, varint: name)
        &+ WireSize.field(7, varint: 1))
    wire.write(1, varint: number)
    wire.write(5, varint: name)
    wire.write(7, varint: 1)
  }

  /// - Parameter function: The number of the function, where it is known; 0 where it is not.
  mutating func writeLocation(
    _ number: UInt64, mapping: UInt64, address: UInt64, function: UInt64 = 0
  ) {
    let lineBytes = WireSize.field(1, varint: function)
    wire.beginMessage(
      4,
      byteCount: WireSize.field(1, varint: number) &+ WireSize.field(2, varint: mapping)
        &+ WireSize.field(3, varint: address)
        &+ (function == 0 ? 0 : WireSize.field(4, byteCount: lineBytes)))
    wire.write(1, varint: number)
    wire.write(2, varint: mapping)
    wire.write(3, varint: address)
    if function != 0 {
      wire.beginMessage(4, byteCount: lineBytes)
      wire.write(1, varint: function)
    }
  }

  mutating func writeFunction(_ number: UInt64, name: UnsafeRawBufferPointer) {
    writeFunction(number, string(name))
  }

  private mutating func writeFunction(_ number: UInt64, _ name: UInt64) {
    wire.beginMessage(
      5, byteCount: WireSize.field(1, varint: number) &+ WireSize.field(2, varint: name))
    wire.write(1, varint: number)
    wire.write(2, varint: name)
  }

  /// A location that is no place in the code but a name: what stands at the root of a stack that is
  /// not whole. Its function has its number.
  mutating func writeLocation(_ number: UInt64, named name: Fixed) {
    writeFunction(number, name.rawValue)
    writeLocation(number, mapping: 0, address: 0, function: number)
  }

  /// How a stack ends at its outermost frame.
  struct Root {
    /// A location behind the last frame; 0 for none.
    var location: UInt32
    var missingFrames: UInt32
    var isBroken: Bool
  }

  /// What a sample says of its blocks beside how many they are; each 0 where there is nothing to say.
  struct Labels {
    var generation: UInt32
    var domain: UInt32
    /// The number of a string.
    var type: UInt64
    var thread: (name: UInt64, identifier: UInt32)
    var reach: Reach
    var temporaries: UInt64
    /// How many blocks the figures were told by, and how far they may be off.
    var sampled: (blocks: UInt64, errorBytes: UInt64)
    /// How far the cumulative bytes may be off.
    var totalErrorBytes: UInt64
  }

  /// A sample: the numbers of its locations, its values, the last two only where those of the peak were
  /// announced, and its labels where they are not 0.
  mutating func writeSample(
    locations: UnsafePointer<UInt32>, count: Int, root: Root, values: InlineArray<6, UInt64>,
    labels: Labels
  ) {
    var locationBytes = root.location == 0 ? 0 : WireSize.varint(UInt64(root.location))
    for position in 0..<count {
      locationBytes &+= WireSize.varint(UInt64(locations[position]))
    }
    var valueBytes = 0
    for position in 0..<valueCount { valueBytes &+= WireSize.varint(values[position]) }
    let label = (
      generation: Label(.generation, number: UInt64(labels.generation)),
      truncated: Label(.truncated, number: UInt64(root.missingFrames), .frames),
      broken: Label(.broken, number: root.isBroken ? 1 : 0),
      domain: Label(.domain, number: UInt64(labels.domain)),
      type: Label(.type, string: labels.type),
      thread: Label(.thread, string: labels.thread.name),
      tid: Label(.tid, number: UInt64(labels.thread.identifier)),
      reach: Label(.reach, string: Self.word(of: labels.reach).rawValue),
      temporary: Label(.temporary, number: labels.temporaries),
      sampled: Label(.sampledBlocks, number: labels.sampled.blocks, .count),
      error: Label(.standardError, number: labels.sampled.errorBytes, .bytes),
      totalError: Label(.totalStandardError, number: labels.totalErrorBytes, .bytes)
    )
    wire.beginMessage(
      2,
      byteCount: WireSize.field(1, byteCount: locationBytes)
        &+ WireSize.field(2, byteCount: valueBytes) &+ label.generation.fieldByteCount
        &+ label.truncated.fieldByteCount &+ label.broken.fieldByteCount
        &+ label.domain.fieldByteCount &+ label.type.fieldByteCount
        &+ label.thread.fieldByteCount &+ label.tid.fieldByteCount
        &+ label.reach.fieldByteCount &+ label.temporary.fieldByteCount
        &+ label.sampled.fieldByteCount &+ label.error.fieldByteCount
        &+ label.totalError.fieldByteCount)
    wire.beginMessage(1, byteCount: locationBytes)
    for position in 0..<count { wire.writeVarint(UInt64(locations[position])) }
    if root.location != 0 { wire.writeVarint(UInt64(root.location)) }
    wire.beginMessage(2, byteCount: valueBytes)
    for position in 0..<valueCount { wire.writeVarint(values[position]) }
    write(label.generation)
    write(label.truncated)
    write(label.broken)
    write(label.domain)
    write(label.type)
    write(label.thread)
    write(label.tid)
    write(label.reach)
    write(label.temporary)
    write(label.sampled)
    write(label.error)
    write(label.totalError)
  }

  private static func word(of reach: Reach) -> Fixed {
    switch reach {
    case .held: .empty
    case .lost: .lost
    case .indirect: .indirect
    }
  }

  /// A label of a sample: a number, with or without a unit, or a string. One of 0 is none.
  private struct Label {
    var key: Fixed
    /// 3 for a number, 2 for a string.
    var field: UInt32
    var value: UInt64
    var unit: Fixed

    init(_ key: Fixed, number: UInt64, _ unit: Fixed = .empty) {
      (self.key, field, value, self.unit) = (key, 3, number, unit)
    }

    init(_ key: Fixed, string: UInt64) { (self.key, field, value, unit) = (key, 2, string, .empty) }

    var byteCount: Int {
      WireSize.field(1, varint: key.rawValue) &+ WireSize.field(field, varint: value)
        &+ (unit == .empty ? 0 : WireSize.field(4, varint: unit.rawValue))
    }

    /// With its tag and length, in a sample.
    var fieldByteCount: Int { value == 0 ? 0 : WireSize.field(3, byteCount: byteCount) }
  }

  private mutating func write(_ label: Label) {
    guard label.value != 0 else { return }
    wire.beginMessage(3, byteCount: label.byteCount)
    wire.write(1, varint: label.key.rawValue)
    wire.write(label.field, varint: label.value)
    if label.unit != .empty { wire.write(4, varint: label.unit.rawValue) }
  }
}
