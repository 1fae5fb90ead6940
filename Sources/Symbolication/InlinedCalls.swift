// SPDX-License-Identifier: Apache-2.0
// What the compiler inlined into one function.

import CElfutils

/// The inlined calls of one function, and the function's own name.
@safe struct InlinedCalls {
  @safe private struct Inlined {
    var die: Dwarf_Die
    var ranges: [Range<UInt64>]
    /// The inlined call that this one was inlined into, by number; `nil`: the function itself.
    var parent: Int?
  }

  /// One step from an inlined function to the function that it was inlined into.
  struct Link {
    /// The inlined function's name.
    var name: DebugName
    /// Where the call is, in the function that it was inlined into. The file is a number, which
    /// the unit knows.
    var callFile: Int?
    var callLine: Int?
  }

  let function: Dwarf_Die
  let name: DebugName
  /// The address of its first instruction, and the line that it is declared on.
  let entry: UInt64?
  let declarationLine: Int?
  private let ranges: [Range<UInt64>]
  private let inlined: [Inlined]

  init(in function: Dwarf_Die, code: CodeRanges) {
    unsafe self.function = function
    var die = unsafe function
    name = unsafe debugName(of: &die)
    ranges = unsafe code.ranges(of: &die)
    var entry: Dwarf_Addr = 0
    self.entry = unsafe dwarf_entrypc(&die, &entry) == 0 ? entry : nil
    var line: CInt = 0
    declarationLine = unsafe dwarf_decl_line(&die, &line) == 0 ? Int(line) : nil

    var inlined: [Inlined] = []
    unsafe walk(below: function, context: Int?.none) { die, parent in
      switch unsafe Int(dwarf_tag(&die)) {
      case DW_TAG_inlined_subroutine:
        inlined.append(unsafe Inlined(die: die, ranges: code.ranges(of: &die), parent: parent))
        return .descend(inlined.count - 1)
      case DW_TAG_lexical_block, DW_TAG_try_block, DW_TAG_catch_block:
        return .descend(parent)
      default:
        return .skip
      }
    }
    self.inlined = inlined
  }

  func contains(_ address: UInt64) -> Bool { ranges.contains { $0.contains(address) } }

  /// The inlined calls at an address, innermost first.
  func chain(at address: UInt64) -> [Link] {
    var chain: [Link] = []
    // Each comes after the one it was inlined into: the last that holds the address is innermost.
    var number = inlined.lastIndex { $0.ranges.contains { $0.contains(address) } }
    while let current = number {
      var die = unsafe inlined[current].die
      chain.append(
        Link(
          name: unsafe debugName(of: &die),
          callFile: unsafe unsignedValue(of: DW_AT_call_file, in: &die),
          callLine: unsafe unsignedValue(of: DW_AT_call_line, in: &die)))
      number = inlined[current].parent
    }
    return chain
  }
}
