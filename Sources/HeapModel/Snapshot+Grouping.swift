// SPDX-License-Identifier: Apache-2.0
// What one row of a report stands for, and which rows a block is charged to.

extension Snapshot {
  /// What one row of a report stands for.
  ///
  /// The raw values are the words that the command takes.
  public enum Grouping: String, CaseIterable, Sendable, CustomStringConvertible {
    /// A line of source; where none is known, a function or an address.
    case line
    /// A source file; where none is known, the library or program.
    case file
    /// A function, apart from its namesakes in other libraries.
    case function
    /// A whole stack, line by line.
    case stack
    /// A library or program.
    case module
    /// What was allocated between one snapshot and the next.
    case generation
    /// What the blocks are: the objects of Swift by their types.
    case type
    /// Who allocated them, by the names of threads.
    case thread
    /// How the program held them when it ended: reachable, lost, or by lost blocks only.
    case reach

    public var description: String { rawValue }
  }

  /// Which of a stack's frames are charged for its blocks.
  public enum Charging: Hashable, Sendable {
    /// The innermost: rows add up to the heap.
    case allocatingFrame
    /// Every caller as well: rows overlap. A row is charged once for a block, however often its
    /// frames are on the stack; tracemalloc charges a recursive function for each of its calls.
    case everyFrame
  }

  /// Options that contradict each other, or the snapshot.
  public struct GroupingError: Error, Hashable, CustomStringConvertible {
    /// Which options they are.
    public enum Code: Hashable, Sendable {
      /// A stack is all of its frames already.
      case everyFrameOfStack
      /// What blocks are was not looked for.
      case noTypes
      /// Who allocated was not recorded.
      case noThreads
      /// What is lost was not looked for.
      case noReach
      /// Temporary blocks were not counted.
      case noTemporaries
      /// Nor can they be counted where blocks are sampled.
      case sampledTemporaries
      /// What was alive at the peak was not kept.
      case noPeak
      /// What is kept by stack only, asked for by something else.
      case keptByStack
    }

    /// Which options they are.
    public let code: Code
    /// Why, where the snapshot says so.
    public let cause: String?

    /// An error whose sentence is made from the code, and the cause where there is one.
    public init(_ code: Code, cause: String? = nil) {
      self.code = code
      self.cause = cause
    }

    public var description: String {
      switch code {
      case .everyFrameOfStack:
        "rows that are whole stacks cannot be charged to every frame, group by line or function"
      case .noTypes:
        "the dump does not say what blocks are\(cause.map { " (\($0))" } ?? ""), group by something else "
          + "or take another one"
      case .noThreads:
        "the dump does not say which thread allocated, record with HEAPTAP_THREADS=1 or "
          + "'heaptap run --threads'"
      case .noReach:
        "the dump does not say what is lost\(cause.map { " (\($0))" } ?? ""), which 'heaptap run --leaks' "
          + "and HEAPTAP_LEAKS=1 find out when a process ends"
      case .noTemporaries:
        "the dump does not say which blocks were temporary\(cause.map { " (\($0))" } ?? ""), take another one "
          + "with this version of Heaptap"
      case .sampledTemporaries:
        "the dump does not say which blocks were temporary, since it is one of samples; record every block, "
          + "without HEAPTAP_SAMPLE"
      case .noPeak:
        "the dump does not say what was alive at the peak\(cause.map { " (\($0))" } ?? ""), record with "
          + "HEAPTAP_PEAK=1 or 'heaptap run --peak'"
      case .keptByStack:
        "temporary blocks, and those at the peak, are counted by stack, not by \(cause ?? "that"), group by "
          + "line, function, stack or thread"
      }
    }
  }

  /// Throws where all rows would be one, since the snapshot knows nothing of what sets them apart.
  public func check(_ grouping: Grouping) throws(GroupingError) {
    guard !samples.isEmpty else { return }
    switch grouping {
    case .type:
      if header.hasTypes || samples.contains(where: { $0.type != nil }) { return }
      throw GroupingError(.noTypes, cause: header.typesProblem)
    case .thread:
      if header.hasThreads || samples.contains(where: { $0.thread != nil }) { return }
      throw GroupingError(.noThreads)
    case .reach: try checkReach()
    case .line, .file, .function, .stack, .module, .generation: break
    }
  }

  /// Throws where it was not looked for what is lost: nothing would be, whatever the program did.
  public func checkReach() throws(GroupingError) {
    guard header.hasReach || samples.contains(where: { $0.reach != .held }) else {
      throw GroupingError(.noReach, cause: header.reachProblem)
    }
  }

  /// Throws where it was not counted how many blocks were temporary, or not by such rows.
  public func checkTemporaries(groupedBy grouping: Grouping) throws(GroupingError) {
    try grouping.checkIsKeptByStack()
    guard header.temporaryBlocks != nil || samples.contains(where: { $0.temporaryBlocks != 0 })
    else {
      throw GroupingError(header.sampleBytes == nil ? .noTemporaries : .sampledTemporaries)
    }
  }

  /// The key of a frame's row. Names modules by this snapshot.
  package func key(of frame: Frame, groupedBy grouping: Grouping) -> Statistic.Key {
    let home = self.module(of: frame)
    let module = home.map { String($0.name) }
    switch grouping {
    case .line, .stack, .generation, .type, .thread, .reach:
      if let file = frame.file { return .line(file: file, line: frame.line ?? 0) }
      if let function = frame.function { return .function(function, module: module ?? "") }
    case .function:
      if let function = frame.function { return .function(function, module: module ?? "") }
      if let file = frame.file { return .line(file: file, line: frame.line ?? 0) }
    case .file:
      if let file = frame.file { return .file(file) }
      if let module { return .module(module) }
      if frame == .lostStack { return .function(frame.function!, module: "") }
      return .file(Frame.unknownFile)
    case .module:
      if let module { return .module(module) }
      if frame == .lostStack { return .function(frame.function!, module: "") }
      return .module(Frame.unknownFile)
    }
    if let home, let module {
      return .offset(home.fileOffset(of: frame.address), module: module)
    }
    if frame.address != 0 { return .offset(frame.address, module: "") }
    return .line(file: Frame.unknownFile, line: 0)
  }
}

extension Snapshot.Grouping {
  /// Throws for rows that divide the blocks of one stack.
  package func checkIsKeptByStack() throws(Snapshot.GroupingError) {
    switch self {
    case .generation, .type, .reach: throw Snapshot.GroupingError(.keptByStack, cause: rawValue)
    case .line, .file, .function, .stack, .module, .thread: break
    }
  }
}
