// SPDX-License-Identifier: Apache-2.0
// Stacks on a line each, as tools that draw flame graphs read them.

import HeapModel

/// A snapshot's stacks in the form that flamegraph.pl, inferno and speedscope read: the functions from
/// the outermost to the innermost with semicolons between them, a blank, and a figure.
///
/// Stacks of the same functions are one line. A stack that is not whole begins with `[truncated]` or
/// `[broken]`, so that what happened to be its last frame is no root beside the true ones.
public struct FoldedStacks: Sendable {
  private let names: [String]
  /// Each distinct line's names by their numbers, outermost first.
  private let runs: StackRuns
  /// The figure of each line.
  private let sums: [Int]

  public init(of snapshot: Snapshot, counting figure: KeyPath<Snapshot.Sample, Int>) {
    var names: [String] = []
    var numbers: [String: UInt32] = [:]
    func number(of name: String) -> UInt32 {
      if let known = numbers[name] { return known }
      names.append(name)
      numbers[name] = UInt32(names.count - 1)
      return UInt32(names.count - 1)
    }
    let truncated = number(of: "[truncated]")
    let broken = number(of: "[broken]")
    let unknown = number(of: Frame.unknownFile)
    let nameOfFrame = snapshot.distinctFrames.map { frame in
      let name = frame.function ?? snapshot.key(of: frame, groupedBy: .function).description
      return number(of: String(name.printable.map { $0 == ";" ? "," : $0 }))
    }
    var stacks = StackInterner()
    var sums: [Int] = []
    var run: [UInt32] = []
    for sample in snapshot.samples where sample[keyPath: figure] != 0 {
      run.removeAll(keepingCapacity: true)
      if sample.missingFrames > 0 {
        run.append(truncated)
      } else if sample.isBroken {
        run.append(broken)
      }
      for frame in snapshot.frameIndices(ofStack: sample.stack).reversed() {
        run.append(nameOfFrame[Int(frame)])
      }
      if run.isEmpty { run.append(unknown) }
      let line = stacks.index(of: run[...])
      if line == sums.count { sums.append(0) }
      sums[line] = sums[line].addingSaturated(sample[keyPath: figure])
    }
    self.names = names
    runs = stacks.runs
    self.sums = sums
  }

  /// The lines, without line ends; the largest first, those without the figure left out.
  public var lines: [String] {
    var lines: [String] = []
    forEachLine { lines.append($0) }
    return lines
  }

  /// Makes one line after the other: together they are a hundred times the size of a dump.
  public func forEachLine(_ body: (String) -> Void) {
    var ranks = [Int](repeating: 0, count: names.count)
    for (rank, name) in names.indices.sorted(by: { names[$0] < names[$1] }).enumerated() {
      ranks[name] = rank
    }
    let order = sums.indices.sorted { a, b in
      if sums[a] != sums[b] { return sums[a] > sums[b] }
      return runs[a].lexicographicallyPrecedes(runs[b]) { ranks[Int($0)] < ranks[Int($1)] }
    }
    for line in order {
      body("\(runs[line].lazy.map { names[Int($0)] }.joined(separator: ";")) \(sums[line])")
    }
  }
}
