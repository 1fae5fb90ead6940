// SPDX-License-Identifier: Apache-2.0
// An ELF file as the loader would map it: what a dump would say of it.

import Foundation
import HeapModel

/// A 64-bit little-endian ELF file, read with none of the code under test.
struct MappedFile {
  /// Where the tests' loader puts every file: its first segment's address 0 is here.
  static let base: UInt64 = 0x7f00_0000_0000

  let path: String
  let buildID: String
  private let bytes: [UInt8]
  private let codeOffset: UInt64
  private let codeAddress: UInt64
  private let codeByteCount: UInt64

  init(path: String) throws {
    self.path = path
    let bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: path)))
    self.bytes = bytes
    func read(_ offset: UInt64, _ byteCount: Int) -> UInt64 {
      (0..<byteCount).reversed().reduce(0) { $0 << 8 | UInt64(bytes[Int(offset) + $1]) }
    }
    var code: (offset: UInt64, address: UInt64, byteCount: UInt64) = (0, 0, 0)
    var buildID = ""
    for index in 0..<read(56, 2) {
      let header = read(32, 8) + index * 56
      let (offset, address, byteCount) =
        (read(header + 8, 8), read(header + 16, 8), read(header + 32, 8))
      switch read(header, 4) {
      case 1 where read(header + 4, 4) & 1 != 0:
        code = (offset, address, byteCount)
      case 4:
        var note = offset
        while note + 12 <= offset + byteCount {
          let (nameByteCount, descriptionByteCount) = (read(note, 4), read(note + 4, 4))
          let description = note + 12 + (nameByteCount + 3) & ~3
          if read(note + 8, 4) == 3, read(note + 12, 4) == 0x554e47 {
            buildID = (0..<descriptionByteCount)
              .map { String(format: "%02x", bytes[Int(description + $0)]) }.joined()
          }
          note = description + (descriptionByteCount + 3) & ~3
        }
      default: break
      }
    }
    (codeOffset, codeAddress, codeByteCount) = (code.offset, code.address, code.byteCount)
    self.buildID = buildID
  }

  /// What /proc/PID/maps would say of its code, with the dump's build ID.
  var module: Module {
    let start = codeAddress & ~4095
    let limit = (codeAddress + codeByteCount + 4095) & ~4095
    return Module(
      start: Self.base + start, limit: Self.base + limit, fileOffset: codeOffset & ~4095,
      path: path, buildID: buildID)
  }

  /// The addresses of the program's text, at a distance.
  func textAddresses(every distance: Int) -> [UInt64] {
    let text = section(".text") ?? 0..<0
    return text.indices.filter { ($0 - text.lowerBound) % distance == 0 }
      .map { UInt64($0) - codeOffset + codeAddress }
  }

  /// Where the file says that the byte at an offset of its code is.
  func address(ofFileOffset offset: UInt64) -> UInt64 { offset &- codeOffset &+ codeAddress }

  /// The frame whose call is at an address of the file.
  func frame(at address: UInt64, module: Int = 0) -> Frame {
    Frame(address: Self.base + address + 1, module: module)
  }

  /// Where a section's bytes are in the file.
  func section(_ name: String) -> Range<Int>? {
    func read(_ offset: Int, _ byteCount: Int) -> Int {
      (0..<byteCount).reversed().reduce(0) { $0 << 8 | Int(bytes[offset + $1]) }
    }
    let headers = read(40, 8)
    let names = read(headers + read(62, 2) * 64 + 24, 8)
    for index in 0..<read(60, 2) {
      let header = headers + index * 64
      let start = names + read(header, 4)
      let found = String(decoding: bytes[start...].prefix { $0 != 0 }, as: UTF8.self)
      if found == name {
        let offset = read(header + 24, 8)
        return offset..<(offset + read(header + 32, 8))
      }
    }
    return nil
  }
}
