// SPDX-License-Identifier: Apache-2.0
// How text is laid out: where it goes decides about width and colour, so the caller says.

/// How text is laid out.
///
/// Only the caller knows whether there is a terminal, how wide it is and whether `NO_COLOR` is set.
public struct TextStyle: Hashable, Sendable {
  public enum Colour: Hashable, Sendable {
    case never
    /// ANSI escape sequences: growth red, shrinkage green, headings bold.
    case ansi
  }

  /// The characters that a line may have; `nil` is any number. Names are shortened to fit, figures
  /// never are.
  public var width: Int?
  public var colour: Colour
  /// Whether charts are drawn with letters that every terminal has, and not with Unicode's blocks.
  public var drawsInASCII: Bool

  public init(width: Int? = nil, colour: Colour = .never, drawsInASCII: Bool = false) {
    self.width = width
    self.colour = colour
    self.drawsInASCII = drawsInASCII
  }

  /// For files and pipes: nothing shortened, nothing coloured.
  public static let plain = TextStyle()

  enum Accent: String {
    case bold = "1"
    case red = "31"
    case green = "32"
    case yellow = "33"
  }

  func accent(_ text: String, _ accent: Accent?) -> String {
    guard let accent, colour == .ansi else { return text }
    return "\u{1b}[\(accent.rawValue)m\(text)\u{1b}[0m"
  }
}

extension String {
  /// Fit for a terminal: names come from a traced program, which may put escape sequences in them.
  var printable: String {
    guard unicodeScalars.contains(where: \.isControl) else { return self }
    return String(String.UnicodeScalarView(unicodeScalars.map { $0.isControl ? "?" : $0 }))
  }

  /// The end of a text that is too long: of a path, the part that tells.
  func keepingEnd(_ width: Int) -> String {
    count <= width ? self : "…" + suffix(Swift.max(width - 1, 0))
  }

  /// The beginning of a text that is too long: of a function, its name before its parameters.
  func keepingBeginning(_ width: Int) -> String {
    count <= width ? self : prefix(Swift.max(width - 1, 0)) + "…"
  }

  func padded(to width: Int) -> String {
    self + String(repeating: " ", count: Swift.max(width - count, 0))
  }

  func rightAligned(to width: Int) -> String {
    String(repeating: " ", count: Swift.max(width - count, 0)) + self
  }
}

extension Unicode.Scalar {
  /// C0, DEL, C1, and the marks that turn the direction of what is on the line.
  fileprivate var isControl: Bool {
    value < 0x20 || (0x7f...0x9f).contains(value) || (0x202a...0x202e).contains(value)
      || (0x2066...0x2069).contains(value)
  }
}
