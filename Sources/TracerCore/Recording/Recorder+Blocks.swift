// SPDX-License-Identifier: Apache-2.0
// What is done about one block: the path that every recorded call takes.

import CTracerPlatform
import Synchronization

/// What `tracer_thread` holds for a thread that has ended, and still frees in its last destructors.
private let endedThread = UInt(1)

extension UnsafeMutablePointer where Pointee == Core {
  // MARK: The thread's own state

  /// Enters the tracer; `nil` where the call is to pass through unrecorded.
  ///
  /// Counted as a loss only where a signal handler allocates while its thread is in here.
  @inline(__always)
  func enter() -> UnsafeMutablePointer<ThreadState>? {
    guard let slot = tracer_thread(), UInt(bitPattern: slot) != endedThread else {
      return enterFirst()
    }
    let thread = slot.assumingMemoryBound(to: ThreadState.self)
    guard thread.pointee.isInside.load(ordering: .relaxed) == 0 else { return nil }
    thread.pointee.isInside.store(1, ordering: .relaxed)
    // After the store: `waitForHooks` looks for it before it takes the tables away.
    guard pointee.isRecording.load(ordering: .acquiring) != 0 else {
      leave(thread)
      return nil
    }
    if thread.pointee.epoch.load(ordering: .relaxed) != pointee.epoch.load(ordering: .relaxed) {
      beginEpoch(thread)
    }
    return thread
  }

  @inline(__always)
  func leave(_ thread: UnsafeMutablePointer<ThreadState>) {
    thread.pointee.isInside.store(0, ordering: .releasing)
  }

  /// Runs the body with the thread inside the tracer: what it allocates is the tracer's own.
  package func withoutRecording<Result>(_ body: () -> Result) -> Result {
    let thread = enter()
    defer { if let thread { leave(thread) } }
    if let thread { thread.pointee.isInside.store(ThreadState.isAtWork, ordering: .relaxed) }
    return body()
  }

  @inline(never)
  private func enterFirst() -> UnsafeMutablePointer<ThreadState>? {
    // A thread past its end, or a failure below: the block goes unrecorded, and is counted.
    guard pointee.isRecording.load(ordering: .acquiring) != 0, tracer_thread() == nil,
      let thread = pointee.threads.take(for: UInt32(bitPattern: System.threadID))
    else { return nil }
    thread.pointee.isInside.store(ThreadState.isAtWork, ordering: .relaxed)
    tracer_set_thread(UnsafeMutableRawPointer(thread))
    // May allocate, for the key's slot; that call finds the thread inside, and passes through.
    tracer_services.note_thread?(UnsafeMutableRawPointer(thread))
    thread.pointee.isInside.store(1, ordering: .relaxed)
    // Again, now that it can be seen inside: recording may have stopped on the way here.
    guard pointee.isRecording.load(ordering: .acquiring) != 0 else {
      leave(thread)
      return nil
    }
    beginEpoch(thread)
    return thread
  }

  @inline(never)
  private func beginEpoch(_ thread: UnsafeMutablePointer<ThreadState>) {
    // It comes empty from the pool; emptying it again would have all of its pages be there.
    if thread.pointee.epoch.load(ordering: .relaxed) != 0 { thread.clear() }
    thread.useOwnTallies()
    numberThread(thread)
    // Looked up once: the next recording may begin meanwhile, if this thread was held up for long.
    let epoch = pointee.epoch.load(ordering: .relaxed)
    thread.pointee.mark = BlockWord.mark(epoch)
    thread.pointee.epoch.store(epoch, ordering: .releasing)
  }

  /// Adds what an ending thread has counted to the process's sums, and takes its state back.
  ///
  /// The caller holds the state inside, so that the sites are there for as long as this takes. After
  /// a recording they are not, and what a thread still holds back is of no use: added, it would be in
  /// the totals of whichever site has the number next.
  package func retire(_ thread: UnsafeMutablePointer<ThreadState>) {
    _ = pointee.retiring.wrappingAdd(1, ordering: .acquiringAndReleasing)
    defer { _ = pointee.retiredThreads.wrappingAdd(1, ordering: .acquiringAndReleasing) }
    if pointee.isRecording.load(ordering: .acquiring) != 0,
      thread.pointee.epoch.load(ordering: .relaxed) == pointee.epoch.load(ordering: .relaxed)
    {
      flushTallies(thread)
      publishWhole(thread)
      pointee.retired.add(thread.pointee.counters)
    }
    pointee.threads.give(thread)
  }

  /// Called when a thread ends, by the thread itself.
  package func threadEnded(_ thread: UnsafeMutablePointer<ThreadState>) {
    tracer_set_thread(UnsafeMutableRawPointer(bitPattern: endedThread))
    thread.pointee.isInside.store(ThreadState.isAtWork, ordering: .sequentiallyConsistent)
    if thread.pointee.number != 0, pointee.isRecording.load(ordering: .acquiring) != 0,
      thread.pointee.epoch.load(ordering: .relaxed) == pointee.epoch.load(ordering: .relaxed)
    {
      pointee.threadTable.noteName(thread.pointee.number)
    }
    retire(thread)
  }

  // MARK: Blocks

  /// Records a block that was just handed out.
  @inline(__always)
  package func didAllocate(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) {
    noteAwaitedHeap(excluding: block)
    guard let thread = enter() else { return didPassThrough() }
    record(
      thread, UInt(bitPattern: block), UInt64(UInt(bitPattern: byteCount)),
      site(thread, registers))
    leave(thread)
  }

  @inline(__always)
  func record(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64,
    _ site: UInt32
  ) {
    if let stale = pointee.map.takeStale(
      address, epoch: pointee.epoch.load(ordering: .relaxed))
    {
      countUnseenFree(thread, address, stale)
    }
    guard
      pointee.map.enter(
        address, site: site, generation: pointee.generation.load(ordering: .relaxed),
        epoch: pointee.epoch.load(ordering: .relaxed), byteCount: byteCount)
    else { return thread.pointee.counters.lostBlocks.addAlone(1) }
    if countAllocated(thread, address, byteCount, site) { publish(thread) }
  }

  /// Takes a block that is about to be given back, and must still be its owner's.
  @inline(__always)
  package func willFree(_ block: UnsafeMutableRawPointer) {
    noteAwaitedHeap()
    guard let thread = enter() else { return willFreeUnentered(block) }
    let address = UInt(bitPattern: block)
    if let (_, byteCount) = pointee.map.take(
      address, epoch: pointee.epoch.load(ordering: .relaxed))
    {
      if countFreed(thread, address, byteCount) { publish(thread) }
    } else if thread.pointee.isDeleting == 0 {
      countUnknown(thread, block)
    }
    leave(thread)
  }

  /// A block is in the place of one that is in the map: that one was given back by a call that is not
  /// among the hooks, such as jemalloc's sdallocx.
  @inline(never)
  private func countUnseenFree(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64
  ) {
    thread.pointee.counters.unseenFrees.addAlone(1)
    // The balance is published with the allocation that shows it, or with a later one.
    _ = countFreed(thread, address, byteCount)
  }

  /// Born before recording, or never recorded: its size is what the allocator says.
  @inline(never)
  private func countUnknown(
    _ thread: UnsafeMutablePointer<ThreadState>, _ block: UnsafeMutableRawPointer
  ) {
    if let contains = tracer_services.boot_contains, contains(block) != 0 { return }
    thread.pointee.counters.unknownFreedBlocks.addAlone(1)
    thread.pointee.counters.unknownFreedBytes.addAlone(
      UInt64(tracer_originals.malloc_usable_size?(block) ?? 0))
  }

  /// A thread without a state gives back a block: its last destructors, or a handler in the tracer.
  @inline(never)
  private func willFreeUnentered(_ block: UnsafeMutableRawPointer) {
    guard pointee.isRecording.load(ordering: .acquiring) != 0,
      let (_, byteCount) = pointee.map.take(
        UInt(bitPattern: block), epoch: pointee.epoch.load(ordering: .relaxed))
    else { return }
    countFreedUnentered(byteCount)
  }

  private func countFreedUnentered(_ byteCount: UInt64) {
    _ = pointee.retired.freedBlocks.wrappingAdd(1, ordering: .relaxed)
    _ = pointee.retired.freedBytes.wrappingAdd(byteCount, ordering: .relaxed)
    _ = pointee.publishedBytes.wrappingSubtract(Int64(byteCount), ordering: .relaxed)
  }

  @inline(never)
  func didPassThrough() {
    guard pointee.isRecording.load(ordering: .relaxed) != 0 else { return }
    // Without a state: past the thread's end, or no memory for one. With one: a signal handler,
    // unless it is the tracer itself that has a thread started.
    guard let slot = tracer_thread(), UInt(bitPattern: slot) != endedThread else {
      _ = pointee.retired.lostBlocks.wrappingAdd(1, ordering: .relaxed)
      return
    }
    let inside = slot.assumingMemoryBound(to: ThreadState.self).pointee.isInside
      .load(ordering: .relaxed)
    if inside != ThreadState.isAtWork {
      _ = pointee.retired.lostNested.wrappingAdd(1, ordering: .relaxed)
    }
  }

  // MARK: realloc

  /// What realloc must put back if it fails.
  package struct Taken {
    var address: UInt = 0
    var word = BlockWord(bits: 0)
    var byteCount: UInt64 = 0
    var wasKnown = false
    /// Of the recording that the block was taken from, which may be over when realloc returns.
    var epoch: UInt32 = 0
    /// Of a block that was not known.
    var usableByteCount = 0
  }

  /// Takes the old block of a realloc. Before the call: after it, another thread may own the address.
  package func willReallocate(_ block: UnsafeMutableRawPointer) -> Taken {
    var taken = Taken()
    guard pointee.isRecording.load(ordering: .acquiring) != 0 else { return taken }
    noteAwaitedHeap()
    taken.epoch = pointee.epoch.load(ordering: .relaxed)
    if pointee.settings.looksForLeaks { beginMove() }
    if let (word, byteCount) = pointee.map.take(UInt(bitPattern: block), epoch: taken.epoch) {
      taken.address = UInt(bitPattern: block)
      taken.word = word
      taken.byteCount = byteCount
      taken.wasKnown = true
    } else {
      endMove()
      taken.usableByteCount = tracer_originals.malloc_usable_size?(block) ?? 0
    }
    return taken
  }

  /// Notes that a block is in the map under its new address: what it points to is found there.
  package func didMove(_ taken: Taken) {
    if taken.wasKnown { endMove() }
  }

  /// Has a search for leaks, which would find the block under no address, wait until the move is over; or
  /// waits itself, where one has begun. The process is at its end then, and the thread would be stopped
  /// anyway.
  @inline(never)
  private func beginMove() {
    setMoving(1)
    while word(.hold).pointee.load(ordering: .acquiring) != 0 {
      setMoving(0)
      System.wait(
        on: UnsafeMutableRawPointer(word(.hold)), while: 1, nanoseconds: 100_000_000, shared: false)
      setMoving(1)
    }
  }

  private func endMove() {
    if pointee.settings.looksForLeaks { setMoving(0) }
  }

  private func setMoving(_ isMoving: UInt16) {
    guard let slot = tracer_thread(), UInt(bitPattern: slot) != endedThread else { return }
    // Releasing: the new block is in the map before the move is over.
    slot.assumingMemoryBound(to: ThreadState.self).pointee.isMoving
      .store(isMoving, ordering: .releasing)
  }

  /// Puts the old block of a failed realloc back, as it was.
  package func didNotReallocate(_ block: UnsafeMutableRawPointer, _ taken: Taken) {
    guard taken.wasKnown else { return }
    defer { endMove() }
    _ = pointee.map.enter(
      UInt(bitPattern: block), site: taken.word.site, generation: taken.word.generation,
      epoch: taken.word.epoch, byteCount: taken.byteCount)
  }

  /// Counts the old block of a realloc as freed.
  package func didReallocate(_ taken: Taken) {
    guard let thread = enter() else {
      if taken.wasKnown { countFreedUnentered(taken.byteCount) }
      return
    }
    if taken.epoch != pointee.epoch.load(ordering: .relaxed) {
      // Freed in a recording that is over: this one has never counted it.
    } else if taken.wasKnown {
      if countFreed(thread, taken.address, taken.byteCount) { publish(thread) }
    } else {
      thread.pointee.counters.unknownFreedBlocks.addAlone(1)
      thread.pointee.counters.unknownFreedBytes.addAlone(UInt64(taken.usableByteCount))
    }
    leave(thread)
  }

  // MARK: C++'s operators

  /// Records what operator new returned: corrects the size where it had called malloc with another,
  /// and enters the block where the allocator brings an operator of its own.
  package func didNew(
    _ block: UnsafeMutableRawPointer, _ byteCount: Int,
    _ registers: UnsafePointer<tracer_registers>
  ) {
    let address = UInt(bitPattern: block)
    let epoch = pointee.epoch.load(ordering: .relaxed)
    guard let word = pointee.map.find(address, epoch: epoch) else {
      return didAllocate(block, byteCount, registers)
    }
    guard let thread = enter() else { return }
    if let (_, recorded) = pointee.map.take(address, epoch: epoch),
      pointee.map.enter(
        address, site: word.site, generation: word.generation, epoch: epoch,
        byteCount: UInt64(UInt(bitPattern: byteCount)))
    {
      // The recorded size is never the smaller: subtract what was added on the way.
      let excess = recorded &- UInt64(UInt(bitPattern: byteCount))
      thread.pointee.counters.allocatedBytes.addAlone(0 &- excess)
      let tally = thread.tally(of: word.site)
      if tally.pointee.site.load(ordering: .relaxed) == word.site {
        tally.pointee.bytes.addAlone(0 &- excess)
      } else {
        _ = pointee.sites.site(word.site).pointee.totalBytes.wrappingSubtract(
          excess, ordering: .relaxed)
      }
      if lowerBalance(thread, by: excess) { publish(thread) }
    }
    leave(thread)
  }

  /// Takes a block before an operator delete, whose own call of free is not to be counted.
  package func willDelete(_ block: UnsafeMutableRawPointer?) {
    if let block { willFree(block) }
    if let slot = tracer_thread(), UInt(bitPattern: slot) != endedThread {
      slot.assumingMemoryBound(to: ThreadState.self).pointee.isDeleting = 1
    }
  }

  package func didDelete() {
    if let slot = tracer_thread(), UInt(bitPattern: slot) != endedThread {
      slot.assumingMemoryBound(to: ThreadState.self).pointee.isDeleting = 0
    }
  }

  // MARK: Sums

  /// Counts a block that was entered; whether the thread's balance is to be published.
  @inline(__always)
  func countAllocated(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64,
    _ site: UInt32
  ) -> Bool {
    let tally = thread.tally(of: site)
    if !tally.isFit(for: site) {
      flush(thread, tally)
      tally.pointee.site.store(site, ordering: .relaxed)
    }
    tally.add(byteCount)
    return countAllocated(thread, address, byteCount, tally)
  }

  /// Counts a block that its site's tally has counted; whether the thread's balance is to be published.
  @inline(__always)
  func countAllocated(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64,
    _ tally: UnsafeMutablePointer<SiteTally>
  ) -> Bool {
    thread.pointee.counters.allocatedBlocks.addAlone(1)
    thread.pointee.counters.allocatedBytes.addAlone(byteCount)
    thread.pointee.lastTally = tally
    thread.pointee.lastBlock = address
    return raiseBalance(thread, by: byteCount)
  }

  /// Counts a block that was taken; whether the thread's balance is to be published.
  @inline(__always)
  func countFreed(
    _ thread: UnsafeMutablePointer<ThreadState>, _ address: UInt, _ byteCount: UInt64
  ) -> Bool {
    if thread.pointee.lastBlock == address {
      thread.pointee.lastBlock = 0
      thread.pointee.lastTally.unsafelyUnwrapped.pointee.temporaries.addAlone(1)
    }
    thread.pointee.counters.freedBlocks.addAlone(1)
    thread.pointee.counters.freedBytes.addAlone(byteCount)
    return lowerBalance(thread, by: byteCount)
  }

  /// Adds all tallies to their sites' totals.
  func flushTallies(_ thread: UnsafeMutablePointer<ThreadState>) {
    let tallies = thread.tallies
    guard let first = tallies.baseAddress else { return }
    for position in 0..<tallies.count { flush(thread, first + position) }
  }

  /// Adds a tally to its site's totals, and empties it.
  private func flush(
    _ thread: UnsafeMutablePointer<ThreadState>, _ tally: UnsafeMutablePointer<SiteTally>
  ) {
    let site = tally.pointee.site.load(ordering: .relaxed)
    guard site != 0 else { return }
    thread.pointee.counters.flushes.addAlone(1)
    let totals = pointee.sites.site(site)
    let blocks = UInt64(tally.pointee.blocks.load(ordering: .relaxed))
    _ = totals.pointee.totalBlocks.wrappingAdd(blocks, ordering: .relaxed)
    _ = totals.pointee.totalBytes.wrappingAdd(
      tally.pointee.bytes.load(ordering: .relaxed), ordering: .relaxed)
    let temporaries = UInt64(tally.pointee.temporaries.load(ordering: .relaxed))
    if temporaries != 0 {
      _ = pointee.sites.temporaries(of: site).pointee.wrappingAdd(temporaries, ordering: .relaxed)
    }
    tally.pointee.site.store(0, ordering: .relaxed)
    tally.pointee.blocks.store(0, ordering: .relaxed)
    tally.pointee.temporaries.store(0, ordering: .relaxed)
    tally.pointee.bytes.store(0, ordering: .relaxed)
  }

  /// How far a thread's balance may be from what it has published, in bytes: 2 KiB among all.
  package var publishLimit: Int64 { pointee.threads.publishLimit.load(ordering: .relaxed) }

  @inline(__always)
  func raiseBalance(
    _ thread: UnsafeMutablePointer<ThreadState>, by byteCount: UInt64
  ) -> Bool {
    let balance = thread.pointee.balance &+ Int64(truncatingIfNeeded: byteCount)
    thread.pointee.balance = balance
    guard balance > thread.pointee.balanceHigh.load(ordering: .relaxed) else { return false }
    thread.pointee.balanceHigh.store(balance, ordering: .relaxed)
    return balance >= publishLimit
  }

  @inline(__always)
  func lowerBalance(
    _ thread: UnsafeMutablePointer<ThreadState>, by byteCount: UInt64
  ) -> Bool {
    let balance = thread.pointee.balance &- Int64(truncatingIfNeeded: byteCount)
    thread.pointee.balance = balance
    return balance &+ publishLimit <= 0
  }

  /// Adds to the process's balance what the thread's has too much to be held back.
  @inline(never)
  func publish(_ thread: UnsafeMutablePointer<ThreadState>) {
    publish(thread, holding: thread.heldBalance(limit: publishLimit))
  }

  /// Adds all of the thread's balance to the process's.
  func publishWhole(_ thread: UnsafeMutablePointer<ThreadState>) { publish(thread, holding: 0) }

  /// Adds the thread's balance to the process's but for what it goes on to hold back, and raises the
  /// high-water mark.
  private func publish(_ thread: UnsafeMutablePointer<ThreadState>, holding held: Int64) {
    thread.pointee.counters.publications.addAlone(1)
    let balance = thread.pointee.balance
    let before = pointee.publishedBytes.wrappingAdd(balance &- held, ordering: .relaxed).oldValue
    raisePeak(to: before &+ max(balance, thread.pointee.balanceHigh.load(ordering: .relaxed)))
    thread.pointee.balance = held
    thread.pointee.balanceHigh.store(held, ordering: .relaxed)
    let wakeAt = pointee.wakeAtBytes.load(ordering: .relaxed)
    if wakeAt != 0, before &+ balance >= wakeAt { wakeForGrowth(wakeAt) }
  }

  /// Has the worker look at the limits, once for each mark that it has set.
  @inline(never)
  private func wakeForGrowth(_ wakeAt: Int64) {
    guard
      pointee.wakeAtBytes.compareExchange(expected: wakeAt, desired: 0, ordering: .relaxed)
        .exchanged
    else { return }
    wakeWorker()
  }

  package func raisePeak(to bytes: Int64) {
    // Most of the time it is no peak, and then nothing is written that others read.
    guard bytes > pointee.peakBytes.load(ordering: .relaxed) else { return }
    pointee.peakBytes.max(bytes, ordering: .relaxed)
  }
}
