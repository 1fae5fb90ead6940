// SPDX-License-Identifier: Apache-2.0
// What a piece of work left behind, and what it took.

import HeapModel

/// What a piece of work left on the heap, and what it took: the outcome of `withHeapTrace`.
public struct HeapTraceReport: Sendable {
  /// Whose blocks the figures are about.
  public enum Scope: Hashable, Sendable {
    /// Those that the work has allocated: by its function, by what that called and awaited, and by the tasks
    /// that it made, whichever thread they ran on. What other threads and tasks did meanwhile is left out,
    /// also where they ran the same function. Threads that the work has started, and blocks that it
    /// gave to a dispatch queue, are others.
    case work
    /// All of the process's: for want of symbols, or of stacks that lead to the work, it could not be told
    /// apart. What others did meanwhile is in the figures.
    case process
  }

  /// What the work was called.
  public let label: String
  /// Why there are no figures; `nil` where all went well. The work itself was done either way.
  public let failure: HeapTracerError?
  /// Whose blocks the figures are about.
  public let scope: Scope
  /// The lines that changed, the largest change first.
  public let lines: [StatisticDifference]
  /// The same by whole stack, for a line that alone says too little.
  public let stacks: [StatisticDifference]
  /// What is alive that was not before, less what was freed of what earlier runs of the same work had
  /// left, whoever has freed it.
  public let addedBytes: Int
  /// The blocks that `addedBytes` is the size of.
  public let addedBlocks: Int
  /// What was allocated in all, freed again or not.
  public let allocatedBytes: Int
  /// The blocks that `allocatedBytes` is the size of.
  public let allocatedBlocks: Int
  /// The most that was alive above what was at the beginning, of the whole process.
  public let peakBytes: Int
  /// Of the growth that is not in `addedBytes`, what is on stacks that were cut off at the depth
  /// limit, and so may belong here. 0 where the scope is the process.
  public let unattributedBytes: Int

  init(label: String, failure: HeapTracerError) {
    self.init(label: label, failure: failure, scope: .process, changes: nil, peakBytes: 0)
  }

  init(label: String, scope: Scope, changes: HeapChanges, peakBytes: Int) {
    self.init(label: label, failure: nil, scope: scope, changes: changes, peakBytes: peakBytes)
  }

  private init(
    label: String, failure: HeapTracerError?, scope: Scope, changes: HeapChanges?, peakBytes: Int
  ) {
    self.label = label
    self.failure = failure
    self.scope = scope
    self.peakBytes = peakBytes
    lines = changes?.lines ?? []
    stacks = changes?.stacks ?? []
    addedBytes = changes?.addedBytes ?? 0
    addedBlocks = changes?.addedBlocks ?? 0
    allocatedBytes = changes?.allocatedBytes ?? 0
    allocatedBlocks = changes?.allocatedBlocks ?? 0
    unattributedBytes = changes?.unattributedBytes ?? 0
  }
}

extension HeapTraceReport: CustomStringConvertible {
  /// A sentence, and below it the five lines that changed most.
  public var description: String { text(lines: 5, stacksOf: 0) }

  /// A sentence, the lines that changed most, and below as many of these the stack that grew most.
  public func text(lines lineLimit: Int, stacksOf stackLimit: Int) -> String {
    if let failure { return "\(label): not traced, \(failure)" }
    var text = "\(label): \(ByteCount(addedBytes).signed) in \(addedBlocks) blocks"
    text += ", \(ByteCount(allocatedBytes)) allocated, peak \(ByteCount(peakBytes).signed)"
    if scope == .process { text += " (of the whole process)" }
    if unattributedBytes > 0 {
      text += "; \(ByteCount(unattributedBytes)) more on stacks deeper than the depth limit"
    }
    for (index, line) in lines.prefix(lineLimit).enumerated() {
      text += "\n  \(line)"
      guard index < stackLimit else { continue }
      let stack = stacks.first { $0.stack?.isAllocated(at: line.key) == true }?.stack
      for frame in (stack ?? Stack([])).lazy.filter({ HeapMark.Part($0) == nil }).prefix(8) {
        let place = frame.file.map { " \($0):\(frame.line ?? 0)" } ?? ""
        text += "\n      \(frame.function ?? Frame.unknownFile)\(place)"
      }
    }
    if lines.count > lineLimit { text += "\n  … and \(lines.count - lineLimit) more lines" }
    return text
  }
}

extension Stack {
  fileprivate func isAllocated(at key: Statistic.Key) -> Bool {
    guard case .line(let file, let line) = key else { return false }
    return first.map { $0.file == file && $0.line ?? 0 == line } ?? false
  }
}
