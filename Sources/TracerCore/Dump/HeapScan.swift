// SPDX-License-Identifier: Apache-2.0
// One pass over the live map: what each site has alive, by generation.

import CTracerPlatform
import Synchronization

/// What a site has alive that was born in one generation, in one domain, is of one type, and held alike.
struct BornTally {
  static var wordCount: UInt32 { 8 }

  var next: UInt32
  var generation: UInt16
  var reach: Reach
  /// 0 is the heap.
  var domain: UInt32
  /// In the dump's table of types; 0 where it is not known.
  var type: UInt32
  var blocks: UInt64
  var bytes: UInt64
}

/// What follows a tally where blocks are sampled: of how many it is made, and how far it may be off.
struct SampleTally {
  static var wordCount: UInt32 { 4 }

  var blocks: UInt32
  /// As that of a `SampleWeight`.
  var variance: UInt64
}

/// What a dump says of a site, and what the one before it said.
struct SiteSummary {
  static var wordCount: UInt32 { 8 }

  var liveBytes: UInt64
  var previousBytes: UInt64
  /// Blocks, as far as 32 bits count.
  var liveBlocks: UInt32
  var previousBlocks: UInt32
  /// The first of the site's tallies by generation; 0 where nothing is alive.
  var firstBorn: UInt32
  /// 1 where a thread holds allocations back from the site's totals.
  var hasPending: UInt16
  var maker: SiteMaker

  /// What the site has alive more than at the snapshot before.
  var grownBytes: Int64 { Int64(bitPattern: liveBytes &- previousBytes) }

  @inline(__always)
  mutating func add(_ byteCount: UInt64) {
    liveBytes = liveBytes &+ byteCount
    liveBlocks = liveBlocks &+ (liveBlocks == UInt32.max ? 0 : 1)
  }

  mutating func add(blocks: UInt64, bytes: UInt64) {
    liveBytes = liveBytes &+ bytes
    liveBlocks = UInt32(
      truncatingIfNeeded: min(UInt64(liveBlocks) &+ blocks, UInt64(UInt32.max)))
  }

  /// Makes what was counted what was counted before.
  mutating func beginAnew() {
    self = SiteSummary(
      liveBytes: 0, previousBytes: liveBytes, liveBlocks: 0, previousBlocks: liveBlocks,
      firstBorn: 0, hasPending: 0, maker: .unknown)
  }
}

/// Live blocks by requested size, in powers of two from 16 bytes.
struct SizeHistogram {
  static var rowCount: Int { 32 }

  var blocks = InlineArray<32, UInt64>(repeating: 0)
  var bytes = InlineArray<32, UInt64>(repeating: 0)

  @inline(__always)
  mutating func add(_ byteCount: UInt64, _ weight: SampleWeight) {
    // Row 0 holds up to 16 bytes, each other twice the one before.
    let row = min(31, max(4, 64 &- (byteCount &- 1).leadingZeroBitCount) &- 4)
    let index = byteCount == 0 ? 0 : row
    blocks[index] = blocks[index] &+ weight.blocks
    bytes[index] = bytes[index] &+ weight.bytes
  }

  /// Makes whole figures of fixed points.
  mutating func settle() {
    for row in 0..<Self.rowCount {
      let sum = SampleWeight(blocks: blocks[row], bytes: bytes[row], variance: 0)
      blocks[row] = sum.wholeBlocks
      bytes[row] = sum.wholeBytes
    }
  }
}

/// The result of a scan: the sites in order, and sums.
struct HeapScan {
  var blocks: UInt64 = 0
  var bytes: UInt64 = 0
  /// What the program tracks by itself, beside the heap.
  var trackedBlocks: UInt64 = 0
  var trackedBytes: UInt64 = 0
  var siteLimit: UInt32 = 0
  var siteCount = 0
  var histogram = SizeHistogram()
  /// Blocks whose site found no room to be summed up.
  var omittedBytes: UInt64 = 0
  /// Blocks of which it is known what they are; none where there is a problem.
  var typedBlocks: UInt64 = 0
  var typedBytes: UInt64 = 0
  var typesProblem = TypesProblem.none
  /// Where blocks are sampled, what `blocks` and `bytes` were told by.
  var sampled = SampleTally(blocks: 0, variance: 0)
  /// Blocks that were freed before their thread's next allocation, since recording began.
  var temporaryBlocks: UInt64 = 0
}

/// All that was ever allocated from a site.
struct SiteTotals {
  var blocks: UInt64 = 0
  var bytes: UInt64 = 0
  /// Of the blocks, those that were freed before their thread's next allocation.
  var temporaries: UInt64 = 0
  /// Where blocks are sampled, that of the bytes, as that of a `SampleWeight`.
  var variance: UInt64 = 0
}

extension UnsafeMutablePointer where Pointee == Core {
  func summary(_ site: UInt32) -> UnsafeMutablePointer<SiteSummary> {
    pointee.dumps.scratch.address(site &* SiteSummary.wordCount)
      .assumingMemoryBound(to: SiteSummary.self)
  }

  func bornTally(_ offset: UInt32) -> UnsafeMutablePointer<BornTally> {
    pointee.dumps.born.address(offset).assumingMemoryBound(to: BornTally.self)
  }

  /// What follows a tally, in a recording that samples.
  func sampleTally(_ offset: UInt32) -> UnsafeMutablePointer<SampleTally> {
    pointee.dumps.born.address(offset &+ BornTally.wordCount)
      .assumingMemoryBound(to: SampleTally.self)
  }

  /// Scans the live map, and puts the sites in order of what they have alive.
  ///
  /// Cost: about 3 ns a live block, 1 µs a MiB of shadow, and 27 ns for an object of Swift's, which is
  /// looked at; no thread is stopped.
  func scan(
    bornBefore generation: UInt32, _ trigger: DumpTrigger = .api
  ) -> HeapScan {
    var scan = HeapScan()
    scan.siteLimit = makeSummaries(pointee.sites.limit)
    var (types, problem) = openTypes(trigger)
    scan.typesProblem = problem
    forEachRecordedBlock(bornBefore: generation) { address, word, byteCount in
      guard word.site < scan.siteLimit else {
        scan.omittedBytes = scan.omittedBytes &+ bytes(for: byteCount)
        return
      }
      if types != nil, mayHaveTypes(word.site, types.unsafelyUnwrapped) {
        if types?.append(address, word, byteCount) == false {
          countPending(&types, &scan)
          _ = types?.append(address, word, byteCount)
        }
      } else {
        count(word, at: address, type: 0, byteCount, &scan)
      }
    }
    countPending(&types, &scan)
    types?.memory.close()
    pointee.tracked.forEachBlock(bornBefore: generation) { domain, site, generation, byteCount in
      // Each of them is told to the tracer, sampling or not.
      guard site < scan.siteLimit,
        add(
          site, generation, domain, 0, .held, byteCount,
          pointee.sampling.isOn ? .ofOne(byteCount) : Self.asItIs(byteCount))
      else {
        scan.omittedBytes = scan.omittedBytes &+ byteCount
        return
      }
      scan.trackedBlocks = scan.trackedBlocks &+ 1
      scan.trackedBytes = scan.trackedBytes &+ byteCount
    }
    if pointee.sampling.isOn { settle(&scan) }
    markPending(&scan)
    sortSites(&scan)
    return scan
  }

  @inline(__always)
  private func count(
    _ word: BlockWord, at address: UInt, type: UInt32, _ byteCount: UInt64, _ scan: inout HeapScan
  ) {
    let reach = pointee.leaks.reach(ofBlockAt: address)
    let isSampled = pointee.sampling.isOn
    let weight = isSampled ? pointee.sampling.mean.weight(of: byteCount) : Self.asItIs(byteCount)
    guard add(word.site, word.generation, 0, type, reach, byteCount, weight) else {
      scan.omittedBytes = scan.omittedBytes &+ bytes(for: byteCount)
      return
    }
    scan.histogram.add(byteCount, weight)
    // What samples stand for is added up when it is known as a whole.
    if isSampled { return }
    scan.blocks = scan.blocks &+ 1
    scan.bytes = scan.bytes &+ byteCount
    guard type != 0 else { return }
    scan.typedBlocks = scan.typedBlocks &+ 1
    scan.typedBytes = scan.typedBytes &+ byteCount
  }

  /// What a recorded block of a size stands for.
  private func bytes(for byteCount: UInt64) -> UInt64 {
    pointee.sampling.isOn ? pointee.sampling.mean.weight(of: byteCount).wholeBytes : byteCount
  }

  /// A block that stands for itself, in whole figures.
  @inline(__always)
  private static func asItIs(_ byteCount: UInt64) -> SampleWeight {
    SampleWeight(blocks: 1, bytes: byteCount, variance: 0)
  }

  /// Makes whole figures of what samples stand for, and adds these up.
  ///
  /// What rounding takes from one tally is given to the next: their sum is off by one at most, as each of
  /// them is.
  private func settle(_ scan: inout HeapScan) {
    var rest = SampleWeight()
    var site = SiteTable.lost
    while site < scan.siteLimit {
      let summary = summary(site)
      var offset = summary.pointee.firstBorn
      while offset != 0 {
        let tally = bornTally(offset)
        rest.blocks = rest.blocks &+ tally.pointee.blocks
        rest.bytes = rest.bytes &+ tally.pointee.bytes
        let (blocks, bytes) = (
          rest.blocks >> SampleWeight.blockShift, rest.bytes >> SampleWeight.byteShift
        )
        rest.blocks = rest.blocks &- blocks << SampleWeight.blockShift
        rest.bytes = rest.bytes &- bytes << SampleWeight.byteShift
        tally.pointee.blocks = blocks
        tally.pointee.bytes = bytes
        summary.pointee.add(blocks: blocks, bytes: bytes)
        if tally.pointee.domain == 0 { add(tally.pointee, sampleTally(offset).pointee, to: &scan) }
        offset = tally.pointee.next
      }
      site &+= 1
    }
    scan.histogram.settle()
  }

  private func add(_ tally: BornTally, _ sample: SampleTally, to scan: inout HeapScan) {
    scan.blocks = scan.blocks &+ tally.blocks
    scan.bytes = scan.bytes &+ tally.bytes
    scan.sampled.blocks = scan.sampled.blocks &+ sample.blocks
    scan.sampled.variance = scan.sampled.variance &+ sample.variance
    guard tally.type != 0 else { return }
    scan.typedBlocks = scan.typedBlocks &+ tally.blocks
    scan.typedBytes = scan.typedBytes &+ tally.bytes
  }

  /// Counts the blocks that wait for their types.
  @inline(never)
  private func countPending(_ types: inout TypeScan?, _ scan: inout HeapScan) {
    guard var ready = types else { return }
    ready.readWords()
    for position in 0..<ready.count {
      let block = ready.pending[position]
      let type = type(of: block, ready.firstWord(of: block), &ready)
      count(block.word, at: block.address, type: type, block.byteCount, &scan)
    }
    ready.clear()
    types = ready
  }

  /// Room for a summary of each site, which begins anew; answers for how many there is.
  ///
  /// In the pages of the scan before: near a limit there may be no others.
  private func makeSummaries(_ wanted: UInt32) -> UInt32 {
    let perChunk = ChunkedArena.chunkWordCount / SiteSummary.wordCount
    pointee.dumps.scratch.rewind(reserving: 0)
    pointee.dumps.born.rewind(reserving: 2)
    var made: UInt32 = 0
    while made < wanted {
      guard pointee.dumps.scratch.allocate(ChunkedArena.chunkWordCount) != nil else { break }
      made &+= perChunk
    }
    let count = min(made, wanted)
    var site: UInt32 = 0
    while site < count {
      summary(site).pointee.beginAnew()
      site &+= 1
    }
    return count
  }

  @inline(__always)
  private func add(
    _ site: UInt32, _ generation: UInt32, _ domain: UInt32, _ type: UInt32, _ reach: Reach,
    _ byteCount: UInt64, _ weight: SampleWeight
  ) -> Bool {
    let generation = UInt16(truncatingIfNeeded: generation)
    let summary = summary(site)
    var offset = summary.pointee.firstBorn
    var previous: UInt32 = 0
    while offset != 0 {
      let tally = bornTally(offset)
      if tally.pointee.generation == generation, tally.pointee.type == type,
        tally.pointee.domain == domain, tally.pointee.reach == reach
      {
        tally.pointee.blocks = tally.pointee.blocks &+ weight.blocks
        tally.pointee.bytes = tally.pointee.bytes &+ weight.bytes
        note(byteCount, weight, summary, offset)
        if previous != 0 {
          // To the front: a site that makes a thousand types makes many of one in a row.
          bornTally(previous).pointee.next = tally.pointee.next
          tally.pointee.next = summary.pointee.firstBorn
          summary.pointee.firstBorn = offset
        }
        return true
      }
      previous = offset
      offset = tally.pointee.next
    }
    guard let made = pointee.dumps.born.allocate(pointee.dumps.tallyWordCount) else { return false }
    bornTally(made).pointee = BornTally(
      next: summary.pointee.firstBorn, generation: generation, reach: reach, domain: domain,
      type: type, blocks: weight.blocks, bytes: weight.bytes)
    summary.pointee.firstBorn = made
    if pointee.sampling.isOn { sampleTally(made).pointee = SampleTally(blocks: 0, variance: 0) }
    note(byteCount, weight, summary, made)
    return true
  }

  /// Counts a block of a tally: in its site, or as a sample.
  @inline(__always)
  private func note(
    _ byteCount: UInt64, _ weight: SampleWeight, _ summary: UnsafeMutablePointer<SiteSummary>,
    _ tally: UInt32
  ) {
    guard pointee.sampling.isOn else { return summary.pointee.add(byteCount) }
    guard bornTally(tally).pointee.domain == 0 else { return }
    let sample = sampleTally(tally)
    sample.pointee.blocks = sample.pointee.blocks &+ 1
    sample.pointee.variance = sample.pointee.variance &+ weight.variance
  }

  /// Marks the sites of which threads hold allocations back.
  private func markPending(_ scan: inout HeapScan) {
    let epoch = pointee.epoch.load(ordering: .relaxed)
    pointee.threads.forEach { thread in
      guard thread.pointee.epoch.load(ordering: .acquiring) == epoch else { return }
      let tallies = thread.tallies
      guard let first = tallies.baseAddress else { return }
      for position in 0..<tallies.count {
        let tally = first + position
        let site = tally.pointee.site.load(ordering: .relaxed)
        guard site != 0, site < scan.siteLimit else { continue }
        summary(site).pointee.hasPending = 1
        scan.temporaryBlocks =
          scan.temporaryBlocks &+ UInt64(tally.pointee.temporaries.load(ordering: .relaxed))
      }
    }
  }

  /// All that was ever allocated from a site: its totals, and what threads hold back of it.
  ///
  /// A thread may be adding what it holds to the totals at this moment. Totals that change while they
  /// are read are read again, a few times; after that, what is missing is in the next dump.
  func totals(of number: UInt32) -> SiteTotals {
    let site = pointee.sites.site(number)
    for _ in 0..<8 {
      var sum = totalsWithoutPending(of: number)
      let before = sum.blocks
      if summary(number).pointee.hasPending != 0 { addPending(of: number, to: &sum) }
      if site.pointee.totalBlocks.load(ordering: .acquiring) == before { return sum }
    }
    return totalsWithoutPending(of: number)
  }

  /// What of a site's totals is not alive any more.
  ///
  /// What is alive was allocated, whatever a running thread still holds back.
  func freed(of number: UInt32) -> SiteTotals {
    var totals = totals(of: number)
    if pointee.sampling.isOn {
      let sum = SampleWeight(blocks: totals.blocks, bytes: totals.bytes, variance: 0)
      (totals.blocks, totals.bytes) = (sum.wholeBlocks, sum.wholeBytes)
    }
    var offset = summary(number).pointee.firstBorn
    while offset != 0 {
      let tally = bornTally(offset)
      let alive = pointee.sampling.isOn ? sampleTally(offset).pointee.variance : 0
      offset = tally.pointee.next
      // What the program tracks by itself is in no total.
      if tally.pointee.domain != 0 { continue }
      totals.variance = totals.variance &- min(totals.variance, alive)
      totals.blocks = totals.blocks &- min(totals.blocks, tally.pointee.blocks)
      totals.bytes = totals.bytes &- min(totals.bytes, tally.pointee.bytes)
    }
    return totals
  }

  private func totalsWithoutPending(of number: UInt32) -> SiteTotals {
    let site = pointee.sites.site(number)
    var totals = SiteTotals()
    totals.blocks = site.pointee.totalBlocks.load(ordering: .acquiring)
    totals.bytes = site.pointee.totalBytes.load(ordering: .relaxed)
    if pointee.sampling.isOn {
      totals.variance = pointee.sites.variance(of: number).pointee.load(ordering: .relaxed)
    } else {
      totals.temporaries = pointee.sites.temporaries(of: number).pointee.load(ordering: .relaxed)
    }
    return totals
  }

  /// Adds what threads hold back of a site, each in the one place where it may be.
  private func addPending(of site: UInt32, to sum: inout SiteTotals) {
    let epoch = pointee.epoch.load(ordering: .relaxed)
    pointee.threads.forEach { thread in
      guard thread.pointee.epoch.load(ordering: .acquiring) == epoch else { return }
      let tallies = thread.tallies
      guard let first = tallies.baseAddress else { return }
      let tally = first + Int(site) & (tallies.count &- 1)
      guard tally.pointee.site.load(ordering: .relaxed) == site else { return }
      sum.blocks = sum.blocks &+ UInt64(tally.pointee.blocks.load(ordering: .relaxed))
      sum.bytes = sum.bytes &+ tally.pointee.bytes.load(ordering: .relaxed)
      sum.temporaries =
        sum.temporaries &+ UInt64(tally.pointee.temporaries.load(ordering: .relaxed))
    }
  }

  // MARK: Order

  private func sortSites(_ scan: inout HeapScan) {
    let order = pointee.dumps.sortedSites
    var count = 0
    var site = SiteTable.lost
    while site < scan.siteLimit {
      guard let known = pointee.sites.siteIfMapped(site) else { break }
      let blocks = known.pointee.totalBlocks.load(ordering: .relaxed)
      if blocks != 0 || summary(site).pointee.hasPending != 0
        || summary(site).pointee.firstBorn != 0
      {
        order[count] = site
        count &+= 1
        if !pointee.sampling.isOn {
          scan.temporaryBlocks =
            scan.temporaryBlocks
            &+ pointee.sites.temporaries(of: site).pointee.load(ordering: .relaxed)
        }
      }
      site &+= 1
    }
    scan.siteCount = count
    HeapSort.sort(order, count) { isBefore($0, $1) }
  }

  /// Largest first; of equals, the older site: a total order, so that dumps can be compared.
  @inline(__always)
  private func isBefore(_ left: UInt32, _ right: UInt32) -> Bool {
    let (leftBytes, rightBytes) = (
      summary(left).pointee.liveBytes, summary(right).pointee.liveBytes
    )
    return leftBytes != rightBytes ? leftBytes > rightBytes : left < right
  }
}
