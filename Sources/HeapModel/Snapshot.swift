// SPDX-License-Identifier: Apache-2.0
// The heap at one moment: which stacks had allocated how much of what was still alive.

/// The heap of a process at one moment, by the stacks that allocated it.
///
/// A snapshot is a value: it has no file behind it, and everything done to it gives a new one. It
/// holds each distinct frame once and a stack as a run of frame numbers in one array, so that
/// 100,000 stacks of 40 frames take 16 MB and copies of a snapshot take nothing.
///
/// Build one with `Snapshot.Builder`, or read one with the `Pprof` library.
public struct Snapshot: Sendable {
  /// What the dump says of itself: whose heap, when, why, and what was lost.
  public var header: Header
  /// The files that were mapped; `Frame.module` is an index into these.
  public var modules: [Module]
  /// The stacks' blocks, in the order of the dump: the largest first, if a tracer wrote it.
  public var samples: [Sample]
  /// What the reader had to put up with, one sentence each: for instance a file cut short.
  public var warnings: [String]

  /// Each frame once. A filtered snapshot keeps frames that only left-out stacks had.
  public let distinctFrames: [Frame]
  let runs: StackRuns

  init(
    header: Header, modules: [Module], distinctFrames: [Frame], runs: StackRuns,
    samples: [Sample], warnings: [String]
  ) {
    self.header = header
    self.modules = modules
    self.distinctFrames = distinctFrames
    self.runs = runs
    self.samples = samples
    self.warnings = warnings
  }

  /// An empty heap: what the first of a series is compared to.
  public init() {
    self.init(
      header: Header(), modules: [], distinctFrames: [], runs: StackRuns(), samples: [],
      warnings: [])
  }

  /// How a program held blocks when it ended: what a search for leaks found.
  public enum Reach: String, CaseIterable, Hashable, Sendable, CustomStringConvertible {
    /// Something led to them: a global, a stack, a register, or a block that is held.
    case held
    /// Nothing led to them any more. Of blocks that only lead to each other, one stands for the circle.
    case lost
    /// Only lost blocks led to them.
    case indirect

    public var description: String { rawValue }

    /// What the program can never free: `lost` and `indirect`.
    public static var leaked: Set<Reach> { [.lost, .indirect] }
  }

  /// The blocks of one stack, one domain, one generation, one type and one thread, all
  /// reachable or all not, taken together.
  ///
  /// What was allocated and is gone is kept by stack only, and by thread: where a stack has several
  /// samples the first counts it, so that adding up the cumulative figures is always right.
  public struct Sample: Hashable, Sendable {
    /// Which stack, as a number that the snapshot understands.
    public var stack: Int
    /// The address space that the blocks are in: 0 is the heap, others belong to the program.
    public var domain: Int
    /// The interval between snapshots in which the blocks were allocated; `nil` where not known.
    public var generation: Int?
    /// The Swift type of the objects that the blocks are, such as `Swift._DictionaryStorage<Swift.Int,
    /// Swift.String>`, or `closure context`, `task`, `box of T`, `error T`; `nil` where not known.
    public var type: String?
    /// The name of the thread that allocated the blocks, as it was last; `nil` where that was not recorded.
    public var thread: String?
    /// The kernel's number of that thread.
    public var threadID: Int?
    /// How many blocks the live figures are an estimate of; 0 where every block was recorded.
    public var sampledBlocks: Int
    /// The standard error of `liveBytes`, where that is an estimate; 0 where it is not.
    public var liveErrorBytes: Int
    /// The standard error of `totalBytes`, where that is an estimate; 0 where it is not.
    public var totalErrorBytes: Int
    /// How the program holds the blocks; `.held` as well where that was not looked for, see
    /// `Header.hasReach`.
    public var reach: Reach
    /// Bytes asked for by the blocks that are still allocated.
    public var liveBytes: Int
    /// The blocks that `liveBytes` is the size of.
    public var liveBlocks: Int
    /// Bytes asked for since recording began, freed or not.
    public var totalBytes: Int
    /// The blocks that `totalBytes` is the size of.
    public var totalBlocks: Int
    /// Of `totalBlocks`, those that were freed before their thread's next allocation: see
    /// `Header.temporaryBlocks`.
    public var temporaryBlocks: Int
    /// Bytes that the stack had alive in the picture of the peak: see `Snapshot.atPeak()`. On its first
    /// sample, and 0 on its others.
    public var peakBytes: Int
    /// The blocks that `peakBytes` is the size of.
    public var peakBlocks: Int
    /// This many frames are missing at the stack's outermost end: see `Stack`.
    public var missingFrames: Int
    /// Whether what called the outermost frame that was found is not known: see `Stack`.
    public var isBroken: Bool

    /// The blocks of one stack.
    public init(
      stack: Int, domain: Int = 0, generation: Int? = nil, type: String? = nil,
      thread: String? = nil, threadID: Int? = nil, liveBytes: Int, liveBlocks: Int,
      totalBytes: Int = 0, totalBlocks: Int = 0, temporaryBlocks: Int = 0, peakBytes: Int = 0,
      peakBlocks: Int = 0, missingFrames: Int = 0, isBroken: Bool = false, reach: Reach = .held,
      sampledBlocks: Int = 0, liveErrorBytes: Int = 0, totalErrorBytes: Int = 0
    ) {
      self.stack = stack
      self.domain = domain
      self.generation = generation
      self.type = type
      self.thread = thread
      self.threadID = threadID
      self.liveBytes = liveBytes
      self.liveBlocks = liveBlocks
      self.totalBytes = totalBytes
      self.totalBlocks = totalBlocks
      self.temporaryBlocks = temporaryBlocks
      self.peakBytes = peakBytes
      self.peakBlocks = peakBlocks
      self.missingFrames = missingFrames
      self.isBroken = isBroken
      self.reach = reach
      self.sampledBlocks = sampledBlocks
      self.liveErrorBytes = liveErrorBytes
      self.totalErrorBytes = totalErrorBytes
    }
  }

  /// How many distinct stacks the snapshot holds, used by a sample or not.
  public var stackCount: Int { runs.count }

  /// The module of one of this snapshot's frames; `nil` where not known.
  public func module(of frame: Frame) -> Module? {
    guard let index = frame.module, modules.indices.contains(index) else { return nil }
    return modules[index]
  }

  /// The frames of a sample's stack, innermost first.
  public func stack(of sample: Sample) -> Stack {
    Stack(
      table: distinctFrames, run: runs[sample.stack], missingFrames: sample.missingFrames,
      isBroken: sample.isBroken)
  }

  /// The frames of a stack, innermost first, as indices into `distinctFrames`.
  ///
  /// For passes over every stack, where a `Frame` at a time would be too slow.
  package func frameIndices(ofStack stack: Int) -> ArraySlice<UInt32> { runs[stack] }

  /// A sample on one line, `file:line: size`, as tracemalloc prints a trace.
  public func line(for sample: Sample) -> String {
    "\(stack(of: sample)): \(ByteCount(sample.liveBytes))"
  }

  /// Bytes still allocated, added up over the samples.
  public var liveBytes: Int { sum(\.liveBytes) }
  /// Blocks still allocated, added up over the samples.
  public var liveBlocks: Int { sum(\.liveBlocks) }
  /// Bytes asked for since recording began, freed or not, added up over the samples.
  public var totalBytes: Int { sum(\.totalBytes) }
  /// Blocks allocated since recording began, freed or not, added up over the samples.
  public var totalBlocks: Int { sum(\.totalBlocks) }
  /// Of these, the blocks that were freed before their thread's next allocation, added up over the samples.
  public var temporaryBlocks: Int { sum(\.temporaryBlocks) }

  /// The standard error of `liveBytes`, where that is an estimate; 0 where every block was recorded.
  ///
  /// Blocks are sampled independently, so that the squares of errors add up.
  public var liveErrorBytes: Int { error(\.liveErrorBytes) }
  /// The standard error of `totalBytes`, as that of `liveBytes`.
  public var totalErrorBytes: Int { error(\.totalErrorBytes) }

  private func error(_ figure: KeyPath<Sample, Int>) -> Int {
    StandardError(samples.reduce(0) { $0 + StandardError.square($1[keyPath: figure]) }).bytes
  }

  private func sum(_ figure: KeyPath<Sample, Int>) -> Int {
    samples.reduce(0) { $0.addingSaturated($1[keyPath: figure]) }
  }
}

extension Snapshot: Equatable {
  /// Whether the same was measured: headers, modules, and the samples in order, frame by frame.
  ///
  /// How frames and stacks are numbered does not count, nor do warnings, which are about a file.
  public static func == (a: Self, b: Self) -> Bool {
    guard a.header == b.header, a.modules == b.modules, a.samples.count == b.samples.count else {
      return false
    }
    return zip(a.samples, b.samples).allSatisfy { ours, theirs in
      var renumbered = theirs
      renumbered.stack = ours.stack
      return ours == renumbered && a.stack(of: ours) == b.stack(of: theirs)
    }
  }
}
