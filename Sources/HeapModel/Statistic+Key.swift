// SPDX-License-Identifier: Apache-2.0
// What makes two blocks belong to one row.

extension Statistic {
  /// What makes two blocks belong to one row.
  ///
  /// Keys mean the same in every snapshot: they hold names and offsets in files, never addresses
  /// in a process or numbers of one snapshot. Where the wanted detail of a frame is not known, its
  /// key is the best that is, so that different functions without lines do not become one row.
  public enum Key: Hashable, Sendable {
    /// A line of source.
    case line(file: String, line: Int)
    /// A source file by its path.
    case file(String)
    /// The module's name sets apart functions of one name; empty where not known.
    case function(String, module: String)
    /// Code without a name: where it lies in its module's file, or an address without a module.
    case offset(UInt64, module: String)
    /// A library or program by the last component of its path.
    case module(String)
    /// The interval between two snapshots; `nil` for blocks of which it is not known.
    case generation(Int?)
    /// What the blocks are; `nil` for those of which it is not known.
    case type(String?)
    /// A thread by its name; `nil` where who allocated was not recorded.
    case thread(String?)
    /// How the program held the blocks when it ended.
    case reach(Snapshot.Reach)
    /// Each frame's key by line, innermost first.
    case stack(Frames)

    /// The keys of a stack's frames, innermost first.
    ///
    /// Like `Stack` a view, of a table that all rows of a report share: an array for each of 100,000
    /// rows would take half a gigabyte.
    public struct Frames: RandomAccessCollection, Sendable {
      private let table: Table
      private let stack: Int

      /// The keys of all rows' frames.
      final class Table: Sendable {
        let keys: [Key]
        let runs: StackRuns

        init(keys: [Key], runs: StackRuns) {
          self.keys = keys
          self.runs = runs
        }
      }

      init(table: Table, stack: Int) {
        self.table = table
        self.stack = stack
      }

      /// The keys of a stack that is no report's.
      public init(_ keys: some Sequence<Key>) {
        let keys = Array(keys)
        var runs = StackRuns()
        runs.append(keys.indices.map { UInt32($0) })
        self.init(table: Table(keys: keys, runs: runs), stack: 0)
      }

      /// 0, the innermost frame's key.
      public var startIndex: Int { 0 }
      /// How many frames there are.
      public var endIndex: Int { table.runs[stack].count }

      /// The key of the frame at a position, from 0 for the innermost.
      public subscript(position: Int) -> Key {
        let run = table.runs[stack]
        return table.keys[Int(run[run.startIndex + position])]
      }
    }
  }
}

extension Statistic.Key.Frames: Hashable, ExpressibleByArrayLiteral {
  /// The keys of a stack that is no report's, innermost first.
  public init(arrayLiteral keys: Statistic.Key...) { self.init(keys) }

  /// Whether the keys are the same, of whatever reports they are.
  public static func == (a: Self, b: Self) -> Bool {
    (a.table === b.table && a.stack == b.stack) || a.elementsEqual(b)
  }

  /// Feeds the keys to a hash.
  public func hash(into hasher: inout Hasher) {
    hasher.combine(count)
    for key in self { hasher.combine(key) }
  }
}

extension Statistic.Key: CustomStringConvertible {
  /// The key as reports show it and as it is searched for: `a.py:5`, `open (libc.so.6)`,
  /// `libz.so.1+0x1f30`. A stack is named by its outermost call, as tracemalloc does.
  public var description: String {
    switch self {
    case .line(let file, let line): "\(file):\(line)"
    case .file(let path): path
    case .function(let name, let module): module.isEmpty ? name : "\(name) (\(module))"
    case .offset(let offset, let module): "\(module)\(module.isEmpty ? "" : "+")\(hex(offset))"
    case .module(let name): name
    case .generation(let number): number.map { "generation \($0)" } ?? "no generation"
    case .type(let name): name ?? "unknown (not an object of Swift)"
    case .thread(let name): name ?? "unknown thread"
    case .reach(.held): "reachable"
    case .reach(.lost): "lost"
    case .reach(.indirect): "held by lost blocks only"
    case .stack(let keys): keys.last?.description ?? "\(Frame.unknownFile):0"
    }
  }

  private func hex(_ number: UInt64) -> String { "0x" + String(number, radix: 16) }
}

extension Statistic.Key: Comparable {
  /// An order for ties: any would do, but it must be total and the same every time.
  public static func < (a: Self, b: Self) -> Bool {
    switch (a, b) {
    case (.line(let a, let aLine), .line(let b, let bLine)): (a, aLine) < (b, bLine)
    case (.file(let a), .file(let b)): a < b
    case (.function(let a, let aModule), .function(let b, let bModule)): (a, aModule) < (b, bModule)
    case (.offset(let a, let aModule), .offset(let b, let bModule)): (aModule, a) < (bModule, b)
    case (.module(let a), .module(let b)): a < b
    case (.generation(let a), .generation(let b)): (a ?? .min) < (b ?? .min)
    case (.type(let a), .type(let b)), (.thread(let a), .thread(let b)):
      // What is not known comes first.
      a == nil ? b != nil : b.map { a! < $0 } ?? false
    case (.reach(let a), .reach(let b)): a.rawValue < b.rawValue
    case (.stack(let a), .stack(let b)): a.lexicographicallyPrecedes(b)
    default: a.rank < b.rank
    }
  }

  private var rank: Int {
    switch self {
    case .line: 0
    case .file: 1
    case .function: 2
    case .offset: 3
    case .module: 4
    case .generation: 5
    case .type: 6
    case .thread: 7
    case .reach: 8
    case .stack: 9
    }
  }
}
