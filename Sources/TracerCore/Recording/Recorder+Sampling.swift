// SPDX-License-Identifier: Apache-2.0
// Recording a few blocks for many: what is done where the bytes of a thread have reached the next sample.

import CTracerPlatform
import Synchronization

/// How blocks are sampled. All zero is a recording of every block.
package struct Sampling: ~Copyable {
  /// Bytes from one sample to the next, on average; once set, for good: threads are on their way to
  /// samples that are this far apart.
  package var mean: SampleMean
  /// Whether the recording that there is, or was last, samples.
  package var isOn: Bool
  /// What the threads' random numbers begin with: drawn anew by each process, and by each thread.
  var seed: UInt64
  let seededThreads: Atomic<UInt64>
  package let blocks: SampledBlocks
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Prepares for a recording that samples, or for one that does not; 0 or an errno.
  func openSampling(_ byteCount: UInt64) -> Int32 {
    pointee.sampling.isOn = false
    guard byteCount != 0 else { return 0 }
    let known = pointee.sampling.mean.byteCount
    guard known == 0 || known == byteCount else { return EBUSY }
    guard pointee.sampling.blocks.open() else { return ENOMEM }
    pointee.sampling.mean = SampleMean(byteCount: byteCount)
    if pointee.sampling.seed == 0 { seedSampling() }
    pointee.sampling.isOn = true
    return 0
  }

  /// Bytes for each sample of this recording, on average; 0 where every block is recorded.
  var samplingByteCount: UInt64 {
    pointee.sampling.isOn ? pointee.sampling.mean.byteCount : 0
  }

  /// What the entries lead to while this recording lasts.
  var recordingEntries: Int32 {
    Int32(pointee.sampling.isOn ? TRACER_ENTRIES_SAMPLING : TRACER_ENTRIES_RECORDING)
  }

  private func seedSampling() {
    var seed: UInt64 = 0
    let count = withUnsafeMutableBytes(of: &seed) {
      System.call(SYS_getrandom, Int(bitPattern: $0.baseAddress), $0.count, 1)  // GRND_NONBLOCK
    }
    if count != 8 {
      seed = System.monotonicTime ^ UInt64(UInt32(bitPattern: pointee.processID)) << 40
    }
    pointee.sampling.seed = max(seed, 1)
  }

  /// Has the child of a fork, and the thread that it has, draw other numbers than the parent does.
  func becomeSamplingChild() {
    guard pointee.sampling.seed != 0 else { return }
    seedSampling()
    tracer_set_random_state(0)
    tracer_set_countdown(0)
  }

  // MARK: The way to the next sample

  /// Begins the way to the next sample, where this many bytes have taken the countdown below 0; whether
  /// one of them was the sample.
  ///
  /// A thread's first block finds a countdown that was never set, which says nothing of it.
  package func countsOut(_ byteCount: UInt64) -> Bool {
    var state = tracer_get_random_state()
    defer { tracer_set_random_state(state) }
    if state == 0 {
      let number = pointee.sampling.seededThreads.wrappingAdd(1, ordering: .relaxed).newValue
      state = pointee.sampling.seed &+ number &* 0xD1B5_4A32_D192_ED03
      state = nextRandom(&state)
      let distance = pointee.sampling.mean.distance(nextRandom(&state))
      guard distance < byteCount else {
        tracer_set_countdown(distance &- byteCount)
        return false
      }
    }
    tracer_set_countdown(pointee.sampling.mean.distance(nextRandom(&state)))
    return true
  }

  // MARK: Blocks

  /// Records a block that was just handed out, one of whose bytes is a sample.
  package func didSample(
    _ block: UnsafeMutableRawPointer, _ byteCount: UInt64,
    _ registers: UnsafePointer<tracer_registers>
  ) {
    noteAwaitedHeap(excluding: block)
    guard let thread = enter() else { return didPassThrough() }
    defer { leave(thread) }
    // Only of a recording that samples: one of every block may have begun meanwhile.
    guard pointee.sampling.isOn else { return }
    let address = UInt(bitPattern: block)
    let epoch = pointee.epoch.load(ordering: .relaxed)
    let site = site(thread, registers)
    if let (_, stale) = pointee.sampling.blocks.take(address, epoch: epoch) {
      // Given back by a call that is not among the hooks.
      thread.pointee.counters.unseenFrees.addAlone(1)
      countSampledFree(thread, stale)
    }
    let word = BlockWord(
      site: site, birth: pointee.birth.load(ordering: .relaxed), smallByteCount: 0,
      address: address)
    guard pointee.sampling.blocks.enter(address, word, byteCount: byteCount) else {
      return thread.pointee.counters.lostBlocks.addAlone(1)
    }
    countSampled(thread, byteCount, site)
  }

  /// Takes a block that is about to be given back, if it was sampled.
  package func willFreeSampled(_ block: UnsafeMutableRawPointer) {
    _ = takeSampled(block)
  }

  /// Takes a block that was sampled, and counts it as freed.
  ///
  /// Without a thread's state until it is found: most who come here have a block that only lies near one.
  private func takeSampled(_ block: UnsafeMutableRawPointer) -> SampledRealloc {
    let address = UInt(bitPattern: block)
    let epoch = pointee.epoch.load(ordering: .relaxed)
    guard pointee.isRecording.load(ordering: .acquiring) != 0, pointee.sampling.isOn,
      pointee.sampling.blocks.find(address, epoch: epoch) != nil
    else { return SampledRealloc() }
    guard let thread = enter() else {
      guard let (_, byteCount) = pointee.sampling.blocks.take(address, epoch: epoch) else {
        return SampledRealloc()
      }
      let weight = pointee.sampling.mean.weight(of: byteCount)
      pointee.retired.freedEstimate.add(weight)
      _ = pointee.retired.freedBlocks.wrappingAdd(1, ordering: .relaxed)
      _ = pointee.publishedBytes.wrappingSubtract(Int64(weight.wholeBytes), ordering: .relaxed)
      return SampledRealloc()
    }
    defer { leave(thread) }
    guard let (word, byteCount) = pointee.sampling.blocks.take(address, epoch: epoch) else {
      return SampledRealloc()
    }
    countSampledFree(thread, byteCount)
    return SampledRealloc(word: word, byteCount: byteCount)
  }

  // MARK: realloc

  /// What a realloc must put back if it fails; an empty word where the block was not sampled.
  package struct SampledRealloc {
    var word = BlockWord(bits: 0)
    var byteCount: UInt64 = 0
  }

  /// Takes the old block of a realloc. Before the call: after it, another thread may own the address.
  package func willReallocateSampled(_ block: UnsafeMutableRawPointer) -> SampledRealloc {
    takeSampled(block)
  }

  /// Puts the old block of a failed realloc back, as it was.
  package func didNotReallocateSampled(
    _ block: UnsafeMutableRawPointer, _ taken: SampledRealloc
  ) {
    guard taken.word.bits != 0, let thread = enter() else { return }
    defer { leave(thread) }
    guard pointee.sampling.isOn,
      taken.word.epoch == pointee.epoch.load(ordering: .relaxed) & BlockWord.epochMask,
      pointee.sampling.blocks.enter(
        UInt(bitPattern: block), taken.word, byteCount: taken.byteCount)
    else { return }
    uncountSampledFree(thread, taken.byteCount)
  }

  // MARK: Sums

  private func countSampled(
    _ thread: UnsafeMutablePointer<ThreadState>, _ byteCount: UInt64, _ site: UInt32
  ) {
    let weight = pointee.sampling.mean.weight(of: byteCount)
    thread.pointee.counters.allocatedBlocks.addAlone(1)
    thread.pointee.counters.allocatedEstimate.add(weight)
    let totals = pointee.sites.site(site)
    // Fixed point, as in the weight: there are too few to hold them back in a tally.
    _ = totals.pointee.totalBytes.wrappingAdd(weight.bytes, ordering: .relaxed)
    _ = totals.pointee.totalBlocks.wrappingAdd(weight.blocks, ordering: .relaxed)
    _ = pointee.sites.variance(of: site).pointee.wrappingAdd(weight.variance, ordering: .relaxed)
    if raiseBalance(thread, by: weight.wholeBytes) { publish(thread) }
  }

  private func countSampledFree(_ thread: UnsafeMutablePointer<ThreadState>, _ byteCount: UInt64) {
    let weight = pointee.sampling.mean.weight(of: byteCount)
    thread.pointee.counters.freedBlocks.addAlone(1)
    thread.pointee.counters.freedEstimate.add(weight)
    if lowerBalance(thread, by: weight.wholeBytes) { publish(thread) }
  }

  private func uncountSampledFree(
    _ thread: UnsafeMutablePointer<ThreadState>, _ byteCount: UInt64
  ) {
    let weight = pointee.sampling.mean.weight(of: byteCount)
    thread.pointee.counters.freedBlocks.addAlone(0 &- 1)
    thread.pointee.counters.freedEstimate.subtract(weight)
    if raiseBalance(thread, by: weight.wholeBytes) { publish(thread) }
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// The block of the recording at an address; `nil` where there is none, or it was not sampled.
  package func find(_ address: UInt) -> BlockWord? {
    let epoch = pointee.epoch.load(ordering: .relaxed)
    return pointee.sampling.isOn
      ? pointee.sampling.blocks.find(address, epoch: epoch)
      : pointee.map.find(address, epoch: epoch)
  }

  /// Calls the body for every block of the recording that was born before a generation: all of them, or
  /// those that were sampled.
  func forEachRecordedBlock(
    bornBefore generation: UInt32,
    _ body: (_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Void
  ) {
    let epoch = pointee.epoch.load(ordering: .relaxed)
    if pointee.sampling.isOn {
      pointee.sampling.blocks.forEachBlock(epoch: epoch, bornBefore: generation, body)
    } else {
      pointee.map.forEachBlock(epoch: epoch, bornBefore: generation, body)
    }
  }
}
