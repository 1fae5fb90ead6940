// SPDX-License-Identifier: Apache-2.0
// What was born between two snapshots and is still alive, as a whole and as JSON.

import HeapModel

extension Summary {
  /// Whose heap it is, which generations are meant and when they were, and how much of the heap they hold.
  public init(
    of snapshot: Snapshot, bornIn generations: ClosedRange<Int>, style: TextStyle = .plain
  ) {
    let survivors = snapshot.born(in: generations)
    let all = snapshot.generations ?? generations
    let (first, last) = (generations.lowerBound, generations.upperBound)
    let which = first == last ? "generation \(first)" : "generations \(first) to \(last)"
    var when = "born in \(which) of \(all.upperBound)"
    if let oldest = snapshot.header.age(ofGeneration: first),
      let youngest = snapshot.header.age(ofGeneration: last)
    {
      when +=
        ": \(UTC.duration(nanoseconds: youngest.lowerBound)) to "
        + "\(UTC.duration(nanoseconds: oldest.upperBound)) old"
    }
    let share =
      "total: size=\(ByteCount(survivors.liveBytes))"
      + "\(ErrorText(survivors.liveErrorBytes, .own)) of \(ByteCount(snapshot.liveBytes)), "
      + "count=\(survivors.liveBlocks) of \(snapshot.liveBlocks)"
    lines =
      Self.identity(snapshot.header, style) + Self.sampling(snapshot.header) + [when, share]
      + Self.losses(snapshot.header, style)
      + Self.warnings(snapshot, style)
  }
}

extension JSONReport {
  /// Survivors: as `statistics`, and
  ///
  /// | name | value |
  /// | --- | --- |
  /// | `born` | `first` and `last` generation; `youngest_seconds` and `oldest_seconds` before the dump, `null` where not known |
  /// | `total` | what they hold, named as in rows |
  /// | `generations` of a row | those that have left something in it, oldest first, each with `generation`, `live_bytes`, `live_blocks` |
  public static func survivors(
    _ survivors: [Survivor], of snapshot: Snapshot, bornIn generations: ClosedRange<Int>,
    groupedBy grouping: Snapshot.Grouping, charging: Snapshot.Charging = .allocatingFrame,
    limit: Int? = nil
  ) -> JSON {
    let rows = survivors.prefix(max(limit ?? survivors.count, 0))
    let born = snapshot.born(in: generations)
    func seconds(_ nanoseconds: Int?) -> JSON {
      nanoseconds.map { .number(Double($0) / 1e9) } ?? .null
    }
    let header = snapshot.header
    return .object([
      .init("report", "survivors"), .init("by", .string(grouping.rawValue)),
      .init("charging", name(of: charging)),
      .init(
        "born",
        [
          "first": .integer(generations.lowerBound), "last": .integer(generations.upperBound),
          "youngest_seconds": seconds(
            header.age(ofGeneration: generations.upperBound)?.lowerBound),
          "oldest_seconds": seconds(header.age(ofGeneration: generations.lowerBound)?.upperBound),
        ]),
      .init(
        "total",
        .object(
          [
            .init("live_bytes", .integer(born.liveBytes)),
            .init("live_blocks", .integer(born.liveBlocks)),
          ] + error("live_error_bytes", born.liveErrorBytes))),
      .init("rows", .array(rows.map(row))),
      .init("omitted_rows", .integer(survivors.count - rows.count)),
      .init("header", object(of: header)),
      .init("warnings", .array(snapshot.warnings.map(JSON.string))),
    ])
  }

  private static func row(of survivor: Survivor) -> JSON {
    let statistic = survivor.statistic
    let parts = survivor.generations.map { part -> JSON in
      [
        "generation": .integer(part.generation), "live_bytes": .integer(part.liveBytes),
        "live_blocks": .integer(part.liveBlocks),
      ]
    }
    return value(
      statistic.key, statistic.function, statistic.stack,
      [
        .init("live_bytes", .integer(statistic.liveBytes)),
        .init("live_blocks", .integer(statistic.liveBlocks)),
        .init("average_bytes", statistic.averageBytes.map(JSON.number) ?? .null),
        .init("generations", .array(parts)),
      ] + error("live_error_bytes", statistic.liveErrorBytes))
  }
}
