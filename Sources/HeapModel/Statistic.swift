// SPDX-License-Identifier: Apache-2.0
// One row of a report, and one row of a comparison.

/// The blocks of one row of a report, added up.
public struct Statistic: Hashable, Sendable {
  /// What the row stands for: one line, one function, one stack…
  public let key: Key
  /// The function to show beside the key; `nil` where none is known or where it is the key.
  ///
  /// It is no part of what makes a row. Where several functions are on one line, the first by name.
  public let function: String?
  /// The frames, where rows are stacks; `nil` otherwise.
  public let stack: Stack?
  /// Bytes asked for by the blocks that are still allocated.
  public let liveBytes: Int
  /// How many blocks are still allocated.
  public let liveBlocks: Int
  /// Bytes asked for since recording began, freed or not. 0 where that was not recorded.
  public let totalBytes: Int
  /// Blocks allocated since recording began, freed or not. 0 where that was not recorded.
  public let totalBlocks: Int
  /// Of `totalBlocks`, those that were freed before their thread's next allocation. 0 where that was not
  /// recorded.
  public let temporaryBlocks: Int
  /// The standard error of `liveBytes`, where that is an estimate; 0 where every block was recorded.
  public let liveErrorBytes: Int
  /// The standard error of `totalBytes`, where that is an estimate; 0 where every block was recorded.
  public let totalErrorBytes: Int

  /// One row of a report.
  public init(
    key: Key, function: String? = nil, stack: Stack? = nil, liveBytes: Int, liveBlocks: Int,
    totalBytes: Int = 0, totalBlocks: Int = 0, temporaryBlocks: Int = 0, liveErrorBytes: Int = 0,
    totalErrorBytes: Int = 0
  ) {
    self.key = key
    self.function = function
    self.stack = stack
    self.liveBytes = liveBytes
    self.liveBlocks = liveBlocks
    self.totalBytes = totalBytes
    self.totalBlocks = totalBlocks
    self.temporaryBlocks = temporaryBlocks
    self.liveErrorBytes = liveErrorBytes
    self.totalErrorBytes = totalErrorBytes
  }

  /// Live bytes for each live block; `nil` where no block is alive.
  public var averageBytes: Double? {
    liveBlocks == 0 ? nil : Double(liveBytes) / Double(liveBlocks)
  }

  /// The part of the row's allocations that were temporary, from 0 to 1 whatever a damaged dump says; `nil`
  /// where there were none.
  public var temporaryShare: Double? {
    totalBlocks == 0 ? nil : min(max(Double(temporaryBlocks) / Double(totalBlocks), 0), 1)
  }
}

extension Statistic: CustomStringConvertible {
  /// `b.py:1: size=66 B, count=1, average=66 B`, to the letter as in tracemalloc.
  public var description: String {
    let average = averageBytes.map { ", average=\(ByteCount($0))" } ?? ""
    return "\(key): size=\(ByteCount(liveBytes)), count=\(liveBlocks)\(average)"
  }
}

/// One row of a comparison: what is alive now, and how much more that is than before.
public struct StatisticDifference: Hashable, Sendable {
  /// What the row stands for.
  public let key: Statistic.Key
  /// The function to show beside the key, as in `Statistic`.
  public let function: String?
  /// The frames, where rows are stacks; `nil` otherwise.
  public let stack: Stack?
  /// As the later snapshot has it: 0 in a row that vanished.
  public let liveBytes: Int
  /// As `liveBytes`.
  public let liveBlocks: Int
  /// Later less earlier: negative where the row shrank.
  public let addedBytes: Int
  /// As `addedBytes`.
  public let addedBlocks: Int
  /// The standard error of `liveBytes`, where that is an estimate; 0 where every block was recorded.
  public let liveErrorBytes: Int
  /// At most the standard error of `addedBytes`, where one of the two figures is an estimate.
  public let addedErrorBytes: Int

  /// One row of a comparison.
  public init(
    key: Statistic.Key, function: String? = nil, stack: Stack? = nil, liveBytes: Int,
    addedBytes: Int, liveBlocks: Int, addedBlocks: Int, liveErrorBytes: Int = 0,
    addedErrorBytes: Int = 0
  ) {
    self.key = key
    self.function = function
    self.stack = stack
    self.liveBytes = liveBytes
    self.addedBytes = addedBytes
    self.liveBlocks = liveBlocks
    self.addedBlocks = addedBlocks
    self.liveErrorBytes = liveErrorBytes
    self.addedErrorBytes = addedErrorBytes
  }

  init(later: Statistic?, earlier: Statistic?) {
    let named = (later ?? earlier)!
    let bytes = (later: later?.liveBytes ?? 0, earlier: earlier?.liveBytes ?? 0)
    let blocks = (later: later?.liveBlocks ?? 0, earlier: earlier?.liveBlocks ?? 0)
    let errors = (later: later?.liveErrorBytes ?? 0, earlier: earlier?.liveErrorBytes ?? 0)
    self.init(
      key: named.key, function: named.function, stack: named.stack, liveBytes: bytes.later,
      addedBytes: bytes.later.addingSaturated(-bytes.earlier), liveBlocks: blocks.later,
      addedBlocks: blocks.later.addingSaturated(-blocks.earlier), liveErrorBytes: errors.later,
      addedErrorBytes: StandardError(of: errors.later, and: errors.earlier).bytes)
  }

  /// All rows together.
  public init(of later: Snapshot, comparedTo earlier: Snapshot) {
    func total(_ snapshot: Snapshot) -> Statistic {
      Statistic(
        key: .module("total"), liveBytes: snapshot.liveBytes, liveBlocks: snapshot.liveBlocks,
        liveErrorBytes: snapshot.liveErrorBytes)
    }
    self.init(later: total(later), earlier: total(earlier))
  }

  /// Live bytes for each live block; `nil` where no block is alive.
  public var averageBytes: Double? {
    liveBlocks == 0 ? nil : Double(liveBytes) / Double(liveBlocks)
  }
}

extension StatisticDifference: CustomStringConvertible {
  /// `a.py:5: size=5002 B (+5000 B), count=2 (+1), average=2501 B`, as in tracemalloc.
  public var description: String {
    let average = averageBytes.map { ", average=\(ByteCount($0))" } ?? ""
    let size = "size=\(ByteCount(liveBytes)) (\(ByteCount(addedBytes).signed))"
    return "\(key): \(size), count=\(liveBlocks) (\(addedBlocks.signedDescription))\(average)"
  }
}
