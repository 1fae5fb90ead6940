// SPDX-License-Identifier: Apache-2.0
// Two snapshots compared, as far as a piece of work's own doing goes.

import HeapModel

extension Frame {
  /// Whether this is the measuring itself, whose own blocks are nobody's growth.
  fileprivate var isMeasuring: Bool {
    guard let function else { return false }
    return ["HeapMeasurement.", "SnapshotFile.", "FrameNames.", "HeapWatch."]
      .contains { function.contains($0) }
  }
}

/// What changed between two snapshots.
struct HeapChanges {
  let lines: [StatisticDifference]
  let stacks: [StatisticDifference]
  let addedBytes: Int
  let addedBlocks: Int
  let allocatedBytes: Int
  let allocatedBlocks: Int
  let unattributedBytes: Int

  /// - Parameter mark: Whose blocks count; `nil` for everybody's.
  init(from earlier: Snapshot, to later: Snapshot, by mark: HeapMark?) {
    let before = earlier.split(by: mark)
    let after = later.split(by: mark)
    addedBytes = after.own.liveBytes - before.own.liveBytes
    addedBlocks = after.own.liveBlocks - before.own.liveBlocks
    allocatedBytes = max(0, after.own.totalBytes - before.own.totalBytes)
    allocatedBlocks = max(0, after.own.totalBlocks - before.own.totalBlocks)
    unattributedBytes = max(0, after.unknown.liveBytes - before.unknown.liveBytes)
    let (old, new) = (before.own.folded(), after.own.folded())
    lines = new.compared(to: old, groupedBy: .line).filter(\.isChange)
    stacks = new.compared(to: old, groupedBy: .stack).filter(\.isChange)
  }
}

extension StatisticDifference {
  fileprivate var isChange: Bool { addedBytes != 0 || addedBlocks != 0 }
}

extension Snapshot {
  /// The samples that have the mark on their stack, and those that may have had it where the stack was
  /// cut off.
  fileprivate func split(by mark: HeapMark?) -> (own: Snapshot, unknown: Snapshot) {
    let parts = distinctFrames.map { mark == nil ? nil : HeapMark.Part($0) }
    var (own, unknown) = (self, self)
    own.samples = []
    unknown.samples = []
    for sample in withoutMeasuring().samples {
      let frames = frameIndices(ofStack: sample.stack)
      if mark?.isSpelled(by: frames.lazy.map { parts[Int($0)] }) ?? true {
        own.samples.append(sample)
      } else if sample.missingFrames > 0 {
        unknown.samples.append(sample)
      }
    }
    return (own, unknown)
  }

  /// The snapshot without what snapshots take themselves, such as the names of frames. To be called
  /// before frames are left out.
  package func withoutMeasuring() -> Snapshot {
    let isMeasuring = distinctFrames.map(\.isMeasuring)
    var result = self
    result.samples.removeAll { sample in
      frameIndices(ofStack: sample.stack).contains { isMeasuring[Int($0)] }
    }
    return result
  }

  /// Whether the mark is on the stack of a block of a domain.
  func shows(_ mark: HeapMark, inDomain domain: Int) -> Bool {
    let parts = distinctFrames.map { HeapMark.Part($0) }
    return filtered(.domain(domain)).samples.contains { sample in
      mark.isSpelled(by: frameIndices(ofStack: sample.stack).lazy.map { parts[Int($0)] })
    }
  }
}
