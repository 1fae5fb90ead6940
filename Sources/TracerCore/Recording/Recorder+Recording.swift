// SPDX-License-Identifier: Apache-2.0
// Starting and stopping.

import CTracerPlatform
import Synchronization

/// Why recording begins.
package enum RecordingCause {
  /// The process's first allocation, before which the heap held nothing, and libc cannot be asked.
  case firstAllocation
  /// Somebody wants it, and gets to know what the heap held before; which takes the arenas' locks for
  /// as long as glibc takes to walk their free chunks.
  case asked
  /// A mark was reached. Nobody has asked for a pause.
  case byItself
}

extension UnsafeMutablePointer where Pointee == Core {
  private static var generationByteCount: Int {
    Int(BlockWord.generationLimit &+ 1) * MemoryLayout<GenerationStart>.stride
  }

  /// Takes all tables from the kernel: addresses only, pages come with use.
  private func openTables() -> Bool {
    if pointee.generationStarts == 0 {
      guard let base = System.map(Self.generationByteCount) else { return false }
      pointee.generationStarts = UInt(bitPattern: base)
    }
    return pointee.map.open() && pointee.tracked.open() && pointee.sites.open()
      && pointee.rows.open() && pointee.threads.open() && pointee.dumps.open()
      && (!pointee.settings.tellsThreads || pointee.threadTable.open())
      && (!pointee.settings.keepsPeak || pointee.peaks.open())
  }

  /// Starts recording; 0, or an errno. Starting what records is no error.
  ///
  /// - Parameters:
  ///   - depth: How many frames of a stack to keep; 0 for what the settings say.
  ///   - sampling: Bytes from one sample to the next, 0 for every block; `nil` for what the settings
  ///     say. EBUSY where the process has sampled at another distance.
  package func startRecording(
    _ cause: RecordingCause = .asked, depth: UInt32 = 0, sampling: UInt64? = nil
  ) -> Int32 {
    guard pointee.isRecording.load(ordering: .acquiring) == 0 else { return 0 }
    guard openTables() else { return ENOMEM }
    let error = openSampling(sampling ?? pointee.settings.sampleByteCount)
    guard error == 0 else { return error }
    if pointee.epoch.load(ordering: .relaxed) != 0 { discardLeftovers() }
    pointee.dumps.tallyWordCount = BornTally.wordCount
    if pointee.sampling.isOn { pointee.dumps.tallyWordCount &+= SampleTally.wordCount }
    pointee.threads.beginRecording()
    notePast(cause)
    pointee.retired.reset()
    pointee.publishedBytes.store(0, ordering: .relaxed)
    pointee.peakBytes.store(0, ordering: .relaxed)
    pointee.depth = depth != 0 ? depth : pointee.settings.depth
    pointee.startWall = System.wallTime
    pointee.startMonotonic = System.monotonicTime
    generationStart(1).pointee = GenerationStart(
      wall: pointee.startWall, monotonic: pointee.startMonotonic)
    pointee.generation.store(1, ordering: .relaxed)
    let epoch = BlockWord.epoch(after: pointee.epoch.load(ordering: .relaxed))
    pointee.epoch.store(epoch, ordering: .releasing)
    pointee.birth.store(BlockWord.birth(generation: 1, epoch: epoch), ordering: .releasing)
    // Before it is recorded: whoever then gets a state finds a gate that is not 0.
    pointee.rows.gate.open(epoch)
    // Releasing: pairs with the acquiring load in `enter`, which then finds all of the above.
    pointee.isRecording.store(1, ordering: .releasing)
    // First those that give back: a block that is recorded must not be freed unseen.
    tracer_services.switch_freeing_entries?(recordingEntries)
    tracer_services.switch_allocating_entries?(recordingEntries)
    pointee.dumps.prepare(sites: 0, pointee.rows)
    if cause != .firstAllocation { noteRecordingBegan() }
    return 0
  }

  /// Gives back what a hook in flight may have written since the last recording gave its pages back; and
  /// all of them, where a thread stayed in the tracer at the last stop, or a fork took place during it.
  private func discardLeftovers() {
    pointee.map.discard()
    pointee.sampling.blocks.discard()
    pointee.tracked.discard()
    pointee.sites.discard()
    pointee.rows.discard()
    pointee.dumps.discard()
    pointee.peaks.discard()
    pointee.threads.discardUnowned()
    pointee.threadTable.discard()
  }

  private func notePast(_ cause: RecordingCause) {
    pointee.before.forget()
    pointee.before.residentBytes = 0
    pointee.hasSeenFirstAllocation = cause == .firstAllocation
    guard cause != .firstAllocation else { return }
    if pointee.allocatorIsGlibc, cause == .asked { noteHeap() }
    pointee.before.residentBytes = residentByteCount(
      pointee.dumps.input, capacity: DumpState.inputByteCount)
  }

  /// What `isRecording` is in the last moments of a recording: a child of a fork that falls into them
  /// is dormant, since what was allocated in them is not known.
  static var isStopping: UInt32 { 2 }

  /// Stops recording and gives the pages back. Whoever wants a last dump writes it between the two
  /// halves of this: after `stopAllocating` nothing new is recorded, and frees still are.
  package func stopAllocating() {
    pointee.isRecording.store(Self.isStopping, ordering: .releasing)
    tracer_services.switch_allocating_entries?(0)
  }

  /// Has no thread enter any more.
  func close() {
    pointee.rows.gate.close()
    pointee.isRecording.store(0, ordering: .releasing)
  }

  package func stopRecording() {
    guard pointee.isRecording.load(ordering: .acquiring) != 0 else { return }
    tracer_services.switch_allocating_entries?(0)
    tracer_services.switch_freeing_entries?(0)
    close()
    pointee.wakeAtBytes.store(0, ordering: .relaxed)
    // Words in the map carry their epoch, so that a late one harms nobody. The tables are another
    // matter: they go only when no thread is in them.
    pointee.map.discard()
    pointee.sampling.blocks.discard()
    guard waitForHooks() else { return }
    pointee.tracked.discard()
    pointee.sites.discard()
    pointee.rows.discard()
    pointee.threads.discardCaches()
    pointee.threadTable.discard()
    pointee.dumps.discard()
    pointee.peaks.discard()
  }

  /// Waits until no thread is in the tracer; `false` where one stays, such as a stopped one.
  ///
  /// A thread that enters now sees that nothing is recorded, and leaves at once. A thread may have
  /// entered while its store was on the way to memory: a millisecond outlasts any store buffer.
  private func waitForHooks() -> Bool {
    var rounds = 0
    while rounds < 1000 {
      System.sleep(nanoseconds: 1_000_000)
      var isAnyInside = false
      pointee.threads.forEach { thread in
        if thread.pointee.isInside.load(ordering: .acquiring) != 0 { isAnyInside = true }
      }
      if !isAnyInside { return true }
      rounds &+= 1
    }
    return false
  }
}
