// SPDX-License-Identifier: Apache-2.0
// What a program tells of memory that malloc did not hand out, and asks of what is traced.

import CTracerPlatform
import Synchronization

/// The recording in figures, at one moment. In the order of `struct heaptap_figures`.
package struct RecordingFigures {
  package static var count: Int { 12 }

  package var isRecording: UInt64 = 0
  package var liveBytes: UInt64 = 0
  package var liveBlocks: UInt64 = 0
  package var peakBytes: UInt64 = 0
  package var trackedBytes: UInt64 = 0
  package var trackedBlocks: UInt64 = 0
  package var tracerBytes: UInt64 = 0
  package var lostBlocks: UInt64 = 0
  package var depth: UInt64 = 0
  package var generation: UInt64 = 0
  package var sampleBytes: UInt64 = 0
  package var liveErrorBytes: UInt64 = 0
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Enters a block of the program's own, with the calling stack; 0 or an errno.
  ///
  /// Cost: a walk, as of an allocation, and a lock that only other calls of this can hold.
  package func track(
    domain: UInt32, address: UInt64, byteCount: UInt64,
    _ registers: UnsafePointer<tracer_registers>
  ) -> Int32 {
    guard let thread = enter() else { return ESRCH }
    defer { leave(thread) }
    let site = site(thread, registers)
    return pointee.tracked.enter(
      domain: domain, address: address, byteCount: byteCount, site: site,
      generation: pointee.generation.load(ordering: .relaxed)) ? 0 : ENOMEM
  }

  /// Takes a block of the program's own out; 0 or an errno. One that is not there is no error.
  package func untrack(domain: UInt32, address: UInt64) -> Int32 {
    guard let thread = enter() else { return ESRCH }
    defer { leave(thread) }
    pointee.tracked.take(domain: domain, address: address)
    return 0
  }

  /// What the calling thread has not yet published shall count now.
  private func publishOwn() {
    guard let thread = enter() else { return }
    publishWhole(thread)
    leave(thread)
  }

  /// The recording in figures; all but `depth` and `sampleBytes` are 0 where nothing is recorded.
  ///
  /// The calling thread is counted to the byte. By what others hold back the peak may be wrong: see
  /// `ThreadPool.peakError`. Cost: a pass over the threads and over the marks of the live map's pages.
  package func recordingFigures() -> RecordingFigures {
    var figures = RecordingFigures()
    figures.depth = UInt64(pointee.settings.depth)
    figures.sampleBytes = pointee.settings.sampleByteCount
    guard pointee.isRecording.load(ordering: .acquiring) == 1 else { return figures }
    publishOwn()
    raisePeakByOwnBalance()
    let counts = counterValues()
    figures.isRecording = 1
    figures.liveBytes = counts.liveBytes
    figures.liveBlocks = counts.liveBlocks
    figures.peakBytes = max(
      UInt64(max(0, pointee.peakBytes.load(ordering: .relaxed))), counts.liveBytes)
    figures.trackedBytes = pointee.tracked.byteCount.load(ordering: .relaxed)
    figures.trackedBlocks = pointee.tracked.blockCount.load(ordering: .relaxed)
    figures.tracerBytes = tracerParts.total
    figures.lostBlocks = counts.lost
    figures.depth = UInt64(pointee.depth)
    figures.generation = UInt64(pointee.generation.load(ordering: .relaxed))
    figures.sampleBytes = samplingByteCount
    figures.liveErrorBytes = pointee.sampling.mean.standardError(counts.liveEstimate.variance)
    return figures
  }

  /// Has the peak be what is alive now; 0 or an errno.
  package func resetPeak() -> Int32 {
    guard pointee.isRecording.load(ordering: .acquiring) == 1 else { return ESRCH }
    publishOwn()
    pointee.peakBytes.store(
      max(0, pointee.publishedBytes.load(ordering: .relaxed)), ordering: .relaxed)
    if pointee.settings.keepsPeak {
      pointee.peaks.isOutdated.store(1, ordering: .releasing)
      wakeWorker()
    }
    return 0
  }
}
