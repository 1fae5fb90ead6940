// SPDX-License-Identifier: Apache-2.0
// Adds up the blocks of each row, and sets two snapshots side by side.

extension Snapshot {
  /// Totals the blocks of each row, largest first, charged to the frame that allocated.
  public func statistics(groupedBy grouping: Grouping) -> [Statistic] {
    var rows = RowKeys(groupedBy: grouping)
    return Totals(of: self, charging: .allocatingFrame, &rows).statistics(rows.finished())
  }

  /// Totals the blocks of each row, largest first.
  ///
  /// A row is charged for a block when its frame made the allocation. Pass `.everyFrame` to charge
  /// every caller as well; rows then overlap and no longer add up to the heap.
  public func statistics(
    groupedBy grouping: Grouping, charging: Charging
  ) throws(GroupingError) -> [Statistic] {
    var rows = RowKeys(groupedBy: try grouping.checked(charging))
    return Totals(of: self, charging: charging, &rows).statistics(rows.finished())
  }

  /// What changed since an earlier snapshot, the largest change first.
  ///
  /// Rows that vanished stay, with nothing alive, and so do rows that did not change.
  public func compared(
    to earlier: Snapshot, groupedBy grouping: Grouping
  ) -> [StatisticDifference] {
    differences(from: earlier, groupedBy: grouping, charging: .allocatingFrame)
  }

  /// What changed since an earlier snapshot, the largest change first.
  ///
  /// With `.everyFrame` a change shows in every caller too: see `statistics(groupedBy:charging:)`.
  public func compared(
    to earlier: Snapshot, groupedBy grouping: Grouping, charging: Charging
  ) throws(GroupingError) -> [StatisticDifference] {
    differences(from: earlier, groupedBy: try grouping.checked(charging), charging: charging)
  }

  private func differences(
    from earlier: Snapshot, groupedBy grouping: Grouping, charging: Charging
  ) -> [StatisticDifference] {
    // Both by the same numbers of rows, so that no key is looked for among the other's.
    var rows = RowKeys(groupedBy: grouping)
    let later = Totals(of: self, charging: charging, &rows)
    let earlier = Totals(of: earlier, charging: charging, &rows)
    return later.differences(from: earlier, rows.finished())
  }
}

extension Snapshot.Grouping {
  fileprivate func checked(
    _ charging: Snapshot.Charging
  ) throws(Snapshot.GroupingError) -> Snapshot.Grouping {
    if self == .stack, charging == .everyFrame { throw Snapshot.GroupingError(.everyFrameOfStack) }
    return self
  }
}

/// The rows of a report, or of a comparison's two snapshots: a number for each key.
///
/// Names are hashed and compared once for each distinct frame; the passes over the samples, the
/// comparison and the sorting then compare numbers.
private struct RowKeys {
  let grouping: Snapshot.Grouping
  /// The keys of rows; where rows are stacks, of frames.
  private var keys: [Statistic.Key] = []
  private var numberOfKey: [Statistic.Key: Int] = [:]
  /// Where rows are stacks: by the numbers of their frames' keys. Hashing the keys themselves would hash
  /// 40 paths for each stack.
  private var stacks = StackInterner()

  init(groupedBy grouping: Snapshot.Grouping) {
    self.grouping = grouping
  }

  mutating func number(of key: Statistic.Key) -> Int {
    if let known = numberOfKey[key] { return known }
    keys.append(key)
    numberOfKey[key] = keys.count - 1
    return keys.count - 1
  }

  mutating func row(ofStack run: ArraySlice<UInt32>) -> Int { stacks.index(of: run) }

  /// The rows, when there will be no more.
  consuming func finished() -> Rows {
    Rows(keys: keys, stacks: grouping == .stack ? stacks.runs : nil)
  }
}

/// The keys of a report's rows by their numbers, and their order.
private struct Rows {
  private let keys: [Statistic.Key]
  private let table: Statistic.Key.Frames.Table?
  /// Where rows are stacks, the place of each frame's key among all of them.
  private let rankOfKey: [UInt32]

  init(keys: [Statistic.Key], stacks: StackRuns?) {
    self.keys = keys
    table = stacks.map { Statistic.Key.Frames.Table(keys: keys, runs: $0) }
    var ranks: [UInt32] = []
    if stacks != nil {
      ranks = [UInt32](repeating: 0, count: keys.count)
      let sorted = keys.indices.sorted { keys[$0] < keys[$1] }
      for (rank, key) in sorted.enumerated() { ranks[key] = UInt32(rank) }
    }
    rankOfKey = ranks
  }

  subscript(row: Int) -> Statistic.Key {
    table.map { .stack(Statistic.Key.Frames(table: $0, stack: row)) } ?? keys[row]
  }

  /// Whether the key of one row is before another's, in the order of keys.
  func isKey(of row: Int, before other: Int) -> Bool {
    guard let runs = table?.runs else { return keys[row] < keys[other] }
    return runs[row].lexicographicallyPrecedes(runs[other]) {
      rankOfKey[Int($0)] < rankOfKey[Int($1)]
    }
  }
}

/// The running totals of a report's rows, for one snapshot.
private struct Totals {
  private struct Row {
    var function: String?
    /// The sample that was charged last: a row is charged once for each. -1 where the snapshot has none,
    /// and the row is the other one's of a comparison.
    var lastSample = -1
    /// Where rows are stacks, a sample of the one to show.
    var shownSample = -1
    var liveBytes = 0
    var liveBlocks = 0
    var totalBytes = 0
    var totalBlocks = 0
    var temporaryBlocks = 0
    /// Of the live bytes and of the cumulative ones, where they are estimates.
    var variance = 0.0
    var totalVariance = 0.0
  }

  private let snapshot: Snapshot
  private var rows: [Row] = []

  /// The number of each frame's row or key, for a snapshot whose samples are charged; -1 where it has
  /// not been asked for.
  private var numberOfFrame: [Int]

  init(of snapshot: Snapshot, charging: Snapshot.Charging, _ keys: inout RowKeys) {
    self.snapshot = snapshot
    numberOfFrame = Array(repeating: -1, count: snapshot.distinctFrames.count)
    switch (keys.grouping, charging) {
    case (.generation, _):
      for (number, sample) in snapshot.samples.enumerated() {
        charge(number, toRow: keys.number(of: .generation(sample.generation)))
      }
    case (.type, _):
      for (number, sample) in snapshot.samples.enumerated() {
        charge(number, toRow: keys.number(of: .type(sample.type)))
      }
    case (.thread, _):
      for (number, sample) in snapshot.samples.enumerated() {
        charge(number, toRow: keys.number(of: .thread(sample.thread)))
      }
    case (.reach, _):
      for (number, sample) in snapshot.samples.enumerated() {
        charge(number, toRow: keys.number(of: .reach(sample.reach)))
      }
    case (.stack, _): chargeStacks(&keys)
    case (_, .allocatingFrame):
      for (number, sample) in snapshot.samples.enumerated() {
        charge(number, toFrame: snapshot.runs[sample.stack].first, &keys)
      }
    case (_, .everyFrame):
      for (number, sample) in snapshot.samples.enumerated() {
        let frames = snapshot.runs[sample.stack]
        if frames.isEmpty { charge(number, toFrame: nil, &keys) }
        for frame in frames { charge(number, toFrame: frame, &keys) }
      }
    }
  }

  // MARK: Charging

  private mutating func chargeStacks(_ keys: inout RowKeys) {
    var rowOfStack = [Int](repeating: -1, count: snapshot.stackCount)
    var run: [UInt32] = []
    for (number, sample) in snapshot.samples.enumerated() {
      var row = rowOfStack[sample.stack]
      if row < 0 {
        run.removeAll(keepingCapacity: true)
        for frame in snapshot.runs[sample.stack] {
          run.append(UInt32(self.number(ofFrame: Int(frame), &keys)))
        }
        row = keys.row(ofStack: run[...])
        rowOfStack[sample.stack] = row
      }
      charge(number, toRow: row)
      // Where stacks of different addresses have one key, the one that says most.
      let shown = rows[row].shownSample
      if shown < 0 || snapshot.samples[shown].saysLess(than: sample) {
        rows[row].shownSample = number
      }
    }
  }

  /// Charges the frame of a number; `nil` is the frame of a stack that has none.
  private mutating func charge(_ sample: Int, toFrame frame: UInt32?, _ keys: inout RowKeys) {
    guard let frame else {
      let key = snapshot.key(of: Frame(), groupedBy: keys.grouping)
      return charge(sample, toRow: keys.number(of: key))
    }
    charge(sample, toRow: number(ofFrame: Int(frame), &keys))
  }

  private mutating func number(ofFrame index: Int, _ keys: inout RowKeys) -> Int {
    if numberOfFrame[index] >= 0 { return numberOfFrame[index] }
    let frame = snapshot.distinctFrames[index]
    let key = snapshot.key(of: frame, groupedBy: keys.grouping)
    let number = keys.number(of: key)
    numberOfFrame[index] = number
    if keys.grouping != .stack, case .line = key, let function = frame.function {
      makeRow(number)
      rows[number].function = min(rows[number].function ?? function, function)
    }
    return number
  }

  private mutating func makeRow(_ row: Int) {
    while rows.count <= row { rows.append(Row()) }
  }

  private mutating func charge(_ number: Int, toRow row: Int) {
    makeRow(row)
    if rows[row].lastSample == number { return }
    let sample = snapshot.samples[number]
    rows[row].lastSample = number
    rows[row].liveBytes = rows[row].liveBytes.addingSaturated(sample.liveBytes)
    rows[row].liveBlocks = rows[row].liveBlocks.addingSaturated(sample.liveBlocks)
    rows[row].totalBytes = rows[row].totalBytes.addingSaturated(sample.totalBytes)
    rows[row].totalBlocks = rows[row].totalBlocks.addingSaturated(sample.totalBlocks)
    rows[row].temporaryBlocks = rows[row].temporaryBlocks.addingSaturated(sample.temporaryBlocks)
    if sample.liveErrorBytes != 0 {
      rows[row].variance += StandardError.square(sample.liveErrorBytes)
    }
    if sample.totalErrorBytes != 0 {
      rows[row].totalVariance += StandardError.square(sample.totalErrorBytes)
    }
  }

  // MARK: Reading off

  /// Whether the snapshot has the row, or only the other one of a comparison.
  private func has(_ row: Int) -> Bool { row < rows.count && rows[row].lastSample >= 0 }

  /// The row's figures as a statistic; `nil` where the snapshot has none.
  private func statistic(_ row: Int, _ keys: Rows) -> Statistic? {
    guard has(row) else { return nil }
    let figures = rows[row]
    return Statistic(
      key: keys[row], function: figures.function,
      stack: figures.shownSample < 0
        ? nil : snapshot.stack(of: snapshot.samples[figures.shownSample]),
      liveBytes: figures.liveBytes, liveBlocks: figures.liveBlocks,
      totalBytes: figures.totalBytes, totalBlocks: figures.totalBlocks,
      temporaryBlocks: figures.temporaryBlocks,
      liveErrorBytes: StandardError(figures.variance).bytes,
      totalErrorBytes: StandardError(figures.totalVariance).bytes)
  }

  func statistics(_ keys: Rows) -> [Statistic] {
    sorted(rows.indices.filter(has), keys) { Rank(rows[$0].liveBytes, rows[$0].liveBlocks) }
      .map { statistic($0, keys)! }
  }

  func differences(from earlier: Totals, _ keys: Rows) -> [StatisticDifference] {
    let all = (0..<max(rows.count, earlier.rows.count)).filter { has($0) || earlier.has($0) }
    return sorted(all, keys) { row in
      let now = has(row) ? rows[row] : Row()
      let then = earlier.has(row) ? earlier.rows[row] : Row()
      return Rank(
        now.liveBytes, now.liveBlocks,
        addedBytes: now.liveBytes.addingSaturated(-then.liveBytes),
        addedBlocks: now.liveBlocks.addingSaturated(-then.liveBlocks))
    }
    .map { StatisticDifference(later: statistic($0, keys), earlier: earlier.statistic($0, keys)) }
  }

  /// The largest first; of equal rows, in the opposite order of their keys, as tracemalloc has it.
  ///
  /// Numbers are sorted, and not the rows: those are 150 bytes with half a dozen references each.
  private func sorted(_ rows: [Int], _ keys: Rows, by rank: (Int) -> Rank) -> [Int] {
    rows.map { (row: $0, rank: rank($0)) }
      .sorted { a, b in
        a.rank == b.rank ? keys.isKey(of: b.row, before: a.row) : b.rank < a.rank
      }
      .map(\.row)
  }

  /// What rows are sorted by, before their keys.
  private struct Rank: Comparable {
    let addedBytes: UInt
    let liveBytes: Int
    let addedBlocks: UInt
    let liveBlocks: Int

    init(_ liveBytes: Int, _ liveBlocks: Int, addedBytes: Int = 0, addedBlocks: Int = 0) {
      self.addedBytes = addedBytes.magnitude
      self.liveBytes = liveBytes
      self.addedBlocks = addedBlocks.magnitude
      self.liveBlocks = liveBlocks
    }

    static func < (a: Self, b: Self) -> Bool {
      (a.addedBytes, a.liveBytes, a.addedBlocks, a.liveBlocks)
        < (b.addedBytes, b.liveBytes, b.addedBlocks, b.liveBlocks)
    }
  }
}

extension Snapshot.Sample {
  /// Of its stack's outermost end.
  fileprivate func saysLess(than other: Self) -> Bool {
    missingFrames < other.missingFrames
      || missingFrames == other.missingFrames && !isBroken && other.isBroken
  }
}
