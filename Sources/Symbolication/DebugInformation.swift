// SPDX-License-Identifier: Apache-2.0
// Functions, lines and inlined calls by DWARF, for many addresses of one file.

import CElfutils

/// The debug information of a file, looked up by addresses in libdwfl's address space.
///
/// Not by `dwarf_addrdie` and `dwarf_getscopes`. The first needs `.debug_aranges`, which Swift and
/// clang do not write. The second walks a whole unit for each address, and a Swift module may be
/// one unit. Instead: one table of all units' ranges, one of functions for each unit that an
/// address falls in, one of inlined calls for each function. Each is built when first needed.
@safe final class DebugInformation {
  /// Whether there are no units, as in a file that was built without `-g`.
  var isEmpty: Bool { units.isEmpty }
  /// Whether the units ended in bytes that make no sense. Those before were kept.
  private(set) var isDamaged = false

  /// Where a `.dwo` file should be that is not there; `nil` where none is missing.
  private(set) var missingSplitFile: String?
  /// Where the file should be that dwz moved parts to; `nil` where there is none, or it is there.
  private(set) var missingSharedFile: String?

  private let units: [DebugUnit]
  private let unitNumbers: RangeTable<Int>
  /// Add this to an address of the debug information for one of libdwfl's.
  private let bias: UInt64
  /// Keeps libdwfl's memory alive, in which every DIE and string lies.
  private let file: ObjectFile

  /// - Returns: `nil` where neither the file nor a debug file of it has debug information.
  init?(of file: ObjectFile) {
    var bias: Dwarf_Addr = 0
    guard let dwarf = unsafe dwfl_module_getdwarf(file.module, &bias) else { return nil }
    self.file = file
    self.bias = bias
    // Linkers leave the debug information of functions that they removed, at address 0 or so.
    let code = CodeRanges(file.code, bias: bias)

    var units: [DebugUnit] = []
    var ranges: [(Range<UInt64>, Int)] = []
    var previous: OpaquePointer? = nil
    while true {
      var next: OpaquePointer? = nil
      var die = unsafe Dwarf_Die()
      var splitDie = unsafe Dwarf_Die()
      var kind: UInt8 = 0
      let status = unsafe dwarf_get_units(dwarf, previous, &next, nil, &kind, &die, &splitDie)
      guard status == 0 else {
        isDamaged = status < 0
        break
      }
      unsafe previous = next
      let isSkeleton = Int(kind) == DW_UT_skeleton
      let isSplit = unsafe isSkeleton && splitDie.addr != nil
      let own = unsafe code.ranges(of: &die)
      // Swift's and clang's units for modules look the same, and have no code.
      if isSkeleton && !isSplit && !own.isEmpty && missingSplitFile == nil {
        missingSplitFile = unsafe Self.splitFile(of: &die)
      }
      for range in own { ranges.append((range, units.count)) }
      units.append(unsafe DebugUnit(lines: die, scopes: isSplit ? splitDie : die, code: code))
    }
    self.units = units
    unitNumbers = RangeTable(ranges)
    missingSharedFile = unsafe Self.missingSharedFile(of: dwarf)
  }

  /// Where the compiler put the rest of a unit, as the unit says.
  private static func splitFile(of die: inout Dwarf_Die) -> String {
    let name =
      unsafe string(of: DW_AT_dwo_name, in: &die) ?? string(of: DW_AT_GNU_dwo_name, in: &die)
    guard let name, !name.hasPrefix("/"),
      let directory = unsafe string(of: DW_AT_comp_dir, in: &die)
    else { return name ?? "" }
    return directory + "/" + name
  }

  private static func missingSharedFile(of dwarf: OpaquePointer) -> String? {
    var name: UnsafePointer<CChar>?
    var buildID: UnsafeRawPointer?
    guard unsafe dwelf_dwarf_gnu_debugaltlink(dwarf, &name, &buildID) > 0,
      unsafe dwarf_getalt(dwarf) == nil, let name = unsafe name
    else { return nil }
    return unsafe String(cString: name)
  }

  /// The calls at an address, innermost first. Empty where there is no debug information.
  func calls(at address: UInt64, names: inout FunctionNames) -> [Call] {
    let address = address &- bias
    // Of functions that the linker folded into one each unit has its own. Any is right; as in other
    // tools it is the first unit's.
    var numbers: [Int] = []
    _ = unitNumbers.first(at: address) { number -> Void? in
      numbers.append(number)
      return nil
    }
    for number in numbers.sorted() {
      let calls = units[number].calls(at: address, bias: bias, names: &names)
      if !calls.isEmpty { return calls }
    }
    return []
  }
}

/// Where the code of a file may be.
struct CodeRanges {
  private let code: [Range<UInt64>]

  /// - Parameter bias: What the debug information's addresses lack of those of `code`.
  init(_ code: [Range<UInt64>], bias: UInt64) {
    self.code = code.compactMap {
      let (start, limit) = ($0.lowerBound &- bias, $0.upperBound &- bias)
      return start < limit ? start..<limit : nil
    }
  }

  /// The ranges of a DIE that lie in code; none for a declaration, or for what was removed.
  func ranges(of die: inout Dwarf_Die) -> [Range<UInt64>] {
    var ranges: [Range<UInt64>] = []
    var base: Dwarf_Addr = 0
    var start: Dwarf_Addr = 0
    var limit: Dwarf_Addr = 0
    var offset = unsafe dwarf_ranges(&die, 0, &base, &start, &limit)
    while offset > 0 {
      if start < limit, code.contains(where: { $0.contains(start) }) {
        ranges.append(start..<limit)
      }
      offset = unsafe dwarf_ranges(&die, offset, &base, &start, &limit)
    }
    return ranges
  }
}
