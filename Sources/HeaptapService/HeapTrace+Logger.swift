// SPDX-License-Identifier: Apache-2.0
// A trace around a piece of work, told to a logger.

#if Service
  import Heaptap
  import Logging

  /// Does a piece of work and logs what it left on the heap.
  ///
  ///     let catalog = try withHeapTrace("load", logger: logger) { try Catalog(contentsOf: file) }
  ///
  /// As `withHeapTrace(_:report:_:)` of Heaptap, whose words it is. The figures are in the metadata.
  /// Without a tracer the work is done all the same, and a warning says how to get one.
  public func withHeapTrace<Value, Failure: Error>(
    _ label: String, logger: Logger, level: Logger.Level = .info, fileID: String = #fileID,
    line: Int = #line, _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    try withHeapTrace(
      label, fileID: fileID, line: line,
      report: { logger.log($0, at: level, fileID: fileID, line: line) }, body)
  }

  /// Does a piece of asynchronous work and logs what it left on the heap.
  ///
  /// What the tasks allocate that it makes counts, and nothing that other tasks do meanwhile.
  public func withHeapTrace<Value, Failure: Error>(
    _ label: String, logger: Logger, level: Logger.Level = .info, fileID: String = #fileID,
    line: Int = #line, isolation: isolated (any Actor)? = #isolation,
    _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    try await withHeapTrace(
      label, fileID: fileID, line: line, isolation: isolation,
      report: { logger.log($0, at: level, fileID: fileID, line: line) }, body)
  }

  extension Logger {
    fileprivate func log(
      _ report: HeapTraceReport, at level: Level, fileID: String, line: Int
    ) {
      var metadata: Metadata = ["heap.label": "\(report.label)"]
      if report.failure == nil {
        metadata["heap.added_bytes"] = "\(report.addedBytes)"
        metadata["heap.added_blocks"] = "\(report.addedBlocks)"
        metadata["heap.allocated_bytes"] = "\(report.allocatedBytes)"
        metadata["heap.peak_bytes"] = "\(report.peakBytes)"
        metadata["heap.scope"] = "\(report.scope)"
      }
      log(
        level: report.failure == nil ? level : .warning, "\(report)", metadata: metadata,
        file: fileID, line: UInt(line))
    }
  }
#endif
