// SPDX-License-Identifier: Apache-2.0
// The integers of unwind tables, as DWARF writes them.

import Testing

@testable import TracerCore

@Suite struct TableReaderTests {
  private func read<Value>(_ bytes: [UInt8], _ body: (inout TableReader) -> Value) -> Value {
    bytes.withUnsafeBytes { buffer in
      var reader = TableReader(buffer.baseAddress!, end: buffer.baseAddress! + buffer.count)
      return body(&reader)
    }
  }

  // DWARF 5, figures C.1 and C.2.
  @Test(
    arguments: [
      ([2], 2), ([127], 127), ([128, 1], 128), ([129, 1], 129), ([185, 100], 12857),
      ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], UInt64.max),
    ] as [([UInt8], UInt64)])
  func `unsigned integers are read as the standard's examples say`(bytes: [UInt8], value: UInt64) {
    #expect(read(bytes) { $0.readUnsigned() } == value)
  }

  @Test(
    arguments: [
      ([2], 2), ([0x7e], -2), ([0xff, 0], 127), ([0x81, 0x7f], -127), ([0x80, 1], 128),
      ([0x80, 0x7f], -128), ([0x81, 1], 129), ([0xff, 0x7e], -129),
      ([0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f], Int.min),
    ] as [([UInt8], Int)])
  func `signed integers are read as the standard's examples say`(bytes: [UInt8], value: Int) {
    #expect(read(bytes) { $0.readSigned() } == value)
  }

  @Test func `an integer that does not end is left after ten bytes`() {
    let bytes = [UInt8](repeating: 0x80, count: 16)
    let read = bytes.withUnsafeBytes { buffer in
      var reader = TableReader(buffer.baseAddress!, end: buffer.baseAddress! + buffer.count)
      _ = reader.readUnsigned()
      return reader.position - buffer.baseAddress!
    }
    #expect(read == 10)
  }
}
