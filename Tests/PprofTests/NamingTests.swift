// SPDX-License-Identifier: Apache-2.0
// Names put into a profile that has none, and everything else left as it was.

import HeapModel
import Pprof
import Testing

@Suite struct NamingTests {
  /// Two calls at each address that has none yet.
  private func calls(_ frame: Frame) -> [Frame] {
    guard frame.function == nil, frame.file == nil, frame.line == nil, frame.module != nil else {
      return []
    }
    var inner = frame
    (inner.function, inner.file, inner.line) = ("inner λ", "/src/inner.swift", 0)
    inner.isInlined = true
    var outer = frame
    (outer.function, outer.file, outer.line) = ("<T as Into<U>>::into", "/src/a.rs", 77)
    return [inner, outer]
  }

  private func named(_ bytes: [UInt8]) throws -> [UInt8] {
    try Snapshot.profile(bytes, naming: calls)
  }

  /// The fields of a message, each with its number and all its bytes.
  private func fields(_ bytes: [UInt8]) throws -> [(number: UInt32, bytes: [UInt8])] {
    var fields: [(UInt32, [UInt8])] = []
    var reader = WireReader(bytes)
    while !reader.isAtEnd {
      let tag = try reader.readTag()
      try reader.skip(tag.type)
      fields.append((tag.field, Array(bytes[tag.byteOffset..<reader.position])))
    }
    return fields
  }

  @Test func `a profile with names reads as the snapshot that was given them`() throws {
    let snapshot = everything()
    let again = try Snapshot(profile: try named(snapshot.profileBytes()))
    #expect(again == snapshot.replacingFrames(calls))
    #expect(again.warnings.isEmpty)
    #expect(again.header == snapshot.header && again.modules == snapshot.modules)
    #expect(again.distinctFrames.contains { $0.function == "inner λ" && $0.isInlined })
  }

  @Test func `what has names keeps them, and nothing is added twice`() throws {
    let once = try named(everything().profileBytes())
    let twice = try named(once)
    #expect(twice.count == once.count)
    #expect(try Snapshot(profile: twice) == Snapshot(profile: once))
    #expect(try named(twice) == twice)
  }

  @Test func `samples, labels, comments and fields that nobody has heard of keep their bytes`()
    throws
  {
    for bytes in [everything().profileBytes(), goProfile(packed: true), goProfile(packed: false)] {
      let changed = [
        ProfileField.string, ProfileField.function, ProfileField.location, ProfileField.mapping,
      ]
      let before = try fields(bytes)
      let after = try fields(try named(bytes))
      let kept = before.filter { !changed.contains($0.number) }.map(\.bytes)
      #expect(!kept.isEmpty)
      #expect(after.filter { !changed.contains($0.number) }.map(\.bytes) == kept)
      // Numbers stay what they were: strings come first and in their order, the new ones later.
      let strings = before.filter { $0.number == ProfileField.string }.map(\.bytes)
      #expect(after.prefix(strings.count).map(\.bytes) == strings)
    }
  }

  @Test func `new functions take no number that is taken`() throws {
    let bytes = try named(goProfile(packed: true))
    // A duplicate would be refused, and a lost one be referred to.
    #expect(try Snapshot(profile: bytes).distinctFrames.contains { $0.function == "main.grow" })
    let crowded =
      HandMade.message { profile in
        profile.strings("", "space", "bytes", "/bin/x", "theirs")
        profile.sampleType(1, 2)
        for id: UInt64 in [1, 2, .max] {
          profile.message(ProfileField.function) {
            $0.write(FunctionField.id, varint: id)
            $0.write(FunctionField.name, varint: 4)
          }
        }
        profile.message(ProfileField.mapping) {
          $0.write(MappingField.id, varint: 5)
          $0.write(MappingField.limit, varint: 100)
          $0.write(MappingField.fileName, varint: 3)
        }
        profile.message(ProfileField.location) {
          $0.write(LocationField.id, varint: 1)
          $0.write(LocationField.mapping, varint: 5)
          $0.write(LocationField.address, varint: 7)
        }
        profile.message(ProfileField.sample) {
          $0.packed(SampleField.location, 1)
          $0.packed(SampleField.value, 10)
        }
      }
    let snapshot = try Snapshot(profile: try named(crowded))
    #expect(snapshot.distinctFrames.map(\.function) == ["inner λ", "<T as Into<U>>::into"])
  }

  @Test func `a mapping says what its frames have`() throws {
    func flags(_ bytes: [UInt8]) throws -> [[UInt32]] {
      try fields(bytes).filter { $0.number == ProfileField.mapping }.map { mapping in
        var reader = WireReader(mapping.bytes)
        let message = try reader.readBytes(try reader.readTag())
        return try fields(Array(mapping.bytes[message])).map(\.number)
          .filter { (MappingField.hasFunctions...MappingField.hasInlineFrames).contains($0) }
      }
    }
    var builder = Snapshot.Builder(header: ["heaptap": "1"], modules: everything().modules)
    builder.add(bytes: 1, stack: [Frame(address: 0x5020, module: 0)])
    let bytes = builder.finish().profileBytes()
    #expect(try flags(bytes) == [[], []])
    #expect(try flags(try named(bytes)) == [[7, 8, 9, 10], []])
  }

  @Test func `a named dump cut at any byte is salvaged, or refused`() throws {
    let whole = everything()
    let bytes = try named(whole.profileBytes())
    let stacks = whole.replacingFrames(calls)
    var salvagedCounts: [Int] = []
    for end in 0..<bytes.count {
      do {
        let salvaged = try Snapshot(profile: Array(bytes[..<end]))
        for (ours, theirs) in zip(salvaged.samples, stacks.samples) {
          #expect(salvaged.stack(of: ours) == stacks.stack(of: theirs), "cut at \(end)")
        }
        salvagedCounts.append(salvaged.samples.count)
      } catch {
        #expect([.empty, .truncated, .notHeapProfile].contains(error.code), "cut at \(end)")
      }
    }
    #expect(Set(salvagedCounts) == Set(0...whole.samples.count))
  }

  @Test func `a dump that was cut stays one that was`() throws {
    let bytes = everything().profileBytes()
    for missing in [1, 2, 40] {
      let again = try Snapshot(profile: try named(Array(bytes.dropLast(missing))))
      #expect(again.warnings.count == 1)
    }
  }

  @Test func `damage anywhere is put up with or refused, never worse`() {
    let bytes = everything().profileBytes()
    var generator = SplitMix(state: 20_261_122)
    var (refused, unreadable) = (0, 0)
    for _ in 0..<4000 {
      var damaged = bytes
      for _ in 0...Int.random(in: 0..<4, using: &generator) {
        let place = Int.random(in: 0..<damaged.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: damaged[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: damaged.remove(at: place)
        default: damaged.insert(UInt8.random(in: 0...255, using: &generator), at: place)
        }
      }
      let isReadable = (try? Snapshot(profile: damaged)) != nil
      guard let result = try? named(damaged) else {
        refused += 1
        continue
      }
      // What could be read before can be read after.
      if isReadable && (try? Snapshot(profile: result)) == nil { unreadable += 1 }
    }
    #expect(refused > 100 && refused < 4000)
    #expect(unreadable == 0)
  }

  @Test func `what was compressed is read, and damage to it found`() throws {
    let bytes = everything().profileBytes()
    let compressed = try Gzip.compressed(bytes)
    #expect(Gzip.isCompressed(compressed) && !Gzip.isCompressed(bytes))
    #expect(try Snapshot(profile: compressed) == everything())
    #expect(try named(compressed) == named(bytes))
    var damaged = compressed
    damaged[damaged.count - 5] ^= 1
    #expect(throws: ProfileError.self) { try Snapshot(profile: damaged) }
    #expect(try Gzip.compressed([]).count > 0)
    let long = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* $0 >> 7) }
    #expect(try Gzip.compressed(long).count < long.count + 1000)
  }
}
