// SPDX-License-Identifier: Apache-2.0
// Puts other frames in a snapshot's stacks: for symbols, and for folding.

extension Snapshot {
  /// Puts other frames in the place of each frame: how symbols get in.
  ///
  /// Several frames for one are calls that the compiler had inlined, innermost first; the frame
  /// stays as it is where the answer is empty. The question is asked once for each distinct frame.
  public func replacingFrames(_ expansion: (Frame) -> [Frame]) -> Snapshot {
    var builder = Builder(header: header, modules: modules)
    builder.warnings = warnings
    let expanded = distinctFrames.map { frame in
      let frames = expansion(frame)
      return (frames.isEmpty ? [frame] : frames).map { builder.index(of: $0) }
    }
    return rebuilt(with: builder) { run in run.flatMap { expanded[Int($0)] }[...] }
  }

  /// Rewrites each stack that a sample has, once, by the numbers of its frames in the builder.
  func rebuilt(
    with builder: consuming Builder, _ rewriting: (ArraySlice<UInt32>) -> ArraySlice<UInt32>
  ) -> Snapshot {
    var newStacks = [Int](repeating: -1, count: runs.count)
    for var sample in samples {
      if newStacks[sample.stack] < 0 {
        newStacks[sample.stack] = builder.stack(rewriting(runs[sample.stack]))
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
    return rebuilt(with: builder) { run in run.compactMap { numbers[Int($0)] }[...] }
  }
}
