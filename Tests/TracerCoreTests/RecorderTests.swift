// SPDX-License-Identifier: Apache-2.0
// The recorder as an ordinary module, by many threads: what a sanitizer can look into. Here the hooks are
// this file's, and the blocks are addresses that nobody reads.

import CTracerPlatform
import Foundation
import Synchronization
import Testing

@testable import TracerCore

/// One recorder is all that a process has.
@Suite(.serialized) struct RecorderTests {
  /// What a thread has made and freed, by its own count.
  private struct Books: Equatable {
    var blocks = 0
    var bytes = 0

    mutating func add(_ byteCount: Int) {
      blocks += 1
      bytes += byteCount
    }

    mutating func subtract(_ byteCount: Int) {
      blocks -= 1
      bytes -= byteCount
    }
  }

  private static let threadCount = 4
  /// Where each thread's pretended heap begins: no address that the process has.
  private static let heap = UInt(0x1000_0000_0000)

  /// As the hook of malloc does it, from one of 50 places.
  private static func allocate(_ address: UInt, _ byteCount: Int, place: Int) {
    let block = UnsafeMutableRawPointer(bitPattern: address)!
    // The stack ends at once: no code is at these addresses, and rbp is 0.
    var frame = InlineArray<16, UInt64>(repeating: 0)
    withUnsafeMutableBytes(of: &frame) { bytes in
      let registers = bytes.baseAddress!.assumingMemoryBound(to: tracer_registers.self)
      registers.pointee.return_address = UInt64(0x4000 + place * 16)
      _ = core.record(block, byteCount, registers)
    }
  }

  /// As the hook of free does it.
  private static func free(_ address: UInt) {
    let block = UnsafeMutableRawPointer(bitPattern: address)!
    switch core.takeQuickly(block) {
    case .done: break
    case .publishing: core.publishAndLeave()
    case .unusual: core.willFree(block)
    }
  }

  /// Allocates and frees, also what other threads have made, and answers with what is left of it all.
  private static func churn(_ number: Int, rounds: Int, box: Mailboxes) -> Books {
    var books = Books()
    var random = UInt64(number + 1) &* 0x9E37_79B9_7F4A_7C15
    var next = heap + UInt(number) << 32
    for _ in 0..<rounds {
      random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      // The size is in the address's place, for whoever frees it.
      let isLarge = random >> 60 == 0 && random >> 50 & 0x3f == 0
      let byteCount = isLarge ? 17 << 20 : Int(random >> 40 & 0xfff)
      allocate(next, byteCount, place: Int(random >> 33 & 0xff) % 50)
      books.add(byteCount)
      if let (old, oldByteCount) = box.exchange(
        Int(random >> 20 & 0xff), with: (next, byteCount))
      {
        free(old)
        books.subtract(oldByteCount)
      }
      next += 32 + UInt(byteCount) & ~31 + 32
    }
    endThread()
    return books
  }

  /// As the destructor of the thread's key does it.
  private static func endThread() {
    guard let slot = tracer_thread() else { return }
    core.threadEnded(slot.assumingMemoryBound(to: ThreadState.self))
  }

  /// A value under a lock that sanitizers know, as they do not know `Mutex`.
  private final class Locked<Value>: @unchecked Sendable {
    private let lock = NSLock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func withLock<Answer>(_ body: (inout Value) -> Answer) -> Answer {
      lock.lock()
      defer { lock.unlock() }
      return body(&value)
    }
  }

  /// Blocks on their way from one thread to another.
  private final class Mailboxes: Sendable {
    private let places = Locked([(address: UInt, byteCount: Int)?](repeating: nil, count: 256))

    func exchange(
      _ place: Int, with block: (address: UInt, byteCount: Int)
    ) -> (address: UInt, byteCount: Int)? {
      places.withLock {
        let old = $0[place]
        $0[place] = block
        return old
      }
    }
  }

  /// Runs the body in as many threads, each of its own, and answers with the sum of their books.
  private func inThreads(
    _ count: Int = threadCount, _ body: @escaping @Sendable (Int) -> Books
  ) -> Books {
    let sum = Locked(Books())
    let done = DispatchSemaphore(value: 0)
    for number in 0..<count {
      Thread.detachNewThread {
        let books = body(number)
        sum.withLock {
          $0.blocks += books.blocks
          $0.bytes += books.bytes
        }
        done.signal()
      }
    }
    for _ in 0..<count { done.wait() }
    return sum.withLock { $0 }
  }

  /// Does something over and over, on a thread of its own, for as long as the body takes.
  private func beside<Answer>(
    _ work: @escaping @Sendable () -> Void, _ body: () -> Answer
  ) -> (answer: Answer, rounds: Int) {
    let isOver = Locked(false)
    let rounds = Locked(0)
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      while !isOver.withLock({ $0 }) {
        work()
        rounds.withLock { $0 += 1 }
      }
      done.signal()
    }
    let answer = body()
    isOver.withLock { $0 = true }
    done.wait()
    return (answer, rounds.withLock { $0 })
  }

  @Test func `scans beside threads that free each other's blocks lose none`() throws {
    try #require(core.startRecording(.firstAllocation, depth: 16) == 0)
    let box = Mailboxes()
    let (left, scanCount) = beside({ _ = core.scan(bornBefore: 2) }) {
      inThreads { Self.churn($0, rounds: 20_000, box: box) }
    }
    let scan = core.scan(bornBefore: 2)
    #expect(Books(blocks: Int(scan.blocks), bytes: Int(scan.bytes)) == left)
    #expect(left.blocks == 256 && scanCount > 0)
    #expect(scan.omittedBytes == 0)
    #expect(core.pointee.retired.lostBlocks.load(ordering: .relaxed) == 0)
    let made = UInt64(Self.threadCount * 20_000)
    #expect(core.pointee.retired.allocatedBlocks.load(ordering: .relaxed) == made)
    #expect(core.pointee.publishedBytes.load(ordering: .relaxed) == Int64(left.bytes))
    core.stopRecording()
  }

  @Test
  func
    `a thread that gives back what it takes seldom writes the balance that all share, and is never far from it`()
    throws
  {
    try #require(core.startRecording(.firstAllocation, depth: 16) == 0)
    let address = Self.heap + UInt(Self.threadCount) << 32
    let left = inThreads(1) { _ in
      Self.allocate(address, 1, place: 0)
      let limit = Int(core.publishLimit)
      var farthest = 0
      func note(_ live: Int) {
        farthest = max(
          farthest, abs(live - Int(core.pointee.publishedBytes.load(ordering: .relaxed))))
      }
      // Further than the limit, and back.
      for _ in 0..<20_000 {
        Self.allocate(address + 64, limit * 3 / 2, place: 0)
        note(1 + limit * 3 / 2)
        Self.free(address + 64)
        note(1)
      }
      #expect(core.counterValues().publications < 10)
      // What only grows is written each time that a limit's worth has come together.
      for block in 0..<20_000 {
        Self.allocate(address + 64 + UInt(block) * 64, 32, place: 0)
        note(1 + 32 + block * 32)
      }
      #expect(core.counterValues().publications < 20 + 20_000 * 32 / UInt64(limit))
      #expect(farthest < limit)
      Self.endThread()
      return Books(blocks: 20_001, bytes: 20_000 * 32 + 1)
    }
    #expect(core.pointee.publishedBytes.load(ordering: .relaxed) == Int64(left.bytes))
    core.stopRecording()
  }

  @Test func `recordings begin and end beside threads that are in the hooks`() throws {
    let box = Mailboxes()
    let (_, recordingCount) = beside({
      _ = core.startRecording(.firstAllocation, depth: 16)
      usleep(3000)
      core.stopAllocating()
      _ = core.scan(bornBefore: 2)
      core.stopRecording()
    }) { inThreads { Self.churn($0, rounds: 20_000, box: box) } }
    #expect(recordingCount > 0)
    // The next one knows nothing of any of them.
    try #require(core.startRecording(.firstAllocation, depth: 16) == 0)
    let scan = core.scan(bornBefore: 2)
    #expect(scan.blocks == 0)
    core.stopRecording()
  }
}
