// SPDX-License-Identifier: Apache-2.0
// What a check is not to mind, in LeakSanitizer's words.

/// What a check is not to mind, in the form that LeakSanitizer reads: lines of `leak:pattern`.
///
/// Stacks are matched as there, so that one file serves both: a pattern is compared with the module, the
/// function and the source file of each frame, of the innermost first, and may be any part of them. `*` is
/// any text, `^` at the beginning and `$` at the end stand for the beginning and the end. A line that
/// begins with `#` is a remark. See "Suppressions" in
/// <https://clang.llvm.org/docs/AddressSanitizer.html#suppressing-memory-leaks>, and
/// sanitizer_suppressions.cpp of compiler-rt for what it leaves open.
///
/// One thing is other: `leak:` with nothing behind it, which there fits everything, is refused. `leak:*` says so.
public struct Suppressions: Hashable, Sendable {
  /// One line of a list.
  public struct Rule: Hashable, Sendable {
    /// What is compared with names: see `Suppressions`.
    public let pattern: String
    /// From 1.
    public let line: Int
  }

  /// A line that is none of a list.
  public struct ListError: Error, Hashable, CustomStringConvertible {
    /// From 1.
    public let line: Int
    /// What is wrong, and what would be right.
    public let description: String
  }

  /// In the order of the list: of several that fit the first counts.
  public let rules: [Rule]

  /// Rules that were read before, or none.
  public init(rules: [Rule]) { self.rules = rules }

  /// Reads a list; throws what is wrong with the first line that is none.
  public init(list: String) throws(ListError) {
    var rules: [Rule] = []
    for (number, text) in list.lines.enumerated() {
      let line = text.trimmingSpace
      if line.isEmpty || line.hasPrefix("#") { continue }
      guard line.hasPrefix("leak:") else {
        throw ListError(
          line: number + 1,
          description: "'\(line)' is no suppression of leaks; those are written 'leak:pattern'")
      }
      let pattern = String(line.dropFirst("leak:".count))
      guard !pattern.isEmpty else {
        throw ListError(
          line: number + 1, description: "there is no pattern; 'leak:*' would leave out everything")
      }
      rules.append(Rule(pattern: pattern, line: number + 1))
    }
    self.rules = rules
  }

  /// The number of the first rule that fits a name; none fits an empty one.
  func firstRule(matching name: String?) -> Int? {
    guard let name else { return nil }
    return rules.firstIndex { Self.matches(name, $0.pattern) }
  }

  /// Whether a pattern fits a name, as compiler-rt's `TemplateMatch` says.
  ///
  /// Each piece between stars is looked for behind the one before, and what was found first is not given
  /// back: `leak:a$` does not fit `aba`. Bytes are compared, and a `$` ends the pattern wherever it is.
  static func matches(_ name: String, _ pattern: String) -> Bool {
    var rest = Array(name.utf8)[...]
    guard !rest.isEmpty else { return false }
    var pattern = Array(pattern.utf8)[...]
    var isAtStart = pattern.first == UInt8(ascii: "^")
    if isAtStart { pattern.removeFirst() }
    var mayPass = false
    while let next = pattern.first {
      if next == UInt8(ascii: "*") {
        pattern.removeFirst()
        (isAtStart, mayPass) = (false, true)
        continue
      }
      if next == UInt8(ascii: "$") { return rest.isEmpty || mayPass }
      let piece = pattern.prefix { $0 != UInt8(ascii: "*") && $0 != UInt8(ascii: "$") }
      pattern = pattern.dropFirst(piece.count)
      if isAtStart {
        guard rest.starts(with: piece) else { return false }
        rest = rest.dropFirst(piece.count)
      } else {
        guard let found = rest.firstRange(of: piece) else { return false }
        rest = rest[found.upperBound...]
      }
      (isAtStart, mayPass) = (false, false)
    }
    return true
  }
}

extension Snapshot {
  /// What is left of a snapshot, and what each rule has taken out of it.
  public struct Suppressed: Sendable {
    /// What no rule fits.
    public let rest: Snapshot
    /// One for each rule, in their order; `nil` for a rule that fits nothing.
    public let taken: [Amount?]

    package init(rest: Snapshot, taken: [Amount?] = []) {
      self.rest = rest
      self.taken = taken
    }

    /// How much a rule has taken out.
    public struct Amount: Hashable, Sendable {
      /// Live bytes, by the sizes that were asked for.
      public let bytes: Int
      /// The blocks that `bytes` is the size of.
      public let blocks: Int

      /// So many bytes in so many blocks.
      public init(bytes: Int, blocks: Int) {
        self.bytes = bytes
        self.blocks = blocks
      }
    }
  }

  /// Leaves out the stacks that suppressions are about.
  ///
  /// - Parameter names: The calls at a frame under all the names that a pattern may be written for. Asked once for
  ///   each distinct frame; the frame itself is looked at in any case.
  public func suppressed(
    by suppressions: Suppressions, names: (Frame) -> [Frame] = { _ in [] }
  ) -> Suppressed {
    let ruleOfFrame = distinctFrames.map { frame -> Int? in
      // As LeakSanitizer: the module, then call by call.
      if let rule = suppressions.firstRule(matching: module(of: frame)?.path) { return rule }
      for call in [frame] + names(frame) {
        if let rule = suppressions.firstRule(matching: call.function)
          ?? suppressions.firstRule(matching: call.file)
        {
          return rule
        }
      }
      return nil
    }
    var taken = [Suppressed.Amount?](repeating: nil, count: suppressions.rules.count)
    var result = self
    result.samples = samples.filter { sample in
      guard let rule = runs[sample.stack].lazy.compactMap({ ruleOfFrame[Int($0)] }).first else {
        return true
      }
      let before = taken[rule] ?? Suppressed.Amount(bytes: 0, blocks: 0)
      taken[rule] = Suppressed.Amount(
        bytes: before.bytes.addingSaturated(sample.liveBytes),
        blocks: before.blocks.addingSaturated(sample.liveBlocks))
      return false
    }
    return Suppressed(rest: result, taken: taken)
  }
}
