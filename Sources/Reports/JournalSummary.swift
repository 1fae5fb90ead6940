// SPDX-License-Identifier: Apache-2.0
// A dump in a few lines, as the journal gets to know it.

import HeapModel

/// A dump in a few lines, in the form of the tracer's own entries, with files and lines.
///
///     50.0 MiB traced in 50 blocks, +8.0 MiB since the snapshot before, 83 % of 64.0 MiB (…)
///     grew most:
///       +8.0 MiB in 8 blocks: leak_one leaky.c:12 < serve leaky.c:40 < main leaky.c:77
///     largest:
///       20.0 MiB in 20 blocks: fill_cache cache.c:9 < main leaky.c:70
public struct JournalSummary: Sendable {
  /// How many sites are told that grew most, and how many that are largest.
  public static let siteCount = 5
  /// Frames of a site, innermost first; more say no more.
  public static let frameCount = 8

  /// The first line can be read alone.
  public let message: String
  /// Those that grew most, then those of the largest that are not among them: for programs.
  public let sites: [String]
  /// Live bytes more than at the snapshot before, or than when recording began; `nil` where the dump
  /// before is not at hand.
  public let growthBytes: Int?

  /// - Parameters:
  ///   - earlier: The same recording's dump before this one; `nil` where it is not at hand.
  ///   - naming: Puts functions and lines in, and leaves out frames that say nothing. Gets the told
  ///     sites only: there may be 100,000 others.
  public init(
    of snapshot: Snapshot, comparedTo earlier: Snapshot?, naming: (Snapshot) -> Snapshot = { $0 }
  ) {
    // The first dump of a recording opens its second generation.
    let isFirst = snapshot.header.openedGeneration.map { $0 <= 2 } ?? false
    let base = isFirst ? Snapshot() : earlier
    let growth = base.map { Self.liveBytes(snapshot).subtractingSaturated(Self.liveBytes($0)) }
    growthBytes = growth

    // Stacks by address are the tracer's sites: names come to the few that are told.
    let rows = snapshot.compared(to: base ?? Snapshot(), groupedBy: .stack)
    let grown =
      base == nil ? [] : Self.first(rows.filter { $0.addedBytes > 0 }) { $0.addedBytes }
    let largest = Self.first(rows.filter { $0.liveBytes > 0 }) { $0.liveBytes }
    let grownKeys = Set(grown.map(\.key))
    let told = grown + largest.filter { !grownKeys.contains($0.key) }
    let texts = Self.stacks(of: told, in: snapshot, naming)
    let textOfKey = Dictionary(zip(told.map(\.key), texts), uniquingKeysWith: { first, _ in first })

    sites = zip(told, texts).map { row, text in
      let change =
        base == nil
        ? "" : "\(row.addedBytes.signedDescription) bytes in \(row.addedBlocks) blocks, "
      return "\(change)\(row.liveBytes) bytes in \(row.liveBlocks) blocks live: \(text)"
    }
    var lines = [Self.headline(snapshot, growth: isFirst ? nil : growth)]
    if !grown.isEmpty { lines.append("grew most:") }
    lines += grown.map {
      "  \(ByteCount($0.addedBytes).signed) in \($0.addedBlocks) blocks: \(textOfKey[$0.key]!)"
    }
    if !largest.isEmpty { lines.append("largest:") }
    lines += largest.map {
      "  \(ByteCount($0.liveBytes)) in \($0.liveBlocks) blocks: \(textOfKey[$0.key]!)"
    }
    message = lines.joined(separator: "\n")
  }

  /// The first few by a figure, the largest first; equal ones stay in their order.
  private static func first(
    _ rows: [StatisticDifference], by figure: (StatisticDifference) -> Int
  ) -> [StatisticDifference] {
    rows.enumerated().sorted {
      (figure($1.element), $0.offset) < (figure($0.element), $1.offset)
    }.prefix(siteCount).map(\.element)
  }

  /// With what had no room in the dump, as the scan counted it.
  private static func liveBytes(_ snapshot: Snapshot) -> Int {
    snapshot.header.scannedBytes ?? snapshot.liveBytes
  }

  private static func headline(_ snapshot: Snapshot, growth: Int?) -> String {
    let header = snapshot.header
    let error = header.liveErrorBytes ?? 0
    var text =
      "\(header.sampleBytes == nil ? "" : "about ")\(ByteCount(liveBytes(snapshot)))"
      + "\(ErrorText(error, .own)) traced in "
      + "\(header.scannedBlocks ?? snapshot.liveBlocks) blocks"
    if let growth { text += ", \(ByteCount(growth).signed) since the snapshot before" }
    if let limit = LimitText(header) { text += ", \(limit)" }
    if let leftOut = header.leftOutBytes, leftOut > 0 {
      text += "; there was no room for sites with \(ByteCount(leftOut))"
    }
    if !header.isComplete { text += "; the dump is not whole" }
    return text
  }

  /// `leak_one leaky.c:12 < main leaky.c:77` for each row.
  private static func stacks(
    of rows: [StatisticDifference], in snapshot: Snapshot, _ naming: (Snapshot) -> Snapshot
  ) -> [String] {
    var builder = Snapshot.Builder(header: snapshot.header, modules: snapshot.modules)
    for row in rows {
      builder.add(
        bytes: row.liveBytes, blocks: row.liveBlocks, stack: row.stack.map(Array.init) ?? [],
        missingFrames: row.stack?.missingFrames ?? 0, isBroken: row.stack?.isBroken ?? false)
    }
    let named = naming(builder.finish())
    return named.samples.map { sample in
      let stack = named.stack(of: sample)
      if stack.isEmpty { return Frame.lostStack.function! }
      // What calls main is libc, and the same everywhere.
      let main = stack.firstIndex { $0.function == "main" }
      let depth = main.map { $0 + 1 } ?? stack.totalFrameCount
      let frames = stack.prefix(min(depth, frameCount)).map { text(of: $0, in: named) }
      let more = depth > frames.count ? " < …" : ""
      return frames.joined(separator: " < ") + more
    }
  }

  /// `leak_one leaky.c:12`, `leak_one` or `libz.so.1+0x1f30`.
  private static func text(of frame: Frame, in snapshot: Snapshot) -> String {
    guard let function = frame.function else {
      return snapshot.key(of: frame, groupedBy: .function).description.printable
    }
    guard let file = frame.file, let line = frame.line else { return function.printable }
    return "\(function) \(file):\(line)".printable
  }
}
