// SPDX-License-Identifier: Apache-2.0
// How far an estimate may be off.

/// How far an estimate may be off: two times in three by less, nineteen in twenty by less than double.
struct StandardError {
  /// As whole bytes; the largest number for what does not fit.
  let bytes: Int

  /// - Parameter variance: The sum of the squares of independent errors.
  init(_ variance: Double) {
    bytes = Int(exactly: variance.squareRoot().rounded()) ?? .max
  }

  static func square(_ bytes: Int) -> Double { Double(bytes) * Double(bytes) }

  /// Of a sum or a difference of two estimates that have nothing to do with each other. Of two snapshots
  /// of one recording the error of the difference is smaller, since what is in both was sampled once.
  init(of first: Int, and second: Int) {
    self.init(Self.square(first) + Self.square(second))
  }
}
