// SPDX-License-Identifier: Apache-2.0
// Names of functions by the ELF symbol table, for files without debug information.

import CElfutils
import Glibc

/// The functions of a file by address, in libdwfl's address space.
///
/// From `.symtab`, of the file or of its debug file, or else `.dynsym`. Read once and sorted:
/// libdwfl's own lookup walks the whole table for each address.
struct SymbolTable {
  private struct Symbol {
    var start: UInt64
    var limit: UInt64
    /// Whether the table says so. For some assembly it does not: then the limit is the section's.
    var isLimitKnown: Bool
    var name: String
    /// Weak after global, local last: which name wins at an address that has several.
    var bindingRank: Int
  }

  private let table: RangeTable<String>

  init(of file: ObjectFile) {
    var symbols: [Symbol] = []
    let module = unsafe file.module
    for index in 0..<max(unsafe dwfl_module_getsymtab(module), 0) {
      if let symbol = unsafe Self.function(index, of: module) { symbols.append(symbol) }
    }
    symbols.sort { Self.precedes($0, $1) }

    var ranges: [(Range<UInt64>, String)] = []
    for (index, symbol) in symbols.enumerated() {
      // The others at the same address are aliases.
      if index > 0, symbols[index - 1].start == symbol.start { continue }
      var limit = symbol.limit
      if !symbol.isLimitKnown,
        let next = symbols[index...].first(where: { $0.start > symbol.start })
      {
        limit = min(limit, next.start)
      }
      if limit > symbol.start { ranges.append((symbol.start..<limit, symbol.name)) }
    }
    table = RangeTable(ranges)
  }

  func name(at address: UInt64) -> String? { table.value(at: address) }

  private static func function(_ index: CInt, of module: OpaquePointer) -> Symbol? {
    var symbol = GElf_Sym()
    var address: GElf_Addr = 0
    var section: GElf_Word = 0
    var elf: OpaquePointer?
    var bias: Dwarf_Addr = 0
    guard
      let name = unsafe dwfl_module_getsym_info(
        module, index, &symbol, &address, &section, &elf, &bias),
      unsafe name.pointee != 0, Int(symbol.st_shndx) != SHN_UNDEF
    else { return nil }
    let binding = CInt(symbol.st_info >> 4)
    switch CInt(symbol.st_info & 15) {
    case STT_FUNC, STT_GNU_IFUNC: break
    // Assembly often has no type. AArch64's mapping symbols ($x, $d) are local.
    case STT_NOTYPE where binding != STB_LOCAL: break
    default: return nil
    }
    let isLimitKnown = symbol.st_size > 0
    let limit =
      isLimitKnown
      ? address.saturatingSum(symbol.st_size)
      : unsafe Self.limit(ofSection: section, in: elf).map { $0 &+ bias } ?? address
    return Symbol(
      start: address, limit: limit, isLimitKnown: isLimitKnown, name: unsafe String(cString: name),
      bindingRank: binding == STB_GLOBAL ? 0 : binding == STB_WEAK ? 1 : 2)
  }

  /// The address after a section's last; `nil` where the file has lost its sections.
  private static func limit(ofSection index: GElf_Word, in elf: OpaquePointer?) -> UInt64? {
    var header = GElf_Shdr()
    guard let section = unsafe elf_getscn(elf, Int(index)),
      unsafe gelf_getshdr(section, &header) != nil
    else { return nil }
    return header.sh_addr.saturatingSum(header.sh_size)
  }

  /// By address, and at one address the name to show first: `malloc`, not `__libc_malloc`.
  private static func precedes(_ a: Symbol, _ b: Symbol) -> Bool {
    guard a.start == b.start else { return a.start < b.start }
    func rank(_ symbol: Symbol) -> (Int, Int, Int, Int) {
      let underscores = symbol.name.utf8.prefix { $0 == UInt8(ascii: "_") }.count
      return (symbol.isLimitKnown ? 0 : 1, underscores, symbol.bindingRank, symbol.name.utf8.count)
    }
    let (first, second) = (rank(a), rank(b))
    return first == second ? a.name < b.name : first < second
  }
}
