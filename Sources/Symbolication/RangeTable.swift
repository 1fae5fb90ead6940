// SPDX-License-Identifier: Apache-2.0
// What lies at an address, where the answers are ranges that may nest or overlap.

/// A lookup table from address ranges to values.
///
/// Ranges may overlap: linkers fold equal functions, and units repeat each other. The narrowest
/// answer is usually the one that begins last, so that is the order in which they are offered.
struct RangeTable<Value> {
  private struct Entry {
    var range: Range<UInt64>
    var value: Value
    /// The largest limit of this entry and of all before it: where a search may stop.
    var reach: UInt64
  }

  private var entries: [Entry] = []

  var isEmpty: Bool { entries.isEmpty }

  init(_ pairs: [(Range<UInt64>, Value)]) {
    entries = pairs.map { Entry(range: $0, value: $1, reach: 0) }
    // Stable among equal ranges: the same file must give the same names each time.
    entries.sort {
      ($0.range.lowerBound, $1.range.upperBound) < ($1.range.lowerBound, $0.range.upperBound)
    }
    var reach: UInt64 = 0
    for index in entries.indices {
      reach = max(reach, entries[index].range.upperBound)
      entries[index].reach = reach
    }
  }

  /// The first value whose range holds the address and that `accept` makes something of; ranges
  /// that begin later are offered first.
  func first<Answer>(at address: UInt64, where accept: (Value) -> Answer?) -> Answer? {
    var low = 0
    var high = entries.count
    while low < high {
      let middle = (low + high) / 2
      if entries[middle].range.lowerBound <= address { low = middle + 1 } else { high = middle }
    }
    while low > 0, entries[low - 1].reach > address {
      low -= 1
      if entries[low].range.contains(address), let answer = accept(entries[low].value) {
        return answer
      }
    }
    return nil
  }

  func value(at address: UInt64) -> Value? { first(at: address) { $0 } }
}
