// SPDX-License-Identifier: Apache-2.0
// What each row did over any number of snapshots of one recording.

/// What each row did over any number of snapshots of one recording, what leaks fastest first.
///
/// Made from one snapshot after another: of each it keeps a figure for each row, so that memory is that of
/// one snapshot and of the rows, however many there are.
public struct Trend: Sendable {
  /// What one row did.
  public struct Row: Hashable, Sendable {
    /// What the row stands for.
    public let key: Statistic.Key
    /// The function of the line, where the row is one; `nil` where not known.
    public let function: String?
    /// As in the last snapshot; `nil` where nothing of it was left.
    public let stack: Stack?
    /// Live bytes in each snapshot, 0 where the row is not in it.
    public let liveBytes: [Int]
    /// The standard error of the last of `liveBytes`, where they are estimates; 0 where they are not.
    public let lastErrorBytes: Int
    /// In the last snapshot.
    public let liveBlocks: Int
    /// What its live bytes did over time.
    public let fit: SeriesFit
    /// At this row's speed, and were it alone, how long until the limit is reached; `nil` where it does
    /// not grow, or no limit is known.
    public let secondsLeft: Double?
  }

  /// One of the snapshots.
  public struct Moment: Hashable, Sendable {
    /// Since the first one.
    public let seconds: Double
    /// When it was taken, in nanoseconds since 1970 (UTC); `nil` where the dump does not say.
    public let wallNanoseconds: Int?
    /// Bytes that were alive, by the sizes that were asked for.
    public let liveBytes: Int
    /// What counts against the limit; `nil` where that is not known.
    public let usageBytes: Int?
  }

  /// Oldest first.
  public let moments: [Moment]
  /// All rows: leaks by their speed, then what grew and can't be judged, what levels off, and the rest by
  /// its size.
  public let rows: [Row]
  /// Everything together; no row of a report.
  public let total: Row
  /// What counts against the limit, where that was known each time and the limit was the same.
  public let usage: SeriesFit?
  /// What the last snapshot says of itself.
  public let header: Header

  /// How many rows have a verdict.
  public func count(of verdict: Verdict) -> Int { rows.count { $0.fit.verdict == verdict } }

  /// What is left up to the limit, by the last snapshot.
  public var headroomBytes: Int? { header.headroomBytes }

  /// How long until the limit is reached at a speed; `nil` where it never is, or no limit is known.
  public func secondsLeft(atBytesPerHour speed: Double) -> Double? {
    Self.secondsLeft(headroomBytes, atBytesPerHour: speed)
  }

  private static func secondsLeft(_ headroom: Int?, atBytesPerHour speed: Double) -> Double? {
    guard let headroom, speed > 0 else { return nil }
    return Double(Swift.max(headroom, 0)) / speed * 3600
  }

  /// Takes the snapshots one after the other, in any order.
  public struct Builder: ~Copyable {
    private struct Series {
      let key: Statistic.Key
      var function: String?
      var stack: Stack?
      /// By the snapshots' numbers; shorter where later numbers have nothing of it.
      var liveBytes: [Int] = []
      var errorBytes: [Int] = []
      var liveBlocks = 0
      /// When the newest snapshot that has it was taken.
      var newest = Int.min
    }

    private let grouping: Snapshot.Grouping
    private let charging: Snapshot.Charging
    private var series: [Series] = []
    private var numberOfKey: [Statistic.Key: Int] = [:]
    private var times: [Int] = []
    private var totals = Series(key: .module("total"))
    private var headers: [Header] = []

    /// Begins a trend. Throws where stacks are to be charged for every frame: a stack has one row only.
    public init(
      groupedBy grouping: Snapshot.Grouping, charging: Snapshot.Charging = .allocatingFrame
    ) throws(Snapshot.GroupingError) {
      if charging == .everyFrame && grouping == .stack {
        throw Snapshot.GroupingError(.everyFrameOfStack)
      }
      self.grouping = grouping
      self.charging = charging
    }

    /// Adds a snapshot of the same recording as the others.
    ///
    /// - Parameter nanoseconds: When it was taken, by a clock that all of them share.
    public mutating func add(
      _ snapshot: Snapshot, atNanoseconds nanoseconds: Int
    ) throws(Snapshot.GroupingError) {
      let number = times.count
      times.append(nanoseconds)
      headers.append(snapshot.header)
      Self.add(
        Statistic(
          key: totals.key, liveBytes: snapshot.liveBytes, liveBlocks: snapshot.liveBlocks,
          liveErrorBytes: snapshot.liveErrorBytes),
        number, nanoseconds, to: &totals)
      for row in try snapshot.statistics(groupedBy: grouping, charging: charging)
      where row.liveBytes != 0 || row.liveBlocks != 0 {
        let index = numberOfKey[row.key] ?? series.count
        if index == series.count {
          let key = row.key.detached
          numberOfKey[key] = index
          series.append(Series(key: key))
        }
        Self.add(row, number, nanoseconds, to: &series[index])
      }
      guard nanoseconds == times.max() else { return }
      // A stack is a view of its snapshot, and would keep all of that.
      for index in series.indices where series[index].newest < nanoseconds {
        series[index].stack = nil
      }
    }

    private static func add(
      _ row: Statistic, _ number: Int, _ nanoseconds: Int, to series: inout Series
    ) {
      // It was not in those in between.
      series.liveBytes += repeatElement(0, count: number - series.liveBytes.count)
      series.liveBytes.append(row.liveBytes)
      series.errorBytes += repeatElement(0, count: number - series.errorBytes.count)
      series.errorBytes.append(row.liveErrorBytes)
      guard nanoseconds >= series.newest else { return }
      series.newest = nanoseconds
      series.function = row.function
      series.liveBlocks = row.liveBlocks
      series.stack = row.stack
    }

    /// - Precondition: There is a snapshot at least.
    public consuming func finish() -> Trend {
      precondition(!times.isEmpty, "a trend of no snapshots")
      let order = times.indices.sorted { (times[$0], $0) < (times[$1], $1) }
      let (first, last) = (times[order[0]], times[order[order.count - 1]])
      let seconds = order.map { (Double(times[$0]) - Double(first)) / 1e9 }
      let header = headers[order[order.count - 1]]
      func row(_ series: Series) -> Row {
        let bytes = order.map { $0 < series.liveBytes.count ? series.liveBytes[$0] : 0 }
        let errors = order.map { $0 < series.errorBytes.count ? series.errorBytes[$0] : 0 }
        let lastError = errors[errors.count - 1]
        let fit = SeriesFit(bytes, at: seconds)
          .judged(bytes, withError: StandardError(of: errors[0], and: lastError).bytes)
        let grows = fit.verdict == .leak || fit.verdict == .undecided
        let isThere = series.newest == last
        return Row(
          key: series.key, function: series.function, stack: isThere ? series.stack : nil,
          liveBytes: bytes, lastErrorBytes: lastError,
          liveBlocks: isThere ? series.liveBlocks : 0, fit: fit,
          secondsLeft: grows
            ? Trend.secondsLeft(header.headroomBytes, atBytesPerHour: fit.bytesPerHour) : nil)
      }
      let total = row(totals)
      let moments = order.indices.map { place in
        let header = headers[order[place]]
        return Moment(
          seconds: seconds[place], wallNanoseconds: header.dumpWallNanoseconds,
          liveBytes: total.liveBytes[place], usageBytes: header.limitUsageBytes)
      }
      let usage = moments.compactMap(\.usageBytes)
      let limits = Set(headers.map { "\($0.limitBytes ?? -1) \($0.limitSource ?? "")" })
      return Trend(
        moments: moments, rows: series.map(row).sorted(by: Row.soonestFirst), total: total,
        usage: usage.count == moments.count && limits.count == 1
          ? SeriesFit(usage, at: seconds) : nil,
        header: header)
    }
  }
}

extension Statistic.Key {
  /// The key without the table that it shares with the other rows of its report.
  fileprivate var detached: Statistic.Key {
    guard case .stack(let keys) = self else { return self }
    return .stack(Frames(keys))
  }
}

extension Trend.Row {
  /// Live bytes in the last snapshot.
  public var lastBytes: Int { liveBytes[liveBytes.count - 1] }

  /// The fastest leak first: all have the same limit before them.
  fileprivate static func soonestFirst(_ a: Self, _ b: Self) -> Bool {
    let (first, second) = (a.rank, b.rank)
    if first != second { return first < second }
    // Beyond these, a speed says little.
    let speeds = first <= 2 ? (a.fit.bytesPerHour, b.fit.bytesPerHour) : (0, 0)
    return (speeds.1, b.lastBytes, b.liveBytes.max()!, b.key)
      < (speeds.0, a.lastBytes, a.liveBytes.max()!, a.key)
  }

  private var rank: Int {
    switch fit.verdict {
    case .leak: 0
    case .undecided: 1
    case .levelsOff: 2
    case .churn, .steady, .shrinks: 3
    }
  }
}

extension Header {
  /// What tells one recording from another: figures of two can't be set side by side.
  public struct Recording: Hashable, Sendable {
    /// The name of the machine.
    public let host: String?
    /// Which run of the machine's kernel it is.
    public let bootID: String?
    /// The program's name.
    public let program: String?
    /// The process's number.
    public let pid: Int?
    /// When recording began, in nanoseconds by the kernel's clock that never jumps.
    public let startMonotonicNanoseconds: Int?
  }

  /// Which recording the snapshot is of, as far as the header tells.
  public var recording: Recording {
    Recording(
      host: host, bootID: bootID, program: program, pid: pid,
      startMonotonicNanoseconds: startMonotonicNanoseconds)
  }

  /// What is left up to the limit; `nil` where none is known.
  fileprivate var headroomBytes: Int? {
    if let limitHeadroomBytes { return limitHeadroomBytes }
    guard let limitBytes, let limitUsageBytes else { return nil }
    return limitBytes.addingSaturated(0 &- limitUsageBytes)
  }
}
