// SPDX-License-Identifier: Apache-2.0
// What was alive at the top, kept for the dumps that come after it: where HEAPTAP_PEAK asks for it.

import CTracerPlatform
import Synchronization

/// What a site had alive in a picture.
struct PeakTally {
  static var wordCount: UInt32 { 4 }

  var blocks: UInt64 = 0
  var bytes: UInt64 = 0
}

/// What the sites had alive at one moment, as a whole.
struct PeakPicture {
  var wall: UInt64 = 0
  var monotonic: UInt64 = 0
  var blocks: UInt64 = 0
  var bytes: UInt64 = 0
  /// How many sites it knows of.
  var siteLimit: UInt32 = 0
}

/// Two pictures: the one that is kept, and the one that may come in its place. All zero is none.
///
/// All of it is the worker's, and where that is not the one who writes a dump, the other's: see `isBusy`.
/// Memory is taken where it is asked for only: 32 bytes a site.
package struct PeakState: ~Copyable {
  private let even: ChunkedArena
  private let odd: ChunkedArena
  private var pictures: InlineArray<2, PeakPicture>
  /// How many pictures were taken: the last one is that of its number.
  private(set) var count: UInt32
  /// How often the heap was smaller again when the worker came.
  private(set) var missed: UInt64
  private var preparedSites: UInt32
  /// 1 while the worker makes a picture. Whoever writes a dump waits for it, and the worker begins none while a
  /// dump is being written: each says what it does before it looks at the other.
  package let isBusy: Atomic<UInt32>
  /// Not 0 where what is kept is not to count any more.
  package let isOutdated: Atomic<UInt32>
  /// Traced bytes at which a thread is to wake the worker; 0 while none need.
  private(set) var wakeAtBytes: Int64
  /// After a miss: how long threads are left alone, and until when.
  private var pause: UInt64
  private var pausedUntil: UInt64

  func open() -> Bool { even.open(reserving: 0) && odd.open(reserving: 0) }

  /// Gives the pages back.
  mutating func discard() {
    even.discard(reserving: 0)
    odd.discard(reserving: 0)
    preparedSites = 0
    missed = 0
    pause = 0
    pausedUntil = 0
    wakeAtBytes = 0
    forget()
  }

  /// Begins anew: the next picture is the largest.
  mutating func forget() {
    isOutdated.store(0, ordering: .relaxed)
    count = 0
    pictures[0] = PeakPicture()
    pictures[1] = PeakPicture()
  }

  var usedByteCount: Int { Int(preparedSites) &* Int(2 &* PeakTally.wordCount &* 4) }

  /// The picture that is kept; of nothing, where none is.
  var kept: PeakPicture { pictures[Int(count & 1)] }

  /// From how many traced bytes on a new picture is due: a tenth more.
  var dueBytes: Int64 {
    let bytes = Int64(truncatingIfNeeded: kept.bytes)
    return bytes &+ bytes / 10 &+ 1
  }

  /// What a site has in the picture that is kept.
  func tally(of site: UInt32) -> PeakTally {
    site < kept.siteLimit ? cell(site, in: count).pointee : PeakTally()
  }

  private func cell(_ site: UInt32, in picture: UInt32) -> UnsafeMutablePointer<PeakTally> {
    let offset = site &* PeakTally.wordCount
    let address = picture & 1 == 0 ? even.address(offset) : odd.address(offset)
    return address.assumingMemoryBound(to: PeakTally.self)
  }

  /// Takes the pages for pictures of so many sites, while there is memory: near a limit a picture takes none.
  mutating func prepare(sites: UInt32) {
    guard preparedSites == 0 || sites > preparedSites, preparedSites < BlockWord.siteLimit else {
      return
    }
    let wanted = min(sites &+ sites / 4 &+ 1024, BlockWord.siteLimit)
    even.prepare(words: wanted &* PeakTally.wordCount)
    odd.prepare(words: wanted &* PeakTally.wordCount)
    preparedSites = wanted
  }

  // MARK: Making one

  /// Begins a picture with nothing in it, for the sites that there is room for.
  func begin() -> PeakDraft {
    var draft = PeakDraft()
    draft.picture.wall = System.wallTime
    draft.picture.monotonic = System.monotonicTime
    // Below the limit of what was prepared the chunks are there, unless the kernel had no memory.
    var site: UInt32 = 0
    let step = ChunkedArena.chunkWordCount / PeakTally.wordCount
    while site < preparedSites {
      let offset = site &* PeakTally.wordCount
      let room =
        (count &+ 1) & 1 == 0 ? even.addressIfMapped(offset) : odd.addressIfMapped(offset)
      guard let room else { break }
      let sites = min(step, preparedSites &- site)
      room.initializeMemory(
        as: UInt8.self, repeating: 0, count: Int(sites) &* MemoryLayout<PeakTally>.stride)
      site &+= sites
    }
    draft.picture.siteLimit = site
    return draft
  }

  /// Adds blocks of a site to a picture. Those of a site that is younger than the room are left out of it.
  @inline(__always)
  func add(blocks: UInt64, bytes: UInt64, of site: UInt32, to draft: inout PeakDraft) {
    guard site < draft.picture.siteLimit else { return }
    let cell = cell(site, in: count &+ 1)
    cell.pointee.blocks = cell.pointee.blocks &+ blocks
    cell.pointee.bytes = cell.pointee.bytes &+ bytes
    draft.picture.blocks = draft.picture.blocks &+ blocks
    draft.picture.bytes = draft.picture.bytes &+ bytes
  }

  /// Keeps a picture, if it is of more than the one that was kept.
  mutating func keep(_ draft: PeakDraft) -> Bool {
    guard draft.picture.bytes > kept.bytes else { return false }
    pictures[Int((count &+ 1) & 1)] = draft.picture
    // All at once, for a child of a fork that falls into this: it has the one or the other.
    count = count &+ 1
    return true
  }

  // MARK: When

  /// Notes what came of looking at the traced bytes; answers how long the worker may sleep, in nanoseconds.
  mutating func note(_ outcome: PeakOutcome, now: UInt64) -> Int {
    let second: UInt64 = 1_000_000_000
    switch outcome {
    case .notDue: if now >= pausedUntil { wakeAtBytes = dueBytes }
    case .kept:
      pause = 0
      pausedUntil = 0
      wakeAtBytes = dueBytes
    case .missed:
      missed = missed &+ 1
      // Growth and back in a loop would wake the worker, in vain, as often as that goes on.
      pause = min(max(2 &* pause, 1_000_000), second)
      pausedUntil = now &+ pause
      wakeAtBytes = 0
    }
    return Int(now < pausedUntil ? pausedUntil &- now : second)
  }
}

/// A picture that is being made.
struct PeakDraft {
  var picture = PeakPicture()
}

/// What became of a look at the traced bytes.
enum PeakOutcome {
  case notDue, kept, missed
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Takes a picture where one is due, and has threads wake the worker for the next. Answers how long the worker
  /// may sleep, in nanoseconds.
  ///
  /// Cost: a scan of the live map, some 3 ns a block and 1 µs a MiB of shadow. A heap that grows steadily is
  /// scanned each time that it is a tenth larger: all scans together cost what eleven of the last do.
  func keepPeak() -> Int {
    let second = 1_000_000_000
    guard pointee.settings.keepsPeak, pointee.isRecording.load(ordering: .relaxed) == 1 else {
      return second
    }
    pointee.peaks.isBusy.store(1, ordering: .sequentiallyConsistent)
    defer { pointee.peaks.isBusy.store(0, ordering: .releasing) }
    guard pointee.dumps.isBusy.load(ordering: .sequentiallyConsistent) == 0 else { return second }
    forgetOutdatedPeak()
    pointee.peaks.prepare(sites: pointee.sites.limit)
    // A thread has reached the mark, and the mark is not set again.
    let wasReached =
      pointee.peaks.wakeAtBytes != 0 && pointee.wakeAtBytes.load(ordering: .relaxed) == 0
      && pointee.armedAtBytes == pointee.peaks.wakeAtBytes
    var outcome = PeakOutcome.notDue
    if pointee.publishedBytes.load(ordering: .relaxed) >= pointee.peaks.dueBytes {
      outcome = takePicture() ? .kept : .missed
    } else if wasReached {
      outcome = .missed
    }
    let pause = pointee.peaks.note(outcome, now: System.monotonicTime)
    armGrowth()
    // It may have grown past the new mark meanwhile, and then rest there.
    let isDue = pointee.publishedBytes.load(ordering: .relaxed) >= pointee.peaks.dueBytes
    return isDue && outcome != .missed ? 0 : pause
  }

  /// `false` where what was found is less than what is kept.
  @inline(never)
  private func takePicture() -> Bool {
    var draft = pointee.peaks.begin()
    let isSampled = pointee.sampling.isOn
    var rest: UInt64 = 0
    forEachRecordedBlock(bornBefore: .max) { _, word, byteCount in
      guard isSampled else {
        return pointee.peaks.add(blocks: 1, bytes: byteCount, of: word.site, to: &draft)
      }
      // What is left over of a block that stands for one and a half is the next one's.
      let weight = pointee.sampling.mean.weight(of: byteCount)
      rest = rest &+ weight.blocks
      let blocks = rest >> SampleWeight.blockShift
      rest = rest &- blocks << SampleWeight.blockShift
      pointee.peaks.add(blocks: blocks, bytes: weight.wholeBytes, of: word.site, to: &draft)
    }
    return pointee.peaks.keep(draft)
  }

  /// Has what a dump has found alive be the picture, where it is more than what is kept. Costs a pass over the
  /// sites.
  func keepPeak(_ scan: borrowing HeapScan) {
    guard pointee.settings.keepsPeak else { return }
    waitForPicture()
    forgetOutdatedPeak()
    guard scan.bytes > pointee.peaks.kept.bytes else { return }
    pointee.peaks.prepare(sites: scan.siteLimit)
    var draft = pointee.peaks.begin()
    for position in 0..<scan.siteCount {
      let site = pointee.dumps.sortedSites[position]
      var offset = summary(site).pointee.firstBorn
      while offset != 0 {
        let tally = bornTally(offset).pointee
        offset = tally.next
        guard tally.domain == 0 else { continue }
        pointee.peaks.add(blocks: tally.blocks, bytes: tally.bytes, of: site, to: &draft)
      }
    }
    _ = pointee.peaks.keep(draft)
  }

  /// A worker that has just begun may be making one, where it is not the one who writes the dump.
  private func waitForPicture() {
    var rounds = 0
    while rounds < 1000, pointee.peaks.isBusy.load(ordering: .sequentiallyConsistent) != 0 {
      System.sleep(nanoseconds: 1_000_000)
      rounds &+= 1
    }
  }

  private func forgetOutdatedPeak() {
    if pointee.peaks.isOutdated.load(ordering: .acquiring) != 0 { pointee.peaks.forget() }
  }

  /// Sets the mark at which threads wake the worker: the nearer one of the limits' and the peak's.
  func armGrowth() {
    let (limit, peak) = (pointee.limits.wakeAtBytes, pointee.peaks.wakeAtBytes)
    let mark = limit == 0 || peak == 0 ? max(limit, peak) : min(limit, peak)
    pointee.armedAtBytes = mark
    pointee.wakeAtBytes.store(mark, ordering: .relaxed)
  }
}
