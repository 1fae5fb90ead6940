// SPDX-License-Identifier: Apache-2.0
// What leaks, how fast, and when that is too much: as text and as JSON.

import HeapModel

/// A trend as text: a sentence that is the answer, then a line for each row.
///
///     a.c:12 in grow leaks, +12.0 MiB/h; the limit of 512 MiB is reached in 3 h 2 min
///
///     TREND     VERDICT            RATE  GREW IN  LIMIT IN       SIZE  LINE
///     ▁▂▃▄▅▆▇█  leak        +12.0 MiB/h   7 of 7  3 h 2 min  96.0 MiB  a.c:12 in grow
public struct TrendText: Sendable, CustomStringConvertible {
  /// The lines, without line ends.
  public let lines: [String]

  /// - Parameters:
  ///   - limit: How many rows are shown; a line counts the others.
  ///   - charging: How the rows were made: where they overlap, their sum says nothing.
  public init(
    _ trend: Trend, groupedBy grouping: Snapshot.Grouping,
    charging: Snapshot.Charging = .allocatingFrame, limit: Int? = nil, style: TextStyle = .plain
  ) {
    lines =
      [Self.answer(trend, grouping, charging, style), ""]
      + Self.table(trend, grouping, limit, style)
      + (trend.rows.isEmpty ? [] : [""]) + Self.whole(trend, style)
  }

  public var description: String { lines.joined(separator: "\n") }

  // MARK: The answer

  private static func answer(
    _ trend: Trend, _ grouping: Snapshot.Grouping, _ charging: Snapshot.Charging,
    _ style: TextStyle
  ) -> String {
    func rows(_ count: Int) -> String { "\(count) \(grouping)\(count == 1 ? "" : "s")" }
    let leaks = trend.rows.filter { $0.fit.verdict == .leak }
    let undecided = trend.rows.filter { $0.fit.verdict == .undecided }
    guard let fastest = leaks.first ?? undecided.first else {
      let words: [(Verdict, one: String, many: String)] = [
        (.levelsOff, "levels off", "level off"), (.churn, "churns", "churn"),
        (.shrinks, "shrinks", "shrink"), (.steady, "is steady", "are steady"),
      ]
      let told = words.compactMap { verdict, one, many in
        let count = trend.count(of: verdict)
        return count == 0 ? nil : "\(rows(count)) \(count == 1 ? one : many)"
      }
      return "nothing leaks" + (told.isEmpty ? "" : ": " + told.joined(separator: ", "))
    }
    let those = leaks.isEmpty ? undecided : leaks
    var speed = fastest.fit.bytesPerHour
    var text = "\(place(of: fastest)) \(leaks.isEmpty ? "grew" : "leaks"), \(rate(speed))"
    if those.count > 1 {
      text += ", and \(those.count - 1) more \(grouping)\(those.count == 2 ? "" : "s")"
      // Of rows that overlap, the sum says nothing.
      if charging == .allocatingFrame {
        speed = those.reduce(0) { $0 + $1.fit.bytesPerHour }
        text += ", \(rate(speed)) together"
      }
    }
    if let left = trend.secondsLeft(atBytesPerHour: speed), let limit = trend.header.limitBytes {
      text += "; the limit of \(ByteCount(limit)) is reached in \(duration(left))"
    }
    if leaks.isEmpty {
      text +=
        trend.moments.count < 4
        ? "; \(trend.moments.count) dumps can't tell a leak from what will stop, 4 can"
        : "; too lately, or in too few steps, to tell a leak from what will stop"
    }
    return style.accent(text, leaks.isEmpty ? .bold : .red)
  }

  /// A row by the end of its path, and a stack by its innermost frame: to be found in the table.
  private static func place(of row: Trend.Row) -> String {
    var (key, function) = (row.key, row.function)
    if case .stack(let keys) = key, let innermost = keys.first {
      (key, function) = (innermost, row.stack?.first?.function)
    }
    if case .line(let file, let line) = key {
      key = .line(file: file.split(separator: "/").last.map(String.init) ?? file, line: line)
    }
    return key.label(function, width: nil)
  }

  static func rate(_ bytesPerHour: Double) -> String {
    // A damaged dump may have any figures a nanosecond apart.
    "\(ByteCount(min(max(bytesPerHour, -0x1p62), 0x1p62)).signed)/h"
  }

  static func duration(_ seconds: Double) -> String {
    let year = 365.0 * 86_400
    return seconds > year ? "more than a year" : UTC.duration(nanoseconds: Int(seconds * 1e9))
  }

  // MARK: The rows

  private static func table(
    _ trend: Trend, _ grouping: Snapshot.Grouping, _ limit: Int?, _ style: TextStyle
  ) -> [String] {
    let shown = trend.rows.prefix(max(limit ?? trend.rows.count, 0))
    guard !shown.isEmpty else { return [] }
    let hasLimit = trend.headroomBytes != nil
    func cells(_ row: Trend.Row) -> [String] {
      [
        "\(Chart(row.liveBytes, inASCII: style.drawsInASCII))", row.fit.verdict.rawValue,
        rate(row.fit.bytesPerHour), "\(row.fit.growthCount) of \(row.fit.intervalCount)",
      ] + (hasLimit ? [row.secondsLeft.map(duration) ?? "-"] : [])
        + ["\(ByteCount(row.lastBytes))"]
    }
    let heading =
      ["TREND", "VERDICT", "RATE", "GREW IN"] + (hasLimit ? ["LIMIT IN"] : []) + ["SIZE"]
    // Whose last column is a figure: the label behind it is what has to fit.
    let columns = TextColumns.lines(
      [heading] + shown.map(cells), figures: Set(2..<heading.count))
    let width = style.width.map { $0 - columns[0].count - 2 }
    var lines: [String] = []
    var labels = Labels(style)
    for (number, line) in columns.enumerated() {
      guard number > 0 else {
        let name = grouping == .stack ? "" : "  " + grouping.rawValue.uppercased()
        lines.append(style.accent(line + name, .bold))
        continue
      }
      let row = shown[number - 1]
      let verdict = style.accent(line, accent(of: row.fit.verdict))
      if case .stack(let keys) = row.key {
        lines.append(verdict)
        labels.forEachLine(of: keys, row.stack) { lines.append($0) }
      } else {
        lines.append("\(verdict)  \(row.key.label(row.function, width: width))")
      }
    }
    let hidden = trend.rows.count - shown.count
    if hidden > 0 { lines.append("… and \(hidden) more \(hidden == 1 ? "row" : "rows")") }
    return lines
  }

  private static func accent(of verdict: Verdict) -> TextStyle.Accent? {
    switch verdict {
    case .leak: .red
    case .undecided: .yellow
    case .shrinks: .green
    case .levelsOff, .churn, .steady: nil
    }
  }

  // MARK: The whole

  private static func whole(_ trend: Trend, _ style: TextStyle) -> [String] {
    let total = trend.total
    let chart = Chart(total.liveBytes, inASCII: style.drawsInASCII)
    var lines = Summary.identity(trend.header, style, isOneDump: false)
    lines += Summary.sampling(trend.header)
    lines.append(span(trend))
    lines.append(
      "total: \(chart) \(total.fit.verdict.rawValue), \(rate(total.fit.bytesPerHour)), "
        + "size=\(ByteCount(total.lastBytes))\(ErrorText(total.lastErrorBytes, .own)), "
        + "count=\(total.liveBlocks)")
    for line in Summary.limit(trend.header, saysRate: trend.usage == nil) {
      lines.append(line + (trend.usage.map { usage($0, trend) } ?? ""))
    }
    return lines + Summary.losses(trend.header, style)
  }

  /// More than what is traced may count against the limit: `, usage +15.0 MiB/h, reached in 2 h 2 min`
  private static func usage(_ fit: SeriesFit, _ trend: Trend) -> String {
    let left = fit.verdict == .leak ? trend.secondsLeft(atBytesPerHour: fit.bytesPerHour) : nil
    return ", usage \(rate(fit.bytesPerHour))" + (left.map { ", reached in \(duration($0))" } ?? "")
  }

  /// `8 dumps in 7 h 0 min, 2026-11-21T03:27:57Z to 2026-11-21T10:27:57Z`
  private static func span(_ trend: Trend) -> String {
    let (first, last) = (trend.moments[0], trend.moments[trend.moments.count - 1])
    var text = "\(trend.moments.count) dumps in \(duration(last.seconds))"
    if let start = first.wallNanoseconds, let end = last.wallNanoseconds {
      text += ", \(UTC.text(nanoseconds: start)) to \(UTC.text(nanoseconds: end))"
    }
    return text
  }
}

extension JSONReport {
  /// A trend: `report`, `by`, `charging`, `omitted_rows` and `header` (of the last dump) as in the others, and
  ///
  /// | name | value |
  /// | --- | --- |
  /// | `dumps` | oldest first, each with `path`, `time` (UTC), `seconds` since the first, `live_bytes`, `usage_bytes` |
  /// | `total` | the figures of a row, for all of it |
  /// | `limit` | `limit_bytes`, `headroom_bytes`, and `usage_bytes_per_hour`; each `null` where not known |
  /// | `rows` | the key's names as in the others, and `live_error_bytes` where they are estimates; `verdict`, `bytes_per_hour`, `overall_bytes_per_hour`, `grew_in`, `shrank_in`, `intervals`, `seconds_left`, `live_bytes` and `live_blocks` of the last dump, and `series`, live bytes of each |
  public static func trend(
    _ trend: Trend, paths: [String], groupedBy grouping: Snapshot.Grouping,
    charging: Snapshot.Charging = .allocatingFrame, limit: Int? = nil
  ) -> JSON {
    let rows = trend.rows.prefix(max(limit ?? trend.rows.count, 0))
    let dumps = zip(trend.moments, paths).map { moment, path in
      JSON.object([
        .init("path", .string(path)),
        .init("time", moment.wallNanoseconds.map { .string(UTC.text(nanoseconds: $0)) } ?? .null),
        .init("seconds", .number(moment.seconds)),
        .init("live_bytes", .integer(moment.liveBytes)),
        .init("usage_bytes", moment.usageBytes.map(JSON.integer) ?? .null),
      ])
    }
    return .object([
      .init("report", "trend"), .init("by", .string(grouping.rawValue)),
      .init("charging", name(of: charging)), .init("dumps", .array(dumps)),
      .init("total", .object(figures(of: trend.total))),
      .init(
        "limit",
        [
          "limit_bytes": trend.header.limitBytes.map(JSON.integer) ?? .null,
          "headroom_bytes": trend.headroomBytes.map(JSON.integer) ?? .null,
          "usage_bytes_per_hour": trend.usage.map { .number($0.bytesPerHour) } ?? .null,
        ]),
      .init(
        "rows",
        .array(
          rows.map {
            value($0.key, $0.function, $0.stack, figures(of: $0))
          })),
      .init("omitted_rows", .integer(trend.rows.count - rows.count)),
      .init("header", object(of: trend.header)),
    ])
  }

  private static func figures(of row: Trend.Row) -> [JSON.Member] {
    [
      .init("verdict", .string(row.fit.verdict.rawValue)),
      .init("bytes_per_hour", .number(row.fit.bytesPerHour)),
      .init("overall_bytes_per_hour", .number(row.fit.overallBytesPerHour)),
      .init("grew_in", .integer(row.fit.growthCount)),
      .init("shrank_in", .integer(row.fit.shrinkageCount)),
      .init("intervals", .integer(row.fit.intervalCount)),
      .init("seconds_left", row.secondsLeft.map(JSON.number) ?? .null),
      .init("live_bytes", .integer(row.lastBytes)),
      .init("live_blocks", .integer(row.liveBlocks)),
      .init("series", .array(row.liveBytes.map(JSON.integer))),
    ] + error("live_error_bytes", row.lastErrorBytes)
  }
}
