// SPDX-License-Identifier: Apache-2.0
// A recording in figures.

/// A recording in figures, at one moment.
///
/// Where nothing is recorded all are 0, but for `depthLimit` and `sampleBytes`.
public struct HeapFigures: Hashable, Sendable {
  /// Whether allocations were being recorded.
  public var isRecording = false
  /// Bytes that were asked of malloc since recording began and have not been freed.
  public var liveBytes = 0
  /// The blocks that `liveBytes` is the size of.
  public var liveBlocks = 0
  /// The most that `liveBytes` has been. What the calling thread did is in it to the byte; of all
  /// other threads together 2 KiB may be missing.
  public var peakBytes = 0
  /// What `HeapTracer.track` has told of. In none of the figures above.
  public var trackedBytes = 0
  /// The blocks that `trackedBytes` is the size of.
  public var trackedBlocks = 0
  /// The tracer's own memory.
  public var tracerBytes = 0
  /// Blocks that were not recorded, or not with their stack.
  public var lostBlocks = 0
  /// How many frames of a stack are kept: by the recording, else by one that would start now.
  public var depthLimit = 0
  /// The generation that blocks are born in now, from 1.
  public var generation = 0
  /// Bytes for each sample, on average: the figures of blocks, but for tracked ones, are estimates then;
  /// 0 where every block is recorded. Of the recording, else of one that would start now.
  public var sampleBytes = 0
  /// The standard error of `liveBytes`, where that is an estimate.
  public var liveErrorBytes = 0

  /// Figures that were read elsewhere, or made up for a test.
  public init(
    isRecording: Bool = false, liveBytes: Int = 0, liveBlocks: Int = 0, peakBytes: Int = 0,
    trackedBytes: Int = 0, trackedBlocks: Int = 0, tracerBytes: Int = 0, lostBlocks: Int = 0,
    depthLimit: Int = 0, generation: Int = 0, sampleBytes: Int = 0, liveErrorBytes: Int = 0
  ) {
    self.isRecording = isRecording
    self.liveBytes = liveBytes
    self.liveBlocks = liveBlocks
    self.peakBytes = peakBytes
    self.trackedBytes = trackedBytes
    self.trackedBlocks = trackedBlocks
    self.tracerBytes = tracerBytes
    self.lostBlocks = lostBlocks
    self.depthLimit = depthLimit
    self.generation = generation
    self.sampleBytes = sampleBytes
    self.liveErrorBytes = liveErrorBytes
  }
}
