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
  /// - Parameter header: Of the snapshot: rows that are generations then say how old they are.
  public init(
    _ statistics: [Statistic], _ figures: Figures = .live, limit: Int? = nil,
    header: Header = Header(), style: TextStyle = .plain
  ) {
    let told = statistics.filter {
      switch figures {
      case .live: $0.liveBytes != 0 || $0.liveBlocks != 0
      case .liveAndTotal: $0.liveBytes != 0 || $0.liveBlocks != 0 || $0.totalBlocks != 0
      case .temporary: $0.temporaryBlocks != 0
      }
    }
    let shown = told.prefix(max(limit ?? told.count, 0))
    self.init(shown.map { .statistic($0, figures, header) }, of: told.count, style: style)
  }

  /// What a row of statistics says.
  public enum Figures: Sendable {
    case live
    /// Also what was allocated since recording began: `…, total=12.0 MiB, allocations=40`.
    case liveAndTotal
    /// How many allocations were temporary: `temporary=30 (75 % of 40 allocations), total=…, size=…`. Rows
    /// without any are left out.
    case temporary
  }

  /// - Parameter limit: How many rows are shown; a last line counts the others.
  public init(_ differences: [StatisticDifference], limit: Int? = nil, style: TextStyle = .plain) {
    let known = differences.filter {
      $0.liveBytes != 0 || $0.liveBlocks != 0 || $0.addedBytes != 0 || $0.addedBlocks != 0
    }
    let shown = known.prefix(max(limit ?? known.count, 0))
    self.init(shown.map { .difference($0) }, of: known.count, style: style)
  }

  /// Rows that say as well how many of some generations have left something in them.
  public init(
    _ survivors: [Survivor], of generations: ClosedRange<Int>, limit: Int? = nil,
    header: Header = Header(), style: TextStyle = .plain
  ) {
    let shown = survivors.prefix(max(limit ?? survivors.count, 0))
    self.init(
      shown.map { .survivor($0, generations.count, header) }, of: survivors.count, style: style)
  }

  private init(_ rows: [Row], of count: Int, style: TextStyle) {
    self.rows = rows
    hiddenCount = count - rows.count
    self.style = style
  }

  private enum Row {
    case statistic(Statistic, Figures, Header)
    case survivor(Survivor, Int, Header)
    case difference(StatisticDifference)

    var text: RowText {
      switch self {
      case .statistic(let statistic, let figures, let header):
        RowText(statistic, figures, header)
      case .survivor(let survivor, let generationCount, let header):
        RowText(survivor, of: generationCount, header)
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

/// How far an estimate may be off, behind it: ` (±1.1 MiB)`; nothing where it is none.
struct ErrorText: CustomStringConvertible {
  /// Whether it has parentheses of its own, or is within some.
  enum Place {
    case own, within
  }

  let description: String

  init(_ bytes: Int, _ place: Place) {
    let text = "±\(ByteCount(bytes))"
    description = bytes == 0 ? "" : place == .own ? " (\(text))" : " \(text)"
  }
}

/// One row, before it is known how wide it may be.
private struct RowText {
  let key: Statistic.Key
  let function: String?
  let stack: Stack?
  let size: String
  let change: (text: String, accent: TextStyle.Accent?)?
  var rest: String
  /// Behind the key.
  var remark = ""

  init(_ statistic: Statistic, _ figures: TextTable.Figures, _ header: Header) {
    key = statistic.key
    function = statistic.function
    stack = statistic.stack
    let total: String
    switch figures {
    case .live, .temporary: total = ""
    case .liveAndTotal:
      total =
        ", total=\(ByteCount(statistic.totalBytes))\(ErrorText(statistic.totalErrorBytes, .own))"
        + ", allocations=\(statistic.totalBlocks)"
    }
    var size = "size=\(ByteCount(statistic.liveBytes))\(ErrorText(statistic.liveErrorBytes, .own))"
    if figures == .temporary { size = "\(TemporaryText(statistic)), " + size }
    self.size = size
    change = nil
    rest = ", count=\(statistic.liveBlocks)\(Self.average(statistic.averageBytes))\(total)"
    if case .generation(let number?) = key, let age = header.age(ofGeneration: number) {
      remark =
        ", \(UTC.duration(nanoseconds: age.lowerBound)) to "
        + "\(UTC.duration(nanoseconds: age.upperBound)) old"
    }
  }

  init(_ survivor: Survivor, of generationCount: Int, _ header: Header) {
    self.init(survivor.statistic, .live, header)
    guard generationCount > 1 else { return }
    rest += ", left by \(survivor.generations.count) of \(generationCount) generations"
  }

  init(_ difference: StatisticDifference) {
    key = difference.key
    function = difference.function
    stack = difference.stack
    size = "size=\(ByteCount(difference.liveBytes))"
    let accent: TextStyle.Accent? =
      difference.addedBytes == 0 ? nil : difference.addedBytes > 0 ? .red : .green
    let error = ErrorText(difference.addedErrorBytes, .within)
    change = (" (\(ByteCount(difference.addedBytes).signed)\(error))", accent)
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
      let width = style.width.map { $0 - figuresWidth - 2 - remark.count }
      return body("\(key.label(function, width: width))\(remark): \(figures)")
    }
    body(figures)
    labels.forEachLine(of: keys, stack, body)
  }
}

/// `temporary=30 (75 % of 40 allocations)`
private struct TemporaryText: CustomStringConvertible {
  let description: String

  init(_ statistic: Statistic) {
    let count = statistic.totalBlocks
    let share = Int(((statistic.temporaryShare ?? 0) * 100).rounded())
    description =
      "temporary=\(statistic.temporaryBlocks) (\(share) % of \(count) "
      + "\(count == 1 ? "allocation" : "allocations"))"
  }
}

/// Lines of stacks' frames, which are the same few thousand again and again.
struct Labels {
  private struct Frame: Hashable {
    let key: Statistic.Key
    let function: String?
  }

  let style: TextStyle
  private var lines: [Frame: String] = [:]

  init(_ style: TextStyle) {
    self.style = style
  }

  /// The frames of a row that is a stack, a line each below the row's own.
  mutating func forEachLine(
    of keys: Statistic.Key.Frames, _ stack: Stack?, _ body: (String) -> Void
  ) {
    for (number, key) in keys.enumerated() {
      let function = stack.flatMap { number < $0.count ? $0[number].function : nil }
      body(line(ofFrame: key, function))
    }
    if keys.isEmpty { body("  \(HeapModel.Frame.unknownFile)") }
    if let root = stack.flatMap({ Self.root(of: $0) }) { body("  … " + root) }
  }

  /// What is said of a stack's outermost end where it is not whole.
  private static func root(of stack: Stack) -> String? {
    let missing = stack.missingFrames
    guard missing > 0 else { return stack.isBroken ? "what called this is not known" : nil }
    let few = stack.isBroken ? "at least " : ""
    return "\(few)\(missing) more \(missing == 1 ? "frame" : "frames")"
  }

  private mutating func line(ofFrame key: Statistic.Key, _ function: String?) -> String {
    let frame = Frame(key: key, function: function)
    if let known = lines[frame] { return known }
    let line = "  " + key.label(function, width: style.width.map { $0 - 2 })
    lines[frame] = line
    return line
  }
}

extension Statistic.Key {
  /// The key with the function beside a line, shortened to a width. The function gives way first,
  /// until it could not be recognised; then the path; where neither could be, the function goes.
  func label(_ function: String?, width: Int?) -> String {
    let place = description.printable
    guard case .line = self, let function = function?.printable else {
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
