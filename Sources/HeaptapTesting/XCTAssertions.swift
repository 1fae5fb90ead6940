// SPDX-License-Identifier: Apache-2.0
// The same expectations as assertions of XCTest.

import Heaptap
import XCTest

/// Asserts that a piece of work leaves no more on the heap than a limit: see `expectNoGrowth`.
///
/// An error of the work, or the want of a tracer, fails the test too.
public func XCTAssertHeapGrowth(
  under byteCount: Int = 0, warmUps: Int = 3, repetitions: Int = 10,
  file: StaticString = #filePath, line: UInt = #line,
  _ body: () throws -> Void
) {
  failTest(at: file, line) {
    try HeapCheck.growth(
      at: "\(file):\(line)", warmUps: warmUps,
      repetitions: repetitions, tolerating: byteCount, body)
  }
}

/// Asserts that a piece of work allocates no more than a budget: see `expectAllocations`.
public func XCTAssertAllocations(
  atMostBlocks blocks: Int? = nil, atMostBytes bytes: Int? = nil, warmUps: Int = 1,
  file: StaticString = #filePath, line: UInt = #line,
  _ body: () throws -> Void
) {
  failTest(at: file, line) {
    try HeapCheck.allocations(
      at: "\(file):\(line)", atMostBlocks: blocks,
      atMostBytes: bytes, warmUps: warmUps, body)
  }
}

/// Asserts that a piece of asynchronous work leaves no more on the heap than a limit.
public func XCTAssertHeapGrowth(
  under byteCount: Int = 0, warmUps: Int = 3, repetitions: Int = 10,
  file: StaticString = #filePath, line: UInt = #line,
  isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Void
) async {
  await failTest(at: file, line, isolation: isolation) {
    try await HeapCheck.growth(
      at: "\(file):\(line)", warmUps: warmUps, repetitions: repetitions, tolerating: byteCount,
      isolation: isolation, body)
  }
}

/// Asserts that a piece of asynchronous work allocates no more than a budget.
public func XCTAssertAllocations(
  atMostBlocks blocks: Int? = nil, atMostBytes bytes: Int? = nil, warmUps: Int = 1,
  file: StaticString = #filePath, line: UInt = #line,
  isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Void
) async {
  await failTest(at: file, line, isolation: isolation) {
    try await HeapCheck.allocations(
      at: "\(file):\(line)", atMostBlocks: blocks, atMostBytes: bytes, warmUps: warmUps,
      isolation: isolation, body)
  }
}

/// Fails the test by what a check has found, or by its error.
private func failTest(
  at file: StaticString, _ line: UInt, isolation: isolated (any Actor)?,
  by check: () async throws -> String?
) async {
  do {
    if let failure = try await check() { XCTFail(failure, file: file, line: line) }
  } catch {
    XCTFail("\(error)", file: file, line: line)
  }
}

/// Fails the test by what a check has found, or by its error.
private func failTest(at file: StaticString, _ line: UInt, by check: () throws -> String?) {
  do {
    if let failure = try check() { XCTFail(failure, file: file, line: line) }
  } catch {
    XCTFail("\(error)", file: file, line: line)
  }
}
