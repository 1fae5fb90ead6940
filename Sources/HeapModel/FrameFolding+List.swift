// SPDX-License-Identifier: Apache-2.0
// Foldings as text: a line for each rule, to be printed, and to be added to by users.

extension FrameFolding {
  /// A line that is none of a folding list.
  public struct ListError: Error, Hashable, CustomStringConvertible {
    /// From 1.
    public let line: Int
    /// What is wrong, and what would be right.
    public let description: String
  }

  /// Adds the rules of a list; they come after those that are there, and so win.
  ///
  /// A line is a pattern for functions, or one with a word and a colon before it that says what it is
  /// for; `!` before that has such frames stay. Empty lines and those that begin with `#` are remarks.
  ///
  /// | before the pattern | folds, at the inner end of stacks |
  /// | --- | --- |
  /// | nothing, `function:` | functions by their name |
  /// | `module:` | what lies in a file of that name, without its directory |
  /// | `module-without-lines:` | what lies there and has no known line |
  /// | `file:` | by the path of the source file |
  /// | `compiler-made:` | functions by their name that nobody wrote a line for |
  /// | `passage:` | functions by their name, wherever in a stack they are |
  public mutating func add(list: String) throws(ListError) {
    for (number, text) in list.lines.enumerated() {
      let line = text.trimmingSpace
      if line.isEmpty || line.hasPrefix("#") { continue }
      do throws(Problem) {
        try add(line: line)
      } catch {
        throw ListError(line: number + 1, description: error.words)
      }
    }
  }

  private struct Problem: Error {
    let words: String
  }

  /// What a line is about, by the word before its colon.
  private enum Subject: String, CaseIterable {
    case function, module, file, passage
    case lineless = "module-without-lines"
    case derived = "compiler-made"
  }

  private mutating func add(line: Substring) throws(Problem) {
    let isException = line.hasPrefix("!")
    let rest = isException ? line.dropFirst().trimmingSpace : line
    let (subject, pattern) = try Self.parts(of: rest)
    guard !pattern.isEmpty else {
      throw Problem(words: "there is no pattern; '*' stands for any text")
    }
    guard pattern.allSatisfy({ $0 >= " " && $0 != "\u{7f}" && $0 != "\u{fffd}" }) else {
      throw Problem(words: "it has characters that no name has; patterns are text in UTF-8")
    }
    guard isException || subject == .derived || !pattern.allSatisfy({ $0 == "*" }) else {
      throw Problem(words: "it would fold every frame; 'show --by module' has the largest parts")
    }
    let glob = Glob(String(pattern))
    var rule =
      switch subject {
      case .function, .passage: Rule.function(glob)
      case .module: Rule.module(glob)
      case .file: Rule.file(glob)
      case .lineless: Rule(module: glob, keepsFramesWithFile: true)
      case .derived: Rule(function: pattern == "*" ? nil : glob, onlyDerivedFrames: true)
      }
    rule.isException = isException
    // What is to stay stays wherever it is.
    if isException || subject == .passage { passages.append(rule) }
    if isException || subject != .passage { rules.append(rule) }
  }

  /// `std::alloc::*` is a name, and so is V8's `JS:*grow`; a single word in lower case says what the
  /// pattern is for, or was meant to.
  private static func parts(of line: Substring) throws(Problem) -> (Subject, Substring) {
    guard let colon = line.firstIndex(of: ":") else { return (.function, line) }
    let word = line[..<colon]
    let pattern = line[line.index(after: colon)...]
    if let subject = Subject(rawValue: String(word)) { return (subject, pattern.trimmingSpace) }
    guard !word.isEmpty, word.allSatisfy({ $0 == "-" || ("a"..."z").contains($0) }),
      pattern.first != ":"
    else { return (.function, line) }
    let known = Subject.allCases.map { "'\($0.rawValue):'" }
    throw Problem(
      words: "'\(word):' says nothing of a pattern; "
        + "\(known.dropLast().joined(separator: ", ")) and \(known.last!) do, and "
        + "'function:\(line)' is a name")
  }

  // MARK: As text

  /// The default list as text that `add(list:)` reads, with the reason for each part of it.
  public static var standardList: String {
    standardGroups.map { group in
      let lines = group.rules.map(line) + group.passages.map { "passage:\($0.function!)" }
      return "# \(group.reason)\n" + lines.map { $0 + "\n" }.joined()
    }.joined(separator: "\n")
  }

  private static func line(for rule: Rule) -> String {
    if rule.onlyDerivedFrames { return "compiler-made:\(rule.function?.pattern ?? "*")" }
    if let module = rule.module {
      return rule.keepsFramesWithFile ? "module-without-lines:\(module)" : "module:\(module)"
    }
    if let file = rule.file { return "file:\(file)" }
    return rule.function!.pattern
  }
}
