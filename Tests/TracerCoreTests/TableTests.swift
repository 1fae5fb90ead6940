// SPDX-License-Identifier: Apache-2.0
// The append-only tables: one name for one value, whatever the number of values and of threads.

import Dispatch
import Synchronization
import Testing

@testable import TracerCore

@Suite struct TableTests {
  @Test func `an arena gives words that do not overlap and do not move`() throws {
    let arena = Zeroed(ChunkedArena.self)
    try #require(arena { $0.pointee.open(reserving: 2) })
    var end: UInt32 = 2
    for words in [1, 2, 1000, 262_143, 262_144, 3] as [UInt32] {
      let offset = try #require(arena { $0.pointee.allocate(words) })
      #expect(offset >= end)
      #expect(offset >> 18 == (offset + words - 1) >> 18, "a piece lies in one chunk")
      end = offset + words
    }
    #expect(arena { $0.pointee.allocate(262_145) } == nil)
  }

  @Test func `a closed arena answers nil`() {
    let arena = Zeroed(ChunkedArena.self)
    #expect(arena { $0.pointee.allocate(2) } == nil)
  }

  @Test func `a hundred thousand stacks have a hundred thousand sites, found again as they grow`()
    throws
  {
    let table = Zeroed(SiteTable.self)
    try #require(table { $0.pointee.open() })
    func intern(_ number: UInt32) -> UInt32 {
      let rows = [number, number / 7, 3, number]
      return rows.withUnsafeBufferPointer {
        table.pointer.intern($0.baseAddress!, count: 4, total: 4, isBroken: false)
      }
    }
    var sites: [UInt32] = []
    for number in 0..<100_000 as Range<UInt32> {
      sites.append(intern(number))
      #expect(intern(number / 2) == sites[Int(number / 2)])
    }
    #expect(Set(sites).count == 100_000)
    #expect(!sites.contains(0) && !sites.contains(SiteTable.lost))
  }

  @Test func `a truncated stack is another than the same one whole`() throws {
    let table = Zeroed(SiteTable.self)
    try #require(table { $0.pointee.open() })
    let rows: [UInt32] = [1, 2, 3]
    func intern(total: UInt32, isBroken: Bool = false) -> UInt32 {
      rows.withUnsafeBufferPointer {
        table.pointer.intern(
          $0.baseAddress!, count: 3, total: total, isBroken: isBroken)
      }
    }
    let whole = intern(total: 3)
    let cut = intern(total: 9)
    #expect(whole != cut)
    #expect(intern(total: 3, isBroken: true) != whole)
    #expect(intern(total: 9, isBroken: true) != cut)
    #expect(intern(total: 4) != cut, "the depth that a stack had is told for each")
    #expect(intern(total: 9) == cut)
    #expect(table { $0.pointee.site(cut).pointee.totalFrameCount } == 9)
    #expect(
      table { $0.intern([], count: 0, total: 0, isBroken: false) } == SiteTable.lost)
  }

  @Test func `a thread with a number has sites of its own, which share their frames`() throws {
    let table = Zeroed(SiteTable.self)
    try #require(table { $0.pointee.open() })
    let rows: [UInt32] = [1, 2, 3]
    func intern(_ thread: UInt32) -> UInt32 {
      rows.withUnsafeBufferPointer {
        table.pointer.intern(
          $0.baseAddress!, count: 3, total: 3, isBroken: true, thread: thread)
      }
    }
    let (first, last) = (intern(1), intern(ThreadTable.others))
    #expect(Set([first, last, intern(2), intern(0)]).count == 4)
    #expect(intern(1) == first && intern(ThreadTable.others) == last)
    let site = table { $0.pointee.site(last) }
    #expect(site.pointee.thread == ThreadTable.others && site.pointee.isBroken)
    #expect(table { $0.pointee.site(intern(0)).pointee.thread } == 0)
    let starts = Set([0, 1, 2].map { table.pointer.pointee.site(intern($0)).pointee.frames })
    #expect(starts.count == 1)
  }

  @Test func `threads beyond the last number are one`() throws {
    let table = Zeroed(ThreadTable.self)
    try #require(table { $0.pointee.open() })
    let numbers = (0..<40_000).map { table.pointer.pointee.add(UInt32($0) + 1) }
    #expect(Set(numbers).count == Int(ThreadTable.limit) && numbers.first == 1)
    #expect(numbers.suffix(7000).allSatisfy { $0 == ThreadTable.others })
    #expect(table { $0.pointee.entry(5).pointee.identifier } == 5)
    #expect(table { $0.pointee.entry(ThreadTable.others).pointee.identifier } == 0)
    table { $0.pointee.discard() }
    #expect(table { $0.pointee.add(1) } == 1)
  }

  @Test func `threads that meet the same stacks at once agree on their sites`() throws {
    let table = Zeroed(SiteTable.self)
    try #require(table { $0.pointee.open() })
    nonisolated(unsafe) let pointer = table.pointer
    nonisolated(unsafe) let found = UnsafeMutablePointer<UInt32>.allocate(capacity: 8 * 20_000)
    defer { found.deallocate() }
    DispatchQueue.concurrentPerform(iterations: 8) { thread in
      for number in 0..<20_000 {
        let rows = [UInt32(number), 5]
        found[thread * 20_000 + number] = rows.withUnsafeBufferPointer {
          pointer.intern($0.baseAddress!, count: 2, total: 2, isBroken: false)
        }
      }
    }
    var disagreements = 0
    for number in 0..<20_000 {
      for thread in 1..<8
      where found[thread * 20_000 + number] != found[number] { disagreements += 1 }
    }
    // Two names for one stack are possible only while the index grows, and harmless: they show as
    // one. Every other disagreement would be a stack attributed to a stranger.
    #expect(disagreements < 8 * 16)
  }

  @Test func `a thread's state is taken by one thread and given back empty`() throws {
    let pool = Zeroed(ThreadPool.self)
    try #require(pool { $0.pointee.open() })
    let first = try #require(pool { $0.pointee.take(for: 1) })
    let second = try #require(pool { $0.pointee.take(for: 2) })
    #expect(first != second)
    first.pointee.counters.allocatedBytes.store(99, ordering: .relaxed)
    pool.pointer.pointee.give(first)
    let third = try #require(pool { $0.pointee.take(for: 3) })
    #expect(third == first, "the first free one is used again: the pool does not grow")
    #expect(third.pointee.counters.allocatedBytes.load(ordering: .relaxed) == 0)
    #expect(pool { $0.pointee.threadCount.load(ordering: .relaxed) } == 2)
  }
}

extension UnsafeMutablePointer where Pointee == SiteTable {
  fileprivate func intern(
    _ rows: UnsafePointer<UInt32>, count: UInt32, total: UInt32, isBroken: Bool,
    thread: UInt32 = 0
  ) -> UInt32 {
    var isNew = false
    return pointee.intern(
      rows, count: count, total: total, isBroken: isBroken, thread: thread,
      hash: StackHash.of(rows, count: count),
      &isNew)
  }
}
