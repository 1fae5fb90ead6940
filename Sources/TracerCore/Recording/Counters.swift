// SPDX-License-Identifier: Apache-2.0
// What is counted: allocations, frees, and everything that went unrecorded.

import CTracerPlatform
import Synchronization

/// Counts since the recording began, of one thread or of all that have ended.
package struct Counters: ~Copyable {
  package let allocatedBlocks: Atomic<UInt64>
  package let allocatedBytes: Atomic<UInt64>
  package let freedBlocks: Atomic<UInt64>
  package let freedBytes: Atomic<UInt64>
  package let unknownFreedBlocks: Atomic<UInt64>
  package let unknownFreedBytes: Atomic<UInt64>
  package let truncatedStacks: Atomic<UInt64>
  package let brokenStacks: Atomic<UInt64>
  package let lostBlocks: Atomic<UInt64>
  package let lostSites: Atomic<UInt64>
  package let lostRows: Atomic<UInt64>
  package let lostNested: Atomic<UInt64>
  /// Blocks whose place was handed out again though nobody had seen them given back.
  package let unseenFrees: Atomic<UInt64>
  /// Stacks that were followed from the thread's last walk, since they were not remembered.
  package let followedStacks: Atomic<UInt64>
  /// Stacks that were walked as a whole.
  package let walkedStacks: Atomic<UInt64>
  /// Where `HEAPTAP_CHECK` asks for it: stacks that were found in every way, and differences found.
  package let checkedStacks: Atomic<UInt64>
  package let differingStacks: Atomic<UInt64>
  /// How often what other threads read and write was written: the process's balance, and a site's totals.
  package let publications: Atomic<UInt64>
  package let flushes: Atomic<UInt64>
  /// While sampling: what the blocks stand for that were recorded, and that were given back of them.
  package let allocatedEstimate: Estimate
  package let freedEstimate: Estimate

  /// Adds another set, which no thread changes any more.
  package borrowing func add(_ other: borrowing Counters) {
    let values = other.values
    _ = allocatedBlocks.wrappingAdd(values.allocatedBlocks, ordering: .relaxed)
    _ = allocatedBytes.wrappingAdd(values.allocatedBytes, ordering: .relaxed)
    _ = freedBlocks.wrappingAdd(values.freedBlocks, ordering: .relaxed)
    _ = freedBytes.wrappingAdd(values.freedBytes, ordering: .relaxed)
    _ = unknownFreedBlocks.wrappingAdd(values.unknownFreedBlocks, ordering: .relaxed)
    _ = unknownFreedBytes.wrappingAdd(values.unknownFreedBytes, ordering: .relaxed)
    _ = truncatedStacks.wrappingAdd(values.truncatedStacks, ordering: .relaxed)
    _ = brokenStacks.wrappingAdd(values.brokenStacks, ordering: .relaxed)
    _ = lostBlocks.wrappingAdd(values.lostBlocks, ordering: .relaxed)
    _ = lostSites.wrappingAdd(values.lostSites, ordering: .relaxed)
    _ = lostRows.wrappingAdd(values.lostRows, ordering: .relaxed)
    _ = lostNested.wrappingAdd(values.lostNested, ordering: .relaxed)
    _ = unseenFrees.wrappingAdd(values.unseenFrees, ordering: .relaxed)
    _ = followedStacks.wrappingAdd(values.followedStacks, ordering: .relaxed)
    _ = walkedStacks.wrappingAdd(values.walkedStacks, ordering: .relaxed)
    _ = checkedStacks.wrappingAdd(values.checkedStacks, ordering: .relaxed)
    _ = differingStacks.wrappingAdd(values.differingStacks, ordering: .relaxed)
    _ = publications.wrappingAdd(values.publications, ordering: .relaxed)
    _ = flushes.wrappingAdd(values.flushes, ordering: .relaxed)
    allocatedEstimate.add(values.allocatedEstimate)
    freedEstimate.add(values.freedEstimate)
  }

  package func reset() {
    allocatedBlocks.store(0, ordering: .relaxed)
    allocatedBytes.store(0, ordering: .relaxed)
    freedBlocks.store(0, ordering: .relaxed)
    freedBytes.store(0, ordering: .relaxed)
    unknownFreedBlocks.store(0, ordering: .relaxed)
    unknownFreedBytes.store(0, ordering: .relaxed)
    truncatedStacks.store(0, ordering: .relaxed)
    brokenStacks.store(0, ordering: .relaxed)
    lostBlocks.store(0, ordering: .relaxed)
    lostSites.store(0, ordering: .relaxed)
    lostRows.store(0, ordering: .relaxed)
    lostNested.store(0, ordering: .relaxed)
    unseenFrees.store(0, ordering: .relaxed)
    followedStacks.store(0, ordering: .relaxed)
    walkedStacks.store(0, ordering: .relaxed)
    checkedStacks.store(0, ordering: .relaxed)
    differingStacks.store(0, ordering: .relaxed)
    publications.store(0, ordering: .relaxed)
    flushes.store(0, ordering: .relaxed)
    allocatedEstimate.reset()
    freedEstimate.reset()
  }

  /// The counts at about one moment: each by itself is exact.
  package var values: CounterValues {
    CounterValues(
      allocatedBlocks: allocatedBlocks.load(ordering: .relaxed),
      allocatedBytes: allocatedBytes.load(ordering: .relaxed),
      freedBlocks: freedBlocks.load(ordering: .relaxed),
      freedBytes: freedBytes.load(ordering: .relaxed),
      unknownFreedBlocks: unknownFreedBlocks.load(ordering: .relaxed),
      unknownFreedBytes: unknownFreedBytes.load(ordering: .relaxed),
      truncatedStacks: truncatedStacks.load(ordering: .relaxed),
      brokenStacks: brokenStacks.load(ordering: .relaxed),
      lostBlocks: lostBlocks.load(ordering: .relaxed),
      lostSites: lostSites.load(ordering: .relaxed),
      lostRows: lostRows.load(ordering: .relaxed),
      lostNested: lostNested.load(ordering: .relaxed),
      unseenFrees: unseenFrees.load(ordering: .relaxed),
      followedStacks: followedStacks.load(ordering: .relaxed),
      walkedStacks: walkedStacks.load(ordering: .relaxed),
      checkedStacks: checkedStacks.load(ordering: .relaxed),
      differingStacks: differingStacks.load(ordering: .relaxed),
      publications: publications.load(ordering: .relaxed),
      flushes: flushes.load(ordering: .relaxed),
      allocatedEstimate: allocatedEstimate.value, freedEstimate: freedEstimate.value)
  }
}

/// A sum of weights, which threads may add to at any time.
package struct Estimate: ~Copyable {
  private let blocks: Atomic<UInt64>
  private let bytes: Atomic<UInt64>
  private let variance: Atomic<UInt64>

  borrowing func add(_ weight: SampleWeight) {
    _ = blocks.wrappingAdd(weight.blocks, ordering: .relaxed)
    _ = bytes.wrappingAdd(weight.bytes, ordering: .relaxed)
    _ = variance.wrappingAdd(weight.variance, ordering: .relaxed)
  }

  borrowing func subtract(_ weight: SampleWeight) {
    _ = blocks.wrappingSubtract(weight.blocks, ordering: .relaxed)
    _ = bytes.wrappingSubtract(weight.bytes, ordering: .relaxed)
    _ = variance.wrappingSubtract(weight.variance, ordering: .relaxed)
  }

  borrowing func reset() {
    blocks.store(0, ordering: .relaxed)
    bytes.store(0, ordering: .relaxed)
    variance.store(0, ordering: .relaxed)
  }

  var value: SampleWeight {
    SampleWeight(
      blocks: blocks.load(ordering: .relaxed), bytes: bytes.load(ordering: .relaxed),
      variance: variance.load(ordering: .relaxed))
  }
}

/// Counts at one moment.
package struct CounterValues {
  package var allocatedBlocks: UInt64 = 0
  package var allocatedBytes: UInt64 = 0
  package var freedBlocks: UInt64 = 0
  package var freedBytes: UInt64 = 0
  package var unknownFreedBlocks: UInt64 = 0
  package var unknownFreedBytes: UInt64 = 0
  package var truncatedStacks: UInt64 = 0
  package var brokenStacks: UInt64 = 0
  package var lostBlocks: UInt64 = 0
  package var lostSites: UInt64 = 0
  package var lostRows: UInt64 = 0
  package var lostNested: UInt64 = 0
  package var unseenFrees: UInt64 = 0
  package var followedStacks: UInt64 = 0
  package var walkedStacks: UInt64 = 0
  package var checkedStacks: UInt64 = 0
  package var differingStacks: UInt64 = 0
  package var publications: UInt64 = 0
  package var flushes: UInt64 = 0
  package var allocatedEstimate = SampleWeight()
  package var freedEstimate = SampleWeight()

  package var liveBlocks: UInt64 { allocatedBlocks &- freedBlocks }
  package var liveBytes: UInt64 { allocatedBytes &- freedBytes }
  package var lost: UInt64 { lostBlocks &+ lostSites &+ lostRows &+ lostNested &+ unseenFrees }

  package mutating func add(_ other: CounterValues) {
    allocatedBlocks = allocatedBlocks &+ other.allocatedBlocks
    allocatedBytes = allocatedBytes &+ other.allocatedBytes
    freedBlocks = freedBlocks &+ other.freedBlocks
    freedBytes = freedBytes &+ other.freedBytes
    unknownFreedBlocks = unknownFreedBlocks &+ other.unknownFreedBlocks
    unknownFreedBytes = unknownFreedBytes &+ other.unknownFreedBytes
    truncatedStacks = truncatedStacks &+ other.truncatedStacks
    brokenStacks = brokenStacks &+ other.brokenStacks
    lostBlocks = lostBlocks &+ other.lostBlocks
    lostSites = lostSites &+ other.lostSites
    lostRows = lostRows &+ other.lostRows
    lostNested = lostNested &+ other.lostNested
    unseenFrees = unseenFrees &+ other.unseenFrees
    followedStacks = followedStacks &+ other.followedStacks
    walkedStacks = walkedStacks &+ other.walkedStacks
    checkedStacks = checkedStacks &+ other.checkedStacks
    differingStacks = differingStacks &+ other.differingStacks
    publications = publications &+ other.publications
    flushes = flushes &+ other.flushes
    allocatedEstimate.add(other.allocatedEstimate)
    freedEstimate.add(other.freedEstimate)
  }

  /// What is alive, as sampling tells.
  package var liveEstimate: SampleWeight {
    var live = allocatedEstimate
    live.subtract(freedEstimate)
    return live
  }

  /// The same where counts are of samples: with what these stand for in their place.
  package var estimated: CounterValues {
    var values = self
    values.allocatedBlocks = allocatedEstimate.wholeBlocks
    values.allocatedBytes = allocatedEstimate.wholeBytes
    values.freedBlocks = freedEstimate.wholeBlocks
    values.freedBytes = freedEstimate.wholeBytes
    return values
  }
}
