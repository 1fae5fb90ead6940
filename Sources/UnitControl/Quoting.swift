// SPDX-License-Identifier: Apache-2.0
// How systemd writes words and assignments: in unit files, in environment files, in `systemctl show`.

enum Quoting {
  /// An assignment as `Environment=` takes it, with what systemd would read into it made literal.
  ///
  /// - Parameter specifiers: whether `%n` and the like in the value are to be expanded.
  static func assignment(
    _ name: String, _ value: String, specifiers: Specifiers = .literal
  ) -> String {
    var text = ""
    for scalar in value.unicodeScalars {
      switch scalar {
      case "\\", "\"": text += "\\\(scalar)"
      case "\n": text += "\\n"
      case "\t": text += "\\t"
      case "%" where specifiers == .literal: text += "%%"
      default: text.unicodeScalars.append(scalar)
      }
    }
    let isPlain = text.utf8.allSatisfy { byte in
      byte != 0x20 && byte != 0x22 && byte != 0x27 && byte != 0x5c
    }
    return isPlain ? "Environment=\(name)=\(text)" : "Environment=\"\(name)=\(text)\""
  }

  enum Specifiers { case literal, expanded }

  /// The words of a line: quotes may begin anywhere in one, and backslashes escape.
  static func words(_ line: some StringProtocol) -> [String] {
    var words: [String] = []
    var word: String?
    var quote: Character?
    var rest = Substring(line)
    while let character = rest.popFirst() {
      if character == "\\" {
        word = (word ?? "") + unescaped(&rest)
      } else if let open = quote {
        if character == open { quote = nil } else { word?.append(character) }
      } else if character == "\"" || character == "'" {
        quote = character
        word = word ?? ""
      } else if character.isWhitespace {
        if let done = word { words.append(done) }
        word = nil
      } else {
        word = (word ?? "") + String(character)
      }
    }
    return words + [word].compactMap { $0 }
  }

  /// What follows a backslash.
  private static func unescaped(_ rest: inout Substring) -> String {
    guard let character = rest.popFirst() else { return "" }
    switch character {
    case "n": return "\n"
    case "t": return "\t"
    case "s": return " "
    case "x":
      guard let byte = UInt8(rest.prefix(2), radix: 16) else { return "x" }
      rest = rest.dropFirst(2)
      return String(UnicodeScalar(byte))
    default: return String(character)
    }
  }

  /// The variables that words of the form `NAME=value` set, the last of a name winning.
  static func assignments(_ words: [String]) -> [String: String] {
    var variables: [String: String] = [:]
    for word in words {
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if parts.count == 2 { variables[String(parts[0])] = String(parts[1]) }
    }
    return variables
  }

  /// A file's lines, with those joined that end in a backslash and comments left out.
  static func lines(_ text: some StringProtocol) -> [String] {
    var lines: [String] = []
    var isOpen = false
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      let trimmed = line.drop { $0 == " " || $0 == "\t" }
      // In the middle of a joined line, too.
      if trimmed.hasPrefix("#") || trimmed.hasPrefix(";") { continue }
      let goesOn = line.hasSuffix("\\")
      let kept = goesOn ? String(line.dropLast()) + " " : String(line)
      if isOpen { lines[lines.count - 1] += kept } else { lines.append(kept) }
      isOpen = goesOn
    }
    return lines
  }

  /// What a file of `EnvironmentFile=` sets.
  static func environmentFile(_ text: String) -> [String: String] {
    var variables: [String: String] = [:]
    for line in lines(text) {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { continue }
      let name = parts[0].filter { !$0.isWhitespace }
      variables[String(name)] = words(parts[1]).joined(separator: " ")
    }
    return variables
  }
}
