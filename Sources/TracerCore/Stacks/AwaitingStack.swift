// SPDX-License-Identifier: Apache-2.0
// What a Swift task's stacks have in common: who awaits, and who made the task.

// Each task has contexts of its own, at addresses of its own. A stack that was remembered with them would be
// true for that task alone, and a server makes a task for each request. So what is remembered ends at the
// frame that keeps the context, and the callers behind it are named by a number: that of the site that
// they would be, had they allocated. Tasks that do the same have the same number, and a thread finds it once
// for each task that it takes up.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == StackCache {
  /// The number of those who await a context; 0 where they are not known for sure.
  ///
  /// Cost: two loads for each word that tells that they are still those that were found last.
  @inline(__always)
  func awaitingSite(
    _ context: UInt, _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    pointee.awaitingContext == context && isStillAwaiting
      ? pointee.awaitingSite : findAwaitingSite(context, core, thread)
  }

  /// In the order of a walk: behind a word that is another one the next may be gone.
  private var isStillAwaiting: Bool {
    for position in 0..<Int(pointee.awaitingCheckCount)
    where stackWord(awaitingChecks[position].address) != awaitingChecks[position].value {
      return false
    }
    return true
  }

  /// Cost: as that of a walk of as many frames, and a few loads of the live map.
  @inline(never)
  private func findAwaitingSite(
    _ context: UInt, _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    pointee.awaitingContext = 0
    let reader = core.pointee.rows.reader
    var chain = AsyncChain(context: context)
    var own = context
    var count = 0
    while let caller = chain.next(&thread.pointee.readableContexts) {
      guard count < StackWalk.stepLimit else { return 0 }
      awaitingChecks[2 &* count] = StackCheck(address: own, value: caller.own)
      awaitingChecks[2 &* count &+ 1] = StackCheck(address: own &+ 8, value: caller.resume)
      var number: UInt32 = 0
      guard
        core.pointee.rows.find(
          UInt64(caller.resume) | Row.exactFlag, reader, own: 0..<0, &number) == .stepped
      else { return 0 }
      count &+= 1
      (awaitingRowsEnd - count).pointee = number
      own = caller.own
    }
    guard count > 0, !chain.isBroken else { return 0 }
    var trace = ReadTrace(into: awaitingChecks + 2 &* count)
    guard let origin = TaskStack(of: chain.root, core, thread, &trace) else { return 0 }
    origin.write(before: awaitingRowsEnd - count)
    let length = UInt32(truncatingIfNeeded: count) &+ origin.rowCount
    let rows = awaitingRowsEnd - Int(length)
    return noteAwaiting(
      context, checkCount: 2 &* count &+ trace.count,
      site: core.pointee.sites.awaitingSite(
        rows, count: length, total: UInt32(truncatingIfNeeded: count) &+ origin.frameCount,
        hash: StackHash.of(rows, count: length)))
  }

  private func noteAwaiting(_ context: UInt, checkCount: Int, site: UInt32) -> UInt32 {
    guard site != 0 else { return 0 }
    pointee.awaitingContext = context
    pointee.awaitingCheckCount = UInt32(truncatingIfNeeded: checkCount)
    pointee.awaitingSite = site
    return site
  }

  /// The number of those who await in the image; 0 where there is none.
  func imageAwaitingSite(_ sites: borrowing SiteTable) -> UInt32 {
    let innermost = frames + Int(pointee.awaitingTop)
    return sites.awaitingSite(
      rows + Int(pointee.rowsBegin), count: innermost.pointee.depth &- pointee.rowsBegin,
      total: innermost.pointee.depth, hash: innermost.pointee.hash)
  }
}

/// The stack that made a task, for those of the task to go on into; empty where nobody knows it.
struct TaskStack {
  private var rows: UnsafePointer<UInt32>?
  /// How many rows are kept of it, and how many frames it had.
  private(set) var rowCount: UInt32 = 0
  private(set) var frameCount: UInt32 = 0

  /// Finds it from the context that the task begins with. `nil` where no few words tell who made the task,
  /// or where it is too much to be remembered with others.
  ///
  /// - Parameter trace: Gets every word that the answer depends on.
  init?(
    of root: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>, _ trace: inout ReadTrace
  ) {
    guard root != 0 else { return }
    guard
      let origin = TaskOrigin.find(
        root: root, map: core.pointee.map, epoch: core.pointee.epoch.load(ordering: .relaxed),
        readable: &thread.pointee.readableContexts, trace: &trace)
    else {
      // What declares an `async let` is searched for.
      var pages = ReadablePages()
      guard TaskOrigin.letTask(root, &pages) == nil else { return nil }
      return
    }
    let site = core.pointee.sites.site(origin)
    guard !site.pointee.isBroken, Int(site.pointee.totalFrameCount) < StackCache.frameLimit else {
      return nil
    }
    rows = core.pointee.sites.rows(of: site.pointee)
    rowCount = UInt32(site.pointee.frameCount)
    frameCount = site.pointee.totalFrameCount
  }

  /// Writes the rows, the outermost first, so that they end where others begin.
  func write(before others: UnsafeMutablePointer<UInt32>) {
    guard let rows else { return }
    for position in 0..<Int(rowCount) { (others - (position &+ 1)).pointee = rows[position] }
  }
}

extension SiteTable {
  /// The number of callers that await, which allocate nothing themselves; 0 where there is no room.
  fileprivate func awaitingSite(
    _ rows: UnsafePointer<UInt32>, count: UInt32, total: UInt32, hash: UInt64
  ) -> UInt32 {
    var isNew = false
    let site = intern(
      rows, count: count, total: total, isBroken: false, thread: 0, hash: hash, &isNew)
    return site == Self.lost ? 0 : site
  }
}
