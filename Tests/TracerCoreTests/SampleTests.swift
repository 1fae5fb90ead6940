// SPDX-License-Identifier: Apache-2.0
// The arithmetic of samples against that of floating point, and the table of the blocks that were taken.

import CTracerPlatform
import Glibc
import Testing

@testable import TracerCore

@Suite struct SampleMeanTests {
  private static let means: [UInt64] = [1 << 10, 4096, 777_777, 512 << 10, 1 << 30]

  @Test(arguments: means)
  func `a weight is one in the probability, for every size`(mean: UInt64) {
    let sampling = SampleMean(byteCount: mean)
    for step in 0..<600 {
      // From a millionth of the mean to a thousand times it.
      let size = UInt64(Double(mean) * exp2(Double(step) / 20 - 20))
      if size == 0 { continue }
      let x = Double(size) / Double(mean)
      let probability = -expm1(-x)
      let weight = sampling.weight(of: size)
      let blocks = Double(weight.blocks) / 65536
      let bytes = Double(weight.bytes) / 256
      let variance = Double(weight.variance) / 65536
      #expect(abs(blocks * probability - 1) < 2e-5, "\(size) of \(mean)")
      #expect(abs(bytes * probability / Double(size) - 1) < 1e-5, "\(size) of \(mean)")
      #expect(
        abs(variance - x * x * (1 - probability) / probability / probability) < 1e-4,
        "\(size) of \(mean)")
    }
    // No size overflows anything.
    for size in [1 << 40, 1 << 47, UInt64(Int64.max)] {
      #expect(sampling.weight(of: size).blocks == 1 << 16)
      #expect(sampling.weight(of: size).variance == 0)
    }
  }

  @Test func `distances are the logarithms of the random words`() {
    let sampling = SampleMean(byteCount: 1 << 20)
    for word: UInt64 in [1, 2, 3, 1 << 32, 1 << 63, 0x0123_4567_89ab_cdef, .max >> 1] {
      let expected = -log(Double(word) / 0x1p64) * 0x1p20
      #expect(abs(Double(sampling.distance(word)) - expected) < 1.01)
    }
    #expect(sampling.distance(0) == sampling.distance(1))
    #expect(sampling.distance(.max) == 0)
  }

  /// With random numbers that are always the same, so that it holds or does not.
  @Test func `what is estimated is right on average, to the error that is told`() {
    let sampling = SampleMean(byteCount: 4096)
    for size: UInt64 in [1, 16, 100, 1000, 4096, 10_000, 50_000] {
      var state = size
      var left = sampling.distance(nextRandom(&state))
      var sum = SampleWeight()
      let count = 2_000_000
      for _ in 0..<count {
        // As the stubs do: a block is recorded where it takes the countdown below 0.
        if left < size {
          sum.add(sampling.weight(of: size))
          left = sampling.distance(nextRandom(&state))
        } else {
          left -= size
        }
      }
      let truth = Double(count) * Double(size)
      let error = Double(sampling.standardError(sum.variance))
      #expect(abs(Double(sum.wholeBytes) - truth) < 4 * error + 1e-5 * truth, "\(size)")
      #expect(
        abs(Double(sum.wholeBlocks) - Double(count)) < 4 * error / Double(size) + 2e-5
          * Double(count),
        "\(size)")
      let x = Double(size) / 4096
      let probability = -expm1(-x)
      let expected = (Double(count) * (1 - probability) / probability).squareRoot() * Double(size)
      #expect(abs(error - expected) < 0.05 * expected + 100, "\(size)")
    }
  }
}

@Suite(.serialized) struct SampledBlocksTests {
  private let table = Zeroed(SampledBlocks.self)

  init() throws {
    try #require(table { $0.pointee.open() })
    table.pointer.pointee.discard()
  }

  private func enter(_ address: UInt, _ byteCount: UInt64 = 10, born: UInt32 = 1) -> Bool {
    let word = BlockWord(
      site: 7, birth: BlockWord.birth(generation: born, epoch: 1), smallByteCount: 0,
      address: address)
    return table.pointer.pointee.enter(address, word, byteCount: byteCount)
  }

  private func find(_ address: UInt, epoch: UInt32 = 1) -> BlockWord? {
    table.pointer.pointee.find(address, epoch: epoch)
  }

  private func take(_ address: UInt) -> UInt64? {
    table.pointer.pointee.take(address, epoch: 1)?.byteCount
  }

  private func isHeap(_ range: Range<UInt>) -> Bool { table.pointer.pointee.hasTouched(range) }

  private func blocks(bornBefore generation: UInt32 = 2) -> [UInt: UInt64] {
    var found: [UInt: UInt64] = [:]
    table.pointer.pointee.forEachBlock(epoch: 1, bornBefore: generation) { address, _, bytes in
      #expect(found.updateValue(bytes, forKey: address) == nil)
    }
    return found
  }

  private func pageCount(_ address: UInt) -> UInt8 {
    tracer_sampled_pages![Int(address >> 12 & 0xfffff)]
  }

  @Test func `a block is found until it is taken, by its own address only`() {
    let address: UInt = 0x7f00_0000_1010
    #expect(enter(address, 1 << 40))
    #expect(find(address)?.site == 7)
    #expect(find(address + 8) == nil)
    #expect(find(address, epoch: 2) == nil)
    #expect(pageCount(address) == 1)
    #expect(take(address) == 1 << 40)
    #expect(take(address) == nil)
    #expect(pageCount(address) == 0)
    #expect(blocks().isEmpty)
  }

  @Test func `any number of blocks finds room, and each is scanned once`() {
    let addresses = (0..<100_000).map { UInt(0x5555_0000_0000 + $0 * 48) }
    for address in addresses { #expect(enter(address, UInt64(address & 0xffff))) }
    let found = blocks()
    #expect(found.count == addresses.count)
    #expect(addresses.allSatisfy { found[$0] == UInt64($0 & 0xffff) })
    #expect(blocks(bornBefore: 1).isEmpty)
    for address in addresses {
      #expect(take(address) == UInt64(address & 0xffff))
    }
    #expect(blocks().isEmpty)
    #expect(addresses.allSatisfy { pageCount($0) == 0 })
  }

  @Test func `a page that is full stays looked at`() {
    // Pages 4 GiB apart share a cell.
    let addresses = (0..<300).map { UInt(0x5555_0000_0040 + ($0 << 32)) }
    for address in addresses { #expect(enter(address)) }
    #expect(pageCount(addresses[0]) == 255)
    for address in addresses { #expect(take(address) != nil) }
    #expect(pageCount(addresses[0]) == 255)
    table.pointer.pointee.discard()
    #expect(pageCount(addresses[0]) == 0)
  }

  @Test func `where blocks were sampled is heap, to two megabytes`() {
    #expect(!isHeap(0x7f00_0000_0000..<0x7f00_1000_0000))
    #expect(enter(0x7f00_0040_0010))
    #expect(isHeap(0x7f00_0000_0000..<0x7f00_1000_0000))
    #expect(!isHeap(0x7f00_0080_0000..<0x7f00_1000_0000))
  }
}
