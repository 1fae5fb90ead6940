// SPDX-License-Identifier: Apache-2.0
// A trace around a piece of work.

/// Does a piece of work and reports what it left on the heap.
///
///     let catalog = try withHeapTrace("load", report: { logger.info("\($0)") }) {
///       try Catalog(contentsOf: file)
///     }
///
/// What the work allocates counts, and no other thread's doing, also where that runs the same function;
/// where the two cannot be told apart all of the process's counts, and the report says so. Threads that
/// the work starts have stacks of their own, and do not count as its; tasks do.
///
/// Starts recording where nothing is recorded, with 256 frames of a stack, and stops it again. Without
/// a tracer the work is done all the same, and the report says why there are no figures. Costs two
/// snapshots and the reading of debug information: it is for a piece of work, and not for every request.
///
/// - Parameters:
///   - label: What the report calls the work.
///   - fileID: With the line, which work it is: what an earlier run has left is the same work's.
///   - line: See there.
///   - report: Gets the report, after the work, before this returns or throws.
///   - body: The work. What it returns or throws is passed on.
public func withHeapTrace<Value, Failure: Error>(
  _ label: String, fileID: String = #fileID, line: Int = #line,
  report: (HeapTraceReport) -> Void, _ body: () throws(Failure) -> Value
) throws(Failure) -> Value {
  let work = MeasuredWork(at: "\(fileID):\(line)")
  defer { work.end() }
  return try work.mark.around { () throws(Failure) -> Value in
    let start = HeapMeasurement.start(in: work.mark)
    // Also where it throws: that is when a leak is likely.
    defer {
      report(HeapMeasurement.report(label, from: start, until: HeapMeasurement.end(of: start)))
    }
    return try body()
  }
}

/// Does a piece of asynchronous work and reports what it left on the heap.
///
/// What its child tasks allocate counts, and that of other tasks which it makes, as long as it runs; on
/// whatever actors and threads. What other tasks do meanwhile does not, also where they run the same
/// function. As in the synchronous form, where that cannot be told the report is about the whole
/// process, and says so.
public func withHeapTrace<Value, Failure: Error>(
  _ label: String, fileID: String = #fileID, line: Int = #line,
  isolation: isolated (any Actor)? = #isolation,
  report: (HeapTraceReport) -> Void, _ body: () async throws(Failure) -> Value
) async throws(Failure) -> Value {
  let work = MeasuredWork(at: "\(fileID):\(line)")
  defer { work.end() }
  var start: HeapMeasurement.Outcome<HeapMeasurement>?
  let result: Result<Value, Failure>
  do throws(Failure) {
    result = .success(
      try await work.mark.around(isolation: isolation) { () async throws(Failure) -> Value in
        // Off the stack that it was called on, as the work will be after its first suspension.
        await Task.yield()
        start = HeapMeasurement.start(in: work.mark)
        return try await body()
      })
  } catch {
    result = .failure(error)
  }
  let started = start!
  let end = HeapMeasurement.end(of: started)
  report(await Background.run { HeapMeasurement.report(label, from: started, until: end) })
  return try result.get()
}
