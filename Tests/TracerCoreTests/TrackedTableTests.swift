// SPDX-License-Identifier: Apache-2.0
// Blocks that a program tracks by itself: what goes in comes out, by domain and address.

import Testing

@testable import TracerCore

@Suite struct TrackedTableTests {
  private let table = Zeroed(TrackedTable.self)

  private struct Found: Hashable {
    var domain: UInt32
    var site: UInt32
    var generation: UInt32
    var byteCount: UInt64
  }

  private func enter(
    _ address: UInt64, _ byteCount: UInt64, domain: UInt32 = 1, site: UInt32 = 7,
    generation: UInt32 = 1
  ) -> Bool {
    table.pointer.pointee.enter(
      domain: domain, address: address, byteCount: byteCount, site: site, generation: generation)
  }

  private func found(bornBefore generation: UInt32 = 1023) -> Set<Found> {
    var found = Set<Found>()
    table.pointer.pointee.forEachBlock(bornBefore: generation) {
      #expect(found.insert(Found(domain: $0, site: $1, generation: $2, byteCount: $3)).inserted)
    }
    return found
  }

  private var sums: [UInt64] {
    [
      table.pointer.pointee.blockCount.load(ordering: .relaxed),
      table.pointer.pointee.byteCount.load(ordering: .relaxed),
    ]
  }

  @Test func `a closed table holds nothing`() {
    #expect(found().isEmpty)
    table.pointer.pointee.unlockAll()
    table.pointer.pointee.discard()
    #expect(sums == [0, 0])
  }

  @Test func `one address in two domains is two blocks, and any number is an address`() {
    #expect(table { $0.pointee.open() })
    #expect(enter(0, 10, domain: 1))
    #expect(enter(0, 20, domain: 2))
    #expect(enter(.max, 30, domain: .max, site: BlockWord.siteLimit - 1, generation: 1022))
    #expect(sums == [3, 60])
    #expect(
      found() == [
        Found(domain: 1, site: 7, generation: 1, byteCount: 10),
        Found(domain: 2, site: 7, generation: 1, byteCount: 20),
        Found(
          domain: .max, site: BlockWord.siteLimit - 1, generation: 1022, byteCount: 30),
      ])
    table.pointer.pointee.take(domain: 1, address: 0)
    table.pointer.pointee.take(domain: 1, address: 0)
    table.pointer.pointee.take(domain: 3, address: 5)
    #expect(sums == [2, 50])
    #expect(found().map(\.byteCount).sorted() == [20, 30])
  }

  @Test func `entered again, a block has its new size, site and generation`() {
    #expect(table { $0.pointee.open() })
    #expect(enter(64, 10))
    #expect(enter(64, 1 << 40, site: 9, generation: 2))
    #expect(sums == [1, 1 << 40])
    #expect(found() == [Found(domain: 1, site: 9, generation: 2, byteCount: 1 << 40)])
    #expect(found(bornBefore: 2).isEmpty)
  }

  @Test func `places are used again, and a table that was given back begins anew`() {
    #expect(table { $0.pointee.open() })
    for round in 0..<50 {
      for address in 0..<1000 { #expect(enter(UInt64(address * 4096), 1, site: UInt32(round + 1))) }
      for address in 0..<1000 {
        table.pointer.pointee.take(domain: 1, address: UInt64(address * 4096))
      }
    }
    #expect(sums == [0, 0])
    #expect(found().isEmpty)
    #expect(table { $0.pointee.usedByteCount } < 64 * 1024, "a place for each of the thousand")
    #expect(enter(1, 1))
    table.pointer.pointee.discard()
    #expect(sums == [0, 0])
    #expect(found().isEmpty)
    #expect(enter(1, 2))
    #expect(sums == [1, 2])
  }

  @Test func `a hundred thousand blocks are found and taken one by one`() {
    #expect(table { $0.pointee.open() })
    for number in 0..<100_000 {
      #expect(enter(UInt64(number) << 12, UInt64(number), generation: 1 + UInt32(number % 1000)))
    }
    #expect(sums == [100_000, 4_999_950_000])
    #expect(found().count == 100_000)
    for number in stride(from: 0, to: 100_000, by: 2) {
      table.pointer.pointee.take(domain: 1, address: UInt64(number) << 12)
    }
    #expect(found().allSatisfy { $0.byteCount % 2 == 1 })
    #expect(sums[0] == 50_000)
  }
}
