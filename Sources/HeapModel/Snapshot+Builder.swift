// SPDX-License-Identifier: Apache-2.0
// Makes a snapshot from frames and stacks as they come, keeping each once.

extension Snapshot {
  /// Makes a snapshot from frames and stacks as they come, keeping each once.
  ///
  /// Numbers that it hands out are good for the snapshot it ends as, and for no other.
  public struct Builder: ~Copyable {
    /// What the snapshot will say of itself.
    public var header = Header()
    /// The files that frames' `module` is an index into.
    public var modules: [Module] = []
    /// What the snapshot's reader will be told.
    public var warnings: [String] = []
    /// What has been added so far.
    public private(set) var samples: [Sample] = []
    private(set) var frames: [Frame] = []
    private var frameIndices: [Frame: UInt32] = [:]
    private var stacks = StackInterner()

    /// Nothing so far.
    public init() {}

    /// Nothing so far but what is known of the whole.
    public init(header: Header, modules: [Module]) {
      self.header = header
      self.modules = modules
    }

    /// Makes room beforehand, for a reader that can tell from the file's size what will come.
    public mutating func reserve(stacks: Int, frames: Int, samples: Int) {
      self.stacks.reserve(stacks: stacks, frames: frames)
      self.samples.reserveCapacity(samples)
    }

    /// How many distinct stacks have come so far.
    public var stackCount: Int { stacks.runs.count }

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
    public mutating func stack(_ run: ArraySlice<UInt32>) -> Int { stacks.index(of: run) }

    /// The number of a stack, given innermost first by its frames.
    public mutating func stack(_ frames: [Frame]) -> Int {
      stack(frames.map { index(of: $0) }[...])
    }

    /// Adds the blocks of one stack. A second sample of the same stack is kept as it is: reports
    /// add up.
    public mutating func add(_ sample: Sample) {
      precondition(sample.stack >= 0 && sample.stack < stackCount, "a stack of another snapshot")
      samples.append(sample)
    }

    /// Adds live blocks by hand, in the terms of a test or of another tracer.
    public mutating func add(
      bytes: Int, blocks: Int = 1, stack frames: [Frame], missingFrames: Int = 0,
      isBroken: Bool = false,
      domain: Int = 0, generation: Int? = nil, type: String? = nil, thread: String? = nil,
      reach: Reach = .held
    ) {
      samples.append(
        Sample(
          stack: stack(frames), domain: domain, generation: generation, type: type, thread: thread,
          liveBytes: bytes, liveBlocks: blocks, totalBytes: bytes, totalBlocks: blocks,
          missingFrames: missingFrames, isBroken: isBroken, reach: reach))
    }

    /// The snapshot of what has come.
    public consuming func finish() -> Snapshot {
      Snapshot(
        header: header, modules: modules, distinctFrames: frames, runs: stacks.runs,
        samples: samples,
        warnings: warnings)
    }
  }
}
