// SPDX-License-Identifier: Apache-2.0
// Whose a block is when many tasks run at once, and all of them in the same functions.

import Foundation
import Heaptap
import HeaptapTesting
import Synchronization
import Testing

/// Blocks that nobody gives back until the end of a test.
private final class Keeper: Sendable {
  private let kept = Mutex<[Session]>([])

  func keep(_ byteCount: Int) {
    let session = Session(byteCount: byteCount)
    kept.withLock { $0.append(session) }
  }

  func forget() { kept.withLock { $0 = [] } }
}

private actor Clerk {
  func keep(_ byteCount: Int, _ keeper: Keeper) async {
    await Task.yield()
    keeper.keep(byteCount)
  }
}

/// Keeps blocks for as long as the body runs, in a task and on a thread of its own, by the same functions.
private func besideOthers<Value>(_ body: () async throws -> Value) async rethrows -> Value {
  let keeper = Keeper()
  let others = Task {
    let clerk = Clerk()
    for _ in 0..<200 where !Task.isCancelled {
      await clerk.keep(250_000, keeper)
      await withTaskGroup { group in group.addTask { keeper.keep(250_000) } }
    }
  }
  defer { others.cancel() }
  await Task.yield()
  return try await body()
}

/// Waits until so many have come.
private actor Meeting {
  private var waiting: [CheckedContinuation<Void, Never>] = []
  private let count: Int

  init(of count: Int) { self.count = count }

  func join() async {
    if waiting.count + 1 == count {
      for one in waiting { one.resume() }
    } else {
      await withCheckedContinuation { waiting.append($0) }
    }
  }
}

@Suite(.heapGrowth(under: 64 << 20)) struct ConcurrencyTests {
  /// Fails where the scope is the process, or what a trace counts is not what its work has kept, give or
  /// take what tasks need for themselves.
  private func expect(
    _ report: HeapTraceReport?, of byteCount: Int, at location: SourceLocation = #_sourceLocation
  ) throws {
    let report = try #require(report, sourceLocation: location)
    #expect(report.scope == .work, "\(report)", sourceLocation: location)
    #expect(
      (byteCount..<byteCount + 60_000).contains(report.addedBytes),
      "\(report.text(lines: 9, stacksOf: 3))",
      sourceLocation: location)
    #expect(report.unattributedBytes == 0, sourceLocation: location)
  }

  @Test func `what work and all of its tasks allocate is its own, and nothing of other tasks is`()
    async throws
  {
    let keeper = Keeper()
    let clerk = Clerk()
    var report: HeapTraceReport?
    await besideOthers {
      await withHeapTrace("work", report: { report = $0 }) {
        keeper.keep(100_000)
        async let first: Void = keeper.keep(200_000)
        async let second: Void = clerk.keep(400_000, keeper)
        await withTaskGroup { group in
          for _ in 0..<4 { group.addTask { await clerk.keep(200_000, keeper) } }
          await group.waitForAll()
        }
        await Task { await clerk.keep(1_600_000, keeper) }.value
        await Task.detached {
          await Task.yield()
          async let third: Void = keeper.keep(3_200_000)
          await third
        }.value
        _ = await (first, second)
        await clerk.keep(6_400_000, keeper)
        keeper.keep(12_800_000)
      }
    }
    try expect(report, of: 25_500_000)
    let lines = try #require(report).lines.filter { "\($0)".contains("HeapTracerTests.swift") }
    #expect(lines.first?.addedBytes ?? 0 >= 25_500_000, "\(lines)")
    keeper.forget()
  }

  /// The function that two tasks are in at once.
  private func traced(_ byteCount: Int, _ keeper: Keeper, _ meeting: Meeting) async
    -> HeapTraceReport?
  {
    var report: HeapTraceReport?
    await withHeapTrace("\(byteCount)", report: { report = $0 }) {
      await meeting.join()
      for _ in 0..<10 {
        keeper.keep(byteCount)
        await Task.yield()
      }
    }
    return report
  }

  @Test func `two tasks that are in one traced function at once are told apart`() async throws {
    let keeper = Keeper()
    let meeting = Meeting(of: 2)
    async let small = traced(100_000, keeper, meeting)
    async let large = traced(1_000_000, keeper, meeting)
    try expect(await small, of: 1_000_000)
    try expect(await large, of: 10_000_000)
    keeper.forget()
  }

  @Test func `two threads that are in one traced function at once are told apart`() throws {
    let keeper = Keeper()
    let both = DispatchGroup()
    let reports = Mutex<[String: HeapTraceReport]>([:])
    let barrier = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
    @Sendable func work(_ byteCount: Int) {
      withHeapTrace("\(byteCount)", report: { new in reports.withLock { $0[new.label] = new } }) {
        let (mine, theirs) = byteCount > 500_000 ? barrier : (barrier.1, barrier.0)
        mine.signal()
        theirs.wait()
        for _ in 0..<10 { keeper.keep(byteCount) }
      }
    }
    for byteCount in [100_000, 1_000_000] {
      both.enter()
      Thread.detachNewThread {
        work(byteCount)
        both.leave()
      }
    }
    both.wait()
    let found = reports.withLock { $0 }
    try expect(found["100000"], of: 1_000_000)
    try expect(found["1000000"], of: 10_000_000)
    keeper.forget()
  }

  @Test func `a trace within a trace counts for both, and a later one for itself`() async throws {
    let keeper = Keeper()
    var reports: [HeapTraceReport] = []
    await withHeapTrace("outer", report: { reports.append($0) }) {
      keeper.keep(100_000)
      withHeapTrace("inner", report: { reports.append($0) }) { keeper.keep(300_000) }
      await withHeapTrace("later", report: { reports.append($0) }) {
        await Task { keeper.keep(500_000) }.value
      }
    }
    let byLabel = Dictionary(uniqueKeysWithValues: reports.map { ($0.label, $0) })
    try expect(byLabel["inner"], of: 300_000)
    try expect(byLabel["later"], of: 500_000)
    // The reports' own lines are in it too: they were made in the work.
    #expect(try #require(byLabel["outer"]).addedBytes >= 900_000)
    keeper.forget()
  }

  @Test func `what takes the place of what an earlier run has left is no growth`() async throws {
    let last = Mutex(Session(byteCount: 1))
    var added: [Int] = []
    for _ in 0..<3 {
      await withHeapTrace("swap", report: { added.append($0.addedBytes) }) {
        await Task.yield()
        let session = Session(byteCount: 500_000)
        last.withLock { $0 = session }
      }
    }
    #expect(added[0] >= 500_000)
    #expect(added.dropFirst().allSatisfy { abs($0) < 20_000 }, "\(added)")
    try await expectNoGrowth(tolerating: 20_000) {
      let session = Session(byteCount: 500_000)
      last.withLock { $0 = session }
      await Task.yield()
    }
  }

  @Test func `work that leaves nothing passes beside tasks that do, and is blamed for its own`()
    async throws
  {
    let keeper = Keeper()
    try await besideOthers {
      try await expectNoGrowth(tolerating: 20_000) {
        await Task { _ = Session(byteCount: 5000) }.value
        await Task.yield()
      }
    }
    try await withKnownIssue {
      try await expectNoGrowth(tolerating: 20_000) {
        await withTaskGroup { group in group.addTask { keeper.keep(5000) } }
      }
    } matching: { issue in
      "\(issue)".contains("the heap grew in 10 runs: +")
        && "\(issue)".contains("HeapTracerTests.swift") && !"\(issue)".contains("whole process")
    }
    keeper.forget()
  }

  @Test(BesideOthers(), .heapGrowth(under: 1 << 20))
  func `a test is not blamed for what runs beside it`() async {
    for _ in 0..<20 {
      await Task { _ = Session(byteCount: 100_000) }.value
      await Task.yield()
    }
  }
}

/// Has a test run while others allocate.
private struct BesideOthers: TestTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    try await besideOthers { try await function() }
  }
}
