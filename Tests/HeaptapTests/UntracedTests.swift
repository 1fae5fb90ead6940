// SPDX-License-Identifier: Apache-2.0
// A process without the tracer, as this one is.

import Glibc
import HeapModel
import Heaptap
import Testing

@Suite struct UntracedTests {
  private let way = """
    there is no heap tracer in this process: link the product 'heaptap' of the package 'heaptap', \
    start it by 'heaptap run', or preload libheaptap.so
    """

  @Test func `without a tracer every call says how to get one`() async throws {
    let calls: [(String, () throws -> Void)] = [
      ("start", { try HeapTracer.start(depth: 10) }), ("stop", { try HeapTracer.stop() }),
      ("stop", { try HeapTracer.stop(writingSnapshot: true) }),
      ("clear", { try HeapTracer.clear() }), ("figures", { _ = try HeapTracer.figures() }),
      ("resetPeak", { try HeapTracer.resetPeak() }),
      ("takeSnapshot", { _ = try HeapTracer.takeSnapshot() }),
      ("writeSnapshot", { try HeapTracer.writeSnapshot() }),
      ("writeSnapshot", { try HeapTracer.writeSnapshot(to: "/tmp/a.pb") }),
      ("mark", { try HeapTracer.markGeneration() }),
      ("track", { try HeapTracer.track(address: 1, byteCount: 1, domain: 1) }),
      ("untrack", { try HeapTracer.untrack(address: 1, domain: 1) }),
    ]
    for (name, call) in calls {
      let error = try #require(throws: HeapTracerError.self, "\(name)") { try call() }
      #expect(error.code == .noTracer, "\(name)")
      #expect("\(error)" == way, "\(name)")
    }
    #expect(!HeapTracer.isRecording)
    await #expect(throws: HeapTracerError.self) { _ = try await HeapTracer.takeSnapshot() }
    let object = Object()
    #expect(throws: HeapTracerError.self) { _ = try HeapTracer.allocationStack(of: object) }
  }

  private final class Object {}

  @Test(arguments: [0, -1, 1025, .max])
  func `a depth that no recording has is refused by name`(depth: Int) throws {
    let error = try #require(throws: HeapTracerError.self) { try HeapTracer.start(depth: depth) }
    #expect(error.code == .depthOutOfRange)
    #expect("\(error)" == "a recording keeps from 1 to 1024 frames of a stack, not \(depth)")
  }

  @Test func `a snapshot is written to a file and read again, or a sentence says why not`() throws {
    let path = "/tmp/heaptap-tests-\(UInt64.random(in: 0 ... .max)).pb"
    var builder = Snapshot.Builder(header: ["note": "mine", "complete": "1"], modules: [])
    builder.add(bytes: 5, stack: [Frame(function: "f", file: "/a.swift", line: 3)])
    let snapshot = builder.finish()
    defer { unsafe unlink(path) }
    try snapshot.write(toFile: path)
    try snapshot.write(toFile: path)
    #expect(try Snapshot(contentsOfFile: path) == snapshot)
    let writing = try #require(throws: HeapTracerError.self) {
      try snapshot.write(toFile: "/nonexistent/a.pb")
    }
    #expect(
      "\(writing)" == "no snapshot: cannot write '/nonexistent/a.pb': no such file or directory")
    let reading = try #require(throws: HeapTracerError.self) {
      try Snapshot(contentsOfFile: "/dev/null")
    }
    #expect("\(reading)" == "no snapshot: cannot read '/dev/null': profile is empty")
  }

  @Test func `work is done without a tracer, and the report says why there are no figures`()
    async throws
  {
    var reports: [HeapTraceReport] = []
    #expect(withHeapTrace("now", report: { reports.append($0) }) { 7 } == 7)
    let later = await withHeapTrace("later", report: { reports.append($0) }) {
      await Task.yield()
      return 8
    }
    #expect(later == 8)
    #expect(reports.map(\.failure?.code) == [.noTracer, .noTracer])
    #expect(reports.map(\.description) == ["now: not traced, \(way)", "later: not traced, \(way)"])
  }
}
