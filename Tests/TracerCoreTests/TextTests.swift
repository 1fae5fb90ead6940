// SPDX-License-Identifier: Apache-2.0
// Text without strings: names, numbers, and what must not forge a line.

import Testing

@testable import TracerCore

@Suite struct TextTests {
  @Test(
    arguments: [
      (0, "19700101T000000.000000Z"), (951_782_400, "20000229T000000.000000Z"),
      (1_709_164_800, "20240229T000000.000000Z"), (1_795_258_077, "20261121T104757.000000Z"),
      (4_107_542_399, "21000228T235959.000000Z"), (4_107_542_400, "21000301T000000.000000Z"),
    ] as [(UInt64, String)])
  func `a dump's name begins with the time in UTC`(seconds: UInt64, expected: String) {
    let name = text { text in
      "d".utf8.withContiguousStorageIfAvailable { program in
        DumpName.append(
          to: &text, wall: seconds * 1_000_000_000, program: UnsafeRawBufferPointer(program),
          process: 12, sequence: 3)
      }
    }
    #expect(name == expected + "-d-12-3.pb")
  }

  @Test func `a program's name is safe in a shell and never empty`() {
    func safe(_ name: String) -> String {
      var copy = name
      return copy.withUTF8 { bytes in
        text {
          DumpName.appendProgram(to: &$0, UnsafeRawBufferPointer(bytes))
        }
      }
    }
    #expect(safe("redis-server") == "redis-server")
    #expect(safe("a b;$(c)\n") == "a_b___c__")
    #expect(safe("") == "_")
    #expect(safe(String(repeating: "x", count: 100)).count == 48)
  }

  @Test func `numbers are written whole`() {
    #expect(text { $0.append(decimal: 0) } == "0")
    #expect(text { $0.append(decimal: .max) } == "18446744073709551615")
    #expect(text { $0.append(signed: .min) } == "-9223372036854775808")
    #expect(text { $0.append(decimal: 7, width: 3) } == "007")
  }

  @Test func `byte counts keep two digits or more`() {
    #expect(text { $0.append(byteCount: 10239) } == "10239 B")
    #expect(text { $0.append(byteCount: 10240) } == "10 KiB")
    #expect(text { $0.append(byteCount: 64 << 20) } == "64 MiB")
  }

  @Test func `control bytes of foreign text become question marks`() {
    var evil = "x\nPRIORITY=0\u{7f}"
    let written = evil.withUTF8 { bytes in
      text { $0.append(printable: UnsafeRawBufferPointer(bytes)) }
    }
    #expect(written == "x?PRIORITY=0?")
  }

  @Test func `a full buffer says so and keeps what fits`() {
    let bytes = UnsafeMutableRawPointer.allocate(byteCount: 4, alignment: 8)
    defer { bytes.deallocate() }
    var buffer = TextBuffer(bytes, capacity: 4)
    buffer.append("abcdef")
    #expect(buffer.isFull)
    #expect(buffer.count == 4)
  }
}
