// SPDX-License-Identifier: Apache-2.0
// What series of figures are taken for.

import HeapModel
import Testing

/// A fit of figures taken every hour.
private func fit(_ figures: [Int]) -> SeriesFit {
  SeriesFit(figures, at: figures.indices.map { Double($0) * 3600 })
}

/// The same numbers every time.
private struct Dice: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    // SplitMix64.
    state &+= 0x9e37_79b9_7f4a_7c15
    var word = state
    word = (word ^ (word >> 30)) &* 0xbf58_476d_1ce4_e5b9
    word = (word ^ (word >> 27)) &* 0x94d0_49bb_1331_11eb
    return word ^ (word >> 31)
  }
}

@Suite struct SeriesFitTests {
  @Test func `what grows by the same every hour is a leak of that speed`() {
    let fit = fit([100, 200, 300, 400, 500, 600])
    #expect(fit.verdict == .leak && fit.bytesPerHour == 100 && fit.overallBytesPerHour == 100)
    #expect(fit.growthCount == 5 && fit.shrinkageCount == 0 && fit.intervalCount == 5)
  }

  @Test func `a leak is one also where the load that makes it comes and goes`() {
    #expect(fit([0, 10, 10, 40, 40, 50, 80, 80, 90]).verdict == .leak)
    // A buffer on top of it that is there now and then.
    #expect(fit([0, 35, 20, 55, 40, 75, 60, 95, 80, 115]).verdict == .leak)
  }

  @Test func `a leak that begins late is one, at the speed that it has now`() {
    let fit = fit([5, 5, 5, 5, 5, 5, 105, 205, 305, 405, 505])
    #expect(fit.verdict == .leak)
    #expect(fit.bytesPerHour > 90 && fit.bytesPerHour <= 100)
  }

  @Test(arguments: [
    // Full after some hours; filled exponentially; loaded once; doubled by a table; let go of a little.
    [0, 100, 200, 300, 300, 300, 300, 300], [0, 500, 750, 875, 938, 969, 985, 993, 997, 999, 1000],
    [0, 0, 0, 0, 100, 100, 100, 100], [0, 9, 9, 9, 9, 9],
    [64, 128, 256, 512, 1024, 1024, 1024, 1024, 1024],
    [0, 100, 200, 300, 400, 398, 399, 397, 398],
  ])
  func `what has stopped growing levels off`(figures: [Int]) {
    #expect(fit(figures).verdict == .levelsOff)
  }

  @Test(arguments: [
    [10, 90, 20, 80, 15, 85, 12], [50, 50, 51, 50, 50, 49, 50], [0, 100, 0, 100], [10, 30, 20],
  ])
  func `what goes up and down is churn`(figures: [Int]) {
    #expect(fit(figures).verdict == .churn)
  }

  @Test func `the speed of a saw-tooth is not that of a tooth's one side`() {
    let fit = fit((0..<30).map { 300 * ($0 % 7 + 1) })
    #expect(fit.verdict == .churn && fit.bytesPerHour == fit.overallBytesPerHour)
    #expect(fit.bytesPerHour == 0)
  }

  @Test(arguments: [
    [1, 2], [1, 2, 3], [0, 0, 0, 0, 0, 0, 100], [7, 7, 8], [1, 1, 2, 2, 2, 4, 4, 4, 4, 4, 4, 8],
  ])
  func `what grew in too few dumps, in the last one, or by few steps is undecided`(figures: [Int]) {
    let fit = fit(figures)
    #expect(fit.verdict == .undecided)
    // On the average: no line can be laid through it.
    let growth = Double(figures.last! - figures[0])
    #expect(fit.bytesPerHour == growth / Double(figures.count - 1))
  }

  @Test func `four dumps that grow each time are the fewest that tell a leak`() {
    #expect(fit([1, 2, 3, 4]).verdict == .leak)
  }

  @Test(arguments: [[5, 5, 5, 5], [0, 0], [7]])
  func `what is the same in every dump is steady`(figures: [Int]) {
    #expect(fit(figures).verdict == .steady && fit(figures).bytesPerHour == 0)
  }

  @Test(arguments: [[500, 400, 300, 200, 100], [2, 1], [100, 100, 100, 99]])
  func `what gets smaller shrinks`(figures: [Int]) {
    #expect(fit(figures).verdict == .shrinks && fit(figures).bytesPerHour <= 0)
  }

  @Test func `one dump at a bad moment changes neither speed nor verdict`() {
    let fit = fit([100, 200, 300, 400, 9000, 600, 700, 800, 900])
    #expect(fit.verdict == .leak && fit.bytesPerHour == 100 && fit.overallBytesPerHour == 100)
  }

  @Test func `speeds are by time, and not by dumps`() {
    let fit = SeriesFit([0, 10, 40, 50, 100], at: [0, 1, 4, 5, 10])
    #expect(fit.verdict == .leak)
    #expect(fit.bytesPerHour.rounded() == 36000 && fit.overallBytesPerHour.rounded() == 36000)
  }

  @Test func `dumps of one moment have no slope between them`() {
    #expect(SeriesFit([1, 2, 3, 4], at: [0, 0, 0, 0]).bytesPerHour == 0)
  }

  @Test func `the median of slopes is that of sorting, also for many and for equal ones`() {
    var dice = Dice(state: 1)
    for count in [2, 3, 4, 5, 8, 21, 40] {
      let figures = (0..<count).map { _ in Int.random(in: 0...9, using: &dice) }
      var slopes: [Double] = []
      for later in figures.indices {
        for earlier in 0..<later {
          slopes.append(Double(figures[later] - figures[earlier]) / Double(later - earlier))
        }
      }
      slopes.sort()
      let middle = slopes.count / 2
      let median =
        slopes.count % 2 == 1 ? slopes[middle] : (slopes[middle - 1] + slopes[middle]) / 2
      let fit = fit(figures)
      #expect((fit.overallBytesPerHour - median).magnitude < 1e-9, "\(figures)")
    }
  }

  @Test func `of a thousand series of chance, one in twenty is called a leak at most`() {
    var dice = Dice(state: 42)
    let leaks = (0..<1000).count { _ in
      fit((0..<16).map { _ in Int.random(in: 0...1000, using: &dice) }).verdict == .leak
    }
    #expect(leaks > 0 && leaks <= 50, "\(leaks)")
  }

  @Test func `figures of any size are taken`() {
    #expect(fit([0, .max / 4, .max / 2, .max]).verdict == .leak)
    #expect(fit([.max, 0, .min]).verdict == .shrinks)
  }
}
