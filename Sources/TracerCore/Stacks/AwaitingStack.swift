// SPDX-License-Identifier: Apache-2.0
// What a Swift task's stacks have in common: who awaits, and who made the task.

// Each task has contexts of its own, at addresses of its own. A stack that was remembered with them would be
// true for that task alone, and a server makes a task for each request. So what is remembered ends at the
// frame that keeps the context, or that an executor has called for a task, and the callers behind it are
// named by a number: that of the site that they would be, had they allocated. Tasks that do the same have the
// same number, and a thread finds it once for each task that it takes up.
//
// The task of an `async let` is in the context of the function that declares it, which is searched for. No few
// words tell what a search has found; but that function does not return before the task has ended, so that
// it is the same one for as long as it is the same task. That is told by the task's own number, which the
// runtime gives to each one anew, in the word that has its flags.

import CTracerPlatform
import Synchronization

/// Memory of live blocks.
///
/// What a register leads to may have been given back since, and unmapped with it. A block that is alive can be
/// read; whether it still is, is told by its word of the live map.
private struct LiveMemory: TaskMemory {
  /// Blocks that are noted: a task's own, and those that it has taken for more contexts.
  static var blockLimit: Int { 4 }

  private let core: UnsafeMutablePointer<Core>
  /// The end of the room for the words of the blocks; `nil` where they are not noted, and the kernel is asked
  /// about what is not in a block.
  private let checksEnd: UnsafeMutablePointer<StackCheck>?
  private var pages = ReadablePages()
  private var block: UInt = 0
  private var byteCount: UInt = 0
  private(set) var blockCount = 0

  init(
    _ core: UnsafeMutablePointer<Core>, notingBefore checksEnd: UnsafeMutablePointer<StackCheck>?
  ) {
    self.core = core
    self.checksEnd = checksEnd
  }

  @inline(__always)
  mutating func canRead(_ address: UInt) -> Bool {
    (address &- block < byteCount && address & 7 == 0) || find(address)
  }

  @inline(never)
  private mutating func find(_ address: UInt) -> Bool {
    guard address & 7 == 0 else { return false }
    guard
      let (start, word) = core.pointee.map.holder(
        of: address, epoch: core.pointee.epoch.load(ordering: .relaxed))
    else { return checksEnd == nil && pages.canRead(address) }
    if let checksEnd {
      guard blockCount < Self.blockLimit, let cell = core.pointee.map.cell(start) else {
        return false
      }
      blockCount &+= 1
      checksEnd[0 &- blockCount] = StackCheck(address: cell, value: UInt(word.bits))
    }
    block = start
    byteCount = UInt(word.smallByteCount) &- 7
    return true
  }
}

extension UnsafeMutablePointer where Pointee == StackCache {
  /// The number of those who await a context; 0 where they are not known for sure.
  ///
  /// - Parameter task: The task that the context is believed to be of only if it is, since it was found in
  ///   a register; 0 where a frame keeps it.
  /// Cost: two loads for each word that tells that they are still those that were found last.
  @inline(__always)
  func awaitingSite(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    pointee.awaitingContext == context && (task == 0 || pointee.awaitingTask == task)
      && isStillAwaiting
      ? pointee.awaitingSite : findAwaitingSite(context, of: task, core, thread)
  }

  /// In the order of a walk: behind a word that is another one the next may be gone.
  @inline(__always)
  private var isStillAwaiting: Bool {
    var check = awaitingChecks + Int(pointee.awaitingChecksBegin)
    let end = awaitingChecks + Int(pointee.awaitingChecksEnd)
    while check < end {
      if stackWord(check.pointee.address) != check.pointee.value { return false }
      check += 1
    }
    return true
  }

  func forgetAwaiting() {
    pointee.awaitingContext = 0
    pointee.awaitingTask = 0
    pointee.awaitingSite = 0
    pointee.awaitingChecksBegin = 0
    pointee.awaitingChecksEnd = 0
  }

  /// Cost: as that of a walk of as many frames, and a few loads of the live map; a search of the context that
  /// an `async let` is in.
  @inline(never)
  private func findAwaitingSite(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    forgetAwaiting()
    guard task != 0 else {
      return find(context, of: 0, core, &thread.pointee.readableContexts, liveBlockCount: { _ in 0 })
    }
    var memory = LiveMemory(core, notingBefore: awaitingChecks + LiveMemory.blockLimit)
    return find(context, of: task, core, &memory, liveBlockCount: { $0.blockCount })
  }

  /// Finds who awaits, and notes what tells that they still do.
  @inline(__always)
  private func find<Memory: TaskMemory>(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>, _ memory: inout Memory,
    liveBlockCount: (Memory) -> Int
  ) -> UInt32 {
    var trace = ReadTrace(
      into: awaitingChecks + LiveMemory.blockLimit,
      limit: StackCache.awaitingCheckLimit &- LiveMemory.blockLimit)
    var count = 0
    guard var root = prepend(context, &count, core, &memory, &trace),
      task == 0 || TaskOrigin.begins(task, with: root, &memory, &trace)
    else { return 0 }
    let epoch = core.pointee.epoch.load(ordering: .relaxed)
    var origin: UInt32?
    while true {
      let before = trace.count
      origin = TaskOrigin.find(
        root: root, map: core.pointee.map, epoch: epoch, readable: &memory, trace: &trace)
      guard origin == nil else { break }
      var letTrace = trace
      letTrace.forget(from: before)
      guard let task = TaskOrigin.letTask(root, &memory, &letTrace) else { break }
      trace = letTrace
      // Guesses, which may lead to what was unmapped since.
      var guesses = LiveMemory(core, notingBefore: nil)
      guard let context = TaskOrigin.declaring(task: task, &guesses, &trace),
        let next = prepend(context, &count, core, &memory, &trace)
      else { return 0 }
      root = next
    }
    var (kept, total) = (0, 0)
    if let origin {
      guard let counts = prepend(origin, behind: count, core) else { return 0 }
      (kept, total) = counts
    }
    guard trace.isWhole else { return 0 }
    let rows = awaitingRowsEnd - (count &+ kept)
    let length = UInt32(truncatingIfNeeded: count &+ kept)
    let site = core.pointee.sites.awaitingSite(
      rows, count: length, total: UInt32(truncatingIfNeeded: count &+ total),
      hash: StackHash.of(rows, count: length))
    guard site != 0 else { return 0 }
    pointee.awaitingContext = context
    pointee.awaitingTask = task
    pointee.awaitingSite = site
    pointee.awaitingOriginDepth = UInt32(truncatingIfNeeded: total)
    pointee.awaitingChecksBegin = UInt32(
      truncatingIfNeeded: LiveMemory.blockLimit &- liveBlockCount(memory))
    pointee.awaitingChecksEnd = UInt32(truncatingIfNeeded: LiveMemory.blockLimit &+ trace.count)
    return site
  }

  /// Puts those who await a context before so many rows; the context that the task begins with, or `nil`
  /// where that can't be told.
  @inline(__always)
  private func prepend<Memory: TaskMemory>(
    _ context: UInt, _ count: inout Int, _ core: UnsafeMutablePointer<Core>,
    _ memory: inout Memory, _ trace: inout ReadTrace
  ) -> UInt? {
    let reader = core.pointee.rows.reader
    var chain = AsyncChain(context: context)
    var own = context
    while let caller = chain.next(&memory) {
      guard count < StackWalk.stepLimit else { return nil }
      trace.note(own, caller.own)
      trace.note(own &+ 8, caller.resume)
      var number: UInt32 = 0
      guard
        core.pointee.rows.find(
          UInt64(caller.resume) | Row.exactFlag, reader, own: 0..<0, &number) == .stepped
      else { return nil }
      count &+= 1
      (awaitingRowsEnd - count).pointee = number
      own = caller.own
    }
    return chain.isBroken || chain.root == 0 ? nil : chain.root
  }

  /// Puts the stack that made the task before so many callers: how many rows it has, and how many frames
  /// it had; `nil` where it is too long.
  private func prepend(
    _ origin: UInt32, behind count: Int, _ core: UnsafeMutablePointer<Core>
  ) -> (kept: Int, total: Int)? {
    let site = core.pointee.sites.site(origin)
    let (kept, total) = (Int(site.pointee.frameCount), Int(site.pointee.totalFrameCount))
    guard !site.pointee.isBroken, count &+ total < StackCache.frameLimit else { return nil }
    let known = core.pointee.sites.rows(of: site.pointee)
    for position in 0..<kept {
      (awaitingRowsEnd - (count &+ position &+ 1)).pointee = known[position]
    }
    return (kept, total)
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
