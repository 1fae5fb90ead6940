// SPDX-License-Identifier: Apache-2.0
// What a profile's IDs stand for, at the price of an array where they are small.

/// What a profile's IDs stand for.
///
/// IDs may be any number but are nearly always counted from 1, and the locations of four million
/// frames are looked up by them: small ones are an array's index, others go to a dictionary.
struct IDTable {
  private var dense: [UInt32] = []
  private var sparse: [UInt64: UInt32] = [:]
  private let denseLimit: UInt64

  private static let absent = UInt32.max

  /// A table whose array takes no more memory than the profile did.
  init(profileByteCount: Int) {
    denseLimit = UInt64(profileByteCount / MemoryLayout<UInt32>.size)
  }

  @inline(__always)
  subscript(id: UInt64) -> UInt32? {
    if id < UInt64(dense.count) {
      let value = dense[Int(id)]
      return value == Self.absent ? nil : value
    }
    return sparse.isEmpty ? nil : sparse[id]
  }

  /// Whether the ID was new. 0 is no ID: it is how the absence of one is written.
  mutating func insert(_ id: UInt64, _ value: Int) -> Bool {
    guard id != 0, self[id] == nil, value < Self.absent else { return false }
    guard id < denseLimit else {
      sparse[id] = UInt32(value)
      return true
    }
    while UInt64(dense.count) <= id { dense.append(Self.absent) }
    dense[Int(id)] = UInt32(value)
    return true
  }
}
