// SPDX-License-Identifier: Apache-2.0
// Why a unit could not be armed or disarmed: one sentence with its place and the way out.

/// Why a unit could not be armed or disarmed.
public struct UnitControlError: Error, Sendable, Equatable, CustomStringConvertible {
  /// One sentence without its full stop, safe to print.
  public let description: String

  init(_ description: String) { self.description = description }
}
