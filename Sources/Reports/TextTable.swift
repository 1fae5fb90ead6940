// SPDX-License-Identifier: Apache-2.0
// Statistics and comparisons as lines of text, in tracemalloc's form.

import HeapModel

/// Statistics or a comparison as text: a line for each row, in tracemalloc's form.
///
///     a.py:5 in grow(): size=5002 B (+5000 B), count=2 (+1), average=2501 B
///
/// Rows that are stacks have their frames below them, innermost first. Rows that have nothing
/// alive, and had nothing before, are left out: they are only there for their cumulative figures,
/// and shown with them where these are asked for.
public struct TextTable: Sendable {
  private let rows: [Row]
  private let hiddenCount: Int
  private let style: TextStyle

  /// - Parameter limit: How many rows are shown; a last line counts the others.
  /// - Parameter figures: Whether rows say as well what was allocated in total, freed or not.
  public init(
    _ statistics: [Statistic], _ figures: Figures = .live, limit: Int? = nil,
    style: TextStyle = .plain
  ) {
    let told = statistics.filter {
      $0.liveBytes != 0 || $0.liveBlocks != 0 || figures == .liveAndTotal && $0.totalBlocks != 0
    }
    let shown = told.prefix(max(limit ?? told.count, 0))
    self.init(shown.map { .statistic($0, figures) }, of: told.count, style: style)
  }

  /// What a row of statistics says.
  public enum Figures: Sendable {
    case live
    /// Also what was allocated since recording began: `…, total=12.0 MiB, allocations=40`.
    case liveAndTotal
  }

  /// - Parameter limit: How many rows are shown; a last line counts the others.
  public init(_ differences: [StatisticDifference], limit: Int? = nil, style: TextStyle = .plain) {
    let known = differences.filter {
      $0.liveBytes != 0 || $0.liveBlocks != 0 || $0.addedBytes != 0 || $0.addedBlocks != 0
    }
    let shown = known.prefix(max(limit ?? known.count, 0))
    self.init(shown.map { .difference($0) }, of: known.count, style: style)
  }

  private init(_ rows: [Row], of count: Int, style: TextStyle) {
    self.rows = rows
    hiddenCount = count - rows.count
    self.style = style
  }

  private enum Row {
    case statistic(Statistic, Figures)
    case difference(StatisticDifference)

    var text: RowText {
      switch self {
      case .statistic(let statistic, let figures): RowText(statistic, figures)
      case .difference(let difference): RowText(difference)
      }
    }
  }

  public var isEmpty: Bool { rows.isEmpty && hiddenCount == 0 }

  /// The lines, without line ends.
  public var lines: [String] {
    var lines: [String] = []
    forEachLine { lines.append($0) }
    return lines
  }

  /// Makes one line after the other: those of 100,000 stacks would fill memory.
  public func forEachLine(_ body: (String) -> Void) {
    var labels = Labels(style)
    for row in rows { row.text.forEachLine(&labels, body) }
    if hiddenCount > 0 {
      body("… and \(hiddenCount) more \(hiddenCount == 1 ? "row" : "rows")")
    }
  }
}

extension TextTable: CustomStringConvertible {
  public var description: String { lines.joined(separator: "\n") }
}

/// One row, before it is known how wide it may be.
private struct RowText {
  let key: Statistic.Key
  let function: String?
  let stack: Stack?
  let size: String
  let change: (text: String, accent: TextStyle.Accent?)?
  let rest: String

  init(_ statistic: Statistic, _ figures: TextTable.Figures) {
    key = statistic.key
    function = statistic.function
    stack = statistic.stack
    size = "size=\(ByteCount(statistic.liveBytes))"
    change = nil
    let total =
      figures == .live
      ? ""
      : ", total=\(ByteCount(statistic.totalBytes)), allocations=\(statistic.totalBlocks)"
    rest = ", count=\(statistic.liveBlocks)\(Self.average(statistic.averageBytes))\(total)"
  }

  init(_ difference: StatisticDifference) {
    key = difference.key
    function = difference.function
    stack = difference.stack
    size = "size=\(ByteCount(difference.liveBytes))"
    let accent: TextStyle.Accent? =
      difference.addedBytes == 0 ? nil : difference.addedBytes > 0 ? .red : .green
    change = (" (\(ByteCount(difference.addedBytes).signed))", accent)
    let blocks = difference.addedBlocks
    let sign = blocks < 0 ? "" : "+"
    let average = Self.average(difference.averageBytes)
    rest = ", count=\(difference.liveBlocks) (\(sign)\(blocks))\(average)"
  }

  private static func average(_ bytes: Double?) -> String {
    bytes.map { ", average=\(ByteCount($0))" } ?? ""
  }

  func forEachLine(_ labels: inout Labels, _ body: (String) -> Void) {
    let style = labels.style
    let change = change.map { style.accent($0.text, $0.accent) } ?? ""
    let figures = "\(size)\(change)\(rest)"
    guard case .stack(let keys) = key else {
      let figuresWidth = size.count + (self.change?.text.count ?? 0) + rest.count
      let width = style.width.map { $0 - figuresWidth - 2 }
      return body("\(Labels.label(key, function, width: width)): \(figures)")
    }
    body(figures)
    for (number, key) in keys.enumerated() {
      let function = stack.flatMap { number < $0.count ? $0[number].function : nil }
      body(labels.line(ofFrame: key, function))
    }
    if keys.isEmpty { body("  \(Frame.unknownFile)") }
    if let root = stack.flatMap({ Self.root(of: $0) }) { body("  … " + root) }
  }

  /// What is said of a stack's outermost end where it is not whole.
  private static func root(of stack: Stack) -> String? {
    let missing = stack.missingFrames
    guard missing > 0 else { return stack.isBroken ? "what called this is not known" : nil }
    let few = stack.isBroken ? "at least " : ""
    return "\(few)\(missing) more \(missing == 1 ? "frame" : "frames")"
  }

}

/// Rows' names, and the lines of stacks' frames, which are the same few thousand again and again.
private struct Labels {
  private struct Frame: Hashable {
    let key: Statistic.Key
    let function: String?
  }

  let style: TextStyle
  private var lines: [Frame: String] = [:]

  init(_ style: TextStyle) {
    self.style = style
  }

  mutating func line(ofFrame key: Statistic.Key, _ function: String?) -> String {
    let frame = Frame(key: key, function: function)
    if let known = lines[frame] { return known }
    let line = "  " + Self.label(key, function, width: style.width.map { $0 - 2 })
    lines[frame] = line
    return line
  }

  /// The key with the function beside a line, shortened to a width. The function gives way first,
  /// until it could not be recognised; then the path; where neither could be, the function goes.
  static func label(_ key: Statistic.Key, _ function: String?, width: Int?) -> String {
    let place = key.description.printable
    guard case .line = key, let function = function?.printable else {
      return width.map { place.keepingEnd(max($0, 16)) } ?? place
    }
    guard let width, place.count + 4 + function.count > width else {
      return "\(place) in \(function)"
    }
    guard width >= 16 + 4 + 16 else { return place.keepingEnd(max(width, 16)) }
    let functionWidth = min(function.count, max(width - 4 - place.count, 16))
    let placeWidth = width - 4 - functionWidth
    return "\(place.keepingEnd(placeWidth)) in \(function.keepingBeginning(functionWidth))"
  }
}
