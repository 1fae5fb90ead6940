// SPDX-License-Identifier: Apache-2.0
// Byte counts as people read them, to the letter as tracemalloc prints them.

/// A number of bytes as people read it, to the letter as tracemalloc prints it.
///
/// Four or five digits, or three with one decimal: `10239 B`, `10.0 KiB`, `100 KiB`. The unit
/// changes late, so that a small difference in a large figure still shows.
public struct ByteCount: Hashable, Sendable, CustomStringConvertible {
  private let bytes: Double

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

  private func whole(_ value: Double, plus: String) -> String {
    let digits = UInt64(value.magnitude.rounded(.toNearestOrEven))
    return "\(value < 0 ? "-" : plus)\(digits)"
  }

  /// One decimal, rounded as C's printf does: by the exact value, and a tie to the even digit.
  private func tenths(of value: Double, plus: String) -> String {
    let product = value.magnitude * 10
    // The multiplication rounds, which may make a tie of what was none.
    let error = (-product).addingProduct(value.magnitude, 10)
    var rounded = product.rounded(.toNearestOrEven)
    if product - product.rounded(.down) == 0.5 {
      if error > 0 { rounded = product.rounded(.up) }
      if error < 0 { rounded = product.rounded(.down) }
    }
    let digits = UInt64(rounded)
    return "\(value < 0 ? "-" : plus)\(digits / 10).\(digits % 10)"
  }
}

extension Int {
  /// With a sign also where it is positive or zero: for differences.
  package var signedDescription: String { self < 0 ? "\(self)" : "+\(self)" }
}
