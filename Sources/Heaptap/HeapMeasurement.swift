// SPDX-License-Identifier: Apache-2.0
// What a piece of work does to the heap, from its beginning to its end.

import HeapModel
import Synchronization

/// The beginning of a piece of work, as its end will need it.
package struct HeapMeasurement: Sendable {
  private let caller: CallingFunction
  private let before: SnapshotFile
  private let liveBytes: Int

  /// A block of nothing that is tracked by whoever begins to measure: a function that is on its stack
  /// will be found on others.
  private static let markDomain = UInt32.max
  private static let marks = Atomic<UInt>(0)

  /// Takes the first snapshot, and starts recording where nobody has.
  ///
  /// Called by the function itself, or from a task that has left its caller's stack: the snapshot
  /// shows whether the caller can be seen all the same.
  package static func begin(by caller: CallingFunction) throws(HeapTracerError) -> HeapMeasurement {
    try Recording.begin()
    do throws(HeapTracerError) {
      let place = marks.wrappingAdd(1, ordering: .relaxed).newValue
      try HeapTracer.track(address: place, byteCount: 0, domain: markDomain)
      let before = try SnapshotFile.write()
      try HeapTracer.untrack(address: place, domain: markDomain)
      try HeapTracer.resetPeak()
      return HeapMeasurement(
        caller: caller, before: before, liveBytes: try HeapTracer.figures().liveBytes)
    } catch {
      Recording.end()
      throw error
    }
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
  ///
  /// - Parameter isAhead: Whether the caller was yet to be called when measuring began: then it is
  ///   looked for on the stacks of its work.
  package func report(
    _ label: String, until end: End, isAhead: Bool = false
  ) throws(HeapTracerError) -> HeapTraceReport {
    let marked = try before.read().symbolicatedBlocking(keepingAllFrames: true)
    let later = try end.after.read().symbolicatedBlocking(keepingAllFrames: true)
    let isSeen =
      isAhead
      ? (later.distinctFrames + marked.distinctFrames).contains(where: caller.matches)
      : marked.shows(caller, inDomain: Int(Self.markDomain))
    let earlier = marked.filtered(!.domain(Int(Self.markDomain)))
    let changes = HeapChanges(from: earlier, to: later, by: isSeen ? caller : nil)
    return HeapTraceReport(
      label: label, scope: isSeen ? .caller : .process, changes: changes,
      peakBytes: end.peakBytes)
  }
}

/// For who cannot throw what is wrong, but reports it. No block of these is somebody's growth: they are
/// known by their type's name.
extension HeapMeasurement {
  typealias Outcome<Value> = Result<Value, HeapTracerError>

  static func start(by caller: CallingFunction) -> Outcome<HeapMeasurement> {
    Outcome { () throws(HeapTracerError) in try begin(by: caller) }
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

  static func begin() throws(HeapTracerError) {
    try state.withLock { (state) throws(HeapTracerError) in
      if !HeapTracer.isRecording {
        try HeapTracer.start()
        state.isOurs = true
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
