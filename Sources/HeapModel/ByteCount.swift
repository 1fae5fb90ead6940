// SPDX-License-Identifier: Apache-2.0
// Byte counts as people read them, to the letter as tracemalloc prints them.

/// A number of bytes as people read it, to the letter as tracemalloc prints it.
///
/// Four or five digits, or three with one decimal: `10239 B`, `10.0 KiB`, `100 KiB`. The unit
/// changes late, so that a small difference in a large figure still shows.
public struct ByteCount: Hashable, Sendable, CustomStringConvertible {
  private let bytes: Double

  /// A whole number of bytes; negative in a difference.
  public init(_ bytes: Int) {
    self.bytes = Double(bytes)
  }

  /// A part of a byte is possible: an average.
  public init(_ bytes: Double) {
    self.bytes = bytes
  }

  public var description: String { text(plus: "") }

  /// With a sign also where it is positive: for differences.
  public var signed: String { text(plus: "+") }

  private func text(plus: String) -> String {
    var rest = bytes
    for unit in ["B", "KiB", "MiB", "GiB"] {
      if rest.magnitude < 100 && unit != "B" { return "\(tenths(of: rest, plus: plus)) \(unit)" }
      if rest.magnitude < 10 * 1024 { return "\(whole(rest, plus: plus)) \(unit)" }
      rest /= 1024
    }
    return rest.magnitude < 100
      ? "\(tenths(of: rest, plus: plus)) TiB" : "\(whole(rest, plus: plus)) TiB"
  }

  // By integers, since the standard library's rounding needs libm and this library links nothing.

  private func whole(_ value: Double, plus: String) -> String {
    "\(value < 0 ? "-" : plus)\(Self.rounded(value.magnitude, timesTenTo: 0))"
  }

  private func tenths(of value: Double, plus: String) -> String {
    let tenths = Self.rounded(value.magnitude, timesTenTo: 1)
    return "\(value < 0 ? "-" : plus)\(tenths / 10).\(tenths % 10)"
  }

  /// Rounds as C's printf does: by the exact value, and a tie to the even digit.
  private static func rounded(_ magnitude: Double, timesTenTo decimals: Int) -> UInt64 {
    let scale: UInt64 = decimals == 0 ? 1 : 10
    let whole = UInt64(magnitude)
    // The fraction in units of 2⁻⁵³: exact from 1 up, and below it more exact than a digit needs.
    let one: UInt64 = 1 << 53
    let fraction = UInt64((magnitude - Double(whole)) * Double(one)) * scale
    let result = whole * scale + fraction / one
    let rest = fraction % one
    if rest == one / 2 { return result + result % 2 }
    return rest > one / 2 ? result + 1 : result
  }
}

extension Int {
  /// With a sign also where it is positive or zero: for differences.
  package var signedDescription: String { self < 0 ? "\(self)" : "+\(self)" }
}
