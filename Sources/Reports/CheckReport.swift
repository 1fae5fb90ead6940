// SPDX-License-Identifier: Apache-2.0
// Whether a heap keeps to its bounds: as text, as Markdown and as JSON.

import HeapModel

/// The outcome of a check, in the forms that it is told in.
public struct CheckReport: Sendable {
  /// What a suppression has left out.
  public struct Suppression: Hashable, Sendable {
    public let rule: Suppressions.Rule
    /// Bytes and blocks of growth; of what is alive where nothing is compared. `nil` where it fits no
    /// stack of either snapshot.
    public let taken: Snapshot.Suppressed.Amount?

    public init(rule: Suppressions.Rule, taken: Snapshot.Suppressed.Amount?) {
      self.rule = rule
      self.taken = taken
    }
  }

  private let check: GrowthCheck
  private let suppressions: [Suppression]
  private let grouping: Snapshot.Grouping
  private let charging: Snapshot.Charging
  /// Whether there is an earlier snapshot: what is alive is growth from nothing otherwise.
  private let compares: Bool
  private let limit: Int?

  /// - Parameter limit: How many rows are shown.
  public init(
    _ check: GrowthCheck, _ suppressions: [Suppression] = [],
    groupedBy grouping: Snapshot.Grouping, charging: Snapshot.Charging = .allocatingFrame,
    compares: Bool, limit: Int? = nil
  ) {
    self.check = check
    self.suppressions = suppressions
    self.grouping = grouping
    self.charging = charging
    self.compares = compares
    self.limit = limit
  }

  // MARK: Sentences

  /// What is wrong, a sentence for each bound that does not hold; or one that says that all do.
  private var sentences: [String] {
    var sentences: [String] = []
    if let bound = check.bounds.growthBytes, check.growsTooMuch {
      sentences.append("grew by \(ByteCount(check.addedBytes))\(addedError), \(allowed(bound))")
    }
    if let bound = check.bounds.liveBytes, check.holdsTooMuch {
      sentences.append(
        "\(ByteCount(check.liveBytes))\(liveError) alive, \(allowed(bound))")
    }
    if let bound = check.bounds.rowBytes, case let count = check.excessive.count, count > 0 {
      let rows = "\(count) \(grouping)\(count == 1 ? "" : "s")"
      sentences.append(
        compares
          ? "\(rows) grew by more than the \(ByteCount(bound)) allowed for each"
          : "\(rows) \(count == 1 ? "has" : "have") more than the \(ByteCount(bound)) allowed for each"
      )
    }
    if !sentences.isEmpty { return sentences }
    var told = [
      compares
        ? "within bounds: \(change(check.addedBytes))\(addedError)"
        : "within bounds: \(ByteCount(check.liveBytes))\(liveError) alive"
    ]
    if let bound = check.bounds.growthBytes { told.append(allowed(bound)) }
    if let bound = check.bounds.liveBytes {
      told.append((compares ? "\(ByteCount(check.liveBytes)) alive, " : "") + allowed(bound))
    }
    if let bound = check.bounds.rowBytes, let most = check.grown.first {
      told.append(
        "at most \(ByteCount(most.addedBytes)) a \(grouping), \(allowed(bound))")
    }
    return [told.joined(separator: ", ")] + (check.isUndecided ? [Self.chance] : [])
  }

  /// What is said where figures are above their bounds by no more than samples may be off.
  private static let chance =
    "what is above a bound is so by two standard errors at most, which chance may do: these are "
    + "estimates (record every block, or have more samples, to know)"

  private var addedError: ErrorText { ErrorText(check.addedErrorBytes, .own) }
  private var liveError: ErrorText { ErrorText(check.liveErrorBytes, .own) }

  private func allowed(_ bound: Int) -> String { "\(ByteCount(bound)) allowed" }

  private func change(_ bytes: Int) -> String {
    bytes < 0
      ? "shrank by \(ByteCount(0.subtractingSaturated(bytes)))" : "grew by \(ByteCount(bytes))"
  }

  private var unused: [Suppression] { suppressions.filter { $0.taken == nil } }

  private var shownRows: ArraySlice<StatisticDifference> {
    check.atFault.prefix(max(limit ?? check.atFault.count, 0))
  }

  // MARK: Text

  /// The sentences, the rows at fault, and the suppressions as LeakSanitizer lists them.
  public func lines(style: TextStyle = .plain) -> [String] {
    var lines = sentences.map { style.accent($0, check.passes ? .green : .red) }
    let rows =
      compares
      ? TextTable(check.atFault, limit: limit, style: style)
      : TextTable(check.atFault.map(Statistic.init), limit: limit, style: style)
    if !rows.lines.isEmpty { lines += [""] + rows.lines }
    let used = suppressions.compactMap { suppression in
      suppression.taken.map { (suppression.rule.pattern, $0) }
    }
    if !used.isEmpty {
      lines += ["", "Suppressions used:", "  count      bytes template"]
      lines += used.map { pattern, amount in
        "\("\(amount.blocks)".rightAligned(to: 7)) \("\(amount.bytes)".rightAligned(to: 10)) "
          + pattern.printable
      }
    }
    if !unused.isEmpty {
      lines += [""]
      lines += unused.map {
        style.accent(
          "suppression not used: 'leak:\($0.rule.pattern.printable)' (line \($0.rule.line))",
          .yellow)
      }
    }
    return lines
  }

  // MARK: Markdown

  /// A section of a job summary, in GitHub's Markdown: also what GitLab and Gitea show.
  public var markdown: [String] {
    var lines = ["### Heap: \(check.passes ? "within bounds" : "out of bounds")", ""]
    lines += sentences.map { "- \(Self.escaped($0))" }
    let rows = shownRows
    if !rows.isEmpty {
      let heading = compares ? ["Growth", "Live", "Blocks"] : ["Live", "Blocks"]
      let title = grouping.rawValue.prefix(1).uppercased() + grouping.rawValue.dropFirst()
      lines += ["", "| \((heading + [title]).joined(separator: " | ")) |"]
      lines.append("|" + String(repeating: " ---: |", count: heading.count) + " --- |")
      lines += rows.map { row in
        let figures =
          (compares ? [ByteCount(row.addedBytes).signed] : []) + [
            "\(ByteCount(row.liveBytes))",
            compares
              ? "\(row.liveBlocks) (\(row.addedBlocks.signedDescription))" : "\(row.liveBlocks)",
          ]
        return "| \((figures + [Self.cell(row)]).joined(separator: " | ")) |"
      }
      let hidden = check.atFault.count - rows.count
      if hidden > 0 { lines += ["", "… and \(hidden) more \(hidden == 1 ? "row" : "rows")"] }
    }
    let used = suppressions.filter { $0.taken != nil }
    if !used.isEmpty {
      lines += ["", "| Blocks | Bytes | Suppression used |", "| ---: | ---: | --- |"]
      lines += used.map {
        "| \($0.taken!.blocks) | \($0.taken!.bytes) | \(Self.code("leak:" + $0.rule.pattern)) |"
      }
    }
    if !unused.isEmpty {
      lines += ["", "Suppressions not used:", ""]
      lines += unused.map { "- \(Self.code("leak:" + $0.rule.pattern)), line \($0.rule.line)" }
    }
    return lines
  }

  private static func cell(_ row: StatisticDifference) -> String {
    guard case .stack(let keys) = row.key else {
      return code(row.key.label(row.function, width: nil))
    }
    var labels = Labels(.plain)
    var lines: [String] = []
    labels.forEachLine(of: keys, row.stack) { lines.append(code(String($0.dropFirst(2)))) }
    return lines.joined(separator: "<br>")
  }

  /// In a cell a bar ends it even in code, and names may have backticks: so the names of entities, and
  /// their element for code.
  private static func code(_ text: String) -> String { "<code>\(escaped(text))</code>" }

  private static func escaped(_ text: String) -> String {
    var result = ""
    for scalar in text.printable.unicodeScalars {
      switch scalar {
      case "a"..."z", "A"..."Z", "0"..."9", " ", ".", ",", ":", "/", "-", "+", "(", ")", "%", "'":
        result.unicodeScalars.append(scalar)
      // All that Markdown or HTML may take for its own.
      case "!"..."~": result += "&#\(scalar.value);"
      default: result.unicodeScalars.append(scalar)
      }
    }
    return result
  }

  // MARK: JSON

  /// The outcome:
  ///
  /// | name | value |
  /// | --- | --- |
  /// | `report` | `check` |
  /// | `passed` | whether all bounds hold |
  /// | `by`, `charging` | as in the others |
  /// | `bounds` | `growth_bytes`, `live_bytes`, `row_bytes`; `null` where not given |
  /// | `total` | `live_bytes`, `live_blocks`, and `added_bytes`, `added_blocks` (`null` for one dump) |
  /// | `undecided` | of estimates: whether they are above a bound by two standard errors at most, which passes |
  /// | `problems` | a sentence for each bound that does not hold |
  /// | `rows` | at fault, as in a comparison; for one dump what is added is what is alive |
  /// | `omitted_rows` | how many are left out because of a limit |
  /// | `suppressions` | each with `pattern`, `line`, `used`, `bytes`, `blocks` |
  public var json: JSON {
    func bound(_ bytes: Int?) -> JSON { bytes.map(JSON.integer) ?? .null }
    let rows = shownRows
    let isEstimate = check.liveErrorBytes != 0 || check.addedErrorBytes != 0
    let undecided: [JSON.Member] =
      isEstimate ? [.init("undecided", .boolean(check.isUndecided))] : []
    let head: [JSON.Member] = [
      .init("report", "check"), .init("passed", .boolean(check.passes)),
      .init("by", .string(grouping.rawValue)), .init("charging", JSONReport.name(of: charging)),
      .init(
        "bounds",
        [
          "growth_bytes": bound(check.bounds.growthBytes),
          "live_bytes": bound(check.bounds.liveBytes), "row_bytes": bound(check.bounds.rowBytes),
        ]),
      .init(
        "total",
        .object(
          [
            .init("live_bytes", .integer(check.liveBytes)),
            .init("live_blocks", .integer(check.liveBlocks)),
            .init("added_bytes", compares ? .integer(check.addedBytes) : .null),
            .init("added_blocks", compares ? .integer(check.addedBlocks) : .null),
          ] + JSONReport.error("live_error_bytes", check.liveErrorBytes)
            + (compares ? JSONReport.error("added_error_bytes", check.addedErrorBytes) : []))),
    ]
    let tail: [JSON.Member] = [
      .init("problems", .array(check.passes ? [] : sentences.map(JSON.string))),
      .init("rows", .array(rows.map(JSONReport.value(of:)))),
      .init("omitted_rows", .integer(check.atFault.count - rows.count)),
      .init(
        "suppressions",
        .array(
          suppressions.map { suppression in
            [
              "pattern": .string(suppression.rule.pattern),
              "line": .integer(suppression.rule.line),
              "used": .boolean(suppression.taken != nil),
              "bytes": .integer(suppression.taken?.bytes ?? 0),
              "blocks": .integer(suppression.taken?.blocks ?? 0),
            ]
          })),
    ]
    return .object(head + undecided + tail)
  }
}

extension Statistic {
  /// A row of growth from nothing.
  fileprivate init(_ row: StatisticDifference) {
    self.init(
      key: row.key, function: row.function, stack: row.stack, liveBytes: row.liveBytes,
      liveBlocks: row.liveBlocks, liveErrorBytes: row.liveErrorBytes)
  }
}
