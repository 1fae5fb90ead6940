// SPDX-License-Identifier: Apache-2.0
// The calls that led to an allocation, innermost first.

/// The calls that led to an allocation, innermost first.
///
/// A stack is a view of its snapshot's tables: making one copies no frames, and slicing one works
/// as with any collection. It keeps the snapshot's frames alive for as long as it lives.
public struct Stack: RandomAccessCollection, Sendable {
  private let table: [Frame]
  private let run: ArraySlice<UInt32>
  /// This many frames are missing at the outermost end: the stack was deeper than the limit of the
  /// recording. A row of a report may stand for several stacks that differ only there: of those it is
  /// the most.
  public let missingFrames: Int
  /// Whether the outermost frame that was found could not be left, so that its caller is not known.
  /// With missing frames it was one of those: there are at least so many.
  public let isBroken: Bool

  init(table: [Frame], run: ArraySlice<UInt32>, missingFrames: Int, isBroken: Bool) {
    self.table = table
    self.run = run
    self.missingFrames = missingFrames
    self.isBroken = isBroken
  }

  /// A stack that belongs to no snapshot.
  public init(
    _ frames: some Sequence<Frame>, missingFrames: Int = 0, isBroken: Bool = false
  ) {
    let table = Array(frames)
    self.init(
      table: table, run: ArraySlice(table.indices.map { UInt32($0) }),
      missingFrames: missingFrames, isBroken: isBroken)
  }

  public var startIndex: Int { 0 }
  public var endIndex: Int { run.count }

  public subscript(position: Int) -> Frame {
    table[Int(run[run.startIndex + position])]
  }

  /// How deep the stack was, as far as is known: the frames kept and those known to be missing.
  public var totalFrameCount: Int { count.addingSaturated(missingFrames) }

  /// Which frames `lines(_:order:sourceLine:)` shows, counted from an end as tracemalloc does.
  public enum Extent: Hashable, Sendable {
    /// Every frame that was kept.
    case all
    /// So many at the end that allocated: tracemalloc's positive limit.
    case innermost(Int)
    /// So many at the end that was called first: tracemalloc's negative limit.
    case outermost(Int)
  }

  /// The end that a stack is read from.
  public enum Order: Hashable, Sendable {
    /// As a story: the outermost call first. Python's order.
    case outermostFirst
    /// As a search: the call that allocated first.
    case innermostFirst
  }

  /// The stack in the manner of a Python traceback, two lines a frame where the source is at hand.
  ///
  /// This library reads no files: pass `sourceLine` to have the text of each line shown below it.
  public func lines(
    _ extent: Extent = .all, order: Order = .outermostFirst,
    sourceLine: (Frame) -> String? = { _ in nil }
  ) -> [String] {
    let shown =
      switch extent {
      case .all: self[...]
      case .innermost(let limit): prefix(Swift.max(limit, 0))
      case .outermost(let limit): suffix(Swift.max(limit, 0))
      }
    let ordered = order == .innermostFirst ? Array(shown) : shown.reversed()
    return ordered.flatMap { frame in
      let place = "  File \"\(frame.file ?? Frame.unknownFile)\", line \(frame.line ?? 0)"
      let call = frame.function.map { place + ", in " + $0 } ?? place
      guard let source = sourceLine(frame)?.trimmingSpace, !source.isEmpty else { return [call] }
      return [call, "    \(source)"]
    }
  }
}

extension Stack: Hashable {
  /// Whether the frames are the same. How many more are missing does not count, as in tracemalloc:
  /// it may differ between two visits to one site.
  public static func == (a: Self, b: Self) -> Bool { a.elementsEqual(b) }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(count)
    for frame in self { hasher.combine(frame) }
  }
}

extension Stack: CustomStringConvertible, CustomDebugStringConvertible {
  /// The outermost call known, `file:line`: where tracemalloc says that a trace comes from.
  public var description: String {
    let outermost = last ?? Frame()
    return "\(outermost.file ?? Frame.unknownFile):\(outermost.line ?? 0)"
  }

  /// Every frame, innermost first; how many are missing only where some are.
  public var debugDescription: String {
    let frames = map { "\($0.file ?? Frame.unknownFile):\($0.line ?? 0)" }
    let missing = missingFrames == 0 ? "" : " of \(totalFrameCount)"
    return "<Stack (\(frames.joined(separator: ", ")))\(missing)>"
  }
}

extension StringProtocol where SubSequence == Substring {
  /// Lines, also those of Windows: there two scalars end one, and are one character.
  var lines: [Substring] {
    split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
  }

  var trimmingSpace: Substring {
    let isSpace: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0.isNewline }
    guard let first = firstIndex(where: { !isSpace($0) }) else { return "" }
    return self[first...lastIndex(where: { !isSpace($0) })!]
  }
}

extension Int {
  /// The sum, or the largest value: figures read from a file may add up to anything.
  package func addingSaturated(_ other: Int) -> Int {
    let (sum, overflow) = addingReportingOverflow(other)
    if !overflow { return sum }
    return other < 0 ? .min : .max
  }
}
