// SPDX-License-Identifier: Apache-2.0
// File name patterns as the shell and fnmatch have them, matched without the C library.

/// A pattern as fnmatch has them: `*`, `?`, `[a-z]` and `[!a-z]`.
///
/// Case counts, `/` is a character like any other, and nothing is escaped: `[*]` is a star. A `[`
/// without its `]` stands for itself. The whole text has to match.
public struct Glob: Hashable, Sendable {
  /// The pattern as it was written.
  public let pattern: String
  private let elements: [Element]

  private enum Element: Hashable, Sendable {
    case character(Unicode.Scalar)
    case anyCharacter
    case anyText
    case oneOf([ClosedRange<Unicode.Scalar>], isNegated: Bool)

    func matches(_ scalar: Unicode.Scalar) -> Bool {
      switch self {
      case .character(let wanted): wanted == scalar
      case .anyCharacter: true
      case .anyText: false
      case .oneOf(let ranges, let isNegated):
        ranges.contains { $0.contains(scalar) } != isNegated
      }
    }
  }

  /// Reads a pattern; every text is one.
  public init(_ pattern: String) {
    self.pattern = pattern
    var elements: [Element] = []
    var rest = Array(pattern.unicodeScalars)[...]
    while let scalar = rest.popFirst() {
      switch scalar {
      case "*": if elements.last != .anyText { elements.append(.anyText) }
      case "?": elements.append(.anyCharacter)
      case "[": elements.append(Self.takeSet(from: &rest) ?? .character("["))
      default: elements.append(.character(scalar))
      }
    }
    self.elements = elements
  }

  /// Takes what is between `[` and `]`, unless there is no `]`. First in a set, `]` is a member.
  private static func takeSet(from rest: inout ArraySlice<Unicode.Scalar>) -> Element? {
    let isNegated = rest.first == "!"
    let members = rest.dropFirst(isNegated ? 1 : 0)
    guard let end = members.dropFirst().firstIndex(of: "]") else { return nil }
    var unread = members[..<end]
    var ranges: [ClosedRange<Unicode.Scalar>] = []
    while let first = unread.popFirst() {
      if unread.count >= 2, unread.first == "-" {
        let last = unread.dropFirst().first!
        unread = unread.dropFirst(2)
        // A range that runs backwards has no members.
        if first <= last { ranges.append(first...last) }
      } else {
        ranges.append(first...first)
      }
    }
    rest = rest[(end + 1)...]
    return .oneOf(ranges, isNegated: isNegated)
  }

  /// Whether the whole text matches.
  ///
  /// Only the last star is ever tried again: what an earlier one took cannot matter once a later
  /// one is reached. So the cost is at most the product of both lengths, for any pattern.
  public func matches(_ text: some StringProtocol) -> Bool {
    let scalars = text.unicodeScalars
    var position = scalars.startIndex
    var next = 0
    var retry: (next: Int, position: String.UnicodeScalarView.Index)?
    while true {
      if next < elements.count, elements[next] == .anyText {
        next += 1
        retry = (next, position)
      } else if position == scalars.endIndex {
        return next == elements.count
      } else if next < elements.count, elements[next].matches(scalars[position]) {
        next += 1
        position = scalars.index(after: position)
      } else if let last = retry {
        next = last.next
        position = scalars.index(after: last.position)
        retry = (next, position)
      } else {
        return false
      }
    }
  }
}

extension Glob: ExpressibleByStringLiteral, CustomStringConvertible {
  public init(stringLiteral pattern: String) { self.init(pattern) }

  public var description: String { pattern }
}
