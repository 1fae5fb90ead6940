// SPDX-License-Identifier: Apache-2.0
// The arithmetic of sampling by bytes: how far to the next sample, and for what a sample stands.

// Bytes are samples independently of each other, one in `mean` of them, and a block is recorded if any
// of its bytes is one: with the probability p = 1 - exp(-s/mean), s being its size. The way from one
// such byte to the next is exponentially distributed, and has no memory of what was skipped before.
// A recorded block stands for 1/p blocks of its size, which makes every sum of such weights right on
// average (Horvitz and Thompson, 1952), with a variance that is the sum of s²(1-p)/p² over the blocks
// that were recorded.
//
// All of it in integers: the hooks run with whatever rounding and traps the program has set for its
// floating point, and with flags that it may read.

/// What one recorded block stands for, in fixed point.
package struct SampleWeight {
  /// Blocks, with 16 bits behind the point: 1/p.
  package var blocks: UInt64 = 0
  /// Bytes, with 8 bits behind the point: s/p, of which a recorded block has at least `mean`.
  package var bytes: UInt64 = 0
  /// What the block adds to the variance of the sum of bytes, in squares of `mean`, with 16 bits behind
  /// the point: 1 for small blocks, and less the larger they are.
  package var variance: UInt64 = 0

  package init() {}

  package init(blocks: UInt64, bytes: UInt64, variance: UInt64) {
    self.blocks = blocks
    self.bytes = bytes
    self.variance = variance
  }

  package static var blockShift: UInt64 { 16 }
  package static var byteShift: UInt64 { 8 }

  /// What a block stands for of which every one is recorded.
  static func ofOne(_ byteCount: UInt64) -> SampleWeight {
    SampleWeight(blocks: 1 << blockShift, bytes: byteCount << byteShift, variance: 0)
  }

  package var wholeBytes: UInt64 { (bytes &+ 1 << (Self.byteShift &- 1)) >> Self.byteShift }
  package var wholeBlocks: UInt64 { (blocks &+ 1 << (Self.blockShift &- 1)) >> Self.blockShift }

  mutating func add(_ other: SampleWeight) {
    blocks = blocks &+ other.blocks
    bytes = bytes &+ other.bytes
    variance = variance &+ other.variance
  }

  mutating func subtract(_ other: SampleWeight) {
    blocks = blocks &- other.blocks
    bytes = bytes &- other.bytes
    variance = variance &- other.variance
  }
}

/// A mean distance between samples, in bytes.
package struct SampleMean {
  /// From 1 KiB to 1 GiB: below, recording everything costs less; above, nothing would be seen.
  package static var range: ClosedRange<UInt64> { (1 << 10)...(1 << 30) }

  package var byteCount: UInt64
  /// 2^63 divided by the mean.
  private var inverse: UInt64

  package init(byteCount: UInt64) {
    self.byteCount = byteCount
    inverse = byteCount == 0 ? 0 : (1 << 63) / byteCount
  }

  // MARK: Distances

  /// How many bytes may pass before one is a sample: -ln(u) times the mean, for a random word as u.
  package func distance(_ random: UInt64) -> UInt64 {
    let (high, low) = Self.negativeLogarithm(random).multipliedFullWidth(by: byteCount)
    return high << 32 | low >> 32
  }

  /// -ln(u / 2^64), with 32 bits behind the point.
  static func negativeLogarithm(_ word: UInt64) -> UInt64 {
    let word = max(word, 1)
    let leading = UInt64(truncatingIfNeeded: word.leadingZeroBitCount)
    // In 1…2, with 63 bits behind the point; each squaring tells another bit of its logarithm.
    var mantissa = word << leading
    var fraction: UInt64 = 0
    for _ in 0..<32 {
      let (high, low) = mantissa.multipliedFullWidth(by: mantissa)
      let isTwo = high >> 63
      fraction = fraction << 1 | isTwo
      mantissa = isTwo == 1 ? high : high << 1 | low >> 63
    }
    let logarithm = (leading &+ 1) << 32 &- fraction
    // ln 2 with 63 bits behind the point.
    let (high, low) = logarithm.multipliedFullWidth(by: 0x58B9_0BFB_E8E7_BCD5)
    return high << 1 | low >> 63
  }

  // MARK: Weights

  /// The standard error of a sum of bytes, by the sum of its blocks' variances.
  package func standardError(_ variance: UInt64) -> UInt64 {
    // Negative, where a block was counted as freed and not yet as allocated.
    guard variance < 1 << 47 else { return 0 }
    // The root of 32 bits behind the point has 16.
    let (high, low) = Self.root(variance << 16).multipliedFullWidth(by: byteCount)
    return high << 48 | low >> 16
  }

  /// The square root, rounded down.
  private static func root(_ square: UInt64) -> UInt64 {
    var root: UInt64 = 0
    var bit: UInt64 = 1 << 31
    while bit != 0 {
      let trial = root | bit
      if trial &* trial <= square { root = trial }
      bit >>= 1
    }
    return root
  }

  /// What a recorded block of a size stands for.
  ///
  /// Cost: some 20 divisions, once for a recorded block and once for each that is given back.
  package func weight(of size: UInt64) -> SampleWeight {
    // A block of nothing is never a sample.
    let size = max(size, 1)
    let (high, low) = size.multipliedFullWidth(by: inverse)
    // exp(-44) is below what 63 bits can tell from nothing.
    guard high < 22 else {
      return SampleWeight(
        blocks: 1 << SampleWeight.blockShift, bytes: size << SampleWeight.byteShift, variance: 0)
    }
    // The size in means, with 58 bits behind the point.
    let x = high << 59 | low >> 5
    let (stretch, rest) = x <= 1 << 58 ? Self.near(x << 5) : Self.far(x)
    let (bytesHigh, bytesLow) = stretch.multipliedFullWidth(by: byteCount)
    // The factor's 32 bits behind the point become 8.
    let bytes = bytesHigh << 40 | bytesLow >> 24
    let squared = (stretch >> 16) &* (stretch >> 16)
    return SampleWeight(
      blocks: (bytes << (SampleWeight.blockShift &- SampleWeight.byteShift) &+ size / 2) / size,
      bytes: bytes,
      variance: min(1 << 16, squared.multipliedFullWidth(by: rest).high >> 15))
  }

  /// For x up to 1, with 63 bits behind the point: x/p with 32 bits, and 1 - p with 63.
  private static func near(_ x: UInt64) -> (stretch: UInt64, rest: UInt64) {
    // p/x = 1 - x/2 (1 - x/3 (1 - x/4 (…))), by terms that are all positive.
    let one: UInt64 = 1 << 63
    var sum = one
    var divisor: UInt64 = 20
    while divisor > 1 {
      let (high, low) = sum.multipliedFullWidth(by: x)
      sum = one &- (high << 1 | low >> 63) / divisor
      divisor &-= 1
    }
    let (high, low) = sum.multipliedFullWidth(by: x)
    return (one / (sum >> 32), one &- (high << 1 | low >> 63))
  }

  /// For x from 1 to 44, with 58 bits behind the point.
  private static func far(_ x: UInt64) -> (stretch: UInt64, rest: UInt64) {
    // exp(-x) is exp(-x/64), squared six times.
    var (_, rest) = near(x >> 1)
    for _ in 0..<6 {
      let (high, low) = rest.multipliedFullWidth(by: rest)
      rest = high << 1 | low >> 63
    }
    let probability = (1 << 63 &- rest) >> 31
    return (((x & ~0xffff_ffff) / probability) << 6, rest)
  }
}

/// The next of a thread's random numbers (Steele, Lea and Flood: Fast splittable pseudorandom number
/// generators, 2014). Its states follow each other through all 64-bit words.
package func nextRandom(_ state: inout UInt64) -> UInt64 {
  state = state &+ 0x9E37_79B9_7F4A_7C15
  var word = state
  word = (word ^ word >> 30) &* 0xBF58_476D_1CE4_E5B9
  word = (word ^ word >> 27) &* 0x94D0_49BB_1331_11EB
  return word ^ word >> 31
}
