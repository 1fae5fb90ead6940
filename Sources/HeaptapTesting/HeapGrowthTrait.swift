// SPDX-License-Identifier: Apache-2.0
// A trait that fails tests which leave too much on the heap.

import Heaptap
import Testing

/// Fails a test that leaves more on the heap than a limit.
///
///     @Test(.heapGrowth(under: 1 << 20)) func imports() throws { … }
///     @Suite(.heapGrowth(under: 0)) struct Parsing { … }
///
/// On a suite it holds for each of its tests. What the test allocates counts, and what its tasks do; what
/// other tests do meanwhile does not. Where the two cannot be told apart all of the process's counts, and
/// the failure says so. Tests with this trait wait for each other.
public struct HeapGrowthTrait: TestTrait, SuiteTrait, TestScoping {
  /// What may stay, in bytes.
  public let byteCount: Int

  public var isRecursive: Bool { true }

  public func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    // A suite is given to each of its tests, and has nothing of its own to measure.
    guard testCase != nil else { return try await function() }
    try await MeasuredTests.shared.alone {
      let report = try await HeapCheck.measured(
        "the heap grew", at: "\(test.sourceLocation)"
      ) { begin in
        // Off the stack that the test is called on, as it will be after its first suspension.
        await Task.yield()
        try begin()
        try await function()
      }
      if let failure = HeapCheck.verdict(on: report, tolerating: byteCount) {
        Issue.record("\(failure)", sourceLocation: test.sourceLocation)
      }
    }
  }
}

extension Trait where Self == HeapGrowthTrait {
  /// Fails a test that leaves more than so many bytes on the heap.
  public static func heapGrowth(under byteCount: Int) -> HeapGrowthTrait {
    HeapGrowthTrait(byteCount: byteCount)
  }
}

/// Has the tests that measure wait for each other.
private actor MeasuredTests {
  static let shared = MeasuredTests()

  /// Whether this task is the one that measures: a test may have the trait, and its suite another.
  @TaskLocal private static var isAlone = false

  private var isTaken = false
  private var waiting: [CheckedContinuation<Void, Never>] = []

  nonisolated func alone(_ body: () async throws -> Void) async throws {
    if Self.isAlone { return try await body() }
    await take()
    do {
      try await Self.$isAlone.withValue(true) { try await body() }
    } catch {
      await give()
      throw error
    }
    await give()
  }

  private func take() async {
    guard isTaken else {
      isTaken = true
      return
    }
    await withCheckedContinuation { waiting.append($0) }
  }

  private func give() {
    if waiting.isEmpty {
      isTaken = false
    } else {
      waiting.removeFirst().resume()
    }
  }
}
