// SPDX-License-Identifier: Apache-2.0
// What one thread keeps to itself, so that recording shares nothing.

import CTracerPlatform
import Synchronization

/// Allocations of one site that the thread has not yet added to the site's totals.
package struct SiteTally: ~Copyable {
  package let site: Atomic<UInt32>
  package let blocks: Atomic<UInt16>
  /// Of these blocks, those that were freed before the thread's next allocation.
  package let temporaries: Atomic<UInt16>
  package let bytes: Atomic<UInt64>
}

extension UnsafeMutablePointer where Pointee == SiteTally {
  /// Whether it can count one more block of a site.
  @inline(__always)
  func isFit(for site: UInt32) -> Bool {
    pointee.site.load(ordering: .relaxed) == site && pointee.blocks.load(ordering: .relaxed) != .max
  }

  @inline(__always)
  func add(_ byteCount: UInt64) {
    pointee.blocks.addAlone(1)
    pointee.bytes.addAlone(byteCount)
  }
}

/// One thread's counters, tallies and scratch space: 16 KiB, whatever the thread does.
///
/// Only the owner writes, so that loads and stores suffice; a dump reads. Counters are of the epoch
/// that the state is in, and start again with each recording.
package struct ThreadState: ~Copyable {
  package static var byteCount: Int { 16384 }
  static var tallyCount: Int { 512 }
  static var tallyOffset: Int { 1024 }
  static var frameOffset: Int { tallyOffset + tallyCount * MemoryLayout<SiteTally>.stride }
  /// As many frames as `HEAPTAP_DEPTH` may ask for.
  package static var frameLimit: UInt32 { 1024 }

  /// The thread's number while it owns the state, 0 in the pool.
  package let owner: Atomic<UInt32>
  /// Not 0 while the thread is in the tracer: what is called then passes through.
  package let isInside: Atomic<UInt32>
  /// 1 once the state has been used: its pages are there.
  package let wasTaken: Atomic<UInt16>
  /// 1 while the thread has a block taken out of the live map that goes on under another address.
  package let isMoving: Atomic<UInt16>
  /// The thread's number in the recording's `ThreadTable`; 0 where threads are not told apart.
  var number: UInt32
  /// The memory of stacks, once a thread has had use for one; whoever owns the state next has it then.
  var cache: UnsafeMutablePointer<StackCache>?
  /// Where the state is in the pool, while a thread owns it.
  fileprivate var place: UInt32
  private var unused: UInt32
  // Up to here `clear` leaves what there is.
  package let epoch: Atomic<UInt32>
  /// 1 while an operator delete is running, whose inner free is not another one.
  package var isDeleting: UInt32

  // What every recorded call reads or writes lies together: three cache lines from the beginning.
  /// The epoch as words of blocks carry it.
  var mark: UInt64
  /// Of the memory of stacks, while it may be asked.
  fileprivate var memoArena: UnsafeMutableRawPointer?
  /// The state of the gate at which it may be; 0 while it may not.
  fileprivate(set) var memoGate: UInt64
  /// `cache`, where the gate is at `memoGate`.
  @inline(__always)
  var memo: UnsafeMutablePointer<StackCache> { .init(arena: memoArena.unsafelyUnwrapped) }
  /// Where the thread's last allocation is, until it is freed, and the tally that has counted it: until the
  /// next allocation the tally is of no other site.
  var lastBlock: UInt
  var lastTally: UnsafeMutablePointer<SiteTally>?
  /// Where the tallies are, the state's own or those of its memory of stacks, and which bits of a site's number
  /// tell its place among them. A dump reads the first and knows the rest by it.
  fileprivate let tallyBase: Atomic<UInt>
  fileprivate var tallyMask: UInt32
  /// Of the stack.
  var readable: ReadableRange
  /// Traced bytes since the balance was last published, and the most that they have been since.
  var balance: Int64
  package let balanceHigh: Atomic<Int64>
  /// Its first four are counted with every block.
  package let counters: Counters

  /// Of the heap that async contexts lie in.
  var readableContexts: ReadablePages
  /// The thread's allocations when there was last no memory for `cache`.
  var allocationsWithoutCache: UInt64
  /// How far from the limit the balance was left when it was published last; negative where it had sunk.
  fileprivate var balanceMargin: Int64

  fileprivate static var identityByteCount: Int { 32 }

  /// What `isInside` is while the tracer itself calls what may allocate.
  static var isAtWork: UInt32 { 2 }
}

extension UnsafeMutablePointer where Pointee == ThreadState {
  /// Empties the state, but for whose it is, whether that is inside, that it was used, and its memory
  /// of stacks, which is trusted by what it says itself.
  ///
  /// Not the room for a walk's rows, in which nothing is looked for: its pages may not be there yet.
  func clear() {
    let kept = ThreadState.identityByteCount
    (UnsafeMutableRawPointer(self) + kept).initializeMemory(
      as: UInt8.self, repeating: 0, count: ThreadState.frameOffset &- kept)
  }

  /// What a thread that has reached the limit goes on to hold back, so that it does not publish soon again.
  ///
  /// Who gives back what was taken, over and over, comes back to the same two balances: left just below the
  /// limit, there is room for both. Who goes on in one direction is left twice as far from it each time.
  func heldBalance(limit: Int64) -> Int64 {
    let hasRisen = pointee.balance > 0
    // No room is enough for blocks that are larger.
    guard (hasRisen ? pointee.balance : 0 &- pointee.balance) < limit &* 2 else { return 0 }
    let last = pointee.balanceMargin
    let goesOn = last != 0 && (last > 0) == hasRisen
    let margin = goesOn ? min((last > 0 ? last : 0 &- last) &* 2, limit) : limit / 16
    pointee.balanceMargin = hasRisen ? margin : 0 &- margin
    return hasRisen ? limit &- margin : margin &- limit
  }

  func openMemo(_ memo: UnsafeMutablePointer<StackCache>, _ gate: UInt64) {
    pointee.memoArena = memo.arena
    pointee.memoGate = gate
  }

  func closeMemo() {
    pointee.memoArena = nil
    pointee.memoGate = 0
  }

  /// Gives the pages of the memory of stacks back, which then remembers nothing.
  func discardCache(_ pool: borrowing ThreadPool) {
    guard let cache = pointee.cache else { return }
    _ = pool.charge(from: cache.pointee.nodeBits, to: 0, budget: 0)
    if System.discard(UnsafeMutableRawPointer(cache), StackCache.mappedByteCount) { return }
    // A program that has locked its memory keeps the pages: whoever has them next pays for them, and trusts nothing.
    cache.pointee.nodeBits = 0
    cache.pointee.epoch = 0
  }

  private var ownTallies: UnsafeMutablePointer<SiteTally> {
    (UnsafeMutableRawPointer(self) + ThreadState.tallyOffset)
      .assumingMemoryBound(to: SiteTally.self)
  }

  /// The tallies of a state that is in a recording, and how many there are.
  var tallies: UnsafeMutableBufferPointer<SiteTally> {
    let base = UnsafeMutablePointer<SiteTally>(
      bitPattern: pointee.tallyBase.load(ordering: .relaxed))
    let isOwn = base == ownTallies
    return UnsafeMutableBufferPointer(
      start: base, count: isOwn ? ThreadState.tallyCount : StackCache.tallyCount)
  }

  /// The place of a site's tally, for the owner.
  @inline(__always)
  func tally(of site: UInt32) -> UnsafeMutablePointer<SiteTally> {
    UnsafeMutablePointer<SiteTally>(
      bitPattern: pointee.tallyBase.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(site & pointee.tallyMask)
  }

  /// Has the tallies be the state's own, which are empty.
  func useOwnTallies() {
    pointee.tallyBase.store(UInt(bitPattern: ownTallies), ordering: .relaxed)
    pointee.tallyMask = UInt32(ThreadState.tallyCount &- 1)
  }

  /// Has the tallies be those of the memory of stacks, of which there are more. The state's own are empty.
  func useCacheTallies(_ cache: UnsafeMutablePointer<StackCache>) {
    cache.emptyTallies()
    // Releasing: a dump that finds them finds them empty.
    pointee.tallyBase.store(UInt(bitPattern: cache.tallies), ordering: .releasing)
    pointee.tallyMask = UInt32(StackCache.tallyCount &- 1)
  }

  var hasOwnTallies: Bool {
    pointee.tallyBase.load(ordering: .relaxed) == UInt(bitPattern: ownTallies)
  }

  /// The end of the room for a walk's rows.
  var framesEnd: UnsafeMutablePointer<UInt32> {
    (UnsafeMutableRawPointer(self) + ThreadState.frameOffset)
      .assumingMemoryBound(to: UInt32.self) + Int(ThreadState.frameLimit)
  }
}

extension Atomic where Value == UInt64 {
  /// Adds, where no other thread writes: without the lock prefix that `add` costs.
  @inline(__always)
  func addAlone(_ value: UInt64) {
    store(load(ordering: .relaxed) &+ value, ordering: .relaxed)
  }
}

extension Atomic where Value == UInt16 {
  /// As of 64 bits.
  @inline(__always)
  func addAlone(_ value: UInt16) {
    store(load(ordering: .relaxed) &+ value, ordering: .relaxed)
  }
}

/// The states of all threads. All zero is a valid, closed pool.
///
/// A thread that ends leaves its state to the next that begins, with its pages if few are waiting like that;
/// of any other the kernel gets all pages back.
package struct ThreadPool: ~Copyable {
  private static var perChunk: Int { 64 }
  private static var chunkLimit: Int { 1024 }
  private static var statesByteCount: Int { perChunk * ThreadState.byteCount }
  /// Behind the states, where their memories of stacks are while the states' own pages are not there.
  private static var chunkByteCount: Int { statesByteCount + 4096 }

  private let directory: Atomic<UInt>
  private let chunkCount: Atomic<UInt32>
  private let hint: Atomic<UInt32>
  package let threadCount: Atomic<UInt32>
  /// States that nobody owns, with all of their pages.
  private let idleCount: Atomic<Int32>
  /// The most that there have been at once in the recording.
  private let mostThreads: Atomic<UInt32>
  /// How far a thread's balance may be from what it has published, in bytes: 2 KiB among all.
  package let publishLimit: Atomic<Int64>
  /// Bytes that the memos of all threads may come to use.
  private let memoBytes: Atomic<Int64>

  package func open() -> Bool { directory.map(Self.chunkLimit * 8) }

  /// Bytes of the states whose pages are there, in use or not.
  package var usedByteCount: Int {
    var used = 0
    forEachState { state in
      guard state.pointee.wasTaken.load(ordering: .relaxed) != 0 else { return }
      used &+= ThreadState.byteCount &+ (state.pointee.cache?.usedByteCount ?? 0)
      let base = state.pointee.tallyBase.load(ordering: .relaxed)
      if base != 0, !state.hasOwnTallies { used &+= StackCache.tallyByteCount }
    }
    return used
  }

  /// How many states may wait with their pages: threads that come and go cost the kernel nothing, and an hour
  /// with a thousand of them is not paid for ever.
  private static var idleLimit: Int32 { 32 }

  /// Accounts for a memo that changes its size; answers the size that it may have.
  func charge(from old: UInt32, to new: UInt32, budget: Int64) -> UInt32 {
    let more = StackCache.memoByteCount(new) &- StackCache.memoByteCount(old)
    let sum = memoBytes.wrappingAdd(more, ordering: .relaxed).newValue
    guard more > 0, sum > budget else { return new }
    _ = memoBytes.wrappingSubtract(more, ordering: .relaxed)
    return old
  }

  /// Gives the pages of all memories of stacks back. No thread may be in the tracer.
  package func discardCaches() {
    forEachState { $0.discardCache(self) }
  }

  private func slot(_ chunk: Int) -> UnsafeMutablePointer<Atomic<UInt>> {
    UnsafeMutablePointer<Atomic<UInt>>(
      bitPattern: directory.load(ordering: .relaxed)
    ).unsafelyUnwrapped + chunk
  }

  private func state(_ chunk: UnsafeMutableRawPointer, _ index: Int)
    -> UnsafeMutablePointer<ThreadState>
  {
    (chunk + index &* ThreadState.byteCount).assumingMemoryBound(to: ThreadState.self)
  }

  /// Calls the body for every state that a thread owns.
  package func forEach(_ body: (UnsafeMutablePointer<ThreadState>) -> Void) {
    forEachState { if $0.pointee.owner.load(ordering: .acquiring) != 0 { body($0) } }
  }

  private func forEachState(_ body: (UnsafeMutablePointer<ThreadState>) -> Void) {
    guard directory.load(ordering: .acquiring) != 0 else { return }
    var chunk = 0
    while chunk < min(Int(chunkCount.load(ordering: .acquiring)), Self.chunkLimit) {
      if let base = slot(chunk).pointee.mapped {
        for index in 0..<Self.perChunk { body(state(base, index)) }
      }
      chunk &+= 1
    }
  }

  /// Takes a state from the pool; `nil` where there is no memory.
  package func take(for thread: UInt32) -> UnsafeMutablePointer<ThreadState>? {
    guard directory.load(ordering: .acquiring) != 0 else { return nil }
    while true {
      let count = min(Int(chunkCount.load(ordering: .acquiring)), Self.chunkLimit)
      let first = Int(hint.load(ordering: .relaxed))
      // All that are there before any new one: the pool is as large as the threads of its fullest day.
      // First those whose pages are there.
      if idleCount.load(ordering: .relaxed) > 0,
        let taken = take(from: first, of: count, for: thread, isIdle: true)
      {
        return taken
      }
      if let taken = take(from: first, of: count, for: thread, isIdle: false) { return taken }
      guard count < Self.chunkLimit, makeChunk(count) else { return nil }
      hint.store(UInt32(count), ordering: .relaxed)
    }
  }

  private func take(
    from first: Int, of count: Int, for thread: UInt32, isIdle: Bool
  ) -> UnsafeMutablePointer<ThreadState>? {
    for step in 0..<count {
      let chunk = (first &+ step) % count
      if let taken = take(from: chunk, for: thread, isIdle: isIdle) { return taken }
    }
    return nil
  }

  private func take(
    from chunk: Int, for thread: UInt32, isIdle: Bool
  ) -> UnsafeMutablePointer<ThreadState>? {
    guard let base = slot(chunk).pointee.mapped else { return nil }
    for index in 0..<Self.perChunk {
      let state = state(base, index)
      guard state.pointee.owner.load(ordering: .relaxed) == 0,
        !isIdle || state.pointee.wasTaken.load(ordering: .relaxed) != 0,
        state.pointee.owner.compareExchange(
          expected: 0, desired: thread, ordering: .acquiringAndReleasing
        ).exchanged
      else { continue }
      state.pointee.place = UInt32(chunk &* Self.perChunk &+ index)
      if state.pointee.wasTaken.load(ordering: .relaxed) != 0 {
        _ = idleCount.wrappingSubtract(1, ordering: .relaxed)
      } else {
        state.pointee.cache = parkedCache(of: state).pointee
        state.pointee.wasTaken.store(1, ordering: .relaxed)
      }
      hint.store(UInt32(chunk), ordering: .relaxed)
      noteCount(threadCount.wrappingAdd(1, ordering: .relaxed).newValue)
      return state
    }
    return nil
  }

  /// Gives the pages of unowned states back to the kernel.
  package func discardUnowned() {
    forEachState { state in
      guard state.pointee.wasTaken.load(ordering: .relaxed) != 0,
        state.pointee.owner.compareExchange(
          expected: 0, desired: UInt32.max, ordering: .acquiringAndReleasing
        ).exchanged
      else { return }
      _ = idleCount.wrappingSubtract(1, ordering: .relaxed)
      release(state)
    }
  }

  /// Where the memory of stacks of a state is kept whose pages are not there.
  private func parkedCache(
    of state: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<UnsafeMutablePointer<StackCache>?> {
    let place = Int(state.pointee.place)
    let chunk = UnsafeMutableRawPointer(
      bitPattern: slot(place / Self.perChunk).pointee.load(ordering: .relaxed)
    ).unsafelyUnwrapped
    return (chunk + Self.statesByteCount).assumingMemoryBound(
      to: UnsafeMutablePointer<StackCache>?.self) + place % Self.perChunk
  }

  /// Has nobody own a state any more, and gives its pages back.
  private func release(_ state: UnsafeMutablePointer<ThreadState>) {
    state.discardCache(self)
    parkedCache(of: state).pointee = state.pointee.cache
    // The zeros that come in the place of the pages say that nobody owns it: from here on it may be another's.
    if System.discard(UnsafeMutableRawPointer(state), ThreadState.byteCount) { return }
    // A program that has locked its memory keeps it.
    leave(state)
  }

  /// Has nobody own a state any more, which keeps its pages.
  private func leave(_ state: UnsafeMutablePointer<ThreadState>) {
    state.clear()
    _ = idleCount.wrappingAdd(1, ordering: .relaxed)
    state.pointee.isMoving.store(0, ordering: .relaxed)
    state.pointee.isInside.store(0, ordering: .relaxed)
    state.pointee.owner.store(0, ordering: .releasing)
  }

  /// Puts a state back, with nothing left in it.
  package func give(_ state: UnsafeMutablePointer<ThreadState>) {
    noteCount(threadCount.wrappingSubtract(1, ordering: .relaxed).newValue)
    // Threads that end at the same moment may be a few too many, or too few.
    guard idleCount.load(ordering: .relaxed) < Self.idleLimit else { return release(state) }
    // A large memo is not kept for whoever comes next.
    if let cache = state.pointee.cache, cache.pointee.nodeBits > StackCache.firstNodeBits {
      state.discardCache(self)
    }
    leave(state)
  }

  /// A thread that comes or goes in the same moment may have its own limit stand until the next does.
  private func noteCount(_ count: UInt32) {
    publishLimit.store(Self.publishLimit(of: Int64(count)), ordering: .relaxed)
    mostThreads.max(count, ordering: .relaxed)
  }

  private static func publishLimit(of threads: Int64) -> Int64 { max(256, 2048 / max(1, threads)) }

  /// Has the most threads that there were at once be those that there are.
  func beginRecording() {
    mostThreads.store(threadCount.load(ordering: .relaxed), ordering: .relaxed)
  }

  /// By how many bytes what is published may have been wrong at any time of the recording; 0 where there was
  /// one thread only.
  ///
  /// Of the threads that there were at once the first has held back what one may, the second what each of two
  /// may, and so on: a thread that rests does not hear that others have come.
  var peakError: Int64 {
    let most = Int64(mostThreads.load(ordering: .relaxed))
    guard most > 1 else { return 0 }
    var sum: Int64 = 0
    var number: Int64 = 1
    while number <= min(most, 8) {
      sum = sum &+ Self.publishLimit(of: number)
      number &+= 1
    }
    return sum &+ max(0, most &- 8) &* Self.publishLimit(of: most)
  }

  private func makeChunk(_ chunk: Int) -> Bool {
    guard let made = slot(chunk).pointee.mapConcurrently(Self.chunkByteCount) else { return false }
    if made.isNew { _ = chunkCount.wrappingAdd(1, ordering: .acquiringAndReleasing) }
    return true
  }
}
