// SPDX-License-Identifier: Apache-2.0
// What the tracer answers inside a process that it is linked to. The trait keeps recording on.

import Foundation
import Heaptap
import HeaptapTesting
import Testing

final class Session: Sendable {
  let name: [UInt8]
  init(byteCount: Int) { name = [UInt8](repeating: 1, count: byteCount) }
}

/// Grows on a thread of its own: with a stack that no test is on.
func startGrowing(until isOver: DispatchSemaphore, _ done: DispatchSemaphore) {
  Thread.detachNewThread {
    var kept: [Session] = []
    while isOver.wait(timeout: .now()) == .timedOut { kept.append(Session(byteCount: 9000)) }
    done.signal()
    withExtendedLifetime(kept) {}
  }
}

@Suite(.heapGrowth(under: 64 << 20)) struct HeapTracerTests {
  let file = #filePath

  @Test func `a block's address leads to the line that allocated it`() throws {
    let line = #line + 1
    let block = UnsafeMutableRawPointer.allocate(byteCount: 12345, alignment: 16)
    let stack = try #require(try HeapTracer.allocationStack(of: block))
    #expect(stack.first?.file == file)
    #expect(stack.first?.line == line)
    #expect(stack.first?.function?.contains("leads") == true)
    block.deallocate()
    #expect(try HeapTracer.allocationStack(of: block) == nil)
    var onStack = 1
    #expect(try withUnsafePointer(to: &onStack) { try HeapTracer.allocationStack(of: $0) } == nil)
  }

  @Test func `an object leads to the line that made it, also without holding up its actor`()
    async throws
  {
    let session = Session(byteCount: 10)
    let stack = try #require(try HeapTracer.allocationStack(of: session))
    #expect(stack.contains { $0.file == file && $0.function?.contains("object") == true })
    let address = UnsafeRawPointer(Unmanaged.passUnretained(session).toOpaque())
    #expect(try await HeapTracer.allocationStack(of: address) == stack)
    withExtendedLifetime(session) {}
  }

  @Test func `a snapshot has the block with its exact size and its stack`() async throws {
    let block = UnsafeMutableRawPointer.allocate(byteCount: 54321, alignment: 16)
    defer { block.deallocate() }
    for snapshot in [try takeSnapshotHere(), try await HeapTracer.takeSnapshot()] {
      let named = await snapshot.symbolicated()
      let sample = try #require(named.samples.first { $0.liveBytes == 54321 })
      #expect(named.stack(of: sample).first?.file == file)
      #expect(named.header.isComplete)
    }
  }

  private func takeSnapshotHere() throws -> Snapshot { try HeapTracer.takeSnapshot() }

  @Test func `marks tell what was born when, tracks what malloc did not hand out`() throws {
    let first = try HeapTracer.figures().generation
    let older = UnsafeMutableRawPointer.allocate(byteCount: 31_001, alignment: 16)
    defer { older.deallocate() }
    let second = try HeapTracer.markGeneration()
    #expect(second > first)
    let younger = UnsafeMutableRawPointer.allocate(byteCount: 31_002, alignment: 16)
    defer { younger.deallocate() }
    try HeapTracer.track(address: 77, byteCount: 1234, domain: 9)
    #expect(try HeapTracer.figures().trackedBytes >= 1234)
    let snapshot = try HeapTracer.takeSnapshot().symbolicatedBlocking()
    let generation = Dictionary(
      snapshot.samples.map { ($0.liveBytes, $0.generation ?? 0) }, uniquingKeysWith: min)
    let (before, after) = (try #require(generation[31_001]), try #require(generation[31_002]))
    #expect(before < after)
    let tracked = snapshot.filtered(.domain(9))
    #expect(tracked.liveBytes == 1234)
    #expect(tracked.stack(of: tracked.samples[0]).first?.file == file)
    try HeapTracer.untrack(address: 77, domain: 9)
    #expect(try HeapTracer.takeSnapshot().filtered(.domain(9)).liveBytes == 0)
  }

  @Test func `a snapshot goes where it is wanted, or says why it does not`() throws {
    let path = NSTemporaryDirectory() + "self-\(UUID().uuidString).pb"
    try HeapTracer.writeSnapshot(to: path)
    #expect(try FileManager.default.attributesOfItem(atPath: path)[.size] as? Int ?? 0 > 0)
    try FileManager.default.removeItem(atPath: path)
    let error = try #require(throws: HeapTracerError.self) {
      try HeapTracer.writeSnapshot(to: "/nonexistent/a.pb")
    }
    #expect(
      "\(error)"
        == "no snapshot: cannot write '/nonexistent/a.pb': no such file or directory")
  }

  @Test func `what other threads do meanwhile is not a call's`() throws {
    let isOver = DispatchSemaphore(value: 0)
    let done = DispatchSemaphore(value: 0)
    startGrowing(until: isOver, done)
    var report: HeapTraceReport?
    let kept = withHeapTrace("one", report: { report = $0 }) {
      Thread.sleep(forTimeInterval: 0.05)
      return Session(byteCount: 100_000)
    }
    isOver.signal()
    done.wait()
    let found = try #require(report)
    #expect(found.scope == .work)
    #expect((100_000..<110_000).contains(found.addedBytes), "\(found)")
    #expect(found.lines.first?.key.description.contains("HeapTracerTests.swift") == true)
    withExtendedLifetime(kept) {}
  }

  @Test func `a trace passes on what its work throws, after the report`() async throws {
    struct Broken: Error {}
    var labels: [String] = []
    #expect(throws: Broken.self) {
      try withHeapTrace("now", report: { labels.append($0.label) }) { () throws(Broken) in
        throw Broken()
      }
    }
    await #expect(throws: Broken.self) {
      try await withHeapTrace("later", report: { labels.append($0.label) }) {
        await Task.yield()
        throw Broken()
      }
    }
    #expect(labels == ["now", "later"])
  }
}
