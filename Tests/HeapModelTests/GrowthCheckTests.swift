// SPDX-License-Identifier: Apache-2.0
// Bounds, and what is at fault.

import HeapModel
import Testing

@Suite struct GrowthCheckTests {
  /// 5102 of growth in all, of which 5000 in one line and 400 in another.
  private func check(_ bounds: GrowthCheck.Bounds) throws -> GrowthCheck {
    try GrowthCheck(
      of: FixtureA.later, comparedTo: FixtureA.earlier, groupedBy: .line, bounds)
  }

  @Test func `what is allowed may be reached, and not passed`() throws {
    let growth = FixtureA.later.liveBytes - FixtureA.earlier.liveBytes
    #expect(try check(.init(growthBytes: growth)).passes)
    #expect(try !check(.init(growthBytes: growth - 1)).passes)
    #expect(try check(.init(liveBytes: FixtureA.later.liveBytes)).passes)
    #expect(try !check(.init(liveBytes: FixtureA.later.liveBytes - 1)).passes)
    #expect(try check(.init(rowBytes: 5000)).passes)
    #expect(try !check(.init(rowBytes: 4999)).passes)
    #expect(try check(.init()).passes)
  }

  @Test func `at fault is every row that grew, or that grew too much by itself`() throws {
    let whole = try check(.init(growthBytes: 0))
    #expect(whole.growsTooMuch && whole.atFault.map { "\($0.key)" } == ["a.py:5", "c.py:578"])
    #expect(try check(.init(rowBytes: 400)).atFault.map { "\($0.key)" } == ["a.py:5"])
    #expect(try check(.init(growthBytes: 1 << 20)).atFault.isEmpty)
  }

  @Test func `a heap that shrank grew by no line but those that did`() throws {
    let check = try GrowthCheck(
      of: FixtureA.earlier, comparedTo: FixtureA.later, groupedBy: .line,
      .init(growthBytes: 0, rowBytes: 10))
    #expect(check.addedBytes < 0 && !check.growsTooMuch)
    #expect(check.atFault.map { "\($0.key)" } == ["b.py:1"])
  }

  @Test func `compared with nothing, all that is alive is growth`() throws {
    let check = try GrowthCheck(
      of: FixtureA.later, comparedTo: Snapshot(), groupedBy: .file, .init(rowBytes: 400))
    #expect(check.addedBytes == FixtureA.later.liveBytes)
    #expect(check.atFault.map { "\($0.key)" } == ["a.py"])
  }
}
