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
    by caller: CallingFunction, warmUps: Int, repetitions: Int, tolerating byteCount: Int,
    _ body: () throws -> Void
  ) throws -> String? {
    let report = try measured(
      label(repetitions), by: caller, warmUps: warmUps, repetitions: repetitions, body)
    return verdict(on: report, tolerating: byteCount)
  }

  /// What the runs after the first ones did.
  private static func measured(
    _ label: String, by caller: CallingFunction, warmUps: Int, repetitions: Int,
    _ body: () throws -> Void
  ) throws -> HeapTraceReport {
    for _ in 0..<warmUps { try body() }
    let measurement = try HeapMeasurement.begin(by: caller)
    // By hand: a closure here would be a block of its own.
    var failure: (any Error)?
    do { for _ in 0..<repetitions { try body() } } catch { failure = error }
    let end = try measurement.end()
    if let failure { throw failure }
    return try measurement.report(label, until: end)
  }

  static func growth(
    by caller: CallingFunction, warmUps: Int, repetitions: Int, tolerating byteCount: Int,
    isolation: isolated (any Actor)?, _ body: () async throws -> Void
  ) async throws -> String? {
    for _ in 0..<warmUps { try await body() }
    await Task.yield()
    let measurement = try HeapMeasurement.begin(by: caller)
    var failure: (any Error)?
    do { for _ in 0..<repetitions { try await body() } } catch { failure = error }
    let end = try measurement.end()
    if let failure { throw failure }
    let report = try measurement.report(label(repetitions), until: end)
    return verdict(on: report, tolerating: byteCount)
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
    by caller: CallingFunction, atMostBlocks blocks: Int?, atMostBytes bytes: Int?, warmUps: Int,
    _ body: () throws -> Void
  ) throws -> String? {
    let report = try measured(
      "allocations", by: caller, warmUps: warmUps, repetitions: 1, body)
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
