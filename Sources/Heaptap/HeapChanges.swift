// SPDX-License-Identifier: Apache-2.0
// Two snapshots compared, as far as a function's own doing goes.

import HeapModel

/// A function as stacks show it: where work is told apart from what others do meanwhile.
package struct CallingFunction: Hashable, Sendable {
  package let file: String
  /// The name up to its parameters, without the backticks of raw identifiers.
  package let name: String

  /// - Parameters:
  ///   - file: As `#filePath` has it.
  ///   - function: As `#function` has it.
  package init(file: String, function: String) {
    self.file = file
    name = String(Self.plain(function).prefix { $0 != "(" })
  }

  /// A raw identifier without its backticks. In symbols its spaces are such as do not break.
  private static func plain(_ name: String) -> String {
    String(name.compactMap { $0 == "`" ? nil : $0 == "\u{a0}" ? " " : $0 })
  }

  /// Whether the frame is the function's, or that of a closure in it.
  func matches(_ frame: Frame) -> Bool {
    guard let function = frame.function else { return false }
    if let frameFile = frame.file, frameFile != file { return false }
    let bare = Self.plain(function)
    if bare.contains(name) { return true }
    // The top level of a program calls itself by the name of its module.
    return file.hasSuffix("/main.swift") && (bare == "main" || bare.hasSuffix(" in main"))
  }
}

extension Frame {
  /// Whether this is the measuring itself, whose own blocks are nobody's growth.
  fileprivate var isMeasuring: Bool {
    guard let function else { return false }
    return function.contains("HeapMeasurement.") || function.contains("SnapshotFile.")
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

  /// - Parameter caller: The function whose blocks count; `nil` for all.
  init(from earlier: Snapshot, to later: Snapshot, by caller: CallingFunction?) {
    let before = earlier.split(by: caller)
    let after = later.split(by: caller)
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
  /// The samples that have the function on their stack, and those that may have had it where the
  /// stack was cut off.
  fileprivate func split(by caller: CallingFunction?) -> (own: Snapshot, unknown: Snapshot) {
    let isCaller = distinctFrames.map { caller?.matches($0) ?? true }
    let isMeasuring = distinctFrames.map(\.isMeasuring)
    var (own, unknown) = (self, self)
    own.samples = []
    unknown.samples = []
    for sample in samples {
      let frames = frameIndices(ofStack: sample.stack)
      if frames.contains(where: { isMeasuring[Int($0)] }) { continue }
      if caller == nil || frames.contains(where: { isCaller[Int($0)] }) {
        own.samples.append(sample)
      } else if sample.missingFrames > 0 {
        unknown.samples.append(sample)
      }
    }
    return (own, unknown)
  }

  /// Whether the function is on the stack of a block of a domain.
  func shows(_ caller: CallingFunction, inDomain domain: Int) -> Bool {
    let isCaller = distinctFrames.map(caller.matches)
    return filtered(.domain(domain)).samples.contains { sample in
      frameIndices(ofStack: sample.stack).contains { isCaller[Int($0)] }
    }
  }
}
