// SPDX-License-Identifier: Apache-2.0
// The encoding itself, against bytes from the protocol buffers' own documentation.

import Pprof
import Testing

@Suite struct WireWriterTests {
  @Test func `writes what the documentation of protocol buffers shows`() {
    let bytes = HandMade.message {
      $0.write(1, varint: 150)
      $0.write(2, text: "testing")
      $0.beginMessage(3, byteCount: WireSize.field(1, varint: 150))
      $0.write(1, varint: 150)
    }
    let testing: [UInt8] = [0x12, 7, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]
    #expect(bytes == [8, 0x96, 1] + testing + [0x1a, 3, 8, 0x96, 1])
  }

  @Test(arguments: [
    (UInt64(0), 1), (127, 1), (128, 2), (16_383, 2), (16_384, 3), (1 << 62, 9), (1 << 63, 10),
    (.max, 10),
  ])
  func `an integer is as long as it was said to be, and comes back`(
    value: UInt64, byteCount: Int
  ) throws {
    let bytes = HandMade.message { $0.writeVarint(value) }
    #expect(bytes.count == byteCount)
    #expect(WireSize.varint(value) == byteCount)
    var reader = WireReader(bytes)
    #expect(try reader.readVarint() == value)
  }

  @Test func `sizes are those of what is written`() {
    for field: UInt32 in [1, 15, 16, 2047, 2048, (1 << 29) - 1] {
      let integer = HandMade.message { $0.write(field, varint: 300) }
      #expect(integer.count == WireSize.field(field, varint: 300))
      let text = HandMade.message {
        $0.message(field) { $0.sink.bytes = Array(repeating: 0, count: 200) }
      }
      #expect(text.count == WireSize.field(field, byteCount: 200))
    }
  }
}

@Suite struct WireReaderTests {
  private func error(_ bytes: [UInt8], _ read: (inout WireReader) throws -> Void) -> ProfileError? {
    var reader = WireReader(bytes)
    do { try read(&reader) } catch { return error as? ProfileError }
    return nil
  }

  @Test func `a tenth byte above 1 is more than 64 bits`() throws {
    let nine = [UInt8](repeating: 0xff, count: 9)
    var largest = WireReader(nine + [1])
    #expect(try largest.readVarint() == .max)
    for tenth: UInt8 in [2, 0x7f, 0x80, 0xff] {
      #expect(
        error(nine + [tenth, 0]) { _ = try $0.readVarint() }
          == ProfileError(.malformedVarint, at: 0))
    }
  }

  @Test func `an integer that needs no more bytes may still have them`() throws {
    var padded = WireReader([0x81, 0x80, 0x00])
    #expect(try padded.readVarint() == 1)
  }

  @Test func `the end is never passed`() {
    #expect(error([]) { _ = try $0.readVarint() } == ProfileError(.truncated, at: 0))
    #expect(error([0x80]) { _ = try $0.readVarint() } == ProfileError(.truncated, at: 0))
    #expect(error([5, 1, 2]) { _ = try $0.readBytes() } == ProfileError(.truncated, at: 0))
    #expect(error([1, 2, 3]) { try $0.skip(.fixed32) } == ProfileError(.truncated, at: 0))
    #expect(error([1, 2, 3, 4, 5, 6, 7]) { try $0.skip(.fixed64) }?.code == .truncated)
    let hugeLength = [UInt8](repeating: 0xff, count: 9) + [1]
    #expect(error(hugeLength) { _ = try $0.readBytes() } == ProfileError(.truncated, at: 0))
  }

  @Test func `a field that runs past its message is told from a file that was cut`() {
    // A message of two bytes, in which a string claims to have five.
    let bytes: [UInt8] = [2, 0x0a, 5, 1, 2, 3, 4, 5]
    let problem = error(bytes) { reader in
      let outer = try reader.enterMessage()
      let tag = try reader.readTag()
      _ = try reader.readBytes(tag)
      reader.leaveMessage(outer)
    }
    #expect(problem == ProfileError(.fieldOverrun, at: 2))
  }

  @Test func `leaving a message goes on behind it, read or not`() throws {
    var reader = WireReader([2, 8, 1, 42])
    let outer = try reader.enterMessage()
    reader.leaveMessage(outer)
    #expect(try reader.readVarint() == 42)
    let isAtEnd = reader.isAtEnd
    #expect(isAtEnd)
  }

  @Test func `groups and field 0 are refused`() {
    #expect(
      error([0x0b]) { _ = try $0.readTag() } == ProfileError(.unsupportedWireType, at: 0, "3"))
    #expect(error([0x00]) { _ = try $0.readTag() } == ProfileError(.malformedTag, at: 0))
  }
}
