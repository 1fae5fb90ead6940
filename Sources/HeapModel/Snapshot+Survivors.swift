// SPDX-License-Identifier: Apache-2.0
// What was born between two snapshots and is still alive, by one dump.

/// The blocks of one row that were born in some generations and are still alive.
public struct Survivor: Hashable, Sendable {
  /// All of them together.
  public let statistic: Statistic
  /// What each generation has left, the oldest first; generations that left nothing have no place.
  ///
  /// What leaks leaves something in nearly every generation. What a program made once and keeps is in one.
  public let generations: [Part]

  /// What one generation has left of a row.
  public struct Part: Hashable, Sendable {
    /// The interval between two snapshots in which the blocks were allocated, from 1.
    public let generation: Int
    /// Bytes that are still alive of it, by the sizes that were asked for.
    public let liveBytes: Int
    /// The blocks that `liveBytes` is the size of.
    public let liveBlocks: Int

    /// What one generation has left.
    public init(generation: Int, liveBytes: Int, liveBlocks: Int) {
      self.generation = generation
      self.liveBytes = liveBytes
      self.liveBlocks = liveBlocks
    }
  }

  /// A row of what survived, with its parts oldest first.
  public init(statistic: Statistic, generations: [Part]) {
    self.statistic = statistic
    self.generations = generations
  }
}

extension Snapshot {
  /// The generations that blocks of the snapshot may be of; `nil` where it knows of none: no tracer of
  /// Heaptap wrote it.
  ///
  /// Generation 1 begins with the recording, and each snapshot (or mark) opens the next one. The last is
  /// that which this snapshot ended.
  public var generations: ClosedRange<Int>? {
    let ended = header.openedGeneration.map { $0.addingSaturated(-1) } ?? 0
    let last = max(ended, samples.lazy.compactMap(\.generation).max() ?? 0)
    return last >= 1 ? 1...last : nil
  }

  /// The samples whose blocks were born in these generations.
  public func born(in generations: ClosedRange<Int>) -> Snapshot {
    var result = self
    result.samples = samples.filter { $0.generation.map(generations.contains) ?? false }
    return result
  }

  /// What was born in these generations and is still alive, the largest first.
  ///
  /// Costs a pass over the samples, and one over the distinct frames for each generation.
  public func survivors(
    bornIn generations: ClosedRange<Int>, groupedBy grouping: Grouping,
    charging: Charging = .allocatingFrame
  ) throws(GroupingError) -> [Survivor] {
    let born = born(in: generations)
    let byGeneration = Dictionary(grouping: born.samples) { $0.generation! }
    var parts: [Statistic.Key: [Survivor.Part]] = [:]
    for (generation, samples) in byGeneration.sorted(by: { $0.key < $1.key }) {
      var part = born
      part.samples = samples
      for row in try part.statistics(groupedBy: grouping, charging: charging)
      where row.liveBlocks != 0 || row.liveBytes != 0 {
        parts[row.key, default: []].append(
          Survivor.Part(
            generation: generation, liveBytes: row.liveBytes, liveBlocks: row.liveBlocks))
      }
    }
    return try born.statistics(groupedBy: grouping, charging: charging).compactMap { row in
      parts[row.key].map { Survivor(statistic: row, generations: $0) }
    }
  }
}

extension Header {
  /// How long before the dump a generation began and ended, in nanoseconds; `nil` where the dump does
  /// not say. The newest ended with the dump.
  public func age(ofGeneration number: Int) -> ClosedRange<Int>? {
    guard let dump = dumpMonotonicNanoseconds else { return nil }
    let starts = generationStarts
    func age(_ number: Int) -> Int? {
      starts.last { $0.number == number }.map {
        max(dump.subtractingReportingOverflow($0.monotonicNanoseconds).partialValue, 0)
      }
    }
    guard let oldest = age(number) else { return nil }
    return min(age(number.addingSaturated(1)) ?? 0, oldest)...oldest
  }
}
