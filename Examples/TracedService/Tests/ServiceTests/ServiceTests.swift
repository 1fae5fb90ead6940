// SPDX-License-Identifier: Apache-2.0
// What a logger and metrics are told of a heap, by a tracer that this process is linked to.

import Foundation
import Heaptap
import HeaptapService
import InMemoryLogging
import Logging
import Metrics
import MetricsTestKit
import ServiceLifecycle
import ServiceLifecycleTestKit
import Synchronization
import Testing

/// What stays until a test is over.
private final class Shelf: Sendable {
  private let blocks = Mutex<[[UInt8]]>([])

  func put(_ byteCount: Int) {
    let block = [UInt8](repeating: 1, count: byteCount)
    blocks.withLock { $0.append(block) }
  }

  func clear() { blocks.withLock { $0 = [] } }
}

/// One after the other: a recording is the process's.
@Suite(.serialized) struct ServiceTests {
  private let logs = InMemoryLogHandler()
  private var logger: Logger { Logger(label: "test") { _ in logs } }

  private func entries(_ start: String) -> [InMemoryLogHandler.Entry] {
    logs.entries.filter { "\($0.message)".hasPrefix(start) }
  }

  private func wait(for what: String, _ isThere: () -> Bool) async throws {
    for _ in 0..<3000 {
      if isThere() { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    Issue.record("waited for \(what) in vain: \(logs.entries.map { "\($0.message)" })")
  }

  @Test func `gauges are the recording's figures, and 0 without one`() throws {
    let metrics = TestMetrics()
    let heap = HeapMetrics(dimensions: [("pod", "a")], factory: metrics)
    let figures = HeapFigures(
      liveBytes: 1, liveBlocks: 2, peakBytes: 3, trackedBytes: 4, tracerBytes: 5, lostBlocks: 6)
    heap.update(with: figures)
    let names = [
      "heap_traced_bytes", "heap_traced_blocks", "heap_traced_peak_bytes", "heap_tracked_bytes",
      "heap_tracer_bytes", "heap_lost_blocks",
    ]
    func values() throws -> [Double] {
      try names.map { try metrics.expectGauge($0, [("pod", "a")]).lastValue ?? -1 }
    }
    #expect(try values() == [1, 2, 3, 4, 5, 6])
    try HeapTracer.start()
    let kept = [UInt8](repeating: 1, count: 1_000_000)
    try heap.update()
    let now = try values()
    #expect((1_000_000..<3_000_000).contains(now[0]), "\(now)")
    #expect(now[1] >= 1)
    #expect(now[2] >= now[0])
    #expect(now[4] > 0)
    withExtendedLifetime(kept) {}
    try HeapTracer.stop()
    try heap.update()
    #expect(try values() == [0, 0, 0, 0, 0, 0])
  }

  @Test func `a trace is told to the logger, with its figures`() async throws {
    let shelf = Shelf()
    let value = withHeapTrace("now", logger: logger) { () -> Int in
      shelf.put(500_000)
      return 7
    }
    #expect(value == 7)
    await withHeapTrace("later", logger: logger, level: .notice) {
      await Task { shelf.put(700_000) }.value
    }
    let found = logs.entries
    #expect(found.map(\.level) == [.info, .notice])
    #expect("\(try #require(found.first).message)".hasPrefix("now: +488 KiB in "), "\(found)")
    for (entry, bytes) in zip(found, [500_000, 700_000]) {
      let added = try #require(Int("\(entry.metadata["heap.added_bytes"] ?? "")"))
      #expect((bytes..<bytes + 20_000).contains(added), "\(entry)")
      #expect(entry.metadata["heap.scope"] == "work")
    }
  }

  @Test func `the service tells of size, of growth and its lines, and ends what it began`()
    async throws
  {
    let shelf = Shelf()
    let metrics = TestMetrics()
    var configuration = HeapReporter.Configuration()
    configuration.interval = .milliseconds(20)
    configuration.growthByteCount = 3_000_000
    let reporter = HeapReporter(
      logger: logger, metrics: HeapMetrics(factory: metrics), configuration: configuration)
    #expect(!HeapTracer.isRecording)
    try await testGracefulShutdown { trigger in
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await reporter.run() }
        try await wait(for: "a first look") { entries("heap: ").count >= 2 }
        #expect(HeapTracer.isRecording)
        #expect(entries("heap grew").isEmpty)
        shelf.put(4_000_000)
        try await wait(for: "growth") { entries("heap grew").count == 1 }
        // What is given back is no growth, and what comes after it is, from there.
        shelf.clear()
        try await wait(for: "shrinking") {
          (try? HeapTracer.figures().liveBytes) ?? .max < 3_000_000
        }
        let looks = entries("heap: ").count
        try await wait(for: "two more looks") { entries("heap: ").count >= looks + 2 }
        shelf.put(5_000_000)
        try await wait(for: "growth again") { entries("heap grew").count == 2 }
        trigger.triggerGracefulShutdown()
        try await group.waitForAll()
      }
    }
    #expect(!HeapTracer.isRecording)
    let growth = try #require(entries("heap grew by ").last)
    #expect(growth.level == .notice)
    #expect("\(growth.message)".contains("ServiceTests.swift:"), "\(growth.message)")
    #expect((try metrics.expectGauge("heap_traced_peak_bytes").lastValue ?? 0) >= 4_000_000)
    shelf.clear()
  }

  @Test func `a recording that somebody else began, stops and begins is left to him`() async throws
  {
    var configuration = HeapReporter.Configuration()
    configuration.interval = .milliseconds(20)
    configuration.startsRecording = false
    let reporter = HeapReporter(logger: logger, configuration: configuration)
    try await testGracefulShutdown { trigger in
      try await withThrowingTaskGroup(of: Void.self) { group in
        group.addTask { try await reporter.run() }
        try await wait(for: "nothing") { entries("the heap is not recorded").count >= 2 }
        #expect(!HeapTracer.isRecording)
        try HeapTracer.start()
        try await wait(for: "a look") { entries("heap: ").count >= 2 }
        trigger.triggerGracefulShutdown()
        try await group.waitForAll()
      }
    }
    #expect(HeapTracer.isRecording)
    try HeapTracer.stop()
  }
}
