// SPDX-License-Identifier: Apache-2.0
// The tables behind snapshots and reports against what they stand for, on stacks at random.

import HeapModel
import Testing

@Suite struct ManyStacksTests {
  /// A snapshot of 2,000 samples whose stacks often have lines, functions or whole frames in common.
  private func snapshot(seed: UInt64) -> Snapshot {
    var generator = Generator(state: seed)
    let module = Module(start: 0, limit: 1 << 20, fileOffset: 0, path: "/bin/d", buildID: "")
    var builder = Snapshot.Builder(header: Header(), modules: [module])
    let frames = (0..<40).map { number -> Frame in
      switch number % 4 {
      case 0: Frame(address: UInt64(number), module: 0)
      case 1: Frame(address: UInt64(number), module: 0, function: "f\(number / 8)")
      default:
        Frame(
          address: UInt64(number), module: 0, function: "f\(number / 8)",
          file: "/s/\(number % 3).c", line: number / 4)
      }
    }
    for _ in 0..<2000 {
      let depth = Int(generator.next() % 6)
      let stack = (0..<depth).map { _ in frames[Int(generator.next() % UInt64(frames.count))] }
      builder.add(
        bytes: Int(generator.next() % 4) * 8, blocks: Int(generator.next() % 3), stack: stack,
        missingFrames: Int(generator.next() % 3))
    }
    return builder.finish()
  }

  private struct Generator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      return state >> 33
    }
  }

  private struct Figures: Equatable {
    var bytes = 0
    var blocks = 0
  }

  /// Each row's figures, added up by the keys themselves.
  private func figures(
    _ snapshot: Snapshot, _ grouping: Snapshot.Grouping, _ charging: Snapshot.Charging
  ) -> [Statistic.Key: Figures] {
    var all: [Statistic.Key: Figures] = [:]
    for sample in snapshot.samples {
      let stack = snapshot.stack(of: sample)
      let keys: Set<Statistic.Key> =
        switch (grouping, charging) {
        case (.generation, _): [.generation(sample.generation)]
        case (.type, _): [.type(sample.type)]
        case (.thread, _): [.thread(sample.thread)]
        case (.reach, _): [.reach(sample.reach)]
        case (.stack, _): [.stack(.init(stack.map { snapshot.key(of: $0, groupedBy: .line) }))]
        case (_, .allocatingFrame):
          [snapshot.key(of: stack.first ?? Frame(), groupedBy: grouping)]
        case (_, .everyFrame):
          Set(
            (stack.isEmpty ? [Frame()] : Array(stack)).map {
              snapshot.key(of: $0, groupedBy: grouping)
            })
        }
      for key in keys {
        all[key, default: Figures()].bytes += sample.liveBytes
        all[key, default: Figures()].blocks += sample.liveBlocks
      }
    }
    return all
  }

  private static let reports: [(Snapshot.Grouping, Snapshot.Charging)] =
    Snapshot.Grouping.allCases.flatMap { grouping in
      grouping == .stack
        ? [(grouping, .allocatingFrame)] : [(grouping, .allocatingFrame), (grouping, .everyFrame)]
    }

  @Test(arguments: reports)
  func `rows are what adding up by their keys gives, in the order of figures and keys`(
    grouping: Snapshot.Grouping, charging: Snapshot.Charging
  ) throws {
    let snapshot = snapshot(seed: 1)
    let expected = figures(snapshot, grouping, charging)
    let rows = try snapshot.statistics(groupedBy: grouping, charging: charging)
    #expect(rows.count == expected.count)
    for row in rows {
      #expect(expected[row.key] == Figures(bytes: row.liveBytes, blocks: row.liveBlocks))
    }
    for (row, next) in zip(rows, rows.dropFirst()) {
      #expect(
        (row.liveBytes, row.liveBlocks, row.key) > (next.liveBytes, next.liveBlocks, next.key))
    }
  }

  @Test(arguments: reports)
  func `a comparison has every row of both, with what was added, in the order of the change`(
    grouping: Snapshot.Grouping, charging: Snapshot.Charging
  ) throws {
    let (old, new) = (snapshot(seed: 2).filtered(!.function("f4")), snapshot(seed: 3))
    let before = figures(old, grouping, charging)
    let after = figures(new, grouping, charging)
    let rows = try new.compared(to: old, groupedBy: grouping, charging: charging)
    #expect(rows.count == Set(before.keys).union(after.keys).count)
    for row in rows {
      let (then, now) = (before[row.key] ?? Figures(), after[row.key] ?? Figures())
      #expect(Figures(bytes: row.liveBytes, blocks: row.liveBlocks) == now)
      #expect(row.addedBytes == now.bytes - then.bytes)
      #expect(row.addedBlocks == now.blocks - then.blocks)
      #expect((row.stack == nil) == (grouping != .stack))
    }
    for (row, next) in zip(rows, rows.dropFirst()) {
      #expect(Self.rank(row) > Self.rank(next))
    }
  }

  private static func rank(
    _ row: StatisticDifference
  ) -> (UInt, Int, UInt, Int, Statistic.Key) {
    (
      row.addedBytes.magnitude, row.liveBytes, row.addedBlocks.magnitude, row.liveBlocks, row.key
    )
  }

  @Test func `names and folding in one pass are the two in turn`() {
    let snapshot = snapshot(seed: 4)
    let folding = FrameFolding(
      rules: [.function("f1"), .function("g*")], passages: [.file("*0.c")])
    func calls(_ frame: Frame) -> [Frame] {
      guard frame.function == nil else { return [] }
      var inlined = frame
      inlined.function = "g\(frame.address)"
      inlined.isInlined = true
      var outer = frame
      outer.function = "f\(frame.address % 5)"
      return [inlined, outer]
    }
    let once = snapshot.replacingFrames(foldedBy: folding, calls)
    let twice = snapshot.replacingFrames(calls).folded(by: folding)
    #expect(once == twice)
    #expect(once.liveBytes == snapshot.liveBytes)
    #expect(once.stackCount < snapshot.stackCount)
  }
}
