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

  /// Two options that contradict each other.
  public struct GroupingError: Error, Hashable, CustomStringConvertible {
    /// Which options they are.
    public enum Code: Hashable, Sendable {
      /// A stack is all of its frames already.
      case everyFrameOfStack
    }

    /// Which options they are.
    public let code: Code

    /// An error whose sentence is made from the code.
    public init(_ code: Code) {
      self.code = code
    }

    public var description: String {
      switch code {
      case .everyFrameOfStack:
        "rows that are whole stacks cannot be charged to every frame, group by line or function"
      }
    }
  }

  /// The key of a frame's row. Names modules by this snapshot.
  package func key(of frame: Frame, groupedBy grouping: Grouping) -> Statistic.Key {
    let home = self.module(of: frame)
    let module = home.map { String($0.name) }
    switch grouping {
    case .line, .stack, .generation:
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
