// SPDX-License-Identifier: Apache-2.0
// Stacks on a line each, as tools that draw flame graphs read them.

import HeapModel

/// A snapshot's stacks in the form that flamegraph.pl, inferno and speedscope read: the functions from
/// the outermost to the innermost with semicolons between them, a blank, and a figure.
///
/// Stacks of the same functions are one line. A stack that is not whole begins with `[truncated]` or
/// `[broken]`, so that what happened to be its last frame is no root beside the true ones.
public struct FoldedStacks: Sendable {
  /// The lines, without line ends; the largest first, those without the figure left out.
  public let lines: [String]

  public init(of snapshot: Snapshot, counting figure: KeyPath<Snapshot.Sample, Int>) {
    let names = snapshot.distinctFrames.map { frame in
      let name = frame.function ?? snapshot.key(of: frame, groupedBy: .function).description
      return String(name.printable.map { $0 == ";" ? "," : $0 })
    }
    var sums: [String: Int] = [:]
    for sample in snapshot.samples where sample[keyPath: figure] != 0 {
      var parts = snapshot.frameIndices(ofStack: sample.stack).reversed().map { names[Int($0)] }
      if sample.missingFrames > 0 {
        parts.insert("[truncated]", at: 0)
      } else if sample.isBroken {
        parts.insert("[broken]", at: 0)
      }
      if parts.isEmpty { parts = [Frame.unknownFile] }
      let line = parts.joined(separator: ";")
      sums[line] = sums[line, default: 0].addingSaturated(sample[keyPath: figure])
    }
    lines = sums.sorted { ($1.value, $0.key) < ($0.value, $1.key) }.map { "\($0.key) \($0.value)" }
  }
}
