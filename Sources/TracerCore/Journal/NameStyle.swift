// SPDX-License-Identifier: Apache-2.0
// Names of functions, cut to what fits between two others on a line.

import CTracerPlatform

/// Shortens names. Types of parameters and results go, labels and the path to the function stay.
package enum NameStyle {
  /// Bytes of a name on a line, at most.
  package static var byteLimit: Int { 120 }
  private static var scratchByteCount: Int { 1024 }

  static func isSwift(_ name: UnsafeRawBufferPointer) -> Bool {
    name.after("$s") != nil || name.after("$S") != nil || name.after("_$s") != nil
      || name.after("_$S") != nil || name.after("$e") != nil || name.after("_T0") != nil
  }

  /// Appends a name as it is, and `…` for what is too long of it.
  package static func appendCut(_ name: UnsafeRawBufferPointer, to text: inout TextBuffer) {
    let kept = name.prefixOfCharacters(byteLimit)
    text.append(kept)
    if kept.count < name.count { text.append("…") }
  }

  private static func composing(
    _ text: inout TextBuffer, _ body: (inout TextBuffer) -> Bool
  ) -> Bool {
    var bytes = InlineArray<1024, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      var scratch = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: scratchByteCount)
      guard body(&scratch), scratch.count > 0 else { return false }
      appendCut(scratch.bytes, to: &text)
      return true
    }
  }

  // MARK: C++

  /// `std::vector<…>::push_back` of `void std::vector<int, …>::push_back(int const&)`.
  package static func appendCxx(_ name: UnsafeRawBufferPointer, to text: inout TextBuffer) {
    let isShort = composing(&text) { scratch in
      var position = 0
      while position < name.count {
        let rest = name.dropping(position)
        if let after = rest.after("operator"), isOperator(after) {
          let byteCount = 8 &+ operatorByteCount(after)
          scratch.append(UnsafeRawBufferPointer(rebasing: rest[..<byteCount]))
          position &+= byteCount
          // `operator< <int>`: this blank does not end the type of a result.
          if rest.dropping(byteCount).after(" <") != nil {
            scratch.append(" ")
            position &+= 1
          }
          continue
        }
        if rest.after("(anonymous namespace)") != nil {
          scratch.append("(anonymous namespace)")
          position &+= 21
          continue
        }
        switch name[position] {
        case 0x3c:  // <
          scratch.append("<…>")
          position &+= bracketed(rest)
        case 0x28:  // (
          position &+= bracketed(rest)
          // What follows is inside this function, or of no interest: const, [clone .cold].
          guard position < name.count, name[position] == 0x3a || name[position] == 0x23 else {
            return true
          }
        case 0x20:  // what came before is the type of the result
          scratch.clear()
          position &+= 1
        default:
          scratch.append(name[position])
          position &+= 1
        }
      }
      return true
    }
    if !isShort { appendCut(name, to: &text) }
  }

  private static func isOperator(_ after: UnsafeRawBufferPointer) -> Bool {
    guard let next = after.first else { return false }
    return !isWord(next)
  }

  /// How much after the word `operator` belongs to it: a sign, or a type up to the parameters.
  private static func operatorByteCount(_ after: UnsafeRawBufferPointer) -> Int {
    if after.after("()") != nil || after.after("[]") != nil { return 2 }
    var count = 0
    if after[0] == 0x20 || after[0] == 0x22 {
      while count < after.count, after[count] != 0x28 { count &+= 1 }
      return count
    }
    while count < min(3, after.count), after[count] != 0x28, !isWord(after[count]),
      after[count] != 0x20
    {
      // The longest are `operator<=>` and `operator->*`.
      count &+= 1
    }
    return count
  }

  /// The length of what a bracket opens, its end included; all of it where nothing closes it.
  ///
  /// Only brackets of its own kind are counted: Swift's demangler leaves others open.
  private static func bracketed(_ text: UnsafeRawBufferPointer) -> Int {
    let opening = text[0]
    let closing: UInt8
    switch opening {
    case 0x28: closing = 0x29
    case 0x3c: closing = 0x3e
    default: closing = 0x5d
    }
    var depth = 0
    var position = 0
    while position < text.count {
      let isArrow = closing == 0x3e && position > 0 && text[position &- 1] == 0x2d
      if text[position] == opening { depth &+= 1 }
      if text[position] == closing, !isArrow { depth &-= 1 }
      position &+= 1
      if depth == 0 { return position }
    }
    return text.count
  }

  private static func isWord(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x5f, 0x24, 0x80...0xff: true
    default: false
    }
  }

  /// Names of plain C++, without a demangler: `a::b` of `_ZN1a1bEv`, `f` of `_Z1fi`. `false` for what
  /// has templates, operators or substitutions in it.
  package static func appendPlainCxx(
    _ name: UnsafeRawBufferPointer, to text: inout TextBuffer
  ) -> Bool {
    guard var rest = name.after("_Z"), !rest.isEmpty else { return false }
    let isNested = rest[0] == 0x4e
    if isNested {
      rest = rest.dropping(1)
      while !rest.isEmpty, rest[0] == 0x4b || rest[0] == 0x56 { rest = rest.dropping(1) }
    }
    return composing(&text) { scratch in
      var last = UnsafeRawBufferPointer(start: nil, count: 0)
      while let first = rest.first {
        if first == 0x4c { rest = rest.dropping(1) }  // internal linkage
        let (length, digits) = rest.number()
        guard digits > 0 else { return isNested && appendEnd(rest, last, to: &scratch) }
        guard length > 0, length <= UInt64(rest.count &- digits) else { return false }
        last = UnsafeRawBufferPointer(
          rebasing: rest[digits..<(digits &+ Int(length))])
        if scratch.count > 0 { scratch.append("::") }
        if last.after("_GLOBAL__N") != nil {
          scratch.append("(anonymous namespace)")
        } else {
          scratch.append(last)
        }
        rest = rest.dropping(digits &+ Int(length))
        // A template's arguments follow.
        if rest.first == 0x49 { return false }
        if !isNested { return true }
      }
      return false
    }
  }

  /// The end of a nested name, before which a constructor or destructor may stand.
  private static func appendEnd(
    _ rest: UnsafeRawBufferPointer, _ last: UnsafeRawBufferPointer, to text: inout TextBuffer
  ) -> Bool {
    guard let first = rest.first, !last.isEmpty else { return false }
    if first == 0x45 { return true }
    guard rest.count >= 3, first == 0x43 || first == 0x44, rest[2] == 0x45 else { return false }
    text.append(first == 0x43 ? "::" : "::~")
    text.append(last)
    return true
  }

  // MARK: Swift

  /// `Sessions.visit(by:showing:)` of
  /// `LeakyServer.Sessions.visit(by: Swift.String, showing: Swift.Int) -> ()`.
  package static func appendSwift(_ name: UnsafeRawBufferPointer, to text: inout TextBuffer) {
    let isShort = composing(&text) { scratch in
      var position = moduleByteCount(name)
      while position < name.count {
        let rest = name.dropping(position)
        let byte = name[position]
        let isInPath = position > 0 && name[position &- 1] == 0x2e
        if rest.after(" of ") != nil, scratch.bytes.hasSuffix("specialization ") {
          // What a function was made for by the optimiser says nothing of whose it is.
          scratch.clear()
          position &+= 4
          position &+= moduleByteCount(name.dropping(position))
        } else if rest.after(" -> ") != nil || rest.after(" : ") != nil {
          position &+= typeByteCount(rest)
        } else if byte == 0x3c, !isInPath {
          position &+= bracketed(rest)
        } else if byte == 0x28 {
          if isInPath {
            // A private name: `(name in _0123ABCD)`.
            appendPrivate(rest, to: &scratch)
          } else if let last = scratch.bytes.last, last != 0x20 {
            appendLabels(rest, to: &scratch)
          }
          position &+= bracketed(rest)
          if position < name.count, name[position] == 0x3a { position &+= 1 }  // (extension in A):
          if position < name.count, scratch.bytes.last ?? 0x20 == 0x20 {
            position &+= moduleByteCount(name.dropping(position))
          }
        } else {
          // One blank where a signature between two was left out.
          if byte != 0x20 || scratch.bytes.last != 0x20 { scratch.append(byte) }
          position &+= 1
          if byte == 0x20 { position &+= moduleByteCount(name.dropping(position)) }
        }
      }
      return true
    }
    if !isShort { appendCut(name, to: &text) }
  }

  /// The length of the module's name at the beginning of a path, with its dot.
  private static func moduleByteCount(_ text: UnsafeRawBufferPointer) -> Int {
    var count = 0
    while count < text.count, isWord(text[count]) { count &+= 1 }
    return count > 0 && count < text.count &- 1 && text[count] == 0x2e ? count &+ 1 : 0
  }

  /// The length of a type that is left out: up to ` in `, outside all brackets, or the end.
  private static func typeByteCount(_ text: UnsafeRawBufferPointer) -> Int {
    var position = 3
    while position < text.count {
      switch text[position] {
      case 0x28, 0x3c, 0x5b: position &+= bracketed(text.dropping(position))
      case 0x20 where text.dropping(position).after(" in ") != nil: return position
      default: position &+= 1
      }
    }
    return text.count
  }

  private static func appendPrivate(
    _ text: UnsafeRawBufferPointer, to scratch: inout TextBuffer
  ) {
    var position = 1
    while position < text.count, text[position] != 0x20, text[position] != 0x29 {
      scratch.append(text[position])
      position &+= 1
    }
  }

  /// `(by:showing:)`, of a list of parameters with their types.
  private static func appendLabels(
    _ text: UnsafeRawBufferPointer, to scratch: inout TextBuffer
  ) {
    scratch.append("(")
    let end = bracketed(text) &- 1
    var position = 1
    while position < end {
      var label = position
      while label < end, isWord(text[label]) { label &+= 1 }
      if label > position, label < end, text[label] == 0x3a {
        scratch.append(UnsafeRawBufferPointer(rebasing: text[position..<label]))
      } else {
        scratch.append("_")
      }
      scratch.append(":")
      while position < end, text[position] != 0x2c {
        switch text[position] {
        case 0x28, 0x3c, 0x5b: position &+= bracketed(text.dropping(position))
        default: position &+= 1
        }
      }
      position &+= 2
    }
    scratch.append(")")
  }
}
