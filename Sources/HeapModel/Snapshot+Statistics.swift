// SPDX-License-Identifier: Apache-2.0
// Adds up the blocks of each row, and sets two snapshots side by side.

extension Snapshot {
  /// Totals the blocks of each row, largest first, charged to the frame that allocated.
  public func statistics(groupedBy grouping: Grouping) -> [Statistic] {
    var totals = Totals(of: self, groupedBy: grouping)
    switch grouping {
    case .generation:
      for sample in samples { totals.charge(sample, to: .generation(sample.generation)) }
    case .type:
      for sample in samples { totals.charge(sample, to: .type(sample.type)) }
    case .thread:
      for sample in samples { totals.charge(sample, to: .thread(sample.thread)) }
    case .reach:
      for sample in samples { totals.charge(sample, to: .reach(sample.reach)) }
    case .stack:
      for sample in samples { totals.chargeStack(of: sample) }
    case .line, .file, .function, .module:
      for sample in samples { totals.charge(sample, toFrame: runs[sample.stack].first) }
    }
    return totals.statistics
  }

  /// Totals the blocks of each row, largest first.
  ///
  /// A row is charged for a block when its frame made the allocation. Pass `.everyFrame` to charge
  /// every caller as well; rows then overlap and no longer add up to the heap.
  public func statistics(
    groupedBy grouping: Grouping, charging: Charging
  ) throws(GroupingError) -> [Statistic] {
    switch (charging, grouping) {
    case (.everyFrame, .stack):
      throw GroupingError(.everyFrameOfStack)
    case (.allocatingFrame, _), (.everyFrame, .generation), (.everyFrame, .type),
      (.everyFrame, .thread), (.everyFrame, .reach):
      return statistics(groupedBy: grouping)
    case (.everyFrame, _):
      var totals = Totals(of: self, groupedBy: grouping)
      for sample in samples { totals.charge(sample, toEach: runs[sample.stack]) }
      return totals.statistics
    }
  }

  /// What changed since an earlier snapshot, the largest change first.
  ///
  /// Rows that vanished stay, with nothing alive, and so do rows that did not change.
  public func compared(
    to earlier: Snapshot, groupedBy grouping: Grouping
  ) -> [StatisticDifference] {
    Self.differences(
      later: statistics(groupedBy: grouping), earlier: earlier.statistics(groupedBy: grouping))
  }

  /// What changed since an earlier snapshot, the largest change first.
  ///
  /// With `.everyFrame` a change shows in every caller too: see `statistics(groupedBy:charging:)`.
  public func compared(
    to earlier: Snapshot, groupedBy grouping: Grouping, charging: Charging
  ) throws(GroupingError) -> [StatisticDifference] {
    Self.differences(
      later: try statistics(groupedBy: grouping, charging: charging),
      earlier: try earlier.statistics(groupedBy: grouping, charging: charging))
  }

  private static func differences(
    later: [Statistic], earlier: [Statistic]
  ) -> [StatisticDifference] {
    var vanished = Dictionary(uniqueKeysWithValues: earlier.map { ($0.key, $0) })
    var rows = later.map {
      StatisticDifference(later: $0, earlier: vanished.removeValue(forKey: $0.key))
    }
    rows += vanished.values.map { StatisticDifference(later: nil, earlier: $0) }
    return rows.sorted(by: StatisticDifference.largestChangeFirst)
  }
}

/// The running totals of a report's rows.
///
/// Keys are made once for each distinct frame; the pass over the samples then compares numbers.
private struct Totals {
  private struct Row {
    let key: Statistic.Key
    var function: String?
    var stack: Stack?
    var liveBytes = 0
    var liveBlocks = 0
    var totalBytes = 0
    var totalBlocks = 0
    /// The sample that was charged last: a row is charged once for each.
    var lastSample = -1
  }

  private let snapshot: Snapshot
  private let grouping: Snapshot.Grouping
  private var rows: [Row] = []
  private var rowOfKey: [Statistic.Key: Int] = [:]
  /// The row of each of the snapshot's frames; -1 where none has been charged yet. Where rows are
  /// stacks, the number of its key.
  private var rowOfFrame: [Int]
  private var sampleCount = 0

  // Where rows are stacks.
  private var rowOfStack: [Int]
  private var keys: [Statistic.Key] = []
  private var numberOfKey: [Statistic.Key: Int] = [:]
  private var keyRuns = StackInterner()

  init(of snapshot: Snapshot, groupedBy grouping: Snapshot.Grouping) {
    self.snapshot = snapshot
    self.grouping = grouping
    rowOfFrame = Array(repeating: -1, count: snapshot.distinctFrames.count)
    rowOfStack = Array(repeating: -1, count: grouping == .stack ? snapshot.stackCount : 0)
  }

  var statistics: [Statistic] {
    rows.map {
      Statistic(
        key: $0.key, function: $0.function, stack: $0.stack, liveBytes: $0.liveBytes,
        liveBlocks: $0.liveBlocks, totalBytes: $0.totalBytes, totalBlocks: $0.totalBlocks)
    }
    .sorted(by: Statistic.largestFirst)
  }

  mutating func charge(_ sample: Snapshot.Sample, to key: Statistic.Key) {
    add(sample, to: row(for: key))
  }

  mutating func chargeStack(of sample: Snapshot.Sample) {
    let stack = snapshot.stack(of: sample)
    var row = rowOfStack[sample.stack]
    if row < 0 {
      row = self.row(forStack: sample.stack)
      rowOfStack[sample.stack] = row
    }
    // Where stacks of different addresses have one key, the one that says most.
    if rows[row].stack.map({ $0.saysLess(than: stack) }) ?? true {
      rows[row].stack = stack
    }
    add(sample, to: row)
  }

  /// Charges the frame of a number; `nil` is the frame of a stack that has none.
  mutating func charge(_ sample: Snapshot.Sample, toFrame frame: UInt32?) {
    if let frame {
      add(sample, to: row(forFrame: Int(frame)))
    } else {
      add(sample, to: row(for: snapshot.key(of: Frame(), groupedBy: grouping)))
    }
  }

  mutating func charge(_ sample: Snapshot.Sample, toEach frames: ArraySlice<UInt32>) {
    sampleCount += 1
    if frames.isEmpty { charge(sample, toFrame: nil) }
    for frame in frames {
      let row = row(forFrame: Int(frame))
      if rows[row].lastSample == sampleCount { continue }
      rows[row].lastSample = sampleCount
      add(sample, to: row)
    }
  }

  private mutating func row(for key: Statistic.Key) -> Int {
    if let row = rowOfKey[key] { return row }
    rows.append(Row(key: key))
    rowOfKey[key] = rows.count - 1
    return rows.count - 1
  }

  /// Stacks are compared by the numbers of their frames' keys: hashing the keys themselves would
  /// hash 40 paths for each stack.
  private mutating func row(forStack stack: Int) -> Int {
    let run = snapshot.frameIndices(ofStack: stack).map { number(ofKeyOf: Int($0)) }
    let row = keyRuns.index(of: run[...])
    if row == rows.count { rows.append(Row(key: .stack(run.map { keys[Int($0)] }))) }
    return row
  }

  private mutating func number(ofKeyOf frame: Int) -> UInt32 {
    if rowOfFrame[frame] >= 0 { return UInt32(rowOfFrame[frame]) }
    let key = snapshot.key(of: snapshot.distinctFrames[frame], groupedBy: .line)
    let number = numberOfKey[key] ?? keys.count
    if number == keys.count {
      keys.append(key)
      numberOfKey[key] = number
    }
    rowOfFrame[frame] = number
    return UInt32(number)
  }

  private mutating func row(forFrame index: Int) -> Int {
    if rowOfFrame[index] >= 0 { return rowOfFrame[index] }
    let frame = snapshot.distinctFrames[index]
    let row = row(for: snapshot.key(of: frame, groupedBy: grouping))
    if case .line = rows[row].key, let function = frame.function {
      rows[row].function = min(rows[row].function ?? function, function)
    }
    rowOfFrame[index] = row
    return row
  }

  private mutating func add(_ sample: Snapshot.Sample, to row: Int) {
    rows[row].liveBytes = rows[row].liveBytes.addingSaturated(sample.liveBytes)
    rows[row].liveBlocks = rows[row].liveBlocks.addingSaturated(sample.liveBlocks)
    rows[row].totalBytes = rows[row].totalBytes.addingSaturated(sample.totalBytes)
    rows[row].totalBlocks = rows[row].totalBlocks.addingSaturated(sample.totalBlocks)
  }
}

extension Stack {
  /// Of its outermost end.
  fileprivate func saysLess(than other: Stack) -> Bool {
    missingFrames < other.missingFrames
      || missingFrames == other.missingFrames && !isBroken && other.isBroken
  }
}
