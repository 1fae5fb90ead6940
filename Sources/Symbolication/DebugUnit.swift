// SPDX-License-Identifier: Apache-2.0
// One unit of debug information: its functions, and what was inlined into them.

import CElfutils
import Glibc

/// A compilation unit. What it knows of functions is read when it is first asked.
@safe final class DebugUnit {
  /// Has the line table. Differs from `scopes` where most of the unit is in a `.dwo` file.
  private var lines: Dwarf_Die
  /// Has the functions.
  private var scopes: Dwarf_Die
  private let code: CodeRanges

  private lazy var functions = unsafe RangeTable(functionRanges())
  private lazy var compilationDirectory = unsafe string(of: DW_AT_comp_dir, in: &lines)
  private lazy var files = unsafe sourceFiles()
  /// The function of the last address: addresses come sorted.
  private var current: InlinedCalls?

  init(lines: Dwarf_Die, scopes: Dwarf_Die, code: CodeRanges) {
    unsafe self.lines = lines
    unsafe self.scopes = scopes
    self.code = code
  }

  /// The calls at an address, innermost first; empty if the unit knows neither function nor line.
  ///
  /// - Parameter bias: Add it to the address for one of libdwfl's.
  func calls(at address: UInt64, bias: UInt64, names: inout FunctionNames) -> [Call] {
    guard let function = unsafe functions.value(at: address) else {
      let (file, line) = sourceLine(at: address)
      return file == nil ? [] : [Call(file: file, line: line)]
    }

    if unsafe current?.function.addr != function.addr {
      current = unsafe InlinedCalls(in: function, code: code)
    }
    let isResumed = current!.entry == address && current!.name.isResumedPart
    let address = isResumed ? resumption(at: address) : address
    let (file, line) = sourceLine(at: address)
    var innermost = Call(file: file, line: line)
    var calls: [Call] = []
    for inlined in current!.chain(at: address) {
      innermost.function = names.inlined(inlined.name)
      calls.append(innermost)
      // Where the inlined call was made is where its caller had got to.
      innermost = Call(file: inlined.callFile.flatMap { fileName($0) }, line: inlined.callLine)
    }
    innermost.function = names.function(current!.name, at: address &+ bias)
    calls.append(innermost)
    return calls
  }

  // MARK: Lines

  private func sourceLine(at address: UInt64) -> (file: String?, line: Int?) {
    guard let row = unsafe dwarf_getsrc_die(&lines, address) else { return (nil, nil) }
    var line: CInt = 0
    guard let file = unsafe dwarf_linesrc(row, nil, nil), unsafe dwarf_lineno(row, &line) == 0
    else { return (nil, nil) }
    return (unsafe absolute(file), Int(line))
  }

  /// The place in the current function that tells where its `await` is.
  ///
  /// Who awaits a Swift async function goes on at the first instruction of a part. The compiler gives
  /// that instruction the line of the `await`; but where the `await` was inlined, that line without its
  /// file and its callers, or the line that the function begins on, or none. Then the first place that
  /// was written by somebody has them.
  private func resumption(at entry: UInt64) -> UInt64 {
    let current = current!
    let claimed = sourceLine(at: entry).line ?? 0
    let isKnown = claimed != 0 && claimed != current.declarationLine
    var table: OpaquePointer?
    var count = 0
    guard unsafe dwarf_getsrclines(&lines, &table, &count) == 0 else { return entry }
    func row(_ number: Int) -> (address: UInt64, line: CInt, column: CInt) {
      var address: Dwarf_Addr = 0
      var (line, column): (CInt, CInt) = (0, 0)
      guard let row = unsafe dwarf_onesrcline(table, number),
        unsafe dwarf_lineaddr(row, &address) == 0
      else { return (.max, 0, 0) }
      _ = unsafe dwarf_lineno(row, &line)
      _ = unsafe dwarf_linecol(row, &column)
      return (address, line, column)
    }
    // libdw has sorted them by address.
    var (low, high) = (0, count)
    while low < high {
      let middle = (low + high) / 2
      if row(middle).address < entry { low = middle + 1 } else { high = middle }
    }
    for number in low..<count {
      let (address, line, column) = row(number)
      guard current.contains(address) else { break }
      let inlined = current.chain(at: address)
      if isKnown {
        // Column 0 is what the compiler has made up.
        if line == 0 || inlined.isEmpty && column == 0 { continue }
        return !inlined.isEmpty && Int(line) == claimed ? address : entry
      }
      if inlined.last.map({ $0.callLine ?? 0 > 0 }) ?? (line != 0 && column != 0) { return address }
    }
    return entry
  }

  private func sourceFiles() -> (table: OpaquePointer, count: Int)? {
    var table: OpaquePointer?
    var count = 0
    guard unsafe dwarf_getsrcfiles(&scopes, &table, &count) == 0, let table = unsafe table else {
      return nil
    }
    return unsafe (table, count)
  }

  /// The path of a file by its number, as DIEs of this unit count.
  private func fileName(_ number: Int) -> String? {
    guard let files = unsafe files, (0..<(unsafe files.count)).contains(number),
      let name = unsafe dwarf_filesrc(files.table, number, nil, nil)
    else { return nil }
    // What libdw says for number 0 before DWARF 5, where it means that nobody knows.
    return unsafe strcmp(name, "???") == 0 ? nil : absolute(name)
  }

  /// A path of the line table, which may be relative to where the compiler was run.
  ///
  /// Not resolved further: `..` may have been past a symbolic link of the build machine.
  private func absolute(_ path: UnsafePointer<CChar>) -> String {
    let path = unsafe String(cString: path)
    // Swift says that this lies in the root directory, and libdw adds a slash to that.
    if path.hasSuffix("/<compiler-generated>") { return "<compiler-generated>" }
    guard !path.hasPrefix("/"), let compilationDirectory else { return path }
    return compilationDirectory + "/" + path
  }

  // MARK: Functions

  private func functionRanges() -> [(Range<UInt64>, Dwarf_Die)] {
    var functions = unsafe [(Range<UInt64>, Dwarf_Die)]()
    unsafe walk(below: scopes, context: ()) { die, _ in
      switch unsafe Int(dwarf_tag(&die)) {
      case DW_TAG_subprogram:
        for range in unsafe code.ranges(of: &die) { unsafe functions.append((range, die)) }
        return .descend(())
      // Where a function may be inside: nested functions, methods, closures.
      case DW_TAG_namespace, DW_TAG_module, DW_TAG_class_type, DW_TAG_structure_type,
        DW_TAG_union_type, DW_TAG_interface_type, DW_TAG_enumeration_type, DW_TAG_lexical_block:
        return .descend(())
      default:
        return .skip
      }
    }
    return unsafe functions
  }
}
