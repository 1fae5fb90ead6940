// SPDX-License-Identifier: Apache-2.0
// What a thread remembers of its stacks: the memory for it, and when to trust none of it.

import CTracerPlatform
import Synchronization

/// One word that a walk has read, and what was in it.
struct StackCheck {
  var address: UInt
  var value: UInt

  /// Whether there is something else in it now.
  @inline(__always)
  var isOther: Bool { stackWord(address) != value }
}

/// Notes words that are read, as far as there is room for them.
package struct ReadTrace {
  private let checks: UnsafeMutablePointer<StackCheck>?
  private let limit: Int
  private(set) var count = 0

  /// One that notes nothing.
  package init() {
    checks = nil
    limit = 0
  }

  init(into checks: UnsafeMutablePointer<StackCheck>, limit: Int) {
    self.checks = checks
    self.limit = limit
  }

  /// Whether there was room for all that was noted.
  var isWhole: Bool { count <= limit }

  /// Reads a word that can be read.
  package mutating func read(_ address: UInt) -> UInt {
    let value = stackWord(address)
    note(address, value)
    return value
  }

  mutating func note(_ address: UInt, _ value: UInt) {
    if let checks, count < limit { checks[count] = StackCheck(address: address, value: value) }
    count &+= 1
  }

  /// Forgets what was noted after so many words.
  mutating func forget(from count: Int) { self.count = count }
}

/// A frame of the last walk. Below the outermost one lies where the walk ended: the same place, or one
/// with a counter of zero where that was read.
struct ImageFrame {
  var place: FramePlace
  /// The hash of the rows of this frame and of all its callers.
  var hash: UInt64
  var row: UInt32
  /// How many words tell that the walk from here to the outermost frame is still the same.
  var checkCount: UInt32
  /// This frame and its callers, without the tracer's own.
  var depth: UInt32
  /// Whether rbp, as it is in this frame, has a part in finding the callers.
  var needsFramePointer: Bool
}

/// A frame on its way into the image.
struct SteppedFrame {
  var place: FramePlace
  var row: UInt32
}

/// The head of a thread's memory of stacks, which lies in one mapping of its own.
///
/// Behind it lie the image of the last walk (`StackImage`) and the memo (`StackMemo`). All of it is
/// the owner's alone; pages come as they are used. All zero is a valid memory of nothing.
struct StackCache: ~Copyable {
  /// The recording and the module generation that rows and sites in here are of.
  var epoch: UInt32
  var moduleGeneration: UInt32

  // Of the image.
  /// Frames in the image, and one below them for where the walk ended; 0 while there is none.
  var frameCount: UInt32
  /// The depth of the outermost frame whose row is known.
  var rowsBegin: UInt32
  /// The length of the window that `windowPower` is for.
  var windowLength: UInt32
  var windowPower: UInt64
  /// The number of those who await the outermost frame; 0 where it is no task's.
  var imageAwaitingSite: UInt32
  /// Frames of the stack that made the task.
  var imageOriginDepth: UInt32
  /// Where the context is kept that they were found by, and where the task, if its executor tells it; else 0.
  var imageContextAddress: UInt
  var imageTaskAddress: UInt
  /// Where a stack began that was deeper than an image can be; 0 once one was walked that is not.
  var overlongStart: UInt
  /// Stacks in a row that only a whole walk could tell.
  var vainCount: UInt32

  /// The place of a task that was right last. See `TaskOrigin`.
  var originHint: UInt32

  // Of the memo.
  /// 2 to this power are the slots for nodes; 0 while the memo is closed.
  var nodeBits: UInt32
  /// What is left of a key when shifted by this is its slot.
  var nodeShift: UInt32
  var nodeCount: UInt32
  /// Where the entry that was found last is in the arena, in bytes, and the one before it.
  var last: UInt32
  var lastButOne: UInt32
  /// Bytes given out of the memo's arena, and how many may be.
  var arenaUsed: UInt32
  var arenaLimit: UInt32
  /// For how many stacks the memo was last put out of use, and for how many more it is.
  var pauseLength: UInt32
  var pauseLeft: UInt32
  /// Walks since the memo was last emptied, and stacks that it then took in.
  var misses: UInt32
  var admitted: UInt32
  /// The thread's allocations when the memo was last emptied.
  var allocationsBefore: UInt64

  // Addresses in the mapping. Nothing in it moves. In its first page, behind this:
  static var recordsOffset: Int { 1024 }
  static var liveBlocksOffset: Int { 2048 }
  static var declarationsOffset: Int { 3072 }
  static var frameLimit: Int { StackWalk.stepLimit &+ 2 }
  static var checkLimit: Int { 3 &* frameLimit }
  static var framesOffset: Int { 4096 }
  static var rowsOffset: Int {
    framesOffset &+ pages(frameLimit &* MemoryLayout<ImageFrame>.stride)
  }
  static var checksOffset: Int { rowsOffset &+ pages(frameLimit &* 4) }
  static var steppedOffset: Int {
    checksOffset &+ pages(checkLimit &* MemoryLayout<StackCheck>.stride)
  }
  static var awaitingChecksOffset: Int {
    steppedOffset &+ pages(frameLimit &* MemoryLayout<SteppedFrame>.stride)
  }
  /// Of each of the records, and then of one that needs more.
  static var awaitingCheckLimit: Int {
    AwaitingRecord.count &* AwaitingRecord.checkLimit &+ 2 &* StackWalk.stepLimit
      &+ 2 &* TaskOrigin.readLimit
  }
  static var awaitingRowsOffset: Int {
    awaitingChecksOffset &+ pages(awaitingCheckLimit &* MemoryLayout<StackCheck>.stride)
  }
  static var awaitingCallersOffset: Int { awaitingRowsOffset &+ pages(frameLimit &* 4) }
  static var awaitingNamesOffset: Int {
    awaitingCallersOffset &+ pages(StackWalk.stepLimit &* 8)
  }
  static var nodesOffset: Int {
    awaitingNamesOffset &+ pages(AwaitingName.count &* AwaitingName.byteCount)
  }
  static var firstNodeBits: UInt32 { 9 }
  static var maximumNodeBits: UInt32 { 14 }
  static var arenaOffset: Int {
    nodesOffset &+ pages(nodeByteCount(maximumNodeBits))
  }
  static var byteCount: Int { 3 << 20 }
  /// Behind all that, the tallies of a thread that has more stacks than tallies of its own.
  static var tallyCount: Int { 4096 }
  static var tallyByteCount: Int { tallyCount &* MemoryLayout<SiteTally>.stride }
  static var mappedByteCount: Int { byteCount &+ tallyByteCount }

  /// Bytes of the slots; the last one that a hash names has neighbours too.
  static func nodeByteCount(_ bits: UInt32) -> Int {
    (1 << Int(bits) &+ MemoNode.probeLimit) &* MemoryLayout<MemoNode>.stride
  }
  static func arenaByteCount(_ bits: UInt32) -> Int {
    bits == 0 ? 0 : min(136 << Int(bits), byteCount &- arenaOffset)
  }
  /// Bytes that a memo of a size may come to use.
  static func memoByteCount(_ bits: UInt32) -> Int64 {
    bits == 0 ? 0 : Int64(nodeByteCount(bits) &+ arenaByteCount(bits))
  }

  static func pages(_ byteCount: Int) -> Int { (byteCount &+ 4095) & ~4095 }

  /// A thread that allocates less often than this in a recording gets no memory of its own.
  static var allocationsBeforeFirst: UInt64 { 128 }
}

extension UnsafeMutablePointer where Pointee == StackCache {
  private func part<T: ~Copyable>(_ offset: Int, as type: T.Type) -> UnsafeMutablePointer<T> {
    (UnsafeMutableRawPointer(self) + offset).assumingMemoryBound(to: type)
  }

  /// The image's frames, the outermost first.
  @inline(__always)
  var frames: UnsafeMutablePointer<ImageFrame> {
    part(StackCache.framesOffset, as: ImageFrame.self)
  }
  /// Their rows, without the tracer's own frames.
  @inline(__always)
  var rows: UnsafeMutablePointer<UInt32> { part(StackCache.rowsOffset, as: UInt32.self) }
  /// The words that the walk has read, those of the outermost frame first.
  @inline(__always)
  var checks: UnsafeMutablePointer<StackCheck> {
    part(StackCache.checksOffset, as: StackCheck.self)
  }
  @inline(__always)
  var stepped: UnsafeMutablePointer<SteppedFrame> {
    part(StackCache.steppedOffset, as: SteppedFrame.self)
  }
  /// See `AwaitingStack`.
  @inline(__always)
  var records: UnsafeMutablePointer<AwaitingRecord> {
    part(StackCache.recordsOffset, as: AwaitingRecord.self)
  }
  var liveBlocks: UnsafeMutablePointer<LiveBlock> {
    part(StackCache.liveBlocksOffset, as: LiveBlock.self)
  }
  var declarations: UnsafeMutablePointer<TaskOrigin.Declaration> {
    part(StackCache.declarationsOffset, as: TaskOrigin.Declaration.self)
  }
  /// The end of the room for the rows of awaiting callers and of who made their task.
  var awaitingRowsEnd: UnsafeMutablePointer<UInt32> {
    part(StackCache.awaitingCallersOffset, as: UInt32.self)
  }
  /// Where those go on who await, the innermost first.
  @inline(__always)
  var awaitingCallers: UnsafeMutablePointer<UInt> {
    part(StackCache.awaitingCallersOffset, as: UInt.self)
  }
  @inline(__always)
  func awaitingName(_ number: Int) -> UnsafeMutablePointer<AwaitingName> {
    part(
      StackCache.awaitingNamesOffset &+ number &* AwaitingName.byteCount, as: AwaitingName.self)
  }
  var awaitingChecks: UnsafeMutablePointer<StackCheck> {
    part(StackCache.awaitingChecksOffset, as: StackCheck.self)
  }
  @inline(__always)
  var nodes: UnsafeMutablePointer<MemoNode> { part(StackCache.nodesOffset, as: MemoNode.self) }
  @inline(__always)
  var arena: UnsafeMutableRawPointer { UnsafeMutableRawPointer(self) + StackCache.arenaOffset }
  /// By its arena, which is what a hook needs of it most.
  @inline(__always)
  init(arena: UnsafeMutableRawPointer) {
    self = (arena - StackCache.arenaOffset).assumingMemoryBound(to: StackCache.self)
  }
  var tallies: UnsafeMutablePointer<SiteTally> { part(StackCache.byteCount, as: SiteTally.self) }

  /// Those of whoever had the memory before are counted.
  func emptyTallies() {
    UnsafeMutableRawPointer(tallies).initializeMemory(
      as: UInt8.self, repeating: 0, count: StackCache.tallyByteCount)
  }

  /// Whether what is remembered is of this recording, and of the modules that are loaded.
  @inline(__always)
  func isCurrent(_ epoch: UInt32, _ moduleGeneration: UInt32) -> Bool {
    pointee.epoch == epoch && pointee.moduleGeneration == moduleGeneration
  }

  /// Whether to follow at all: where stacks are such that only a whole walk can tell them, as those
  /// that end in a scheduler without unwind tables, that is tried with every sixteenth.
  var isWorthFollowing: Bool { pointee.vainCount < 16 || pointee.vainCount & 15 == 0 }

  /// Bytes of the pages that are in use, about: of the image as many as the last stack takes.
  var usedByteCount: Int {
    guard pointee.epoch != 0 else { return 0 }
    let frames = Int(pointee.frameCount)
    let image =
      StackCache.pages(frames &* MemoryLayout<ImageFrame>.stride) &+ StackCache.pages(frames &* 4)
      &+ StackCache.pages(2 &* frames &* MemoryLayout<StackCheck>.stride)
      &+ StackCache.pages(frames &* MemoryLayout<SteppedFrame>.stride)
      &+ StackCache.pages(Int(records[AwaitingRecord.count].end) &* MemoryLayout<StackCheck>.stride)
    // Nodes lie where their hashes say.
    let nodes = min(
      StackCache.pages(StackCache.nodeByteCount(pointee.nodeBits)),
      Int(pointee.nodeCount) &* 4096)
    return 4096 &+ image &+ nodes &+ StackCache.pages(Int(pointee.arenaUsed))
  }
}
