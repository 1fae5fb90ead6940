// SPDX-License-Identifier: Apache-2.0
// A trait that fails tests which leave too much on the heap.

import Heaptap
import Testing

/// Fails a test that leaves more on the heap than a limit.
///
///     @Test(.heapGrowth(under: 1 << 20)) func imports() throws { … }
///     @Suite(.heapGrowth(under: 0)) struct Parsing { … }
///
/// On a suite it holds for each of its tests. Tests with this trait wait for each other. Of what others
/// do meanwhile, blocks are left out that do not have the test's function on their stack; where it is
/// on none, all of the process's count, and the failure says so.
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
      let caller = CallingFunction(file: test.sourceLocation.filePath, function: test.name)
      let measurement = try HeapMeasurement.begin(by: caller)
      do {
        try await function()
      } catch {
        _ = try? measurement.end()
        throw error
      }
      let end = try measurement.end()
      let report = try measurement.report("the heap grew", until: end, isAhead: true)
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

  private var isTaken = false
  private var waiting: [CheckedContinuation<Void, Never>] = []

  nonisolated func alone(_ body: () async throws -> Void) async throws {
    await take()
    do {
      try await body()
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
