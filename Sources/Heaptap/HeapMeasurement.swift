// SPDX-License-Identifier: Apache-2.0
// What a piece of work does to the heap, from its beginning to its end.

import HeapModel
import Synchronization

/// A piece of work whose doings are told from what others do meanwhile.
package struct MeasuredWork: Sendable {
  /// What everything that is to be measured is called through.
  package let mark: HeapMark
  private let place: String

  /// - Parameter place: Who measures, the same each time: the place in the source.
  package init(at place: String) {
    self.place = place
    mark = HeapMark.take(by: place)
  }

  /// To be called once, at the end.
  package func end() { mark.giveBack(by: place) }
}

/// The beginning of a piece of work, as its end will need it.
package struct HeapMeasurement: Sendable {
  private let mark: HeapMark
  private let before: SnapshotFile
  private let liveBytes: Int

  /// A block of nothing that is tracked by whoever begins to measure: a mark that is on its stack will
  /// be found on others.
  private static let markDomain = UInt32.max
  private static let marks = Atomic<UInt>(0)

  /// Has recording begin, where nobody has. To be taken back by `endRecording`, or by `end`.
  package static func beginRecording() throws(HeapTracerError) { try Recording.begin() }
  package static func endRecording() { Recording.end() }

  /// Takes the first snapshot of what is recorded.
  ///
  /// Called from within the mark, by a task that was suspended if the work may be: the snapshot shows
  /// whether the mark can be seen.
  package static func begin(in mark: HeapMark) throws(HeapTracerError) -> HeapMeasurement {
    let place = marks.wrappingAdd(1, ordering: .relaxed).newValue
    try HeapTracer.track(address: place, byteCount: 0, domain: markDomain)
    let before = try SnapshotFile.write()
    try HeapTracer.untrack(address: place, domain: markDomain)
    try HeapTracer.resetPeak()
    return HeapMeasurement(
      mark: mark, before: before, liveBytes: try HeapTracer.figures().liveBytes)
  }

  /// What is there at the end of the work, before anything else is allocated.
  package struct End: Sendable {
    fileprivate let after: SnapshotFile
    fileprivate let peakBytes: Int
  }

  package func end() throws(HeapTracerError) -> End {
    defer { Recording.end() }
    let peak = try HeapTracer.figures().peakBytes
    return End(after: try SnapshotFile.write(), peakBytes: max(0, peak - liveBytes))
  }

  /// Reads both snapshots and compares them. Takes what symbolication takes.
  package func report(
    _ label: String, until end: End
  ) throws(HeapTracerError) -> HeapTraceReport {
    let marked = try before.read().symbolicatedBlocking(keepingAllFrames: true)
    let later = try end.after.read().symbolicatedBlocking(keepingAllFrames: true)
    let isSeen = marked.shows(mark, inDomain: Int(Self.markDomain))
    let others = !Filter.domain(Int(Self.markDomain))
    let changes = HeapChanges(
      from: marked.filtered(others), to: later.filtered(others), by: isSeen ? mark : nil)
    return HeapTraceReport(
      label: label, scope: isSeen ? .work : .process, changes: changes, peakBytes: end.peakBytes)
  }
}

/// For who cannot throw what is wrong, but reports it. No block of these is somebody's growth: they are
/// known by their type's name.
extension HeapMeasurement {
  typealias Outcome<Value> = Result<Value, HeapTracerError>

  static func start(in mark: HeapMark) -> Outcome<HeapMeasurement> {
    Outcome { () throws(HeapTracerError) in
      try beginRecording()
      do throws(HeapTracerError) {
        return try begin(in: mark)
      } catch {
        endRecording()
        throw error
      }
    }
  }

  static func end(of start: Outcome<HeapMeasurement>) -> Outcome<End> {
    Outcome { () throws(HeapTracerError) in try start.get().end() }
  }

  static func report(
    _ label: String, from start: Outcome<HeapMeasurement>, until end: Outcome<End>
  ) -> HeapTraceReport {
    do throws(HeapTracerError) {
      return try start.get().report(label, until: try end.get())
    } catch {
      return HeapTraceReport(label: label, failure: error)
    }
  }
}

/// Recordings that measurements have started: the last one stops what the first one started.
private enum Recording {
  private struct State {
    var measurements = 0
    var isOurs = false
  }

  private static let state = Mutex(State())

  /// How many frames of a stack are kept at least: what is told apart is told by frames far out, and a
  /// task's stack goes on into the one that made the task.
  private static let depth = 256

  static func begin() throws(HeapTracerError) {
    try state.withLock { (state) throws(HeapTracerError) in
      let figures = try HeapTracer.figures()
      if !HeapTracer.isRecording {
        try HeapTracer.start(sampleBytes: 0, depth: max(depth, figures.depthLimit))
        state.isOurs = true
      } else if figures.sampleBytes != 0 {
        throw HeapTracerError(.isEstimate)
      }
      state.measurements += 1
    }
  }

  static func end() {
    state.withLock { state in
      state.measurements -= 1
      guard state.measurements == 0, state.isOurs else { return }
      state.isOurs = false
      // Nobody is left to whom it would matter.
      try? HeapTracer.stop()
    }
  }
}
