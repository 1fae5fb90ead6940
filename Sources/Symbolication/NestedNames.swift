// SPDX-License-Identifier: Apache-2.0
// Functions without names, known by the function that they are written in.

/// Turns demangled names of what is written inside a function into the function's name.
enum NestedNames {
  /// `specialized closure #1 in closure #2 in foo()` is a part of `specialized foo()`.
  ///
  /// Local functions stay: they have names.
  static func swift(_ name: String) -> String {
    // Most names have none, and looking is cheaper than rebuilding.
    let bytes = ByteText(name)
    guard bytes.contains("closure #") || bytes.contains("$defer #") else { return name }
    var kept: [Substring] = []
    var rest = name[...]
    while !rest.isEmpty {
      if let inner = closureEnd(in: rest) {
        rest = rest[inner...]
        // A thunk to a closure is not one to its function.
        if kept.suffix(3) == ["partial ", "apply ", "for "] { kept.removeLast(3) }
      } else {
        let word = rest.prefix { $0 != " " }
        kept.append(
          rest[
            ..<(rest[word.endIndex...].first == nil
              ? word.endIndex : rest.index(after: word.endIndex))])
        rest = rest[kept.last!.endIndex...]
      }
    }
    let joined = kept.joined()
    // A closure in top-level code lies in the module, whose name this style leaves out.
    return joined.isEmpty || joined.hasSuffix(" ") ? joined + "main" : joined
  }

  /// Where the text goes on after `closure #1 in `, `implicit closure #1 in ` or `$defer #1 in `.
  private static func closureEnd(in text: Substring) -> Substring.Index? {
    let start = text.hasPrefix("implicit ") ? text.dropFirst("implicit ".count) : text
    guard start.hasPrefix("closure #") || start.hasPrefix("$defer #"),
      let end = start.firstRange(of: " in ")
    else { return nil }
    return end.upperBound
  }
}
