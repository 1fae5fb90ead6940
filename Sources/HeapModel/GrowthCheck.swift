// SPDX-License-Identifier: Apache-2.0
// Whether a heap keeps to bounds, and if not, what is at fault.

/// Whether a heap keeps to bounds, and if not, what is at fault.
public struct GrowthCheck: Sendable {
  /// What is allowed, in bytes; `nil` is any number. What is allowed may be reached.
  public struct Bounds: Hashable, Sendable {
    /// How much more may be alive than before.
    public var growthBytes: Int?
    /// How much may be alive.
    public var liveBytes: Int?
    /// How much more any one row may have alive.
    public var rowBytes: Int?

    /// Bounds in bytes; what is left out is not bounded.
    public init(growthBytes: Int? = nil, liveBytes: Int? = nil, rowBytes: Int? = nil) {
      self.growthBytes = growthBytes
      self.liveBytes = liveBytes
      self.rowBytes = rowBytes
    }
  }

  /// What is allowed.
  public let bounds: Bounds
  /// Bytes that are alive later, by the sizes that were asked for.
  public let liveBytes: Int
  /// The blocks that `liveBytes` is the size of.
  public let liveBlocks: Int
  /// Later less earlier: negative where the heap shrank.
  public let addedBytes: Int
  /// The same in blocks.
  public let addedBlocks: Int
  /// The standard error of `liveBytes`, where that is an estimate; 0 where every block was recorded.
  public let liveErrorBytes: Int
  /// At most the standard error of `addedBytes`.
  public let addedErrorBytes: Int
  /// The rows that grew, by bytes, the most first.
  public let grown: [StatisticDifference]

  /// - Parameter earlier: An empty snapshot where growth is from nothing.
  public init(
    of later: Snapshot, comparedTo earlier: Snapshot, groupedBy grouping: Snapshot.Grouping,
    charging: Snapshot.Charging = .allocatingFrame, _ bounds: Bounds
  ) throws(Snapshot.GroupingError) {
    self.bounds = bounds
    liveBytes = later.liveBytes
    liveBlocks = later.liveBlocks
    addedBytes = later.liveBytes.addingSaturated(0 &- earlier.liveBytes)
    addedBlocks = later.liveBlocks.addingSaturated(0 &- earlier.liveBlocks)
    liveErrorBytes = later.liveErrorBytes
    addedErrorBytes = StandardError(of: liveErrorBytes, and: earlier.liveErrorBytes).bytes
    // What grew comes in the order of its growth.
    grown = try later.compared(to: earlier, groupedBy: grouping, charging: charging)
      .filter { $0.addedBytes > 0 }
  }

  /// Rows that grew by more than any may.
  public var excessive: [StatisticDifference] {
    guard let bound = bounds.rowBytes else { return [] }
    return grown.filter { Self.exceeds($0.addedBytes, bound, $0.addedErrorBytes) }
  }

  /// Whether more was added than may be.
  public var growsTooMuch: Bool {
    bounds.growthBytes.map { Self.exceeds(addedBytes, $0, addedErrorBytes) } ?? false
  }
  /// Whether more is alive than may be.
  public var holdsTooMuch: Bool {
    bounds.liveBytes.map { Self.exceeds(liveBytes, $0, liveErrorBytes) } ?? false
  }

  /// An estimate exceeds a bound if it does by more than two standard errors: chance has that one time in
  /// forty.
  private static func exceeds(_ bytes: Int, _ bound: Int, _ error: Int) -> Bool {
    bytes.addingSaturated(0 &- error).addingSaturated(0 &- error) > bound
  }

  /// Whether figures are above a bound which chance may have taken there: by two standard errors at most.
  public var isUndecided: Bool {
    func isAbove(_ bytes: Int, _ bound: Int?, _ error: Int) -> Bool {
      guard let bound else { return false }
      return bytes > bound && !Self.exceeds(bytes, bound, error)
    }
    return isAbove(addedBytes, bounds.growthBytes, addedErrorBytes)
      || isAbove(liveBytes, bounds.liveBytes, liveErrorBytes)
      || grown.contains { isAbove($0.addedBytes, bounds.rowBytes, $0.addedErrorBytes) }
  }
  /// Whether everything is within bounds.
  public var passes: Bool { !growsTooMuch && !holdsTooMuch && excessive.isEmpty }

  /// The rows to look at: all that grew where the whole is too much, else those that are themselves. None
  /// where all is well.
  public var atFault: [StatisticDifference] {
    growsTooMuch || holdsTooMuch ? grown : excessive
  }
}
