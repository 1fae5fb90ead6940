// SPDX-License-Identifier: Apache-2.0
// Statistics and comparisons as JSON, under names that stay.

import HeapModel

/// Reports as JSON, under names that stay: new ones may come, none changes its meaning or goes.
///
/// Those of `show` and `diff` are one object; the others have what of it fits, and say what else:
///
/// | name | value |
/// | --- | --- |
/// | `report` | `statistics` or `comparison`; `survivors`, `trend`, `check` |
/// | `by` | what a row stands for: `line`, `file`, `function`, `stack`, `module`, `generation`, `type`, `thread`, `reach` |
/// | `moment` | `dump`, or `peak`: then the live figures are those of the picture of the peak; only in `statistics` and `comparison` |
/// | `charging` | `allocating_frame`, or `every_frame`: then rows overlap |
/// | `total` | the snapshot's figures, named as in rows |
/// | `rows` | largest first; figures, and what of the key there is |
/// | `omitted_rows` | how many rows are not in `rows` because of a limit |
/// | `header` | the dump's pairs, as an object of strings; `earlier_header` too in a comparison |
/// | `warnings` | sentences; `earlier_warnings` too in a comparison |
///
/// A row has `key` (as text reports show it), those of `file`, `line`, `function`, `module`,
/// `offset`, `generation`, `type`, `thread` and `reach` that are known, and for stacks `frames`, innermost first, each with
/// the same names, `missing_frames` (beyond the depth limit), `total_frames` (with them) and `broken`
/// (what called the outermost frame that was found is not known). Its figures are `live_bytes`, `live_blocks`,
/// `average_bytes` (`null` without blocks), `total_bytes`, `total_blocks` and `temporary_blocks` (of these,
/// what was freed before its thread's next allocation); in a comparison `added_bytes` and `added_blocks` in
/// the place of the last three. Where they are estimates, they have `live_error_bytes` and `total_error_bytes`
/// beside them, their standard errors, and in a comparison `added_error_bytes` in the place of the last; the
/// header's `sample_bytes` says that there may be such.
public enum JSONReport {
  /// What the live figures of a report are as of.
  public enum Moment: String, Sendable {
    case dump, peak
  }

  public static func statistics(
    _ statistics: [Statistic], of snapshot: Snapshot, groupedBy grouping: Snapshot.Grouping,
    charging: Snapshot.Charging = .allocatingFrame, moment: Moment = .dump, limit: Int? = nil
  ) -> Document {
    let rows = statistics.prefix(max(limit ?? statistics.count, 0))
    return Document(
      head: [
        .init("report", "statistics"), .init("by", .string(grouping.rawValue)),
        .init("moment", .string(moment.rawValue)),
        .init("charging", name(of: charging)),
        .init(
          "total",
          .object(
            [
              .init("live_bytes", .integer(snapshot.liveBytes)),
              .init("live_blocks", .integer(snapshot.liveBlocks)),
              .init("total_bytes", .integer(snapshot.totalBytes)),
              .init("total_blocks", .integer(snapshot.totalBlocks)),
              .init("temporary_blocks", .integer(snapshot.temporaryBlocks)),
            ] + error("live_error_bytes", snapshot.liveErrorBytes)
              + error("total_error_bytes", snapshot.totalErrorBytes))),
      ],
      rows: .statistics(rows),
      tail: [
        .init("omitted_rows", .integer(statistics.count - rows.count)),
        .init("header", object(of: snapshot.header)),
        .init("warnings", .array(snapshot.warnings.map(JSON.string))),
      ])
  }

  public static func comparison(
    _ differences: [StatisticDifference], of later: Snapshot, comparedTo earlier: Snapshot,
    groupedBy grouping: Snapshot.Grouping, charging: Snapshot.Charging = .allocatingFrame,
    moment: Moment = .dump, limit: Int? = nil
  ) -> Document {
    let rows = differences.prefix(max(limit ?? differences.count, 0))
    let total = StatisticDifference(of: later, comparedTo: earlier)
    return Document(
      head: [
        .init("report", "comparison"), .init("by", .string(grouping.rawValue)),
        .init("moment", .string(moment.rawValue)),
        .init("charging", name(of: charging)),
        .init(
          "total",
          .object(
            [
              .init("live_bytes", .integer(total.liveBytes)),
              .init("live_blocks", .integer(total.liveBlocks)),
              .init("added_bytes", .integer(total.addedBytes)),
              .init("added_blocks", .integer(total.addedBlocks)),
            ] + errors(of: total))),
      ],
      rows: .comparison(rows),
      tail: [
        .init("omitted_rows", .integer(differences.count - rows.count)),
        .init("header", object(of: later.header)),
        .init("earlier_header", object(of: earlier.header)),
        .init("warnings", .array(later.warnings.map(JSON.string))),
        .init("earlier_warnings", .array(earlier.warnings.map(JSON.string))),
      ])
  }

  /// A report whose rows become text one after the other.
  ///
  /// As one value, 100,000 stacks of 40 frames would take gigabytes.
  public struct Document: Sendable {
    fileprivate enum Rows {
      case statistics(ArraySlice<Statistic>)
      case comparison(ArraySlice<StatisticDifference>)
    }

    fileprivate let head: [JSON.Member]
    fileprivate let rows: Rows
    fileprivate let tail: [JSON.Member]

    /// The text on one line, as `JSON.text`.
    public var text: String {
      var text = ""
      write(to: &text)
      return text
    }

    /// Writes the text as it comes.
    public func write(to text: inout some TextOutputStream) {
      text.write("{")
      JSON.write(head, to: &text)
      text.write(",\"rows\":[")
      var frames = FrameTexts()
      switch rows {
      case .statistics(let rows): write(rows, JSONReport.row, &frames, to: &text)
      case .comparison(let rows): write(rows, JSONReport.row, &frames, to: &text)
      }
      text.write("],")
      JSON.write(tail, to: &text)
      text.write("}")
    }

    private func write<Element>(
      _ rows: ArraySlice<Element>, _ row: (Element) -> Row, _ frames: inout FrameTexts,
      to text: inout some TextOutputStream
    ) {
      var isFirst = true
      for element in rows {
        text.write(isFirst ? "{" : ",{")
        isFirst = false
        row(element).write(to: &text, &frames)
        text.write("}")
      }
    }
  }

  /// One row: what there is of its key, and its figures.
  fileprivate struct Row {
    let key: Statistic.Key
    let function: String?
    let stack: Stack?
    let figures: [JSON.Member]

    func write(to text: inout some TextOutputStream, _ frames: inout FrameTexts) {
      JSON.write(JSONReport.members(of: key, function: function), to: &text)
      if case .stack(let keys) = key {
        text.write(",\"frames\":[")
        for (number, key) in keys.enumerated() {
          let function = stack.flatMap { number < $0.count ? $0[number].function : nil }
          if number > 0 { text.write(",") }
          text.write(frames.text(of: key, function))
        }
        text.write("],")
        JSON.write(JSONReport.ends(of: keys.count, stack), to: &text)
      }
      text.write(",")
      JSON.write(figures, to: &text)
    }
  }

  /// The text of stacks' frames, which are the same few thousand again and again.
  fileprivate struct FrameTexts {
    private struct Frame: Hashable {
      let key: Statistic.Key
      let function: String?
    }

    private var texts: [Frame: String] = [:]

    mutating func text(of key: Statistic.Key, _ function: String?) -> String {
      let frame = Frame(key: key, function: function)
      if let known = texts[frame] { return known }
      let text = JSON.object(JSONReport.members(of: key, function: function)).text
      texts[frame] = text
      return text
    }
  }

  /// A standard error, where a figure is an estimate.
  static func error(_ name: String, _ bytes: Int) -> [JSON.Member] {
    bytes == 0 ? [] : [JSON.Member(name, .integer(bytes))]
  }

  fileprivate static func errors(of difference: StatisticDifference) -> [JSON.Member] {
    error("live_error_bytes", difference.liveErrorBytes)
      + error("added_error_bytes", difference.addedErrorBytes)
  }

  static func name(of charging: Snapshot.Charging) -> JSON {
    switch charging {
    case .allocatingFrame: "allocating_frame"
    case .everyFrame: "every_frame"
    }
  }

  private static func row(_ statistic: Statistic) -> Row {
    Row(
      key: statistic.key, function: statistic.function, stack: statistic.stack,
      figures: [
        .init("live_bytes", .integer(statistic.liveBytes)),
        .init("live_blocks", .integer(statistic.liveBlocks)),
        .init("average_bytes", statistic.averageBytes.map(JSON.number) ?? .null),
        .init("total_bytes", .integer(statistic.totalBytes)),
        .init("total_blocks", .integer(statistic.totalBlocks)),
        .init("temporary_blocks", .integer(statistic.temporaryBlocks)),
      ] + error("live_error_bytes", statistic.liveErrorBytes)
        + error("total_error_bytes", statistic.totalErrorBytes))
  }

  private static func row(_ difference: StatisticDifference) -> Row {
    Row(
      key: difference.key, function: difference.function, stack: difference.stack,
      figures: [
        .init("live_bytes", .integer(difference.liveBytes)),
        .init("live_blocks", .integer(difference.liveBlocks)),
        .init("average_bytes", difference.averageBytes.map(JSON.number) ?? .null),
        .init("added_bytes", .integer(difference.addedBytes)),
        .init("added_blocks", .integer(difference.addedBlocks)),
      ] + errors(of: difference))
  }

  /// A row as a value, for reports that are one.
  static func value(
    _ key: Statistic.Key, _ function: String?, _ stack: Stack?, _ figures: [JSON.Member]
  ) -> JSON {
    guard case .stack(let keys) = key else {
      return .object(members(of: key, function: function) + figures)
    }
    let frames = keys.enumerated().map { number, key in
      let function = stack.flatMap { number < $0.count ? $0[number].function : nil }
      return JSON.object(members(of: key, function: function))
    }
    return .object(
      members(of: key, function: function) + [.init("frames", .array(frames))]
        + ends(of: keys.count, stack) + figures)
  }

  /// What is said of a stack's outermost end.
  fileprivate static func ends(of frameCount: Int, _ stack: Stack?) -> [JSON.Member] {
    let missing = stack?.missingFrames ?? 0
    return [
      .init("missing_frames", .integer(missing)),
      .init("total_frames", .integer(frameCount.addingSaturated(missing))),
      .init("broken", .boolean(stack?.isBroken ?? false)),
    ]
  }

  /// A row of a comparison as a value.
  static func value(of difference: StatisticDifference) -> JSON {
    let row = row(difference)
    return value(row.key, row.function, row.stack, row.figures)
  }

  /// What there is of a key; of a stack, not its frames.
  static func members(of key: Statistic.Key, function: String?) -> [JSON.Member] {
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
    case .stack: break
    }
    return members
  }

  /// Of pairs with one key the last counts, as in `Header`; remarks without a key are left out.
  static func object(of header: Header) -> JSON {
    var seen: Set<String> = []
    let last = header.entries.reversed().filter { !$0.key.isEmpty && seen.insert($0.key).inserted }
    return .object(last.reversed().map { .init($0.key, .string($0.value)) })
  }
}
