// SPDX-License-Identifier: Apache-2.0
// What both test libraries measure, and how what they find is told.

import Heaptap

/// What a check of the heap found wrong, as the text of a failure; `nil` where all is well.
enum HeapCheck {
  /// Runs the body a few times, and then again while it is watched.
  ///
  /// What a first run fills, such as caches, lazily made metadata or the buffers of output, is no
  /// leak, and a leak of one block in each run shows after several.
  static func growth(
    at place: String, warmUps: Int, repetitions: Int, tolerating byteCount: Int,
    _ body: () throws -> Void
  ) throws -> String? {
    let report = try measured(
      label(repetitions), at: place, warmUps: warmUps, repetitions: repetitions, body)
    return verdict(on: report, tolerating: byteCount)
  }

  static func growth(
    at place: String, warmUps: Int, repetitions: Int, tolerating byteCount: Int,
    isolation: isolated (any Actor)?, _ body: () async throws -> Void
  ) async throws -> String? {
    let report = try await measured(
      label(repetitions), at: place, warmUps: warmUps, repetitions: repetitions,
      isolation: isolation, body)
    return verdict(on: report, tolerating: byteCount)
  }

  /// What the runs after the first ones did. The first are recorded as well: what they leave may be
  /// what the others take the place of.
  private static func measured(
    _ label: String, at place: String, warmUps: Int, repetitions: Int, _ body: () throws -> Void
  ) throws -> HeapTraceReport {
    let work = MeasuredWork(at: place)
    defer { work.end() }
    try HeapMeasurement.beginRecording()
    var start: HeapMeasurement?
    // By hand: an error that is thrown past the last snapshot would be a block of its own.
    var failure: (any Error)?
    work.mark.around {
      do {
        for _ in 0..<warmUps { try body() }
        start = try HeapMeasurement.begin(in: work.mark)
        for _ in 0..<repetitions { try body() }
      } catch { failure = error }
    }
    return try report(label, from: start, or: failure)
  }

  private static func measured(
    _ label: String, at place: String, warmUps: Int, repetitions: Int,
    isolation: isolated (any Actor)?, _ body: () async throws -> Void
  ) async throws -> HeapTraceReport {
    try await measured(label, at: place, isolation: isolation) { begin in
      for _ in 0..<warmUps { try await body() }
      // Off the stack that it was called on, as the work will be after its first suspension.
      await Task.yield()
      try begin()
      for _ in 0..<repetitions { try await body() }
    }
  }

  /// What work did from when it has called what it is given.
  ///
  /// - Parameter body: The work, which is called once and calls that once.
  static func measured(
    _ label: String, at place: String, isolation: isolated (any Actor)? = #isolation,
    _ body: (_ begin: () throws -> Void) async throws -> Void
  ) async throws -> HeapTraceReport {
    let work = MeasuredWork(at: place)
    defer { work.end() }
    try HeapMeasurement.beginRecording()
    var start: HeapMeasurement?
    var failure: (any Error)?
    await work.mark.around(isolation: isolation) { () async -> Void in
      do {
        try await body { start = try HeapMeasurement.begin(in: work.mark) }
      } catch { failure = error }
    }
    return try report(label, from: start, or: failure)
  }

  private static func report(
    _ label: String, from start: HeapMeasurement?, or failure: (any Error)?
  ) throws -> HeapTraceReport {
    guard let start else {
      HeapMeasurement.endRecording()
      throw failure!
    }
    let end = try start.end()
    if let failure { throw failure }
    return try start.report(label, until: end)
  }

  private static func label(_ repetitions: Int) -> String {
    repetitions == 1 ? "the heap grew" : "the heap grew in \(repetitions) runs"
  }

  static func verdict(on report: HeapTraceReport, tolerating byteCount: Int) -> String? {
    guard report.addedBytes > byteCount else { return nil }
    let limit = byteCount == 0 ? "" : "\nmore than the \(ByteCount(byteCount)) that are tolerated"
    return report.text(lines: 10, stacksOf: 3) + limit
  }

  /// Runs the body once to warm up, and once while its allocations are counted.
  static func allocations(
    at place: String, atMostBlocks blocks: Int?, atMostBytes bytes: Int?, warmUps: Int,
    _ body: () throws -> Void
  ) throws -> String? {
    let report = try measured(
      "allocations", at: place, warmUps: warmUps, repetitions: 1, body)
    return excess(of: report, atMostBlocks: blocks, atMostBytes: bytes)
  }

  static func allocations(
    at place: String, atMostBlocks blocks: Int?, atMostBytes bytes: Int?, warmUps: Int,
    isolation: isolated (any Actor)?, _ body: () async throws -> Void
  ) async throws -> String? {
    let report = try await measured(
      "allocations", at: place, warmUps: warmUps, repetitions: 1, isolation: isolation, body)
    return excess(of: report, atMostBlocks: blocks, atMostBytes: bytes)
  }

  private static func excess(
    of report: HeapTraceReport, atMostBlocks blocks: Int?, atMostBytes bytes: Int?
  ) -> String? {
    var excess: [String] = []
    if let blocks, report.allocatedBlocks > blocks {
      excess.append("\(report.allocatedBlocks) blocks, of which \(blocks) are allowed")
    }
    if let bytes, report.allocatedBytes > bytes {
      excess.append(
        "\(ByteCount(report.allocatedBytes)), of which \(ByteCount(bytes)) are allowed")
    }
    guard !excess.isEmpty else { return nil }
    let scope = report.scope == .process ? " (by the whole process)" : ""
    return "allocated \(excess.joined(separator: " and "))\(scope)"
  }
}
