// SPDX-License-Identifier: Apache-2.0
// Names of C++ and Rust without what they were made for.

/// Shortens demangled names of functions whose full names spell out every type.
///
/// Both keep the path to the function, which is what somebody looks for, and put `<…>` for the types
/// that a template or a generic type was made for. What is written inside a function, a lambda or a
/// closure, has the function's name. A name that is not understood stays as it is.
enum ShortNames {
  /// `std::vector<…>::push_back` of `void std::vector<int, …>::push_back(int const&)`.
  ///
  /// Without the types of parameters and result, and without the function's own qualifiers.
  static func cxx(_ name: String) -> String {
    let text = ByteText(name)
    var result: [UInt8] = []
    var position = 0
    reading: while position < text.count {
      if let byteCount = text.cxxOperator(at: position) {
        let limit = position + byteCount
        if text.has("operator ", at: position), text.bracket("<", in: position..<limit) {
          // A conversion to a type that may have arguments of its own.
          result += text.withoutArguments(position..<limit)
        } else {
          result += text[position..<limit]
        }
        position = limit
        // `operator< <int>`: this blank does not end the type of a result.
        if text.has(" <", at: position) {
          result.append(UInt8(ascii: " "))
          position += 1
        }
        continue
      }
      switch text[position] {
      case UInt8(ascii: "<"):
        result += ByteText.leftOut
        position = text.closing(position)
      case UInt8(ascii: "("):
        let end = text.closing(position)
        if text.has("(anonymous namespace)", at: position) {
          result += text[position..<end]
          position = end
          continue
        }
        position = end
        // Not a list of parameters: `decltype (…)`, or a pointer to a function as the result.
        if result.isEmpty || result.elementsEqual("decltype".utf8) { continue }
        // What follows is inside this function, or of no interest: const, [clone .cold].
        position = text.afterQualifiers(position)
        guard text.has("::", at: position) else { break reading }
      case UInt8(ascii: "["):
        // `[abi:cxx11]`.
        position = text.closing(position)
      case UInt8(ascii: "{"):
        if !result.isEmpty, text.has("{lambda(", at: position) {
          if result.hasSuffix("::") { result.removeLast(2) }
          break reading
        }
        let end = text.closing(position)
        result += text[position..<end]
        position = end
      case UInt8(ascii: " "):
        // What came before is the type of the result.
        result.removeAll(keepingCapacity: true)
        position += 1
      case let byte:
        result.append(byte)
        position += 1
      }
    }
    return result.isEmpty ? name : String(decoding: result, as: UTF8.self)
  }

  /// `<alloc::vec::Vec<…> as Extend<…>>::extend` of
  /// `<alloc::vec::Vec<u8> as Extend<&u8>>::extend::<Iter<u8>>`.
  ///
  /// `foo::{closure#0}::{closure#0}` and `foo::{{closure}}` are parts of `foo`; so are the bodies of
  /// asynchronous functions.
  static func rust(_ name: String) -> String {
    let text = ByteText(name)
    var result: [UInt8] = []
    var depth = 0
    var position = 0
    while position < text.count {
      if depth == 0, text.has("::{closure", at: position) || text.has("::{{closure", at: position) {
        break
      }
      let byte = text[position]
      if text.has("::<", at: position) {
        position = text.closing(position + 2)
        continue
      }
      if byte == UInt8(ascii: "<"), result.last.map(ByteText.isWord) == true {
        result += ByteText.leftOut
        position = text.closing(position)
        continue
      }
      depth += text.nesting(at: position)
      result.append(byte)
      position += 1
    }
    return result.isEmpty ? name : String(decoding: result, as: UTF8.self)
  }
}

/// A text by its bytes: characters cost ten times as much to step over, and brackets are ASCII.
struct ByteText {
  /// What stands for the arguments of a template or a generic type.
  static let leftOut = Array("<…>".utf8)

  private let bytes: [UInt8]

  init(_ text: String) {
    bytes = Array(text.utf8)
  }

  var count: Int { bytes.count }
  subscript(position: Int) -> UInt8 { bytes[position] }
  subscript(range: Range<Int>) -> ArraySlice<UInt8> { bytes[range] }

  func has(_ part: StaticString, at position: Int) -> Bool {
    guard part.utf8CodeUnitCount <= bytes.count - position else { return false }
    for index in 0..<part.utf8CodeUnitCount
    where unsafe part.utf8Start[index] != bytes[position + index] { return false }
    return true
  }

  func contains(_ part: StaticString) -> Bool {
    let first = unsafe part.utf8Start.pointee
    return bytes.indices.contains { bytes[$0] == first && has(part, at: $0) }
  }

  func bracket(_ opening: Unicode.Scalar, in range: Range<Int>) -> Bool {
    bytes[range].contains(UInt8(ascii: opening))
  }

  static func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "_"), UInt8(ascii: "$"), 0x80...0xff:
      true
    default: false
    }
  }

  /// The position after the bracket that closes the one here; the end where nothing closes it.
  ///
  /// In angle brackets round ones are skipped whole, since only there may a `>` be a comparison.
  func closing(_ start: Int) -> Int {
    let closer: UInt8 =
      switch bytes[start] {
      case UInt8(ascii: "("): UInt8(ascii: ")")
      case UInt8(ascii: "<"): UInt8(ascii: ">")
      case UInt8(ascii: "["): UInt8(ascii: "]")
      default: UInt8(ascii: "}")
      }
    var depth = 0
    // Not recursive: the depth is the name's to choose.
    var round = 0
    var position = start
    while position < bytes.count {
      let byte = bytes[position]
      if closer == UInt8(ascii: ">") {
        if byte == UInt8(ascii: "(") { round += 1 }
        if byte == UInt8(ascii: ")") { round -= 1 }
        if round == 0, let byteCount = cxxOperator(at: position), byteCount > 8,
          !Self.isWord(bytes[position + 8]), bytes[position + 8] != UInt8(ascii: " ")
        {
          position += byteCount
          continue
        }
      }
      if round <= 0 {
        if byte == bytes[start] { depth += 1 }
        if byte == closer, !isArrow(position) { depth -= 1 }
      }
      position += 1
      if depth == 0 { return position }
    }
    return bytes.count
  }

  /// By how much a byte changes the depth of brackets; `->` is no bracket.
  func nesting(at position: Int) -> Int {
    switch bytes[position] {
    case UInt8(ascii: "<"), UInt8(ascii: "("), UInt8(ascii: "["): 1
    case UInt8(ascii: ">") where isArrow(position): 0
    case UInt8(ascii: ">"), UInt8(ascii: ")"), UInt8(ascii: "]"): -1
    default: 0
    }
  }

  private func isArrow(_ position: Int) -> Bool {
    bytes[position] == UInt8(ascii: ">") && position > 0
      && bytes[position - 1] == UInt8(ascii: "-")
  }

  /// The position after ` const`, ` volatile`, ` &` and ` &&`, as far as they are there.
  func afterQualifiers(_ start: Int) -> Int {
    var position = start
    while true {
      if has(" const", at: position) {
        position += 6
      } else if has(" volatile", at: position) {
        position += 9
      } else if has(" &&", at: position) {
        position += 3
      } else if has(" &", at: position) {
        position += 2
      } else {
        return position
      }
    }
  }

  /// The bytes with `<…>` for what is in angle brackets.
  func withoutArguments(_ range: Range<Int>) -> [UInt8] {
    var result: [UInt8] = []
    var position = range.lowerBound
    while position < range.upperBound {
      if bytes[position] == UInt8(ascii: "<") {
        result += Self.leftOut
        position = closing(position)
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return result
  }

  // MARK: Operators of C++

  /// The longer before what they begin with.
  private static let operators: [StaticString] = [
    "<=>", "<<=", ">>=", "->*", "()", "[]", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||",
    "++", "--", "+=", "-=", "*=", "/=", "%=", "^=", "&=", "|=", "+", "-", "*", "/", "%", "^", "&",
    "|", "~", "!", "=", "<", ">", ",",
  ]

  /// How many bytes are `operator` and what belongs to it, a sign or a type; `nil` where none begins.
  func cxxOperator(at position: Int) -> Int? {
    guard bytes[position] == UInt8(ascii: "o"), has("operator", at: position),
      position == 0 || !Self.isWord(bytes[position - 1])
    else { return nil }
    let after = position + 8
    guard after < bytes.count, !Self.isWord(bytes[after]) else { return nil }
    // `operator new[](unsigned long)`, `operator bool() const`, `operator"" _km(double)`.
    if bytes[after] == UInt8(ascii: " ") || bytes[after] == UInt8(ascii: "\"") {
      var end = after
      while end < bytes.count, bytes[end] != UInt8(ascii: "(") {
        if bytes[end] == UInt8(ascii: "<") { end = closing(end) } else { end += 1 }
      }
      return end - position
    }
    for sign in Self.operators where has(sign, at: after) { return 8 + sign.utf8CodeUnitCount }
    return nil
  }
}

extension Array<UInt8> {
  fileprivate func hasSuffix(_ part: StaticString) -> Bool {
    part.utf8CodeUnitCount <= count && ByteText(self).has(part, at: count - part.utf8CodeUnitCount)
  }
}

extension ByteText {
  fileprivate init(_ bytes: [UInt8]) { self.bytes = bytes }
}
