// SPDX-License-Identifier: Apache-2.0
// The site of an allocation: remembered, followed from the last walk, or walked to.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// The site of the stack that begins at these registers.
  @inline(__always)
  func site(
    _ thread: UnsafeMutablePointer<ThreadState>, _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    let site = rememberedSite(thread, registers)
    guard site != 0 else { return followedSite(thread, registers) }
    return unmarked(site, thread)
  }

  /// A site without `truncatedSite`, which is counted.
  @inline(__always)
  func unmarked(_ site: UInt32, _ thread: UnsafeMutablePointer<ThreadState>) -> UInt32 {
    if site & MemoEntry.truncatedSite != 0 {
      thread.pointee.counters.truncatedStacks.addAlone(1)
    }
    return site & ~MemoEntry.truncatedSite
  }

  /// As `StackCache.rememberedSite`, with what the thread knows at hand.
  @inline(__always)
  func rememberedSite(
    _ thread: UnsafeMutablePointer<ThreadState>, _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    guard thread.pointee.memoGate == pointee.rows.gate.current else { return 0 }
    return thread.pointee.memo.rememberedSite(registers, self, thread)
  }

  /// What a thread of its own memory does about a stack that is not in its memo.
  @inline(never)
  func followedSite(
    _ thread: UnsafeMutablePointer<ThreadState>, _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    guard let cache = cache(thread) else { return walkedSite(thread, registers) }
    if pointee.settings.checksStacks { return checkedSite(thread, cache, registers) }
    guard cache.isWorthFollowing, let site = follow(thread, cache, registers) else {
      cache.pointee.vainCount = cache.pointee.vainCount &+ 1
      return walkedSite(thread, registers)
    }
    cache.pointee.vainCount = 0
    thread.pointee.counters.followedStacks.addAlone(1)
    if site == SiteTable.lost { thread.pointee.counters.lostSites.addAlone(1) }
    if cache.imageTotal > pointee.depth { thread.pointee.counters.truncatedStacks.addAlone(1) }
    return site
  }

  /// The site by the image of the thread's last walk, of a stack that is remembered or not; `nil` where only a whole
  /// walk can tell.
  @inline(__always)
  private func follow(
    _ thread: UnsafeMutablePointer<ThreadState>, _ cache: UnsafeMutablePointer<StackCache>,
    _ registers: UnsafePointer<tracer_registers>, isRemembered: Bool = false
  ) -> UInt32? {
    guard cache.follow(registers, self, thread) == .stepped else { return nil }
    var isNew = false
    let site = cache.imageSite(
      pointee.sites, thread: thread.pointee.number, limit: pointee.depth, &isNew)
    if !isNew, !isRemembered, site != SiteTable.lost, cache.admits(),
      !cache.remember(
        site, isTruncated: cache.imageTotal > pointee.depth, registers, self, thread)
    {
      makeRoom(thread, cache)
    }
    return site
  }

  /// Walks all the way.
  @inline(never)
  private func walkedSite(
    _ thread: UnsafeMutablePointer<ThreadState>, _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    thread.pointee.counters.walkedStacks.addAlone(1)
    var walk = StackWalk(
      endingAt: thread.framesEnd, limit: pointee.depth, own: pointee.ownStart..<pointee.ownEnd)
    walk.walk(
      from: registers, rows: pointee.rows, readable: &thread.pointee.readable,
      contexts: &thread.pointee.readableContexts)
    if Int(walk.total) < StackWalk.stepLimit { thread.pointee.cache?.pointee.overlongStart = 0 }
    if walk.root != 0 { appendOrigin(of: &walk, thread) }
    switch walk.end {
    case .outermost:
      if walk.total > pointee.depth { thread.pointee.counters.truncatedStacks.addAlone(1) }
    case .broken: thread.pointee.counters.brokenStacks.addAlone(1)
    case .noRoom: thread.pointee.counters.lostRows.addAlone(1)
    }
    var isNew = false
    let site = pointee.sites.intern(
      walk.rows, count: walk.count, total: walk.total, isBroken: walk.end != .outermost,
      thread: thread.pointee.number, hash: StackHash.of(walk.rows, count: walk.count), &isNew)
    if site == SiteTable.lost { thread.pointee.counters.lostSites.addAlone(1) }
    return site
  }

  /// Has the stack of a task go on into the stack that made the task.
  @inline(never)
  private func appendOrigin(
    of walk: inout StackWalk, _ thread: UnsafeMutablePointer<ThreadState>
  ) {
    var trace = ReadTrace()
    var hint: UInt32 = 0
    // An `async let` of an `async let` and so on: each one adds frames.
    while walk.root != 0, walk.total < StackWalk.stepLimit {
      if let origin = TaskOrigin.find(
        root: walk.root, map: pointee.map, epoch: pointee.epoch.load(ordering: .relaxed),
        hint: &hint, readable: &thread.pointee.readableContexts, trace: &trace)
      {
        let site = pointee.sites.site(origin)
        return walk.append(site.pointee, pointee.sites.rows(of: site.pointee))
      }
      let declaring =
        if let cache = thread.pointee.cache { cache.declaring(walk.root, self) } else {
          TaskOrigin.declaring(walk.root)
        }
      guard let context = declaring else { return }
      walk.followFound(context, pointee.rows, &thread.pointee.readableContexts)
    }
  }

  // MARK: Checking

  /// Has every way to the site tell it, and counts where they differ. What a whole walk says holds.
  @inline(never)
  private func checkedSite(
    _ thread: UnsafeMutablePointer<ThreadState>, _ cache: UnsafeMutablePointer<StackCache>,
    _ registers: UnsafePointer<tracer_registers>
  ) -> UInt32 {
    // Before the image follows: afterwards what is remembered may be the stack of this moment.
    let remembered = cache.rememberedSite(registers, self, thread) & ~MemoEntry.truncatedSite
    // What is remembered stays so: another entry for the same stack would be followed by none.
    let followed = follow(thread, cache, registers, isRemembered: remembered != 0)
    let walked = walkedSite(thread, registers)
    thread.pointee.counters.checkedStacks.addAlone(1)
    if !isSame(remembered == 0 ? nil : remembered, walked) || !isSame(followed, walked) {
      thread.pointee.counters.differingStacks.addAlone(1)
    }
    return walked
  }

  private func isSame(_ quick: UInt32?, _ walked: UInt32) -> Bool {
    guard let quick, quick != walked else { return true }
    // A stack has two names where two threads met it for the first time in the same moment.
    return pointee.sites.isSameStack(quick, walked)
  }

  // MARK: The thread's memory of stacks

  /// The memory of the thread, fit for this recording and these modules; `nil` where it has none.
  private func cache(
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<StackCache>? {
    // It takes pages, which a thread that allocates little is not worth.
    guard
      thread.pointee.counters.allocatedBlocks.load(ordering: .relaxed)
        >= StackCache.allocationsBeforeFirst
    else { return nil }
    guard let cache = thread.pointee.cache ?? makeCache(thread) else { return nil }
    let epoch = pointee.epoch.load(ordering: .relaxed)
    let generation = pointee.rows.gate.moduleGeneration
    if !cache.isCurrent(epoch, generation) {
      let wanted = max(cache.pointee.nodeBits, StackCache.firstNodeBits)
      cache.begin(
        epoch, generation,
        nodeBits: pointee.threads.charge(
          from: cache.pointee.nodeBits, to: wanted, budget: memoBudget))
    }
    if cache.pointee.pauseLeft > 0 {
      cache.pointee.pauseLeft = cache.pointee.pauseLeft &- 1
      thread.closeMemo()
    } else if !pointee.settings.checksStacks {
      // The thread's epoch: it may have been held up in here until another recording has begun.
      thread.openMemo(
        cache, Gate.word(thread.pointee.epoch.load(ordering: .relaxed), generation))
    }
    return cache
  }

  @inline(never)
  private func makeCache(
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<StackCache>? {
    // Where there is no room, such as at a limit of address space, the kernel is asked ever less often.
    let allocations = thread.pointee.counters.allocatedBlocks.load(ordering: .relaxed)
    guard allocations >= 2 &* thread.pointee.allocationsWithoutCache else { return nil }
    guard let fresh = System.map(StackCache.mappedByteCount) else {
      thread.pointee.allocationsWithoutCache = allocations
      return nil
    }
    let cache = fresh.assumingMemoryBound(to: StackCache.self)
    thread.pointee.cache = cache
    return cache
  }

  /// What all memos together may take: a share of what is traced, and something to begin with.
  private var memoBudget: Int64 {
    4 << 20 &+ max(0, pointee.publishedBytes.load(ordering: .relaxed)) / 8
  }

  /// The memo is full: it grows, or begins anew.
  @inline(never)
  private func makeRoom(
    _ thread: UnsafeMutablePointer<ThreadState>, _ cache: UnsafeMutablePointer<StackCache>
  ) {
    let allocations = thread.pointee.counters.allocatedBlocks.load(ordering: .relaxed)
    let wanted = cache.nextNodeBits(allocations)
    cache.makeRoom(
      nodeBits: pointee.threads.charge(
        from: cache.pointee.nodeBits, to: wanted, budget: memoBudget),
      allocations)
    guard cache.pointee.nodeBits > StackCache.firstNodeBits, thread.hasOwnTallies else { return }
    // More stacks than tallies: many an allocation would find another's tally in its place.
    flushTallies(thread)
    thread.pointee.lastBlock = 0
    thread.useCacheTallies(cache)
  }
}
