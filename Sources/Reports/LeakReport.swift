// SPDX-License-Identifier: Apache-2.0
// What a process had lost when it ended, as text.

import HeapModel

/// What a process had lost when it ended, as text: the figures, then the stacks that allocated it.
///
/// First what nothing led to, which is where to look; then what only that led to, and will go with it.
public struct LeakReport: Sendable {
  /// The lines, without line ends.
  public let lines: [String]
  /// Whether anything is lost.
  public let hasLeaks: Bool

  /// - Parameters:
  ///   - limit: How many stacks are shown of each kind; a last line counts the others.
  ///   - naming: Puts functions and lines into a snapshot that has the leaks only, and leaves out what is
  ///     suppressed; asked if there are any.
  public init(
    of snapshot: Snapshot, limit: Int? = nil, style: TextStyle = .plain,
    _ naming: (Snapshot) -> Snapshot.Suppressed
  ) {
    var figures = LeakFigures(of: snapshot)
    let caveats = Self.caveats(snapshot.header, style)
    guard figures.leakedBlocks > 0 else {
      hasLeaks = false
      lines = ["no leaks: \(figures.text)"] + caveats
      return
    }
    let outcome = naming(snapshot.leaks)
    figures.suppress(allBut: outcome.rest)
    hasLeaks = figures.lostBlocks > 0
    guard hasLeaks else {
      // What is held by lost blocks only is then held by those that are suppressed.
      lines = ["no leaks but suppressed ones: \(figures.text)"] + caveats
      return
    }
    var lines = ["\(figures.text)"] + caveats
    for (reach, title) in [(Snapshot.Reach.lost, "lost"), (.indirect, "held by lost blocks only")] {
      let rows = outcome.rest.filtered(reach: [reach]).statistics(groupedBy: .stack)
      if rows.isEmpty { continue }
      lines += ["", style.accent("\(title):", .bold)]
      lines += TextTable(rows, limit: limit, style: style).lines
    }
    self.lines = lines
  }

  /// What may make the answer wrong.
  private static func caveats(_ header: Header, _ style: TextStyle) -> [String] {
    var caveats: [String] = []
    if header.hasMovingBlocks {
      caveats.append(
        "a block was just being reallocated: what only it led to may pass for lost")
    }
    if let lost = header.integer("lost.blocks"), lost > 0 {
      caveats.append("\(lost) blocks were not recorded: what only they led to may pass for lost")
    }
    if header.hasForeignAllocator {
      caveats.append(
        "the allocator is not glibc's: what its own tables lead to passes for reachable")
    }
    return caveats.map { style.accent("warning: \($0)", .yellow) }
  }
}

/// How much of a heap is lost.
struct LeakFigures {
  private struct Amount {
    var bytes = 0
    var blocks = 0

    mutating func add(_ other: Amount) {
      bytes = bytes.addingSaturated(other.bytes)
      blocks = blocks.addingSaturated(other.blocks)
    }
  }

  private var amounts: [Snapshot.Reach: Amount] = [:]
  private var suppressed = Amount()

  init(of snapshot: Snapshot) {
    // What a program tracks by itself is not searched.
    for sample in snapshot.samples where sample.domain == 0 {
      amounts[sample.reach, default: Amount()].add(
        Amount(bytes: sample.liveBytes, blocks: sample.liveBlocks))
    }
  }

  /// Takes for suppressed what a snapshot of the leaks has no more.
  mutating func suppress(allBut rest: Snapshot) {
    let rest = LeakFigures(of: rest)
    for reach in [Snapshot.Reach.lost, .indirect] {
      let (all, left) = (amounts[reach] ?? Amount(), rest.amounts[reach] ?? Amount())
      suppressed.add(Amount(bytes: all.bytes - left.bytes, blocks: all.blocks - left.blocks))
      amounts[reach] = left
    }
  }

  var lostBlocks: Int { amounts[.lost]?.blocks ?? 0 }
  var leakedBlocks: Int { lostBlocks.addingSaturated(amounts[.indirect]?.blocks ?? 0) }

  /// `lost 7.0 KiB in 19 blocks, held by these only 4.7 KiB in 22 blocks, still reachable …`
  var text: String {
    let words: [(amount: Amount?, text: String)] = [
      (amounts[.lost], "lost"), (amounts[.indirect], "held by these only"),
      (suppressed, "suppressed"), (amounts[.held], "still reachable"),
    ]
    let parts = words.filter { $0.amount.map { $0.blocks > 0 } ?? false }
    return (parts.isEmpty ? [(Amount(), "still reachable")] : parts).map { amount, text in
      let (bytes, blocks) = (amount?.bytes ?? 0, amount?.blocks ?? 0)
      return "\(text) \(ByteCount(bytes)) in \(blocks) \(blocks == 1 ? "block" : "blocks")"
    }.joined(separator: ", ")
  }
}

extension Snapshot {
  /// The leaks, with their own frames only: there may be few where the heap has many.
  fileprivate var leaks: Snapshot {
    var builder = Builder(header: header, modules: modules)
    builder.warnings = warnings
    for var sample in filtered(reach: Reach.leaked).samples {
      sample.stack = builder.stack(Array(stack(of: sample)))
      builder.add(sample)
    }
    return builder.finish()
  }
}
