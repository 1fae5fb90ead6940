// SPDX-License-Identifier: Apache-2.0
// Makes a snapshot from frames and stacks as they come, keeping each once.

extension Snapshot {
  /// Makes a snapshot from frames and stacks as they come, keeping each once.
  ///
  /// Numbers that it hands out are good for the snapshot it ends as, and for no other.
  public struct Builder: ~Copyable {
    public var header = Header()
    public var modules: [Module] = []
    public var warnings: [String] = []
    public private(set) var samples: [Sample] = []
    private var frames: [Frame] = []
    private var frameIndices: [Frame: UInt32] = [:]
    private var runs = StackRuns()
    private var slots = [UInt32](repeating: 0, count: 64)

    public init() {}

    public init(header: Header, modules: [Module]) {
      self.header = header
      self.modules = modules
    }

    /// Makes room beforehand, for a reader that can tell from the file's size what will come.
    public mutating func reserve(stacks: Int, frames: Int) {
      runs.reserve(stacks: stacks, frames: frames)
    }

    /// How many distinct stacks have come so far.
    public var stackCount: Int { runs.count }

    /// The number of a frame: the same for equal frames.
    public mutating func index(of frame: Frame) -> UInt32 {
      if let known = frameIndices[frame] { return known }
      let index = UInt32(frames.count)
      frames.append(frame)
      frameIndices[frame] = index
      return index
    }

    /// The number of a stack, given innermost first by its frames' numbers: the same for equal
    /// stacks, so that two allocations from one place share one.
    public mutating func stack(_ run: ArraySlice<UInt32>) -> Int {
      if 2 * runs.count >= slots.count { growSlots() }
      let slot = slot(for: run)
      if slots[slot] != 0 { return Int(slots[slot] - 1) }
      runs.append(run)
      slots[slot] = UInt32(runs.count)
      return runs.count - 1
    }

    public mutating func stack(_ frames: [Frame]) -> Int {
      stack(frames.map { index(of: $0) }[...])
    }

    /// Adds the blocks of one stack. A second sample of the same stack is kept as it is: reports
    /// add up.
    public mutating func add(_ sample: Sample) {
      precondition(sample.stack >= 0 && sample.stack < runs.count, "a stack of another snapshot")
      samples.append(sample)
    }

    /// Adds live blocks by hand, in the terms of a test or of another tracer.
    public mutating func add(
      bytes: Int, blocks: Int = 1, stack frames: [Frame], missingFrames: Int = 0, domain: Int = 0,
      generation: Int? = nil
    ) {
      samples.append(
        Sample(
          stack: stack(frames), domain: domain, generation: generation, liveBytes: bytes,
          liveBlocks: blocks, totalBytes: bytes, totalBlocks: blocks,
          missingFrames: missingFrames))
    }

    public consuming func finish() -> Snapshot {
      Snapshot(
        header: header, modules: modules, distinctFrames: frames, runs: runs, samples: samples,
        warnings: warnings)
    }

    // Open addressing over the runs themselves: a dictionary would hold every stack twice. The
    // hash is the seeded one, since stacks may come from a file made to collide.

    private func slot(for run: ArraySlice<UInt32>) -> Int {
      var hasher = Hasher()
      unsafe run.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
      var slot = hasher.finalize() & (slots.count - 1)
      while slots[slot] != 0 {
        if runs[Int(slots[slot] - 1)] == run { break }
        slot = (slot + 1) & (slots.count - 1)
      }
      return slot
    }

    private mutating func growSlots() {
      slots = [UInt32](repeating: 0, count: 4 * slots.count)
      for stack in 0..<runs.count { slots[slot(for: runs[stack])] = UInt32(stack + 1) }
    }
  }
}
