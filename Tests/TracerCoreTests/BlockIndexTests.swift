// SPDX-License-Identifier: Apache-2.0
// Any address leads to the block that it lies in, and no other does.

import Testing

@testable import TracerCore

@Suite struct BlockIndexTests {
  private let map = Zeroed(LiveMap.self)

  init() throws {
    try #require(map { $0.pointee.open() })
  }

  private func enter(_ address: UInt, _ byteCount: UInt64) {
    let isEntered = map.pointer.pointee.enter(
      address, site: 7, generation: 1, epoch: 1, byteCount: byteCount)
    #expect(isEntered)
  }

  /// The beginnings of the blocks that addresses lie in.
  private func starts(of addresses: [UInt]) -> [UInt?] {
    let index = BlockIndex(map.pointer.pointee, epoch: 1)!
    defer { index.discard() }
    return addresses.map { address in
      index.block(at: address, map.pointer.pointee).map { index.address($0) }
    }
  }

  @Test func `every byte of a block leads to it, and none before or behind`() throws {
    enter(0x5000_0010, 100)
    #expect(
      starts(of: [0x5000_000f, 0x5000_0010, 0x5000_0011, 0x5000_0073, 0x5000_0074])
        == [nil, 0x5000_0010, 0x5000_0010, 0x5000_0010, nil])
  }

  @Test func `blocks of one page and of many are told apart`() throws {
    var expected: [UInt: UInt] = [:]
    var address: UInt = 0x6000_0ff0
    for number in 0..<3000 as Range<UInt> {
      let byteCount = 32 + number * 7 % 9000
      enter(address, UInt64(byteCount))
      for place in [0, 1, byteCount / 2, byteCount - 1] { expected[address + place] = address }
      address += (byteCount + 47) & ~15
    }
    let addresses = Array(expected.keys)
    #expect(starts(of: addresses) == addresses.map { expected[$0] })
  }

  @Test func `a block that spans regions is found in each of them, beside others`() throws {
    // From the middle of a region of 64 MiB over two whole ones into a fourth.
    let large: UInt = 0x7f00_0200_0000
    enter(large, 192 << 20)
    enter(large + 192 << 20 + 64, 48)
    // A region of lower addresses that is used later.
    enter(0x1_0000_0000, 16)
    #expect(
      starts(
        of: [
          large + 64 << 20, large + 150 << 20, large + 192 << 20 - 1, large + 192 << 20,
          large + 192 << 20 + 64, large + 192 << 20 + 111, 0x1_0000_000f, large - 1,
        ])
        == [
          large, large, large, nil, large + 192 << 20 + 64, large + 192 << 20 + 64, 0x1_0000_0000,
          nil,
        ])
  }

  @Test func `a block of no bytes is led to by its address only`() throws {
    enter(0x5000_0000, 0)
    #expect(starts(of: [0x5000_0000, 0x5000_0001]) == [0x5000_0000, nil])
  }

  @Test func `an array of no elements is led to from behind its count`() throws {
    let words = UnsafeMutablePointer<UInt>.allocate(capacity: 2)
    defer { words.deallocate() }
    words.initialize(repeating: 0, count: 2)
    let address = UInt(bitPattern: words)
    enter(address, 8)
    #expect(starts(of: [address + 8, address + 9]) == [address, nil])
    // With elements, what is behind the block is somebody else's.
    words[0] = 1
    #expect(starts(of: [address, address + 8]) == [address, nil])
  }

  @Test func `without blocks nothing is one`() throws {
    #expect(starts(of: [0, 0x5000_0000, .max]) == [nil, nil, nil])
  }

  @Test func `what is not marked is lost, or indirect where lost blocks point to it`() {
    enter(0x5000_0000, 16)
    enter(0x5000_0040, 16)
    enter(0x5000_0080, 16)
    var index = BlockIndex(map.pointer.pointee, epoch: 1)!
    defer { index.discard() }
    index.set(.marked, 0)
    index.set(.isPointedTo, 2)
    let reaches = [0x5000_0000, 0x5000_0040, 0x5000_0080, 0x5000_00c0].map {
      index.reach(ofBlockAt: $0)
    }
    // One that came after the search is not said to be lost.
    #expect(reaches == [.held, .lost, .indirect, .held])
  }
}
