// SPDX-License-Identifier: Apache-2.0
// Puts other frames in a snapshot's stacks: for symbols, and for folding.

extension Snapshot {
  /// Puts other frames in the place of each frame: how symbols get in.
  ///
  /// Several frames for one are calls that the compiler had inlined, innermost first; the frame
  /// stays as it is where the answer is empty. The question is asked once for each distinct frame.
  ///
  /// - Parameter folding: What is left out of the result as by `folded(by:)`, in the same pass.
  public func replacingFrames(
    foldedBy folding: FrameFolding? = nil, _ expansion: (Frame) -> [Frame]
  ) -> Snapshot {
    var builder = Builder(header: header, modules: modules)
    builder.warnings = warnings
    // As runs, for the passes over all stacks below.
    var expanded = StackRuns()
    for frame in distinctFrames {
      let frames = expansion(frame)
      expanded.append((frames.isEmpty ? [frame] : frames).map { builder.index(of: $0) })
    }
    let marks = folding.map { FoldingMarks(of: builder.frames, in: modules, by: $0) }
    let frameCount = runs.frames.reduce(0) { $0 + expanded.range(of: Int($1)).count }
    return rebuilt(with: builder, frameCount: frameCount) { run, rewritten in
      for number in run {
        for place in expanded.range(of: Int(number)) { rewritten.append(expanded.frames[place]) }
      }
      marks?.fold(&rewritten)
    }
  }

  /// Rewrites each stack that a sample has, once, by the numbers of its frames in the builder.
  ///
  /// - Parameters:
  ///   - frameCount: How many frames all stacks will have at most; room is made for them.
  ///   - rewriting: Appends what becomes of a stack to an array that is empty, and kept for its memory.
  func rebuilt(
    with builder: consuming Builder, frameCount: Int,
    _ rewriting: (ArraySlice<UInt32>, inout [UInt32]) -> Void
  ) -> Snapshot {
    builder.reserve(stacks: runs.count, frames: frameCount, samples: samples.count)
    var newStacks = [Int](repeating: -1, count: runs.count)
    var rewritten: [UInt32] = []
    for var sample in samples {
      if newStacks[sample.stack] < 0 {
        rewritten.removeAll(keepingCapacity: true)
        rewriting(runs[sample.stack], &rewritten)
        newStacks[sample.stack] = builder.stack(rewritten[...])
      }
      sample.stack = newStacks[sample.stack]
      builder.add(sample)
    }
    return builder.finish()
  }
}

extension Snapshot {
  /// Whether functions were put in since the tracer wrote it. It names generated code itself.
  public var hasSymbols: Bool {
    distinctFrames.contains { $0.function != nil && module(of: $0)?.isBackedByFile == true }
  }

  /// The snapshot as the tracer wrote it: without functions, lines and inlined calls in what has a file.
  ///
  /// By these, its stacks are those of another snapshot without symbols.
  public func withoutSymbols() -> Snapshot {
    var builder = Builder(header: header, modules: modules)
    builder.warnings = warnings
    let numbers = distinctFrames.map { frame -> UInt32? in
      guard module(of: frame)?.isBackedByFile == true else { return builder.index(of: frame) }
      if frame.isInlined { return nil }
      return builder.index(of: Frame(address: frame.address, module: frame.module))
    }
    return rebuilt(with: builder, frameCount: runs.frames.count) { run, rewritten in
      for number in run {
        if let new = numbers[Int(number)] { rewritten.append(new) }
      }
    }
  }
}
