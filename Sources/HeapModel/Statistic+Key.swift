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
    case type(String?)
    case thread(String?)
    case reach(Snapshot.Reach)
    /// Each frame's key by line, innermost first.
    case stack([Key])
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
