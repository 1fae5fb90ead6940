// SPDX-License-Identifier: Apache-2.0
// What a snapshot says as a whole: whose it is, how much, where the rest is, and what was lost.

import HeapModel

/// What a snapshot says as a whole, as text.
///
/// Whose heap it is and when, how much is alive, where the memory is that is not traced, and
/// whatever was lost or went wrong. What the dump does not say has no line; a loss that is not
/// zero always has one.
public struct Summary: Sendable {
  /// The lines, without line ends.
  public let lines: [String]

  public init(of snapshot: Snapshot, style: TextStyle = .plain) {
    let header = snapshot.header
    lines =
      Self.identity(header, style) + Self.limit(header) + Self.sampling(header)
      + [Self.total(of: snapshot)]
      + Self.leaks(snapshot, style)
      + Self.counters(header)
      + Self.beforeRecording(header) + Self.reconciliation(header)
      + Self.losses(header, style) + Self.warnings(snapshot, style)
  }

  /// What grew between two snapshots, as a whole; what either of them lacks is said as well.
  public init(of later: Snapshot, comparedTo earlier: Snapshot, style: TextStyle = .plain) {
    let bytes = later.liveBytes.subtractingSaturated(earlier.liveBytes)
    let blocks = later.liveBlocks.subtractingSaturated(earlier.liveBlocks)
    let error = StatisticDifference(of: later, comparedTo: earlier).addedErrorBytes
    let change = "(\(ByteCount(bytes).signed)\(ErrorText(error, .within)))"
    let accent: TextStyle.Accent? = bytes == 0 ? nil : bytes > 0 ? .red : .green
    lines =
      Self.identity(later.header, style) + Self.sampling(later.header, or: earlier.header) + [
        "total: size=\(ByteCount(later.liveBytes)) \(style.accent(change, accent)), "
          + "count=\(later.liveBlocks) (\(blocks < 0 ? "" : "+")\(blocks))"
      ]
      + Self.losses(earlier.header, style, of: "earlier snapshot")
      + Self.warnings(earlier, style, of: "earlier snapshot")
      + Self.losses(later.header, style) + Self.warnings(later, style)
  }

  /// `leaky (1234) on web-3, unit leaky.service` and `dump 2 by signal, 2026-11-21T10:27:57Z, …`
  ///
  /// - Parameter isOneDump: Whether when and why it was written is said as well.
  static func identity(
    _ header: Header, _ style: TextStyle, isOneDump: Bool = true
  ) -> [String] {
    var whose = header.program ?? header.executable ?? ""
    if let pid = header.pid { whose += whose.isEmpty ? "process \(pid)" : " (\(pid))" }
    if let host = header.host { whose += "\(whose.isEmpty ? "" : " ")on \(host)" }
    if let unit = header.unit { whose += "\(whose.isEmpty ? "" : ", ")unit \(unit)" }

    var when: [String] = []
    if let sequence = header.sequence {
      when.append("dump \(sequence)" + (header.trigger.map { " by \($0)" } ?? ""))
    } else if let trigger = header.trigger {
      when.append("dump by \(trigger)")
    }
    if let time = header.dumpWallNanoseconds { when.append(UTC.text(nanoseconds: time)) }
    if let duration = header.durationNanoseconds {
      when.append("\(UTC.duration(nanoseconds: duration)) after recording began")
    }
    var lines: [String] = []
    if !whose.isEmpty { lines.append(style.accent(whose.printable, .bold)) }
    if isOneDump && !when.isEmpty { lines.append(when.joined(separator: ", ").printable) }
    return lines
  }

  /// `limit: 83 % of 64.0 MiB (/sys/fs/cgroup/…/memory.max), 10.9 MiB left, growing by 1.0 MiB a second`
  ///
  /// - Parameter saysRate: Whether the growth that the tracer saw just then is said.
  static func limit(_ header: Header, saysRate: Bool = true) -> [String] {
    guard let limit = LimitText(header) else { return [] }
    var line = "limit: \(limit)"
    if let mark = header.limitMark { line += ", past the mark of \(mark.printable)" }
    if let headroom = header.limitHeadroomBytes { line += ", \(ByteCount(headroom)) left" }
    if saysRate, let rate = header.limitRateBytes, rate != 0 {
      line +=
        ", \(rate > 0 ? "growing" : "shrinking") by \(ByteCount(rate.magnitude.clamped)) a second"
    }
    return [line]
  }

  /// `estimates: by one sample in 512 KiB; ± is the standard error`, where there are samples.
  static func sampling(_ header: Header, or other: Header = Header()) -> [String] {
    guard let bytes = header.sampleBytes ?? other.sampleBytes else { return [] }
    return ["estimates: by one sample in \(ByteCount(bytes)); ± is the standard error"]
  }

  private static func total(of snapshot: Snapshot) -> String {
    let blocks = snapshot.liveBlocks
    let average = blocks == 0 ? nil : Double(snapshot.liveBytes) / Double(blocks)
    // Filters, and files that lost their tail, leave less than the figures below are about.
    let header = snapshot.header
    let whole = header.scannedBytes.map { bytes in
      (
        bytes.addingSaturated(header.trackedBytes ?? 0),
        header.scannedBlocks.map { $0.addingSaturated(header.trackedBlocks ?? 0) }
      )
    }
    let isPart = whole.map { $0.0 > snapshot.liveBytes || $0.1 ?? 0 > blocks } ?? false
    let bytesOfWhole = isPart ? " of \(ByteCount(whole!.0))" : ""
    let blocksOfWhole = isPart ? whole!.1.map { " of \($0)" } ?? "" : ""
    return "total: size=\(ByteCount(snapshot.liveBytes))"
      + "\(ErrorText(snapshot.liveErrorBytes, .own))\(bytesOfWhole), "
      + "count=\(blocks)\(blocksOfWhole)"
      + (average.map { ", average=\(ByteCount($0))" } ?? "")
  }

  /// `leaks: lost 7.0 KiB in 19 blocks, …`, where they were looked for, or why they were not.
  private static func leaks(_ snapshot: Snapshot, _ style: TextStyle) -> [String] {
    if let problem = snapshot.header.reachProblem {
      return [style.accent("leaks were not looked for: \(problem.printable)", .yellow)]
    }
    return snapshot.header.hasReach ? ["leaks: \(LeakFigures(of: snapshot).text)"] : []
  }

  private static func counters(_ header: Header) -> [String] {
    var lines: [String] = []
    if let peak = header.peakBytes {
      let error = header.peakErrorBytes.map { $0 == 0 ? "" : ", exact to \(ByteCount($0))" } ?? ""
      lines.append("peak: \(ByteCount(peak))\(error)\(picture(header, peak))")
    }
    if let bytes = header.totalBytes {
      var line = "allocated since recording began: \(amount(bytes, header.totalBlocks))"
      line += "\(ErrorText(header.totalErrorBytes ?? 0, .own))"
      if let freed = header.freedBytes { line += ", freed: \(amount(freed, header.freedBlocks))" }
      if let blocks = header.temporaryBlocks, blocks != 0 {
        line += ", temporary: \(blocks) \(blocks == 1 ? "block" : "blocks")"
      }
      lines.append(line)
    }
    // Of estimates, what rounding makes is in it too.
    if header.sampleBytes == nil, let counted = header.liveBytes, let scanned = header.scannedBytes,
      counted != scanned
    {
      let difference = ByteCount(counted.subtractingSaturated(scanned)).signed
      lines.append("counters say \(difference): allocated or freed while the dump was made")
    }
    return lines
  }

  /// `; 31.9 MiB of it are known by stack (99 %), as of 2.4 s after recording began`
  private static func picture(_ header: Header, _ peak: Int) -> String {
    guard let picture = header.peakPicture else { return "" }
    let share = peak == 0 ? 100 : Int(min(max(Double(picture.bytes) / Double(peak), 0), 1) * 100)
    var text = "; \(ByteCount(picture.bytes)) are known by stack (\(share) %)"
    if let start = header.startMonotonicNanoseconds,
      case (let age, false) = picture.monotonicNanoseconds.subtractingReportingOverflow(start),
      age >= 0
    {
      text += ", as of \(UTC.duration(nanoseconds: age)) after recording began"
    }
    if picture.missed > 0, share < 90 { text += "; what came above that was over too soon" }
    return text
  }

  private static func amount(_ bytes: Int, _ blocks: Int?) -> String {
    guard let blocks else { return "\(ByteCount(bytes))" }
    return "\(ByteCount(bytes)) in \(blocks) \(blocks == 1 ? "block" : "blocks")"
  }

  private static func beforeRecording(_ header: Header) -> [String] {
    var parts: [String] = []
    if let heap = header.beforeHeapBytes { parts.append("\(ByteCount(heap)) allocated") }
    if let freed = header.beforeFreedBytes, freed != 0 || !parts.isEmpty {
      parts.append("\(amount(freed, header.beforeFreedBlocks)) freed since")
    }
    if let rest = header.beforeRemainingBytes { parts.append("at most \(ByteCount(rest)) left") }
    return parts.isEmpty ? [] : ["before recording: " + parts.joined(separator: ", ")]
  }

  private static func reconciliation(_ header: Header) -> [String] {
    guard let whole = header.reconciliation else { return [] }
    let source = whole.source.map { ", by \($0.printable)" } ?? ""
    var rows = whole.parts.filter { $0.bytes != 0 || $0.name == "traced" }
      .map { (name(of: $0), $0.bytes) }
    if whole.unexplainedBytes != 0 && !rows.isEmpty {
      rows.append(("not explained", whole.unexplainedBytes))
    }
    let width = rows.map(\.0.count).max() ?? 0
    return ["memory in use: \(ByteCount(whole.usageBytes))\(source)"]
      + rows.map { name, bytes in
        "  \(name.padded(to: width))  \(ByteCount(bytes).description.rightAligned(to: 10))"
      }
  }

  /// Memory that was allocated and never touched is in no page: then the allocator holds less than
  /// was asked of it, and what is missing makes up for it in the sum.
  private static func name(of part: Header.Reconciliation.Part) -> String {
    if part.name == "slack" && part.bytes < 0 { return "allocated, but not in memory" }
    return names[part.name] ?? part.name.printable
  }

  private static let names = [
    "traced": "traced", "before": "from before recording", "mmap": "mapped outside the heap",
    "slack": "free or rounding in the allocator",
    "before_and_slack": "from before recording, free or rounding", "tracer": "the tracer itself",
    "other": "other",
  ]

  static func losses(
    _ header: Header, _ style: TextStyle, of whose: String? = nil
  ) -> [String] {
    header.losses.filter { $0.count != 0 }.map { loss in
      let amount = loss.key.hasSuffix("_bytes") ? "\(ByteCount(loss.count))" : "\(loss.count)"
      let meaning = lossMeanings[loss.key] ?? "of a kind that this version does not know"
      let place = whose.map { "\($0): " } ?? ""
      return style.accent("\(place)lost: \(amount) (\(loss.key.printable): \(meaning))", .yellow)
    }
  }

  private static let lossMeanings = [
    "lost.sites": "allocations whose stack found no room, shown as (stack lost)",
    "lost.blocks": "allocations that are not counted for want of room",
    "lost.nested": "allocations by signal handlers inside the tracer, not counted",
    "lost.frees":
      "blocks freed by calls that are not traced; others of these may still count as live",
    "lost.rows": "frames unwound without the cache for want of room: slower, but whole",
    "truncated_stacks": "allocations with a stack deeper than was kept",
    "broken_stacks": "allocations whose stack ends before the outermost call",
    "differing_stacks": "stacks that were found otherwise than by a whole walk: please report it",
    "sites_omitted": "sites left out of the dump for want of room",
    "omitted_bytes": "live at sites left out of the dump",
    "left_out_sites": "sites for which there was no room so near the limit",
    "left_out_bytes": "live at sites for which there was no room so near the limit",
  ]

  static func warnings(
    _ snapshot: Snapshot, _ style: TextStyle, of whose: String? = nil
  ) -> [String] {
    snapshot.warnings.map {
      style.accent("\(whose.map { "\($0): " } ?? "")warning: \($0.printable)", .yellow)
    }
  }
}

extension Summary: CustomStringConvertible {
  public var description: String { lines.joined(separator: "\n") }
}

/// The live blocks by their size, as text; nothing where the dump has no histogram.
public struct HistogramText: Sendable, CustomStringConvertible {
  public let lines: [String]

  public init(of header: Header) {
    let rows = header.histogram.map { row in
      (
        row.limitBytes.map { "up to \(ByteCount($0))" } ?? "more",
        "\(ByteCount(row.bytes))", "\(row.blocks)"
      )
    }
    let width = rows.map(\.0.count).max() ?? 0
    lines = rows.map { limit, bytes, blocks in
      "\(limit.padded(to: width)): size=\(bytes), count=\(blocks)"
    }
  }

  public var description: String { lines.joined(separator: "\n") }
}

/// Every pair of a header, known or not, one on a line as the dump has them.
public struct HeaderText: Sendable, CustomStringConvertible {
  public let lines: [String]

  public init(of header: Header) {
    lines = header.entries.map(\.comment.printable)
  }

  public var description: String { lines.joined(separator: "\n") }
}

/// `83 % of 64.0 MiB (/sys/fs/cgroup/system.slice/myd.service/memory.max)`
struct LimitText: CustomStringConvertible {
  let description: String

  /// `nil` where the dump knows of no limit.
  init?(_ header: Header) {
    guard let limit = header.limitBytes, limit > 0 else { return nil }
    var text = "\(ByteCount(limit))"
    if let usage = header.limitUsageBytes, usage >= 0 {
      text = "\(Int((min(Double(usage) / Double(limit), 99) * 100).rounded())) % of " + text
    }
    if let source = header.limitSource { text += " (\(source.printable))" }
    description = text
  }
}

extension UInt {
  fileprivate var clamped: Int { Int(clamping: self) }
}

extension Int {
  func subtractingSaturated(_ other: Int) -> Int {
    let (difference, overflow) = subtractingReportingOverflow(other)
    if !overflow { return difference }
    return other < 0 ? .max : .min
  }
}
