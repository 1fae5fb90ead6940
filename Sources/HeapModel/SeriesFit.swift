// SPDX-License-Identifier: Apache-2.0
// What a series of figures does: whether it grows, how fast, and whether it has stopped.

/// What a row of a heap did from dump to dump.
public enum Verdict: String, Hashable, Sendable, CaseIterable {
  /// Grows, and goes on to.
  case leak
  /// Grew, and grows no more, or at less than a quarter of its speed: a cache that is full, a table that
  /// was loaded.
  case levelsOff = "levels off"
  /// Goes up and down without getting larger.
  case churn
  /// The same in every dump.
  case steady
  /// Gets smaller.
  case shrinks
  /// Is larger than it was, in too few dumps or steps to tell a leak from what will stop.
  case undecided
}

/// A line through a series, and what it means.
///
/// Two methods that go together, and that one dump at a bad moment does not lead astray:
///
/// - *Whether* it grows is Mann's test for a trend (H. B. Mann, Nonparametric tests against trend,
///   Econometrica 13, 1945; M. G. Kendall, Rank Correlation Methods, 1975, with the variance for ties):
///   of all pairs of dumps, in how many the later is larger, less those in which it is smaller. It grows
///   if chance would say so in one of twenty series at most. Fewer than four dumps can't.
/// - *How fast* is the median of the slopes of all pairs (P. K. Sen, Estimates of the regression
///   coefficient based on Kendall's tau, J. Am. Stat. Assoc. 63, 1968; H. Theil, 1950). Up to 29 % of
///   the dumps may say anything.
///
/// The speed that counts for what is to come is that of the later half of the dumps, at least three:
/// so that what has stopped has stopped, and what began yesterday is seen.
public struct SeriesFit: Hashable, Sendable {
  /// What the series looks like.
  public let verdict: Verdict
  /// How fast it changes now, in bytes an hour: over the later half of the dumps. Where there is no verdict
  /// yet, on the average of all of them, since the last one may be where it began; of what goes up and
  /// down, over all of them.
  public let bytesPerHour: Double
  /// How fast it changed over all dumps.
  public let overallBytesPerHour: Double
  /// From one dump to the next, how often it grew and shrank. There is one interval less than dumps.
  public let growthCount: Int
  /// How often it shrank.
  public let shrinkageCount: Int
  /// How often it could have: one less than there are dumps.
  public let intervalCount: Int

  /// - Parameters:
  ///   - figures: One for each dump.
  ///   - seconds: When each was taken, rising.
  public init(_ figures: [Int], at seconds: [Double]) {
    precondition(figures.count == seconds.count && !figures.isEmpty, "a time for each figure")
    let changes = zip(figures.dropFirst(), figures).map { $0 < $1 ? -1 : $0 > $1 ? 1 : 0 }
    growthCount = changes.count { $0 > 0 }
    shrinkageCount = changes.count { $0 < 0 }
    intervalCount = changes.count
    guard growthCount + shrinkageCount > 0 else {
      (verdict, bytesPerHour, overallBytesPerHour) = (.steady, 0, 0)
      return
    }
    let last = figures.count - 1
    let later = max(min(figures.count / 2, figures.count - 3), 0)
    let overall = 3600 * Self.medianSlope(figures[...], seconds[...])
    let recent = 3600 * Self.medianSlope(figures[later...], seconds[later...])
    func average(since first: Int) -> Double {
      let span = seconds[last] - seconds[first]
      return span > 0 ? 3600 * (Double(figures[last]) - Double(figures[first])) / span : 0
    }
    // What grows by steps has none between most of its dumps.
    let hasStopped = figures.count > 3 && average(since: later) < average(since: 0) / 4
    switch Self.trend(of: figures) {
    case 1 where recent > 0 && recent >= overall / 4: verdict = .leak
    case -1: verdict = .shrinks
    case _ where growthCount == 0: verdict = .shrinks
    case 0 where shrinkageCount > 0: verdict = .churn
    default: verdict = hasStopped ? .levelsOff : .undecided
    }
    overallBytesPerHour = overall
    bytesPerHour =
      switch verdict {
      case .undecided: average(since: 0)
      // The later half may be one side of a tooth.
      case .churn: overall
      default: recent
      }
  }

  /// The same, of estimates: what has not changed by more than they may be off goes up and down.
  ///
  /// - Parameter error: The standard error of the difference between the last figure and the first.
  func judged(_ figures: [Int], withError error: Int) -> SeriesFit {
    let change = Double(figures[figures.count - 1]) - Double(figures[0])
    guard verdict != .steady, error > 0, change.magnitude <= 2 * Double(error) else { return self }
    return SeriesFit(self, verdict: .churn, bytesPerHour: overallBytesPerHour)
  }

  private init(_ other: SeriesFit, verdict: Verdict, bytesPerHour: Double) {
    self.verdict = verdict
    self.bytesPerHour = bytesPerHour
    overallBytesPerHour = other.overallBytesPerHour
    growthCount = other.growthCount
    shrinkageCount = other.shrinkageCount
    intervalCount = other.intervalCount
  }

  /// 1 if it grows, -1 if it shrinks, 0 where chance may have it so.
  private static func trend(of figures: [Int]) -> Int {
    var score = 0
    for later in figures.indices.dropFirst() {
      for earlier in 0..<later {
        if figures[later] > figures[earlier] { score += 1 }
        if figures[later] < figures[earlier] { score -= 1 }
      }
    }
    func ofPairs(_ count: Int) -> Double {
      Double(count) * Double(count - 1) * Double(2 * count + 5)
    }
    var ties: [Int: Int] = [:]
    for figure in figures { ties[figure, default: 0] += 1 }
    let variance =
      (ofPairs(figures.count) - ties.values.reduce(0) { $0 + ofPairs($1) }) / 18
    // One less since the score goes in steps; 1.645 standard deviations are one of twenty at one end.
    let distance = Double(abs(score) - 1)
    guard distance > 0, distance * distance > 1.645 * 1.645 * variance else { return 0 }
    return score > 0 ? 1 : -1
  }

  /// The median of the slopes of all pairs that are apart in time; 0 without one.
  private static func medianSlope(_ figures: ArraySlice<Int>, _ seconds: ArraySlice<Double>)
    -> Double
  {
    var slopes: [Double] = []
    slopes.reserveCapacity(figures.count * (figures.count - 1) / 2)
    for later in figures.indices.dropFirst() {
      for earlier in figures.startIndex..<later where seconds[later] > seconds[earlier] {
        slopes.append(
          (Double(figures[later]) - Double(figures[earlier])) / (seconds[later] - seconds[earlier]))
      }
    }
    guard !slopes.isEmpty else { return 0 }
    let middle = slopes.count / 2
    let upper = slopes.takeSmallest(middle)
    // What is before the middle is not larger than it.
    return slopes.count % 2 == 1 ? upper : (slopes[..<middle].max()! + upper) / 2
  }
}

extension [Double] {
  /// The element that sorting would put at a place; those before it are not larger. Hoare's selection: in
  /// the mean a few passes, where sorting takes as many as the logarithm.
  fileprivate mutating func takeSmallest(_ place: Int) -> Double {
    var (low, high) = (0, count - 1)
    while low < high {
      let pivot = self[(low + high) / 2]
      var (left, right) = (low, high)
      while left <= right {
        while self[left] < pivot { left += 1 }
        while self[right] > pivot { right -= 1 }
        if left <= right {
          swapAt(left, right)
          left += 1
          right -= 1
        }
      }
      if place <= right {
        high = right
      } else if place >= left {
        low = left
      } else {
        break
      }
    }
    return self[place]
  }
}
