// SPDX-License-Identifier: Apache-2.0
// A set of flags in an integer. OptionSet itself does not compile here: its literals are arrays.

/// A set of flags, each a bit.
package protocol BitSet {
  associatedtype RawValue: FixedWidthInteger
  var rawValue: RawValue { get }
  init(rawValue: RawValue)
}

extension BitSet {
  @inline(__always)
  package func contains(_ member: Self) -> Bool {
    rawValue & member.rawValue == member.rawValue
  }

  @inline(__always)
  package func union(_ other: Self) -> Self { Self(rawValue: rawValue | other.rawValue) }

  @inline(__always)
  package mutating func insert(_ member: Self) { self = union(member) }
}
