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
  ///   - naming: Puts functions and lines into a snapshot that has the leaks only; asked if there are any.
  public init(
    of snapshot: Snapshot, limit: Int? = nil, style: TextStyle = .plain,
    _ naming: (Snapshot) -> Snapshot
  ) {
    let figures = LeakFigures(of: snapshot)
    hasLeaks = figures.leakedBlocks > 0
    let caveats = Self.caveats(snapshot.header, style)
    guard hasLeaks else {
      lines = ["no leaks: \(figures.text)"] + caveats
      return
    }
    let named = naming(snapshot.leaks)
    var lines = ["\(figures.text)"] + caveats
    for (reach, title) in [(Snapshot.Reach.lost, "lost"), (.indirect, "held by lost blocks only")] {
      let rows = named.filtered(reach: [reach]).statistics(groupedBy: .stack)
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
  private let bytes: [Snapshot.Reach: Int]
  private let blocks: [Snapshot.Reach: Int]

  init(of snapshot: Snapshot) {
    var (bytes, blocks): ([Snapshot.Reach: Int], [Snapshot.Reach: Int]) = ([:], [:])
    // What a program tracks by itself is not searched.
    for sample in snapshot.samples where sample.domain == 0 {
      bytes[sample.reach] = bytes[sample.reach, default: 0].addingSaturated(sample.liveBytes)
      blocks[sample.reach] = blocks[sample.reach, default: 0].addingSaturated(sample.liveBlocks)
    }
    (self.bytes, self.blocks) = (bytes, blocks)
  }

  var leakedBlocks: Int { blocks[.lost, default: 0].addingSaturated(blocks[.indirect, default: 0]) }

  /// `lost 7.0 KiB in 19 blocks, held by these only 4.7 KiB in 22 blocks, still reachable …`
  var text: String {
    let words: [(Snapshot.Reach, String)] = [
      (.lost, "lost"), (.indirect, "held by these only"), (.held, "still reachable"),
    ]
    return words.compactMap { reach, words in
      let blocks = blocks[reach, default: 0]
      guard blocks > 0 || reach == .held && leakedBlocks == 0 else { return nil }
      return
        "\(words) \(ByteCount(bytes[reach, default: 0])) in \(blocks) \(blocks == 1 ? "block" : "blocks")"
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
