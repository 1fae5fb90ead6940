// SPDX-License-Identifier: Apache-2.0
// JSON as a value, and its text.

/// A JSON value. Members keep their order, so that the same report is the same text.
public enum JSON: Hashable, Sendable {
  case null
  case boolean(Bool)
  case integer(Int)
  /// JSON has no infinity and nothing that is not a number: those are written as `null`.
  case number(Double)
  case string(String)
  case array([JSON])
  case object([Member])

  public struct Member: Hashable, Sendable {
    public let name: String
    public let value: JSON

    public init(_ name: String, _ value: JSON) {
      self.name = name
      self.value = value
    }
  }

  /// The text on one line, in UTF-8 by nature of strings, safe to be put into a log.
  public var text: String {
    var text = ""
    write(to: &text)
    return text
  }

  /// Writes the text as it comes.
  func write(to text: inout some TextOutputStream) {
    switch self {
    case .null: text.write("null")
    case .boolean(let value): text.write(value ? "true" : "false")
    case .integer(let value): text.write("\(value)")
    case .number(let value): text.write(value.isFinite ? "\(value)" : "null")
    case .string(let value): Self.writeQuoted(value, to: &text)
    case .array(let elements):
      text.write("[")
      for (position, element) in elements.enumerated() {
        if position > 0 { text.write(",") }
        element.write(to: &text)
      }
      text.write("]")
    case .object(let members):
      text.write("{")
      Self.write(members, to: &text)
      text.write("}")
    }
  }

  /// Writes an object's members without the brackets around them.
  static func write(_ members: [Member], to text: inout some TextOutputStream) {
    for (position, member) in members.enumerated() {
      if position > 0 { text.write(",") }
      writeQuoted(member.name, to: &text)
      text.write(":")
      member.value.write(to: &text)
    }
  }

  private static func writeQuoted(_ value: String, to stream: inout some TextOutputStream) {
    stream.write("\"")
    defer { stream.write("\"") }
    // Nearly all names and paths.
    let isPlain = value.utf8.allSatisfy { (0x20...0x7e).contains($0) && $0 != 0x22 && $0 != 0x5c }
    if isPlain { return stream.write(value) }
    var text = ""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\"": text += "\\\""
      case "\\": text += "\\\\"
      case "\n": text += "\\n"
      case "\r": text += "\\r"
      case "\t": text += "\\t"
      // Beyond what JSON asks for: DEL and C1 steer terminals, and JavaScript ends lines at
      // U+2028 and U+2029.
      case "\0"..<" ", "\u{7f}"..."\u{9f}", "\u{2028}", "\u{2029}":
        let digits = String(scalar.value, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      default: text.unicodeScalars.append(scalar)
      }
    }
    stream.write(text)
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral,
  ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  public init(stringLiteral value: String) { self = .string(value) }
  public init(integerLiteral value: Int) { self = .integer(value) }
  public init(arrayLiteral elements: JSON...) { self = .array(elements) }
  public init(dictionaryLiteral members: (String, JSON)...) {
    self = .object(members.map { Member($0.0, $0.1) })
  }
}
