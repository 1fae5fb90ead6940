// SPDX-License-Identifier: Apache-2.0
// Profiles of other tools, compressed ones, and hostile ones.

import HeapModel
import Pprof
import Testing

/// As Go writes them: strings last, functions and lines given, two types of four in use.
func goProfile(packed: Bool = true) -> [UInt8] {
  HandMade.message { profile in
    profile.sampleType(1, 2)
    profile.sampleType(3, 4)
    profile.sampleType(5, 2)
    profile.sampleType(6, 4)
    profile.message(ProfileField.sample) {
      if packed {
        $0.packed(SampleField.location, 7, 9)
        $0.packed(SampleField.value, 4, 4096, 1, 1024)
      } else {
        for value: UInt64 in [4, 4096, 1, 1024] { $0.write(SampleField.value, varint: value) }
        for id: UInt64 in [7, 9] { $0.write(SampleField.location, varint: id) }
      }
      // A label of Go's own: the size of the blocks.
      $0.message(SampleField.label) {
        $0.write(LabelField.key, varint: 4)
        $0.write(LabelField.number, varint: 1024)
      }
    }
    profile.message(ProfileField.mapping) {
      $0.write(MappingField.id, varint: 1)
      $0.write(MappingField.start, varint: 0x400000)
      $0.write(MappingField.limit, varint: 0x500000)
      $0.write(MappingField.fileName, varint: 7)
    }
    profile.message(ProfileField.location) {
      $0.write(LocationField.id, varint: 7)
      $0.write(LocationField.mapping, varint: 1)
      $0.write(LocationField.address, varint: 0x401000)
      $0.message(LocationField.line) {
        $0.write(LineField.function, varint: 1)
        $0.write(LineField.line, varint: 33)
      }
      $0.message(LocationField.line) {
        $0.write(LineField.function, varint: 1 << 40)
        $0.write(LineField.line, varint: 44)
      }
    }
    profile.message(ProfileField.location) {
      $0.write(LocationField.id, varint: 9)
      // A field that nobody has heard of, of each kind.
      $0.write(100, varint: 1)
      $0.write(101, text: "later")
      $0.writeTag(102, .fixed64)
      $0.sink.bytes += [1, 2, 3, 4, 5, 6, 7, 8]
      $0.writeTag(103, .fixed32)
      $0.sink.bytes += [1, 2, 3, 4]
    }
    profile.message(ProfileField.function) {
      $0.write(FunctionField.id, varint: 1)
      $0.write(FunctionField.name, varint: 8)
      $0.write(FunctionField.fileName, varint: 9)
    }
    profile.message(ProfileField.function) {
      $0.write(FunctionField.id, varint: 1 << 40)
      $0.write(FunctionField.systemName, varint: 10)
    }
    profile.strings(
      "", "alloc_objects", "count", "alloc_space", "bytes", "inuse_objects", "inuse_space",
      "/bin/server", "main.grow", "main.go", "main.main")
    profile.write(ProfileField.timeNanoseconds, varint: 1234)
    profile.write(200, varint: 1)
  }
}

@Suite struct ForeignProfileTests {
  @Test(arguments: [true, false])
  func `a Go heap profile is read with its functions and lines`(packed: Bool) throws {
    let snapshot = try Snapshot(profile: goProfile(packed: packed))
    #expect(snapshot.warnings.isEmpty)
    #expect(snapshot.modules.map(\.path) == ["/bin/server"])
    #expect(snapshot.header.dumpWallNanoseconds == 1234)
    let sample = try #require(snapshot.samples.first)
    #expect(
      Array(snapshot.stack(of: sample)) == [
        Frame(
          address: 0x401000, module: 0, function: "main.grow", file: "main.go", line: 33,
          isInlined: true),
        Frame(address: 0x401000, module: 0, function: "main.main", line: 44),
        // No Heaptap: a location of nothing is not a lost stack.
        Frame(),
      ])
    #expect(sample.liveBytes == 1024)
    #expect(sample.liveBlocks == 1)
    #expect(sample.totalBytes == 4096)
    #expect(sample.totalBlocks == 4)
    #expect(try Snapshot(profile: snapshot.profileBytes()) == snapshot)
  }

  @Test func `gperftools calls live memory space`() throws {
    let bytes = HandMade.message { profile in
      profile.strings("", "objects", "count", "space", "bytes")
      profile.sampleType(1, 2)
      profile.sampleType(3, 4)
      profile.message(ProfileField.sample) { $0.packed(SampleField.value, 2, 64) }
    }
    let snapshot = try Snapshot(profile: bytes)
    #expect(snapshot.samples.map(\.liveBytes) == [64])
    #expect(snapshot.samples.map(\.liveBlocks) == [2])
  }

  @Test func `comments may be packed`() throws {
    let bytes = HandMade.message { profile in
      profile.strings("", "space", "bytes", "pid=7", "host=h")
      profile.sampleType(1, 2)
      profile.packed(ProfileField.comment, 3, 4)
    }
    let snapshot = try Snapshot(profile: bytes)
    #expect(snapshot.header.entries.map(\.comment) == ["pid=7", "host=h"])
    #expect(snapshot.warnings == ["profile has no samples"])
  }

  @Test func `bytes that are not UTF-8 are replaced`() throws {
    let bytes = HandMade.message { profile in
      profile.strings("", "space", "bytes")
      profile.sink.bytes += [0x32, 6, 0x61, 0x3d, 0xff, 0xfe, 0x62, 0x00]
      profile.sampleType(1, 2)
      profile.write(ProfileField.comment, varint: 3)
    }
    #expect(try Snapshot(profile: bytes).header["a"] == "\u{fffd}\u{fffd}b\0")
  }

  @Test func `a cut profile of another tool keeps what is whole, if it can`() throws {
    let bytes = goProfile()
    #expect(throws: ProfileError.self) { try Snapshot(profile: Array(bytes.prefix(40))) }
    let salvaged = try Snapshot(profile: bytes + [0x12, 100, 1])
    #expect(salvaged.samples.count == 1)
    #expect(
      salvaged.warnings
        == ["profile ends inside a field (byte \(bytes.count + 3)): the first 1 site was kept"])
  }
}

@Suite struct RefusedProfileTests {
  private func refusal(of bytes: [UInt8]) -> ProfileError? {
    do throws(ProfileError) { _ = try Snapshot(profile: bytes) } catch { return error }
    return nil
  }

  /// A profile with strings, a type and whatever is put in.
  private func heap(_ fields: (inout WireWriter<HandMade>) -> Void) -> [UInt8] {
    HandMade.message { profile in
      profile.strings("", "inuse_space", "bytes", "generation")
      profile.sampleType(1, 2)
      fields(&profile)
    }
  }

  @Test func `a profile of something else is refused by what it is`() {
    let bytes = HandMade.message { profile in
      profile.strings("", "cpu", "nanoseconds")
      profile.sampleType(1, 2)
    }
    #expect(
      refusal(of: bytes)?.description
        == "not a heap profile: first sample type is 'cpu', expected 'inuse_space'")
    #expect(
      refusal(of: HandMade.message { $0.strings("") })?.description
        == "not a heap profile: it has no sample types")
  }

  @Test func `no bytes are no profile`() {
    #expect(refusal(of: [])?.description == "profile is empty")
  }

  @Test func `text is no profile`() {
    #expect(refusal(of: Array("#!/bin/sh\necho hello\n".utf8)) != nil)
    #expect(refusal(of: Array("heap profile: 1: 2 [3: 4] @ heap_v2/1\n".utf8)) != nil)
    #expect(refusal(of: [UInt8](repeating: 0, count: 100))?.code == .malformedTag)
  }

  @Test func `references to what is not there are refused`() {
    let bodies: [(String, (inout WireWriter<HandMade>) -> Void)] = [
      ("string 99", { $0.write(ProfileField.comment, varint: 99) }),
      (
        "string \(UInt64.max)",
        { $0.message(ProfileField.mapping) { $0.write(MappingField.fileName, varint: .max) } }
      ),
      (
        "mapping 5",
        {
          $0.message(ProfileField.location) {
            $0.write(LocationField.id, varint: 1)
            $0.write(LocationField.mapping, varint: 5)
          }
        }
      ),
      (
        "function 6",
        {
          $0.message(ProfileField.location) {
            $0.write(LocationField.id, varint: 1)
            $0.message(LocationField.line) { $0.write(LineField.function, varint: 6) }
          }
        }
      ),
      (
        "location 7",
        { $0.message(ProfileField.sample) { $0.packed(SampleField.location, 7) } }
      ),
      (
        "location \(UInt64.max)",
        { $0.message(ProfileField.sample) { $0.packed(SampleField.location, .max) } }
      ),
      (
        "string 50",
        {
          $0.message(ProfileField.sample) {
            $0.message(SampleField.label) { $0.write(LabelField.key, varint: 50) }
          }
        }
      ),
    ]
    for (what, body) in bodies {
      let error = refusal(of: heap(body))
      #expect(error?.code == .danglingReference, "\(what)")
      #expect(error?.detail == what)
      #expect(error?.byteOffset ?? 0 > 30)
    }
  }

  @Test func `an ID may be defined once, and 0 is none`() {
    for id: UInt64 in [0, 3, 1 << 50] {
      for field in [ProfileField.location, ProfileField.mapping, ProfileField.function] {
        let bytes = heap { profile in
          for _ in 0..<2 { profile.message(field) { $0.write(1, varint: id) } }
        }
        #expect(refusal(of: bytes)?.code == .duplicateID)
      }
    }
  }

  @Test func `samples have a value for each type, none negative`() {
    let none = heap { $0.message(ProfileField.sample) { _ in } }
    #expect(
      refusal(of: none)?.description.hasPrefix("sample has fewer values than there are") == true)
    let two = heap { $0.message(ProfileField.sample) { $0.packed(SampleField.value, 1, 2) } }
    #expect(refusal(of: two)?.code == .valueCount)
    let negative = heap {
      $0.message(ProfileField.sample) { $0.packed(SampleField.value, .max) }
    }
    #expect(refusal(of: negative)?.code == .negativeValue)
  }

  @Test func `a field of the wrong kind is refused with its place`() {
    let bytes = heap { $0.write(ProfileField.sample, varint: 1) }
    #expect(refusal(of: bytes)?.code == .unexpectedWireType)
    #expect(refusal(of: bytes)?.byteOffset == bytes.count - 2)
    #expect(refusal(of: heap { $0.sink.bytes += [0x30, 1] })?.code == .unexpectedWireType)
  }

  @Test func `damage inside a whole field is not taken for a cut`() {
    let bytes = heap { $0.sink.bytes += [0x12, 2, 0x0a, 9] }
    #expect(refusal(of: bytes)?.code == .fieldOverrun)
  }

  @Test func `a huge length takes no memory`() throws {
    let bytes = heap { profile in
      profile.message(ProfileField.sample) { $0.packed(SampleField.value, 9) }
      profile.writeTag(ProfileField.sample, .lengthDelimited)
      profile.writeVarint(1 << 60)
    }
    let salvaged = try Snapshot(profile: bytes)
    #expect(salvaged.liveBytes == 9)
    #expect(salvaged.warnings.count == 1)
  }

  @Test func `a small file cannot unfold into gigabytes of frames`() {
    let bytes = heap { profile in
      profile.message(ProfileField.location) {
        $0.write(LocationField.id, varint: 1)
        for _ in 0..<20_000 { $0.message(LocationField.line) { _ in } }
      }
      for _ in 0..<100 {
        profile.message(ProfileField.sample) {
          $0.message(SampleField.location) { ids in
            for _ in 0..<500 { ids.writeVarint(1) }
          }
          $0.packed(SampleField.value, 1)
        }
      }
    }
    #expect(bytes.count < 120_000)
    #expect(refusal(of: bytes)?.code == .tooLarge)
  }

  @Test func `there is a limit to samples, to what they refer to, and to inlined calls`() throws {
    // Each takes a few bytes in a file, which may be compressed, and a hundred in memory.
    func profile(samples: Int = 0, functions: Int = 0, calls: Int = 0) -> [UInt8] {
      heap { profile in
        for id in 0..<functions {
          profile.message(ProfileField.function) {
            $0.write(FunctionField.id, varint: UInt64(id + 1))
          }
        }
        profile.message(ProfileField.location) {
          $0.write(LocationField.id, varint: 1)
          for _ in 0..<calls { $0.message(LocationField.line) { _ in } }
        }
        for _ in 0..<samples {
          profile.message(ProfileField.sample) { $0.packed(SampleField.value, 1) }
        }
      }
    }
    let limits = ProfileLimits(samples: 9, frames: 4)
    let largest = profile(samples: 9, functions: 3, calls: 4)
    #expect(try Snapshot(profile: largest, limits: limits).liveBytes == 9)
    for tooLarge in [profile(samples: 10), profile(functions: 4), profile(calls: 5)] {
      #expect {
        try Snapshot(profile: Gzip.compressed(tooLarge), limits: limits)
      } throws: { error in
        (error as? ProfileError)?.code == .tooLarge
      }
    }
  }

  @Test func `one long string cannot be copied into a thousand comments`() {
    let bytes = heap { profile in
      profile.strings("k=" + String(repeating: "x", count: 5000))
      profile.message(ProfileField.comment) { comments in
        for _ in 0..<1000 { comments.writeVarint(4) }
      }
    }
    #expect(refusal(of: bytes)?.code == .tooLarge)
  }

  @Test func `every error is one sentence`() {
    let codes: [ProfileError.Code] = [
      .empty, .truncated, .fieldOverrun, .malformedVarint, .malformedTag, .unsupportedWireType,
      .unexpectedWireType, .danglingReference, .duplicateID, .notHeapProfile, .valueCount,
      .negativeValue, .tooLarge, .damagedCompression,
    ]
    for code in codes {
      #expect(ProfileError(code, at: 8).description.hasSuffix(" (byte 8)"))
      let text = ProfileError(code).description
      #expect(!text.contains("nil") && !text.hasSuffix(".") && text.first?.isLowercase == true)
    }
  }
}

@Suite struct CompressedProfileTests {
  /// gzip without compression, in blocks of up to 65,535 bytes.
  private func gzip(_ contents: [UInt8]) -> [UInt8] {
    var bytes: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
    var rest = contents[...]
    repeat {
      let block = rest.prefix(65_535)
      rest = rest.dropFirst(block.count)
      bytes.append(rest.isEmpty ? 1 : 0)
      for number in [UInt16(block.count), ~UInt16(block.count)] {
        bytes += [UInt8(truncatingIfNeeded: number), UInt8(number >> 8)]
      }
      bytes += block
    } while !rest.isEmpty
    for number in [crc32(contents), UInt32(contents.count)] {
      bytes += (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
    }
    return bytes
  }

  private func crc32(_ bytes: [UInt8]) -> UInt32 {
    ~bytes.reduce(~0) { crc, byte in
      (0..<8).reduce(crc ^ UInt32(byte)) { crc, _ in
        crc & 1 == 1 ? crc >> 1 ^ 0xedb8_8320 : crc >> 1
      }
    }
  }

  @Test func `a compressed profile is read like any other`() throws {
    let snapshot = everything()
    let again = try Snapshot(profile: gzip(snapshot.profileBytes()))
    #expect(again == snapshot)
    #expect(again.warnings.isEmpty)
  }

  @Test func `two compressed files in a row are one profile`() throws {
    let bytes = everything().profileBytes()
    let halves = gzip(Array(bytes[..<300])) + gzip(Array(bytes[300...]))
    #expect(try Snapshot(profile: halves) == everything())
    // Padding, as on a tape.
    #expect(try Snapshot(profile: halves + [0, 0, 0]) == everything())
  }

  @Test func `a compressed profile cut at any byte is salvaged with a warning, or refused`() {
    let bytes = gzip(everything().profileBytes())
    var salvaged = 0
    for end in 2..<bytes.count {
      do {
        let snapshot = try Snapshot(profile: Array(bytes[..<end]))
        #expect(!snapshot.warnings.isEmpty, "cut at \(end)")
        salvaged += 1
      } catch {
        #expect([.truncated, .notHeapProfile].contains(error.code), "cut at \(end)")
      }
    }
    #expect(salvaged > 100)
  }

  @Test func `damage that the checksum finds is refused`() {
    var bytes = gzip(everything().profileBytes())
    bytes[60] ^= 1
    #expect {
      try Snapshot(profile: bytes)
    } throws: { error in
      (error as? ProfileError)?.code == .damagedCompression
    }
  }

  @Test func `no more is unpacked than was allowed`() throws {
    let bytes = everything().profileBytes()
    #expect(try Snapshot(profile: gzip(bytes), inflatedByteCountLimit: bytes.count) == everything())
    #expect {
      try Snapshot(profile: gzip(bytes), inflatedByteCountLimit: bytes.count - 1)
    } throws: { error in
      (error as? ProfileError)?.code == .tooLarge
    }
  }
}
