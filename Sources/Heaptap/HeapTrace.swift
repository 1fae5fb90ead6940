// SPDX-License-Identifier: Apache-2.0
// A trace around a piece of work.

/// Does a piece of work and reports what it left on the heap.
///
///     let catalog = try withHeapTrace("load", report: { logger.info("\($0)") }) {
///       try Catalog(contentsOf: file)
///     }
///
/// Blocks count that have the calling function on their stack, so that other threads' work is told
/// apart; where that cannot be, all of the process's count, and the report says so. Threads that the
/// work starts have stacks of their own, and do not count as its; tasks do where the tracer follows
/// them to who made them.
///
/// Starts recording where nothing is recorded, and stops it again. Without a tracer the work is done
/// all the same, and the report says why there are no figures. Costs two snapshots and the reading
/// of debug information: it is for a piece of work, and not for every request.
///
/// - Parameters:
///   - label: What the report calls the work.
///   - report: Gets the report, after the work, before this returns or throws.
///   - body: The work. What it returns or throws is passed on.
public func withHeapTrace<Value, Failure: Error>(
  _ label: String, file: String = #filePath, function: String = #function,
  report: (HeapTraceReport) -> Void, _ body: () throws(Failure) -> Value
) throws(Failure) -> Value {
  let start = HeapMeasurement.start(by: CallingFunction(file: file, function: function))
  // Also where it throws: that is when a leak is likely.
  defer {
    report(HeapMeasurement.report(label, from: start, until: HeapMeasurement.end(of: start)))
  }
  return try body()
}

/// Does a piece of asynchronous work and reports what it left on the heap.
///
/// As the synchronous form, but that a task which was suspended has left its caller's stack: its
/// blocks are told apart only where the tracer follows tasks to their callers, and otherwise the
/// report is about the whole process, and says so.
public func withHeapTrace<Value, Failure: Error>(
  _ label: String, file: String = #filePath, function: String = #function,
  isolation: isolated (any Actor)? = #isolation,
  report: (HeapTraceReport) -> Void, _ body: () async throws(Failure) -> Value
) async throws(Failure) -> Value {
  // Away from the caller's stack, as the work will be after its first suspension.
  await Task.yield()
  let start = HeapMeasurement.start(by: CallingFunction(file: file, function: function))
  let result: Result<Value, Failure>
  do throws(Failure) {
    result = .success(try await body())
  } catch {
    result = .failure(error)
  }
  let end = HeapMeasurement.end(of: start)
  report(await Background.run { HeapMeasurement.report(label, from: start, until: end) })
  return try result.get()
}
