// SPDX-License-Identifier: Apache-2.0
// The integers of unwind tables, as DWARF writes them.

import Foundation
import Glibc
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

  // MARK: What tables may say

  @Test func `nothing is read past the end, and a reader stays there`() {
    let bytes: [UInt8] = [1, 2, 3]
    bytes.withUnsafeBytes { buffer in
      var reader = TableReader(buffer.baseAddress!, end: buffer.baseAddress! + 3)
      #expect(reader.read(UInt16.self) == 0x0201 && reader.isSound)
      #expect(reader.read(UInt16.self) == 0 && !reader.isSound && reader.isAtEnd)
      #expect(reader.readUnsigned() == 0 && reader.isAtEnd)
    }
  }

  @Test(arguments: [4, 1 << 40, UInt64.max, UInt64.max - 2])
  func `a length that is more than there is leads nowhere, and never back`(length: UInt64) {
    let bytes: [UInt8] = [1, 2, 3]
    bytes.withUnsafeBytes { buffer in
      var reader = TableReader(buffer.baseAddress!, end: buffer.baseAddress! + 3)
      reader.skip(length)
      #expect(reader.isAtEnd && !reader.isSound)
    }
  }

  /// `Corpus/unwind` has tables with such entries; here they are asked as they lie at the end of memory.
  @Test(arguments: [
    "block-backwards", "block-beyond-end", "entry-beyond-end", "count-beyond-end",
  ])
  func `a table that leads out of its segment has no rules`(name: String) throws {
    let path = URL(fileURLWithPath: #filePath).resolvingSymlinksInPath().deletingLastPathComponent()
      .deletingLastPathComponent().appendingPathComponent("Fuzz/Corpus/unwind/\(name)")
    let bytes = [UInt8](try Data(contentsOf: path))
    let page = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    defer { munmap(page, 8192) }
    let table = page + (4096 - bytes.count)
    table.copyMemory(from: bytes, byteCount: bytes.count)
    // What comes behind is no memory of anybody's.
    try #require(mprotect(page + 4096, 4096, PROT_NONE) == 0)
    let start = UInt(bitPattern: table)
    var rules = UnwindRules()
    #expect(
      !CallFrameInformation.rules(
        at: start + 0x1010, ehFrameHeader: start, in: start..<start + UInt(bytes.count),
        into: &rules))
  }
}
