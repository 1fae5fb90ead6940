// SPDX-License-Identifier: Apache-2.0
// Protocol buffers, written in one pass to wherever the bytes go; shared with the tracer.

// The tracer compiles this file as Embedded Swift inside somebody's malloc. It must allocate
// nothing and trap nowhere: no class, array, existential or escaping closure, and arithmetic wraps.

/// Where written bytes go.
///
/// A sink does not fail. One without room drops what it is given and remembers that it did: the
/// writer has no way out in the middle of a message, and its owner looks once at the end.
package protocol ByteSink: ~Copyable {
  mutating func append(_ byte: UInt8)
  mutating func append(_ bytes: UnsafeRawBufferPointer)
}

/// Writes the fields of a protocol buffer, in the order of the calls.
///
/// Nothing is held back. The length of a message inside a message must therefore be known before
/// its first field: add it up with the `byteCount` functions, and pass it to `beginMessage`.
package struct WireWriter<Sink: ByteSink & ~Copyable>: ~Copyable {
  package var sink: Sink

  package init(_ sink: consuming Sink) {
    self.sink = sink
  }

  /// Ends the writing and hands the sink back.
  package consuming func finish() -> Sink { sink }

  /// Writes an integer in groups of seven bits, lowest first.
  package mutating func writeVarint(_ value: UInt64) {
    var rest = value
    while rest >= 0x80 {
      sink.append(UInt8(truncatingIfNeeded: rest) | 0x80)
      rest >>= 7
    }
    sink.append(UInt8(truncatingIfNeeded: rest))
  }

  package mutating func writeTag(_ field: UInt32, _ type: WireType) {
    writeVarint(UInt64(field) << 3 | UInt64(type.rawValue))
  }

  /// Writes an integer field, also when it is 0: whether to leave that out is the caller's choice.
  package mutating func write(_ field: UInt32, varint value: UInt64) {
    writeTag(field, .varint)
    writeVarint(value)
  }

  /// Writes bytes, or the UTF-8 of a string, with their length.
  package mutating func write(_ field: UInt32, bytes: UnsafeRawBufferPointer) {
    writeTag(field, .lengthDelimited)
    writeVarint(UInt64(truncatingIfNeeded: bytes.count))
    unsafe sink.append(bytes)
  }

  package mutating func write(_ field: UInt32, text: StaticString) {
    unsafe write(
      field, bytes: UnsafeRawBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
  }

  /// Begins a message, a packed field or a string whose `byteCount` bytes the caller writes next.
  ///
  /// One byte more or fewer, and everything after it is read as something else.
  package mutating func beginMessage(_ field: UInt32, byteCount: Int) {
    writeTag(field, .lengthDelimited)
    writeVarint(UInt64(truncatingIfNeeded: byteCount))
  }

  /// Writes bytes that belong to a message begun before.
  package mutating func append(_ bytes: UnsafeRawBufferPointer) {
    unsafe sink.append(bytes)
  }
}

/// How a field's value is encoded: the three low bits of its tag.
///
/// The two group types that protocol buffers once had are not among them, nor used by pprof.
package enum WireType: UInt8, Sendable {
  case varint = 0
  case fixed64 = 1
  case lengthDelimited = 2
  case fixed32 = 5
}

/// The lengths of what `WireWriter` writes, without writing it.
///
/// Outside the writer, so that a caller need not name a sink to count.
package enum WireSize {
  /// The bytes of an integer: from 1 to 10.
  package static func varint(_ value: UInt64) -> Int {
    // Seven bits a byte, and 0 takes one byte: (bits + 6) / 7, of at least one bit.
    (64 &- (value | 1).leadingZeroBitCount &+ 6) / 7
  }

  /// The bytes of an integer field with its tag.
  package static func field(_ field: UInt32, varint value: UInt64) -> Int {
    tag(field) &+ varint(value)
  }

  /// The bytes of a message, packed field or string with its tag and length.
  package static func field(_ field: UInt32, byteCount: Int) -> Int {
    tag(field) &+ varint(UInt64(truncatingIfNeeded: byteCount)) &+ byteCount
  }

  /// The bytes of a tag: the type is in its low bits and does not change its length.
  package static func tag(_ field: UInt32) -> Int {
    varint(UInt64(field) << 3)
  }
}
