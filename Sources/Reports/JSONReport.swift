// SPDX-License-Identifier: Apache-2.0
// Statistics and comparisons as JSON, under names that stay.

import HeapModel

/// Reports as JSON, under names that stay: new ones may come, none changes its meaning or goes.
///
/// Both reports are one object:
///
/// | name | value |
/// | --- | --- |
/// | `report` | `statistics` or `comparison` |
/// | `by` | what a row stands for: `line`, `file`, `function`, `stack`, `module`, `generation`, `type`, `thread`, `reach` |
/// | `charging` | `allocating_frame`, or `every_frame`: then rows overlap |
/// | `total` | the snapshot's figures, named as in rows |
/// | `rows` | largest first; figures, and what of the key there is |
/// | `omitted_rows` | how many rows are not in `rows` because of a limit |
/// | `header` | the dump's pairs, as an object of strings; `earlier_header` too in a comparison |
/// | `warnings` | sentences; `earlier_warnings` too in a comparison |
///
/// A row has `key` (as text reports show it), those of `file`, `line`, `function`, `module`,
/// `offset` and `generation` that are known, and for stacks `frames`, innermost first, each with
/// the same names, `missing_frames` (beyond the depth limit), `total_frames` (with them) and `broken`
/// (what called the outermost frame that was found is not known). Its figures are `live_bytes`, `live_blocks`,
/// `average_bytes` (`null` without blocks), `total_bytes` and `total_blocks`; in a comparison
/// `added_bytes` and `added_blocks` in the place of the last two.
public enum JSONReport {
  public static func statistics(
    _ statistics: [Statistic], of snapshot: Snapshot, groupedBy grouping: Snapshot.Grouping,
    charging: Snapshot.Charging = .allocatingFrame, limit: Int? = nil
  ) -> JSON {
    let rows = statistics.prefix(max(limit ?? statistics.count, 0)).map { row(of: $0) }
    return .object([
      .init("report", "statistics"), .init("by", .string(grouping.rawValue)),
      .init("charging", name(of: charging)),
      .init(
        "total",
        [
          "live_bytes": .integer(snapshot.liveBytes),
          "live_blocks": .integer(snapshot.liveBlocks),
          "total_bytes": .integer(snapshot.totalBytes),
          "total_blocks": .integer(snapshot.totalBlocks),
        ]),
      .init("rows", .array(rows)),
      .init("omitted_rows", .integer(statistics.count - rows.count)),
      .init("header", object(of: snapshot.header)),
      .init("warnings", .array(snapshot.warnings.map(JSON.string))),
    ])
  }

  public static func comparison(
    _ differences: [StatisticDifference], of later: Snapshot, comparedTo earlier: Snapshot,
    groupedBy grouping: Snapshot.Grouping, charging: Snapshot.Charging = .allocatingFrame,
    limit: Int? = nil
  ) -> JSON {
    let rows = differences.prefix(max(limit ?? differences.count, 0)).map { row(of: $0) }
    let addedBytes = later.liveBytes.subtractingSaturated(earlier.liveBytes)
    let addedBlocks = later.liveBlocks.subtractingSaturated(earlier.liveBlocks)
    return .object([
      .init("report", "comparison"), .init("by", .string(grouping.rawValue)),
      .init("charging", name(of: charging)),
      .init(
        "total",
        [
          "live_bytes": .integer(later.liveBytes), "live_blocks": .integer(later.liveBlocks),
          "added_bytes": .integer(addedBytes), "added_blocks": .integer(addedBlocks),
        ]),
      .init("rows", .array(rows)),
      .init("omitted_rows", .integer(differences.count - rows.count)),
      .init("header", object(of: later.header)),
      .init("earlier_header", object(of: earlier.header)),
      .init("warnings", .array(later.warnings.map(JSON.string))),
      .init("earlier_warnings", .array(earlier.warnings.map(JSON.string))),
    ])
  }

  private static func name(of charging: Snapshot.Charging) -> JSON {
    switch charging {
    case .allocatingFrame: "allocating_frame"
    case .everyFrame: "every_frame"
    }
  }

  private static func row(of statistic: Statistic) -> JSON {
    .object(
      members(of: statistic.key, function: statistic.function, stack: statistic.stack) + [
        .init("live_bytes", .integer(statistic.liveBytes)),
        .init("live_blocks", .integer(statistic.liveBlocks)),
        .init("average_bytes", statistic.averageBytes.map(JSON.number) ?? .null),
        .init("total_bytes", .integer(statistic.totalBytes)),
        .init("total_blocks", .integer(statistic.totalBlocks)),
      ])
  }

  private static func row(of difference: StatisticDifference) -> JSON {
    .object(
      members(of: difference.key, function: difference.function, stack: difference.stack) + [
        .init("live_bytes", .integer(difference.liveBytes)),
        .init("live_blocks", .integer(difference.liveBlocks)),
        .init("average_bytes", difference.averageBytes.map(JSON.number) ?? .null),
        .init("added_bytes", .integer(difference.addedBytes)),
        .init("added_blocks", .integer(difference.addedBlocks)),
      ])
  }

  private static func members(
    of key: Statistic.Key, function: String?, stack: Stack?
  ) -> [JSON.Member] {
    var members = [JSON.Member("key", .string(key.description))]
    switch key {
    case .line(let file, let line):
      members += [.init("file", .string(file)), .init("line", .integer(line))]
      if let function { members.append(.init("function", .string(function))) }
    case .file(let file):
      members.append(.init("file", .string(file)))
    case .function(let function, let module):
      members.append(.init("function", .string(function)))
      if !module.isEmpty { members.append(.init("module", .string(module))) }
    case .offset(let offset, let module):
      // As text: JavaScript's numbers end at 2⁵³.
      members.append(.init("offset", .string("0x" + String(offset, radix: 16))))
      if !module.isEmpty { members.append(.init("module", .string(module))) }
    case .module(let module):
      members.append(.init("module", .string(module)))
    case .generation(let generation):
      members.append(.init("generation", generation.map(JSON.integer) ?? .null))
    case .type(let type):
      members.append(.init("type", type.map(JSON.string) ?? .null))
    case .thread(let thread):
      members.append(.init("thread", thread.map(JSON.string) ?? .null))
    case .reach(let reach):
      members.append(.init("reach", .string(reach.rawValue)))
    case .stack(let keys):
      let functions = stack.map { $0.map(\.function) } ?? []
      let frames = keys.enumerated().map { number, key in
        let function = number < functions.count ? functions[number] : nil
        return JSON.object(self.members(of: key, function: function, stack: nil))
      }
      members.append(.init("frames", .array(frames)))
      let missing = stack?.missingFrames ?? 0
      members.append(.init("missing_frames", .integer(missing)))
      members.append(.init("total_frames", .integer(keys.count.addingSaturated(missing))))
      members.append(.init("broken", .boolean(stack?.isBroken ?? false)))
    }
    return members
  }

  /// Of pairs with one key the last counts, as in `Header`; remarks without a key are left out.
  private static func object(of header: Header) -> JSON {
    var seen: Set<String> = []
    let last = header.entries.reversed().filter { !$0.key.isEmpty && seen.insert($0.key).inserted }
    return .object(last.reversed().map { .init($0.key, .string($0.value)) })
  }
}
