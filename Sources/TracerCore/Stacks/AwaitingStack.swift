// SPDX-License-Identifier: Apache-2.0
// What a Swift task's stacks have in common: who awaits, and who made the task.

// Each task has contexts of its own, at addresses of its own. A stack that was remembered with them would be
// true for that task alone, and a server makes a task for each request. So what is remembered ends at the
// frame that keeps the context, or that an executor has called for a task, and the callers behind it are
// named by a number: that of the site that they would be, had they allocated. Tasks that do the same have the
// same number, and a thread finds it once for each task that it takes up.
//
// The task of an `async let` is in the context of the function that declares it, which is searched for, once for
// each task and thread: see `TaskOrigin.Declaration`.

import CTracerPlatform
import Synchronization

/// Those who were found to await a context.
struct AwaitingRecord {
  /// 0 where there are none.
  var context: UInt
  /// The task whose context it was found to be; 0 where that was not asked.
  var task: UInt
  /// The site that stands for them.
  var site: UInt32
  /// Frames of the stack that made the task.
  var originDepth: UInt32
  /// Which words tell that they are still the same.
  var begin: UInt32
  var end: UInt32

  /// A thread has so many, each for the contexts at some addresses, and one for whose words are too many.
  static var count: Int { 8 }
  static var checkLimit: Int { 64 }

  static var none: Self { Self(context: 0, task: 0, site: 0, originDepth: 0, begin: 0, end: 0) }
}

/// The site that callers which await would be, had they allocated; behind it, the callers.
struct AwaitingName {
  /// The site that made the task; 0 where it is not known.
  var origin: UInt32
  var count: UInt32
  /// 0 where this is no name.
  var site: UInt32
  var originDepth: UInt32

  /// A thread has so many of them: by four bits of a hash.
  static var count: Int { 16 }
  static var callerLimit: Int { 14 }
  static var byteCount: Int { MemoryLayout<Self>.stride &+ callerLimit &* 8 }
}

extension UnsafeMutablePointer where Pointee == AwaitingName {
  fileprivate var callers: UnsafeMutablePointer<UInt> {
    UnsafeMutableRawPointer(self + 1).assumingMemoryBound(to: UInt.self)
  }

  @inline(__always)
  fileprivate func hasCallers(_ others: UnsafeMutablePointer<UInt>) -> Bool {
    for position in 0..<Int(pointee.count) where callers[position] != others[position] {
      return false
    }
    return true
  }
}

/// A block that an address was found to lie in, and the word of the live map that says so.
struct LiveBlock {
  var start: UInt
  var word: StackCheck

  static var count: Int { 16 }

  /// Whether a word lies in the block.
  @inline(__always)
  func holds(_ address: UInt) -> Bool {
    address &- start &+ 8 <= BlockWord(bits: UInt64(word.value)).smallByteCount && address >= start
  }
}

/// Memory of live blocks.
///
/// What a register leads to may have been given back since, and unmapped with it. A block that is alive can be
/// read; whether it still is, is told by its word of the live map.
private struct LiveMemory: TaskMemory {
  /// Blocks that are noted: a task's own, and those that it has taken for more contexts.
  static var blockLimit: Int { 4 }

  private let core: UnsafeMutablePointer<Core>
  private let cache: UnsafeMutablePointer<StackCache>
  /// The end of the room for the words of the blocks; `nil` where they are not noted, and the kernel is asked
  /// about what is not in a block.
  private let checksEnd: UnsafeMutablePointer<StackCheck>?
  private var pages = ReadablePages()
  private var block = LiveBlock(start: 0, word: StackCheck(address: 0, value: 0))
  private(set) var blockCount = 0

  init(
    _ core: UnsafeMutablePointer<Core>, _ cache: UnsafeMutablePointer<StackCache>,
    notingBefore checksEnd: UnsafeMutablePointer<StackCheck>?
  ) {
    self.core = core
    self.cache = cache
    self.checksEnd = checksEnd
  }

  @inline(__always)
  mutating func canRead(_ address: UInt) -> Bool {
    address & 7 == 0 && (block.holds(address) || find(address))
  }

  @inline(never)
  private mutating func find(_ address: UInt) -> Bool {
    let known = cache.liveBlocks + (Int(truncatingIfNeeded: address >> 10) & (LiveBlock.count &- 1))
    if !known.pointee.holds(address)
      || stackWord(known.pointee.word.address) != known.pointee.word.value
    {
      guard
        let (start, word) = core.pointee.map.holder(
          of: address, epoch: core.pointee.epoch.load(ordering: .relaxed)),
        let cell = core.pointee.map.cell(start)
      else { return checksEnd == nil && pages.canRead(address) }
      known.pointee = LiveBlock(
        start: start, word: StackCheck(address: cell, value: UInt(word.bits)))
    }
    if let checksEnd {
      guard blockCount < Self.blockLimit else { return false }
      blockCount &+= 1
      checksEnd[0 &- blockCount] = known.pointee.word
    }
    block = known.pointee
    return true
  }
}

extension UnsafeMutablePointer where Pointee == StackCache {
  /// The number of those who await a context; 0 where they are not known for sure.
  ///
  /// - Parameter task: The task whose context it must be, where it was found in a register that may have
  ///   another's; 0 where a frame keeps it.
  /// Cost: two loads for each word that tells that they are still those that were found last.
  @inline(__always)
  func awaitingSite(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UInt32 {
    awaitingRecord(context, of: task, core, thread).pointee.site
  }

  /// The same without a search: 0 also where others were found last.
  @inline(__always)
  func knownAwaitingSite(_ context: UInt, of task: UInt) -> UInt32 {
    let record = self.record(of: context)
    return isTrue(record, context, task) ? record.pointee.site : 0
  }

  /// The same with all that is known of them; one of no site where it is not.
  @inline(__always)
  func awaitingRecord(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<AwaitingRecord> {
    let record = self.record(of: context)
    return isTrue(record, context, task) ? record : findAwaiting(context, of: task, core, thread)
  }

  @inline(__always)
  private func record(of context: UInt) -> UnsafeMutablePointer<AwaitingRecord> {
    // Contexts lie 16 bytes apart, and those of functions that call each other some hundred.
    records + (Int(truncatingIfNeeded: context >> 4 ^ context >> 7) & (AwaitingRecord.count &- 1))
  }

  /// In the order of a walk: behind a word that is another one the next may be gone.
  @inline(__always)
  private func isTrue(
    _ record: UnsafeMutablePointer<AwaitingRecord>, _ context: UInt, _ task: UInt
  ) -> Bool {
    guard record.pointee.context == context, task == 0 || record.pointee.task == task else {
      return false
    }
    var check = awaitingChecks + Int(record.pointee.begin)
    let end = awaitingChecks + Int(record.pointee.end)
    while check < end {
      if stackWord(check.pointee.address) != check.pointee.value { return false }
      check += 1
    }
    return true
  }

  /// Forgets who awaits, and what was found out on the way.
  func forgetAwaiting() {
    UnsafeMutableRawPointer(records).initializeMemory(
      as: UInt8.self, repeating: 0, count: StackCache.framesOffset &- StackCache.recordsOffset)
    for position in 0..<AwaitingName.count { awaitingName(position).pointee.site = 0 }
  }

  /// Cost: as that of a walk of as many frames, and a few loads of the live map; a search of the context that
  /// an `async let` is in.
  @inline(never)
  private func findAwaiting(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> UnsafeMutablePointer<AwaitingRecord> {
    let large = records + AwaitingRecord.count
    if large.pointee.context != 0, isTrue(large, context, task) { return large }
    large.pointee = .none
    let room = AwaitingRecord.count &* AwaitingRecord.checkLimit &+ LiveMemory.blockLimit
    var found: AwaitingRecord
    if task == 0 {
      found = find(context, of: 0, core, &thread.pointee.readableContexts, room)
    } else {
      var memory = LiveMemory(core, self, notingBefore: awaitingChecks + room)
      found = find(context, of: task, core, &memory, room)
      found.begin = found.begin &- UInt32(truncatingIfNeeded: memory.blockCount)
    }
    guard found.site != 0 else { return large }
    let checkCount = Int(found.end &- found.begin)
    guard checkCount <= AwaitingRecord.checkLimit else {
      large.pointee = found
      return large
    }
    let record = self.record(of: context)
    let first = (record - records) &* AwaitingRecord.checkLimit
    let (source, target) = (awaitingChecks + Int(found.begin), awaitingChecks + first)
    target.update(from: source, count: checkCount)
    found.begin = UInt32(truncatingIfNeeded: first)
    found.end = UInt32(truncatingIfNeeded: first &+ checkCount)
    record.pointee = found
    return record
  }

  /// Finds who awaits, and notes what tells that they still do.
  @inline(__always)
  private func find<Memory: TaskMemory>(
    _ context: UInt, of task: UInt, _ core: UnsafeMutablePointer<Core>, _ memory: inout Memory,
    _ room: Int
  ) -> AwaitingRecord {
    var trace = ReadTrace(into: awaitingChecks + room, limit: StackCache.awaitingCheckLimit &- room)
    var count = 0
    guard var root = append(context, &count, &memory, &trace),
      task == 0 || TaskOrigin.begins(task, with: root, &memory, &trace)
    else { return .none }
    // They may lead to what was unmapped since.
    var guesses = LiveMemory(core, self, notingBefore: nil)
    let epoch = core.pointee.epoch.load(ordering: .relaxed)
    var before = trace.count
    // Of an `async let`'s no task begins where one that is a block would, and the other way round.
    var origin = TaskOrigin.find(
      root: root, map: core.pointee.map, epoch: epoch, places: 0..<1, hint: &pointee.originHint,
      readable: &guesses, trace: &trace)
    if origin == nil {
      trace.forget(from: before)
      while let task = TaskOrigin.letTask(root, &guesses, &trace) {
        guard let context = declaring(task, &guesses, &trace),
          let next = append(context, &count, &memory, &trace)
        else { return .none }
        root = next
        before = trace.count
      }
      trace.forget(from: before)
      origin = TaskOrigin.find(
        root: root, map: core.pointee.map, epoch: epoch, hint: &pointee.originHint,
        readable: &guesses, trace: &trace)
      // That it is no `async let`'s either is then a part of the answer.
      if origin == nil { _ = TaskOrigin.letTask(root, &guesses, &trace) }
    }
    guard trace.isWhole else { return .none }
    let (site, originDepth) = awaitingSite(of: count, madeBy: origin ?? 0, core)
    return AwaitingRecord(
      context: context, task: task, site: site, originDepth: originDepth,
      begin: UInt32(truncatingIfNeeded: room),
      end: UInt32(truncatingIfNeeded: room &+ trace.count))
  }

  /// The number of so many callers, and how many frames the stack has that made their task.
  @inline(__always)
  private func awaitingSite(
    of count: Int, madeBy origin: UInt32, _ core: UnsafeMutablePointer<Core>
  ) -> (site: UInt32, originDepth: UInt32) {
    guard count <= AwaitingName.callerLimit else {
      return nameAwaiting(count, madeBy: origin, core)
    }
    var hash = UInt(origin)
    for position in 0..<count { hash = (hash ^ awaitingCallers[position]) &* 0x9E37_79B9_7F4A_7C15 }
    let name = awaitingName(Int(truncatingIfNeeded: hash >> 60))
    if name.pointee.site != 0, name.pointee.origin == origin,
      name.pointee.count == count, name.hasCallers(awaitingCallers)
    {
      return (name.pointee.site, name.pointee.originDepth)
    }
    let found = nameAwaiting(count, madeBy: origin, core)
    name.pointee.origin = origin
    name.pointee.count = UInt32(truncatingIfNeeded: count)
    (name.pointee.site, name.pointee.originDepth) = found
    for position in 0..<count { name.callers[position] = awaitingCallers[position] }
    return found
  }

  @inline(never)
  private func nameAwaiting(
    _ count: Int, madeBy origin: UInt32, _ core: UnsafeMutablePointer<Core>
  ) -> (site: UInt32, originDepth: UInt32) {
    let reader = core.pointee.rows.reader
    for position in 0..<count {
      var number: UInt32 = 0
      guard
        core.pointee.rows.find(
          UInt64(awaitingCallers[position]) | Row.exactFlag, reader, own: 0..<0, &number)
          == .stepped
      else { return (0, 0) }
      (awaitingRowsEnd - (position &+ 1)).pointee = number
    }
    var (kept, total) = (0, 0)
    if origin != 0 {
      let site = core.pointee.sites.site(origin)
      (kept, total) = (Int(site.pointee.frameCount), Int(site.pointee.totalFrameCount))
      guard !site.pointee.isBroken, count &+ total < StackCache.frameLimit else { return (0, 0) }
      let known = core.pointee.sites.rows(of: site.pointee)
      for position in 0..<kept {
        (awaitingRowsEnd - (count &+ position &+ 1)).pointee = known[position]
      }
    }
    let rows = awaitingRowsEnd - (count &+ kept)
    let length = UInt32(truncatingIfNeeded: count &+ kept)
    let site = core.pointee.sites.awaitingSite(
      rows, count: length, total: UInt32(truncatingIfNeeded: count &+ total),
      hash: StackHash.of(rows, count: length))
    return (site, UInt32(truncatingIfNeeded: total))
  }

  /// The context of the function whose `async let` a task is.
  private func declaring(
    _ task: UInt, _ guesses: inout LiveMemory, _ trace: inout ReadTrace
  ) -> UInt? {
    let slot = Int(truncatingIfNeeded: task >> 4 ^ task >> 8) & (TaskOrigin.Declaration.count &- 1)
    let known = declarations + slot
    if known.pointee.isOf(task) {
      guard guesses.canRead(task &+ 208) else { return nil }
      _ = trace.read(task &+ 208)
      return known.pointee.context
    }
    guard let context = TaskOrigin.declaring(task: task, &guesses, &trace),
      leadsToEnd(context, &guesses)
    else { return nil }
    if known.pointee.task != 0 {
      // Searched for again, another context may be found, as long as the function runs on another thread.
      for position in 0...AwaitingRecord.count { records[position] = .none }
    }
    known.pointee = TaskOrigin.Declaration(of: task, by: context)
    return context
  }

  /// Whether those who await a context are known to the last: not so of one that a function has left behind,
  /// which the search may come upon while the one that it looks for runs.
  private func leadsToEnd(_ context: UInt, _ memory: inout LiveMemory) -> Bool {
    var chain = AsyncChain(context: context)
    for _ in 0..<StackWalk.stepLimit where chain.next(&memory) == nil {
      return !chain.isBroken && chain.root != 0
    }
    return false
  }

  /// The context of the function whose `async let` begins with a context; `nil` where there is none. For a
  /// whole walk, to find what was found for the task before.
  @inline(never)
  func declaring(_ root: UInt, _ core: UnsafeMutablePointer<Core>) -> UInt? {
    var guesses = LiveMemory(core, self, notingBefore: nil)
    var trace = ReadTrace()
    guard let task = TaskOrigin.letTask(root, &guesses, &trace) else { return nil }
    return declaring(task, &guesses, &trace)
  }

  /// Notes those who await a context behind so many callers; the context that the task begins with, or `nil`
  /// where that can't be told.
  @inline(__always)
  private func append<Memory: TaskMemory>(
    _ context: UInt, _ count: inout Int, _ memory: inout Memory, _ trace: inout ReadTrace
  ) -> UInt? {
    var chain = AsyncChain(context: context)
    var own = context
    while let caller = chain.next(&memory) {
      guard count < StackWalk.stepLimit else { return nil }
      trace.note(own, caller.own)
      trace.note(own &+ 8, caller.resume)
      awaitingCallers[count] = caller.resume
      count &+= 1
      own = caller.own
    }
    return chain.isBroken || chain.root == 0 ? nil : chain.root
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
