// SPDX-License-Identifier: Apache-2.0
// Functions without names, known by the function that they are written in.

/// Turns demangled names of what is written inside a function into the function's name.
enum NestedNames {
  /// `specialized closure #1 in closure #2 in foo()` is a part of `specialized foo()`.
  ///
  /// Local functions stay: they have names.
  static func swift(_ name: String) -> String {
    // Most names have none, and looking is cheaper than rebuilding.
    guard name.contains("closure #") || name.contains("$defer #") else { return name }
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

  /// `foo::{closure#0}::{closure#0}` and `foo::{{closure}}` are parts of `foo`; so are the bodies of
  /// asynchronous functions. Without the types that a generic function was made for.
  static func rust(_ name: String) -> String {
    var result = ""
    var depth = 0
    var rest = name[...]
    while let character = rest.first {
      if depth == 0, rest.hasPrefix("::{closure") || rest.hasPrefix("::{{closure") { break }
      if depth == 0, rest.hasPrefix("::<"), let end = closing(rest.dropFirst(2)) {
        rest = rest[end...]
        continue
      }
      depth += nesting(character, after: result.last)
      result.append(character)
      rest = rest.dropFirst()
    }
    return result.isEmpty ? name : result
  }

  /// `foo(int)::{lambda(int)#1}::operator()(int) const` is a part of `foo(int)`.
  static func cxx(_ name: String) -> String {
    guard name.contains("::{lambda(") else { return name }
    var depth = 0
    var last: Character?
    for index in name.indices {
      if depth == 0, index > name.startIndex, name[index...].hasPrefix("::{lambda(") {
        return String(name[..<index])
      }
      depth += nesting(name[index], after: last)
      last = name[index]
    }
    return name
  }

  /// The place after the bracket that closes the first one.
  private static func closing(_ text: Substring) -> Substring.Index? {
    var depth = 0
    var last: Character?
    for index in text.indices {
      depth += nesting(text[index], after: last)
      if depth == 0 { return text.index(after: index) }
      last = text[index]
    }
    return nil
  }

  /// By how much a character changes the depth of brackets; `->` is no bracket.
  private static func nesting(_ character: Character, after last: Character?) -> Int {
    switch character {
    case "<", "(", "[": 1
    case ">" where last != "-", ")", "]": -1
    default: 0
    }
  }
}
