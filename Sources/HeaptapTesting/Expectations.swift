// SPDX-License-Identifier: Apache-2.0
// Expectations about the heap, for Swift Testing.

import Heaptap
import Testing

/// Expects that a piece of work leaves nothing on the heap.
///
///     @Test func `sessions are closed`() throws {
///       try expectNoGrowth {
///         let session = try Session()
///         session.close()
///       }
///     }
///
/// The work is run a few times before, so that what a first run fills is there, and then several
/// times while it is watched. What the work allocates counts, so that tests which run beside it are not
/// blamed on it; of threads that the work starts, nothing does. A failure prints the lines that grew and
/// the stacks of the first.
///
/// Throws what the work throws, and a `HeapTracerError` where the process has no tracer: a test that
/// cannot look must not pass.
///
/// - Parameters:
///   - warmUps: Runs before.
///   - repetitions: Runs that are watched.
///   - byteCount: How much may stay, of all watched runs together.
///   - sourceLocation: Where a failure is shown.
///   - body: The work.
public func expectNoGrowth(
  warmUps: Int = 3, repetitions: Int = 10, tolerating byteCount: Int = 0,
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) throws {
  let failure = try HeapCheck.growth(
    at: "\(sourceLocation)", warmUps: warmUps,
    repetitions: repetitions, tolerating: byteCount, body)
  if let failure { Issue.record("\(failure)", sourceLocation: sourceLocation) }
}

/// Expects that a piece of asynchronous work leaves nothing on the heap.
///
/// What its child tasks allocate counts, and that of other tasks which it makes, on whatever actors and
/// threads, as long as it runs; other tasks' and tests' doing does not.
public func expectNoGrowth(
  warmUps: Int = 3, repetitions: Int = 10, tolerating byteCount: Int = 0,
  sourceLocation: SourceLocation = #_sourceLocation,
  isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Void
) async throws {
  let failure = try await HeapCheck.growth(
    at: "\(sourceLocation)", warmUps: warmUps,
    repetitions: repetitions, tolerating: byteCount, isolation: isolation, body)
  if let failure { Issue.record("\(failure)", sourceLocation: sourceLocation) }
}

/// Expects that a piece of work allocates no more than a budget, whether or not it frees it again.
///
///     try expectAllocations(atMostBlocks: 2) { parser.next() }
///
/// - Parameters:
///   - blocks: How many calls of malloc and its kin; `nil` for any number.
///   - bytes: How many bytes in all; `nil` for any number.
///   - warmUps: Runs before the one that counts.
///   - sourceLocation: Where a failure is shown.
///   - body: The work.
public func expectAllocations(
  atMostBlocks blocks: Int? = nil, atMostBytes bytes: Int? = nil, warmUps: Int = 1,
  sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
) throws {
  let failure = try HeapCheck.allocations(
    at: "\(sourceLocation)", atMostBlocks: blocks,
    atMostBytes: bytes, warmUps: warmUps, body)
  if let failure { Issue.record("\(failure)", sourceLocation: sourceLocation) }
}

/// Expects that a piece of asynchronous work allocates no more than a budget.
///
/// What its tasks allocate counts, and so do the tasks themselves.
public func expectAllocations(
  atMostBlocks blocks: Int? = nil, atMostBytes bytes: Int? = nil, warmUps: Int = 1,
  sourceLocation: SourceLocation = #_sourceLocation,
  isolation: isolated (any Actor)? = #isolation, _ body: () async throws -> Void
) async throws {
  let failure = try await HeapCheck.allocations(
    at: "\(sourceLocation)", atMostBlocks: blocks, atMostBytes: bytes, warmUps: warmUps,
    isolation: isolation, body)
  if let failure { Issue.record("\(failure)", sourceLocation: sourceLocation) }
}
