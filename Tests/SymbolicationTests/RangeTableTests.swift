// SPDX-License-Identifier: Apache-2.0
// Ranges that nest, overlap and leave gaps.

import Testing

@testable import Symbolication

@Suite struct RangeTableTests {
  private let table = RangeTable([
    (10..<100, "whole"), (20..<30, "first"), (25..<28, "inside first"), (40..<40, "empty"),
    (50..<60, "second"), (200..<UInt64.max, "rest"),
  ])

  @Test(
    arguments: [
      (9, nil), (10, "whole"), (20, "first"), (24, "first"), (25, "inside first"), (28, "first"),
      (30, "whole"), (40, "whole"), (59, "second"), (60, "whole"), (99, "whole"), (100, nil),
      (200, "rest"), (.max, nil),
    ] as [(UInt64, String?)])
  func `the range that begins last answers`(address: UInt64, value: String?) {
    #expect(table.value(at: address) == value)
  }

  @Test func `a range that has nothing to say passes the question on`() {
    #expect(table.first(at: 26) { $0.hasPrefix("inside") ? nil : $0 } == "first")
  }

  @Test func `a table agrees with looking at every range`() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<200 {
      let ranges = (0..<40).map { number -> (Range<UInt64>, Int) in
        let start = UInt64.random(in: 0..<500, using: &generator)
        return (start..<(start + UInt64.random(in: 0..<80, using: &generator)), number)
      }
      let table = RangeTable(ranges)
      for address in UInt64(0)..<600 {
        let latest = ranges.filter { $0.0.contains(address) }.map(\.0.lowerBound).max()
        let answer = table.value(at: address)
        #expect(answer.map { ranges[$0].0.lowerBound } == latest)
      }
    }
  }
}
