// SPDX-License-Identifier: Apache-2.0
// Types by their metadata, in the memory of the tests themselves, and memory that is not there.

import Glibc
import Testing

@testable import TracerCore

private class Plain { var word = 0 }
private final class Pair<First, Second>: Plain {
  struct Inner<Third> { var third: Third }
}
private protocol Named {}
private struct Packed<each Part> { var parts: (repeat each Part) }
extension Dictionary { fileprivate struct Extra { var word = 0 } }

@Suite struct SwiftMetadataTests {
  private func name(_ type: Any.Type) throws -> String? {
    try name(at: unsafeBitCast(type, to: UInt.self))
  }

  private func name(at metadata: UInt) throws -> String? {
    let memory = try #require(ForeignMemory())
    defer { memory.close() }
    var reader = SwiftMetadata(memory)
    var bytes = [UInt8](repeating: 0, count: 400)
    return bytes.withUnsafeMutableBytes { bytes in
      var text = TextBuffer(bytes.baseAddress!, capacity: 400)
      return reader.appendName(metadata, to: &text)
        ? String(decoding: text.bytes, as: UTF8.self) : nil
    }
  }

  @Test func `a type has the name that its source gives it`() throws {
    func expect(_ type: Any.Type, _ expected: String) throws {
      #expect(try name(type) == expected)
    }
    try expect(Int.self, "Swift.Int")
    try expect([String: [Double?]].self, Self.dictionary)
    try expect(Plain.self, "TracerCoreTests.Plain")
    try expect(Pair<Int, Plain>.self, "TracerCoreTests.Pair<Swift.Int, TracerCoreTests.Plain>")
    try expect(
      Pair<Int, Bool>.Inner<UInt8>.self,
      "TracerCoreTests.Pair<Swift.Int, Swift.Bool>.Inner<Swift.UInt8>")
    try expect((Int, x: String).self, "(Swift.Int, Swift.String)")
    try expect(Void.self, "()")
    try expect(((Int, Bool) -> String).self, "(Swift.Int, Swift.Bool) -> Swift.String")
    try expect((() async throws -> Void).self, "() async throws -> ()")
    try expect(Any.self, "Any")
    try expect(AnyObject.self, "AnyObject")
    try expect((any Named & Sendable).self, "TracerCoreTests.Named")
    try expect((Plain & Named).self, "TracerCoreTests.Plain & TracerCoreTests.Named")
    try expect([any Error].self, "Swift.Array<Swift.Error>")
    try expect(Set<Int>.Type.self, "Swift.Set<Swift.Int>.Type")
    try expect(InlineArray<3, Int>.self, "Swift.InlineArray<3, Swift.Int>")
  }

  private static let dictionary =
    "Swift.Dictionary<Swift.String, Swift.Array<Swift.Optional<Swift.Double>>>"

  @Test func `what cannot be told of a type is an underscore`() throws {
    #expect(try name(Packed<Int, Bool>.self) == "TracerCoreTests.Packed<_>")
    var type: Any.Type = Int.self
    func wrap<Value>(_ inner: Value.Type) -> Any.Type { [Value].self }
    for _ in 0..<20 { type = _openExistential(type, do: wrap) }
    #expect(try name(type)?.contains("Swift.Array<_>") == true)
  }

  @Test func `a type in an extension has the name of its module or of what is extended`() throws {
    let found = try #require(try name([Int: Bool].Extra.self))
    #expect(found.hasSuffix("Extra<Swift.Int, Swift.Bool>"))
  }

  @Test func `what is no metadata has no name, wherever it leads`() throws {
    #expect(try name(at: 0) == nil)
    #expect(try name(at: 8) == nil)
    #expect(try name(at: 1 << 63) == nil)
    #expect(try name(at: unsafeBitCast(Plain.self, to: UInt.self) &+ 8) == nil)
    // Words that lead to each other.
    let words = UnsafeMutablePointer<UInt>.allocate(capacity: 64)
    defer { words.deallocate() }
    for kind in [0, 0x200, 0x301, 0x302, 0x303, 0x304] as [UInt] {
      words.initialize(repeating: UInt(bitPattern: words), count: 64)
      words[0] = kind
      words[1] = kind == 0x303 ? 3 << 32 : kind == 0x304 ? UInt(bitPattern: words) : 3
      let found = try name(at: UInt(bitPattern: words))
      #expect(found == nil || found?.contains("_") == true, "\(kind): \(found ?? "")")
    }
  }

  @Test func `objects are instances, boxes, captures and errors`() throws {
    let memory = try #require(ForeignMemory())
    defer { memory.close() }
    let metadata = SwiftMetadata(memory)
    func kind(of object: AnyObject) -> ObjectKind? {
      let address = UInt(bitPattern: Unmanaged.passUnretained(object).toOpaque())
      return memory.word(address).flatMap { metadata.kind($0) }
    }
    #expect(kind(of: Plain())?.kind == .instance)
    #expect(kind(of: Plain())?.byteCount == 24)
    // A type of values, and no metadata at all.
    #expect(metadata.kind(unsafeBitCast(Int.self, to: UInt.self)) == nil)
    #expect(metadata.kind(UInt(bitPattern: Unmanaged.passUnretained(Plain()).toOpaque())) == nil)
  }

  // MARK: Memory that is not there

  private func withPages(_ body: (UnsafeMutableRawPointer) throws -> Void) rethrows {
    let pages = mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
    defer { munmap(pages, 8192) }
    mprotect(pages + 4096, 4096, PROT_NONE)
    try body(pages)
  }

  @Test func `a word that is not there is none, and the next one is read as if nothing had been`()
    throws
  {
    let memory = try #require(ForeignMemory())
    defer { memory.close() }
    withPages { pages in
      pages.storeBytes(of: 0x1234, as: UInt.self)
      let address = UInt(bitPattern: pages)
      for _ in 0..<100 {
        #expect(memory.word(address + 4096) == nil)
        // Half of it is there.
        #expect(memory.word(address + 4092) == nil)
        #expect(memory.word(address) == 0x1234)
        var vectors = [
          iovec(iov_base: pages, iov_len: 8), iovec(iov_base: pages + 4096, iov_len: 8),
        ]
        var words: [UInt] = [1, 1]
        #expect(!memory.copy(&vectors, 2, 16, to: &words))
        vectors[1] = vectors[0]
        #expect(memory.copy(&vectors, 2, 16, to: &words))
        #expect(words == [0x1234, 0x1234])
      }
    }
  }

  @Test func `a name may end where memory does, and needs its zero`() throws {
    let memory = try #require(ForeignMemory())
    defer { memory.close() }
    try withPages { pages in
      var bytes = [UInt8](repeating: 0, count: 256)
      let end = (pages + 4092).assumingMemoryBound(to: UInt8.self)
      for (position, byte) in [0x61, 0x62, 0x63, 0].enumerated() { end[position] = UInt8(byte) }
      #expect(memory.copyText(UInt(bitPattern: end), to: &bytes, limit: 256) == 3)
      #expect(bytes.prefix(3) == [0x61, 0x62, 0x63])
      #expect(memory.copyText(UInt(bitPattern: end), to: &bytes, limit: 2) == nil)
      end[3] = 0x64
      #expect(memory.copyText(UInt(bitPattern: end), to: &bytes, limit: 256) == nil)
      try #require(memory.copyText(UInt(bitPattern: pages), to: &bytes, limit: 256) == 0)
    }
  }

  @Test func `the table asks once for each address, and begins anew when it is told to`() throws {
    let table = Zeroed(TypeTable.self)
    try #require(table { $0.pointee.open() })
    var asked = 0
    func number(_ metadata: UInt) -> UInt32 {
      table.pointer.pointee.number(metadata) { entry, text in
        asked += 1
        entry.byteCount = metadata % 2 == 0 ? 16 : 0
        for _ in 0..<min(metadata, 500) { text.append("x") }
      }
    }
    let numbers = (1...1000).map { number(UInt($0)) }
    #expect(Set(numbers).count == 1000 && !numbers.contains(0))
    #expect((1...1000).map { number(UInt($0)) } == numbers && asked == 1000)
    func name(_ number: UInt32) -> String {
      let entry = table.pointer.pointee.entry(number).pointee
      return String(decoding: table.pointer.pointee.name(of: entry), as: UTF8.self)
    }
    #expect(name(numbers[9]) == "xxxxxxxxxx")
    #expect(name(numbers[10]).isEmpty && !table.pointer.pointee.entry(numbers[10]).pointee.isKnown)
    #expect(name(numbers[999]) == String(repeating: "x", count: 397) + "...")
    table.pointer.pointee.clear()
    #expect(number(1000) == 1 && asked == 1001)
    // More than there is room for.
    let many = (1...20_000).map { number(UInt($0) << 4 | 1) }
    #expect(many.last == 0 && many.first == 2)
  }
}
