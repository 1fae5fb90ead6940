// SPDX-License-Identifier: Apache-2.0
// Reading debug information entries (DIEs), which form a tree.

import CElfutils

/// The names of a function; in C there is only a plain one.
///
/// Follows from an inlined or out-of-line copy to the abstract function, and on to the declaration.
func debugName(of die: inout Dwarf_Die) -> DebugName {
  let linkageName =
    unsafe string(of: DW_AT_linkage_name, in: &die)
    ?? string(of: DW_AT_MIPS_linkage_name, in: &die)
  let plainName = linkageName == nil ? unsafe string(of: DW_AT_name, in: &die) : nil
  return DebugName(linkageName: linkageName, plainName: plainName)
}

/// The value of a string, in this entry or in those that it was made from; `nil` if it is empty.
func string(of attribute: Int, in die: inout Dwarf_Die) -> String? {
  var value = unsafe Dwarf_Attribute()
  guard unsafe dwarf_attr_integrate(&die, UInt32(attribute), &value) != nil,
    let string = unsafe dwarf_formstring(&value), unsafe string.pointee != 0
  else { return nil }
  return unsafe String(cString: string)
}

/// The value of a number that stands in this very entry.
func unsignedValue(of attribute: Int, in die: inout Dwarf_Die) -> Int? {
  var value = unsafe Dwarf_Attribute()
  var number: Dwarf_Word = 0
  guard unsafe dwarf_attr(&die, UInt32(attribute), &value) != nil,
    unsafe dwarf_formudata(&value, &number) == 0
  else { return nil }
  return Int(exactly: number)
}

/// What to do about the children of an entry.
enum Descent<Context> {
  /// Visit them, with this as their context.
  case descend(Context)
  case skip
}

/// Visits the entries below one, parents before children.
///
/// Not recursive, since the depth is the file's to choose; and only ever forward in the file,
/// since an entry may claim any other as its sibling.
func walk<Context>(
  below root: Dwarf_Die, context: Context,
  visit: (inout Dwarf_Die, Context) -> Descent<Context>
) {
  var die = unsafe root
  var child = unsafe Dwarf_Die()
  guard unsafe dwarf_child(&die, &child) == 0 else { return }
  var path = unsafe [(die: child, context: context)]
  while let (entry, context) = unsafe path.popLast() {
    var die = unsafe entry
    var sibling = unsafe Dwarf_Die()
    let descent = unsafe visit(&die, context)
    if unsafe dwarf_siblingof(&die, &sibling) == 0,
      unsafe dwarf_dieoffset(&sibling) > dwarf_dieoffset(&die)
    {
      unsafe path.append((sibling, context))
    }
    if case .descend(let context) = descent, unsafe dwarf_child(&die, &child) == 0 {
      unsafe path.append((child, context))
    }
  }
}
