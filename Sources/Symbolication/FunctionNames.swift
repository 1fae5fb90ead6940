// SPDX-License-Identifier: Apache-2.0
// Which of a function's names to show.

/// What debug information calls a function.
struct DebugName {
  /// The name that the linker knows, mangled, with everything that tells the function from others.
  var linkageName: String?
  /// The name in the source: `insert`, of whatever class.
  var plainName: String?

  /// Whether it is a part of a Swift async function that goes on after an `await`: `…TQ0_`, `…TY1_`.
  var isResumedPart: Bool {
    guard let linkageName, linkageName.hasSuffix("_") else { return false }
    let name = linkageName.dropLast()
    guard let number = name.lastIndex(where: { !$0.isNumber }),
      number < name.index(before: name.endIndex)
    else { return false }
    return name[...number].hasSuffix("TQ") || name[...number].hasSuffix("TY")
  }
}

/// The names of a file's functions, as people read them.
struct FunctionNames {
  private let demangler: Demangler
  /// A few thousand functions account for most frames.
  private var demangledNames: [String: String] = [:]
  private let file: ObjectFile
  /// Large, and with debug information not often needed.
  private lazy var symbols = SymbolTable(of: file)

  init(of file: ObjectFile, demangler: Demangler) {
    self.file = file
    self.demangler = demangler
  }

  /// The symbol table's name for an address of libdwfl's.
  mutating func symbol(at address: UInt64) -> String? {
    symbols.name(at: address).map { demangled($0) }
  }

  /// The name of a function that was inlined: only debug information knows it.
  mutating func inlined(_ name: DebugName) -> String? {
    (name.linkageName ?? name.plainName).map { demangled($0) }
  }

  /// The name of a function that has code of its own at an address of libdwfl's.
  ///
  /// gcc leaves out the linkage names of what is in an anonymous namespace, and of some
  /// destructors. The symbol table has them, and `~Square` is not enough for a reader.
  mutating func function(_ name: DebugName, at address: UInt64) -> String? {
    if name.linkageName == nil, let symbol = symbols.name(at: address), symbol.hasPrefix("_Z") {
      return demangled(symbol)
    }
    return inlined(name)
  }

  private mutating func demangled(_ symbol: String) -> String {
    if let known = demangledNames[symbol] { return known }
    let demangled = demangler.demangled(symbol)
    demangledNames[symbol] = demangled
    return demangled
  }
}
