// SPDX-License-Identifier: Apache-2.0
// The comments of a dump: whose it is, what was counted, and how it adds up.

import CTracerPlatform
import Synchronization

/// The version of the tracer, as dumps and messages tell it.
package let tracerVersion: StaticString = "0.1.0"

/// Everything that a dump's header is made of, gathered before the first byte is written.
struct DumpFacts {
  var trigger: DumpTrigger
  var generation: UInt32
  var wall: UInt64
  var monotonic: UInt64
  var counts: CounterValues
  var scan: HeapScan
  var memory: MemoryFacts
}

/// Builds one `key=value` comment after the other in a text buffer.
struct CommentWriter: ~Copyable {
  var text: TextBuffer

  mutating func write(_ encoder: inout ProfileEncoder, _ key: StaticString, _ value: UInt64) {
    begin(key)
    text.append(decimal: value)
    encoder.writeComment(text.bytes)
  }

  mutating func write(
    _ encoder: inout ProfileEncoder, _ key: StaticString, _ body: (inout TextBuffer) -> Void
  ) {
    begin(key)
    body(&text)
    encoder.writeComment(text.bytes)
  }

  private mutating func begin(_ key: StaticString) {
    text.clear()
    text.append(key)
    text.append(0x3d)
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  func writeHeader(_ encoder: inout ProfileEncoder, _ facts: DumpFacts) {
    var comments = CommentWriter(
      text: TextBuffer(pointee.dumps.text, capacity: DumpState.textByteCount))
    comments.write(&encoder, "heaptap", 1)
    comments.write(&encoder, "tracer") { $0.append(tracerVersion) }
    writeIdentity(&encoder, &comments)
    writeRecording(&encoder, &comments, facts)
    writeCounts(&encoder, &comments, facts)
    writeTypes(&encoder, &comments, facts.scan)
    writeHistogram(&encoder, &comments, facts.scan.histogram)
    writeBefore(&encoder, &comments, facts)
    writeReconciliation(&encoder, &comments, facts)
    writeLimit(&encoder, &comments, facts)
    writeLosses(&encoder, &comments, facts)
    writeReach(&encoder, &comments)
    writeGeneratedCode(&encoder, &comments)
  }

  // MARK: Whose

  private func writeIdentity(_ encoder: inout ProfileEncoder, _ comments: inout CommentWriter) {
    comments.write(&encoder, "program") { appendProgram(to: &$0) }
    comments.write(&encoder, "executable") { appendExecutable(to: &$0) }
    comments.write(&encoder, "pid", UInt64(UInt32(bitPattern: pointee.processID)))
    comments.write(
      &encoder, "uid", UInt64(UInt32(truncatingIfNeeded: System.call(SYS_geteuid))))
    comments.write(&encoder, "host") { appendHost(to: &$0) }
    let (input, capacity) = (pointee.dumps.input, DumpState.inputByteCount)
    var hasUnit = false
    comments.text.clear()
    comments.text.append("unit=")
    hasUnit = appendUnit(to: &comments.text, input, capacity: capacity)
    if hasUnit { encoder.writeComment(comments.text.bytes) }
    if var file = ProcFile("/proc/sys/kernel/random/boot_id", input, capacity: capacity) {
      if let line = file.nextLine() {
        comments.write(&encoder, "boot_id") { $0.append(printable: line) }
      }
      file.close()
    }
  }

  /// The name that the program was started by. The file's own may say less: redis-server is a link to
  /// redis-check-rdb, and many a name to busybox.
  package func appendProgram(to text: inout TextBuffer) {
    if let started = tracer_program_path() {
      var count = 0
      while count < 4096, started[count] != 0 { count &+= 1 }
      let path = UnsafeRawBufferPointer(start: started, count: count)
      // A descriptor's number is nobody's name. (fexecve)
      if path.after("/dev/fd/") == nil, !path.lastComponent.isEmpty {
        return DumpName.appendProgram(to: &text, path.lastComponent)
      }
    }
    var path = InlineArray<1024, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &path) { bytes in
      let found = readExecutable(bytes)
      DumpName.appendProgram(to: &text, found.lastComponent)
    }
  }

  func appendExecutable(to text: inout TextBuffer) {
    var path = InlineArray<1024, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &path) { text.append(printable: readExecutable($0)) }
  }

  /// The path of the running file, without what the kernel appends to that of a deleted one.
  private func readExecutable(_ bytes: UnsafeMutableRawBufferPointer) -> UnsafeRawBufferPointer {
    let path: StaticString = "/proc/self/exe"
    let count = System.call(
      SYS_readlinkat, Int(AT_FDCWD), Int(bitPattern: path.utf8Start),
      Int(bitPattern: bytes.baseAddress), bytes.count)
    let found = UnsafeRawBufferPointer(rebasing: bytes[..<max(0, min(count, bytes.count))])
    let deleted: StaticString = " (deleted)"
    guard found.hasSuffix(deleted) else { return found }
    return UnsafeRawBufferPointer(rebasing: found[..<(found.count &- deleted.utf8CodeUnitCount)])
  }

  private func appendHost(to text: inout TextBuffer) {
    var names = utsname()
    withUnsafeMutableBytes(of: &names) { bytes in
      guard System.call(SYS_uname, Int(bitPattern: bytes.baseAddress)) == 0 else { return }
      // struct utsname is six arrays of 65 bytes; the second is the node's name. (uname(2))
      let node = UnsafeRawBufferPointer(rebasing: bytes[65..<130])
      for byte in node {
        if byte == 0 { break }
        text.append(byte < 0x20 ? 0x3f : byte)
      }
    }
  }

  // MARK: Of what

  private func writeRecording(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    comments.write(&encoder, "trigger") { $0.append(facts.trigger.name) }
    comments.write(&encoder, "sequence", pointee.dumps.sequence)
    comments.write(&encoder, "depth", UInt64(pointee.depth))
    comments.write(&encoder, "start_wall_ns", pointee.startWall)
    comments.write(&encoder, "start_monotonic_ns", pointee.startMonotonic)
    comments.write(&encoder, "dump_wall_ns", facts.wall)
    comments.write(&encoder, "dump_monotonic_ns", facts.monotonic)
    comments.write(&encoder, "generation", UInt64(facts.generation))
    var number: UInt32 = 1
    while number <= facts.generation {
      let start = generationStart(number).pointee
      comments.text.clear()
      comments.text.append("generation.")
      comments.text.append(decimal: UInt64(number))
      comments.text.append(0x3d)
      comments.text.append(decimal: start.wall)
      comments.text.append(0x2c)
      comments.text.append(decimal: start.monotonic)
      encoder.writeComment(comments.text.bytes)
      number &+= 1
    }
  }

  private func writeCounts(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    let counts = facts.counts
    comments.write(&encoder, "live_bytes") {
      $0.append(signed: Int64(bitPattern: counts.liveBytes))
    }
    comments.write(&encoder, "live_blocks") {
      $0.append(signed: Int64(bitPattern: counts.liveBlocks))
    }
    comments.write(&encoder, "scanned_bytes", facts.scan.bytes)
    comments.write(&encoder, "scanned_blocks", facts.scan.blocks)
    if pointee.sampling.isOn {
      let (mean, scan) = (pointee.sampling.mean, facts.scan)
      comments.write(&encoder, "sample_bytes", mean.byteCount)
      comments.write(&encoder, "sampled_blocks", UInt64(scan.sampled.blocks))
      comments.write(&encoder, "live_error_bytes", mean.standardError(scan.sampled.variance))
      comments.write(
        &encoder, "total_error_bytes", mean.standardError(counts.allocatedEstimate.variance))
    }
    comments.write(&encoder, "tracked_bytes", facts.scan.trackedBytes)
    comments.write(&encoder, "tracked_blocks", facts.scan.trackedBlocks)
    // What threads have not yet published may be more than ever was: the dump has counted it.
    comments.write(
      &encoder, "peak_bytes",
      UInt64(
        max(0, max(pointee.peakBytes.load(ordering: .relaxed), Int64(bitPattern: counts.liveBytes)))
      ))
    // How far the peak of an estimate is from that of the heap, nobody knows.
    if !pointee.sampling.isOn {
      comments.write(&encoder, "peak_error_bytes", UInt64(pointee.threads.peakError))
    }
    writePeak(&encoder, &comments)
    comments.write(&encoder, "total_bytes", counts.allocatedBytes)
    comments.write(&encoder, "total_blocks", counts.allocatedBlocks)
    comments.write(&encoder, "freed_bytes", counts.freedBytes)
    comments.write(&encoder, "freed_blocks", counts.freedBlocks)
    // Of what is not sampled nobody knows when it was freed, nor what was allocated in between.
    if !pointee.sampling.isOn {
      comments.write(&encoder, "temporary_blocks", facts.scan.temporaryBlocks)
    }
    comments.write(&encoder, "sites", UInt64(facts.scan.siteCount))
    if pointee.settings.tellsThreads {
      comments.write(&encoder, "threads", UInt64(pointee.threadTable.threadCount))
    }
    if facts.scan.omittedBytes > 0 {
      comments.write(&encoder, "omitted_bytes", facts.scan.omittedBytes)
    }
  }

  /// What of the peak the samples tell, which is not all of `peak_bytes`.
  private func writePeak(_ encoder: inout ProfileEncoder, _ comments: inout CommentWriter) {
    guard pointee.settings.keepsPeak else { return }
    let picture = pointee.peaks.kept
    comments.write(&encoder, "peak.picture_bytes", picture.bytes)
    comments.write(&encoder, "peak.picture_blocks", picture.blocks)
    comments.write(&encoder, "peak.picture_wall_ns", picture.wall)
    comments.write(&encoder, "peak.picture_monotonic_ns", picture.monotonic)
    comments.write(&encoder, "peak.pictures", UInt64(pointee.peaks.count))
    comments.write(&encoder, "peak.missed", pointee.peaks.missed)
  }

  private func writeTypes(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ scan: HeapScan
  ) {
    guard scan.typesProblem == .none else {
      return comments.write(&encoder, "types_problem") { scan.typesProblem.append(to: &$0) }
    }
    comments.write(&encoder, "typed_bytes", scan.typedBytes)
    comments.write(&encoder, "typed_blocks", scan.typedBlocks)
  }

  private func writeHistogram(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ histogram: SizeHistogram
  ) {
    comments.write(&encoder, "histogram") { text in
      var isFirst = true
      for row in 0..<SizeHistogram.rowCount where histogram.blocks[row] != 0 {
        if !isFirst { text.append(0x2c) }
        isFirst = false
        if row == SizeHistogram.rowCount &- 1 {
          text.append("more")
        } else {
          text.append(decimal: 16 << UInt64(row))
        }
        text.append(0x3a)
        text.append(decimal: histogram.blocks[row])
        text.append(0x3a)
        text.append(decimal: histogram.bytes[row])
      }
    }
  }

  // MARK: How it adds up

  /// Of what was held before the recording; 0 where that is not known.
  private var remainingBefore: UInt64 {
    let held = pointee.before.heapBytes ?? 0
    let freed = counterValues().unknownFreedBytes
    return held > freed ? held &- freed : 0
  }

  /// Whether every block is looked at that is given back, and not the sampled ones only.
  private var knowsFrees: Bool { !pointee.sampling.isOn }

  private func writeBefore(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    comments.write(&encoder, "before_rss_bytes", pointee.before.residentBytes)
    if let held = pointee.before.heapBytes {
      comments.write(&encoder, "before_heap_bytes", held)
      if knowsFrees { comments.write(&encoder, "before_remaining_bytes", remainingBefore) }
    }
    guard knowsFrees else { return }
    comments.write(&encoder, "before_freed_blocks", facts.counts.unknownFreedBlocks)
    comments.write(&encoder, "before_freed_bytes", facts.counts.unknownFreedBytes)
  }

  private func writeReconciliation(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    let memory = facts.memory
    let parts = tracerParts
    if memory.isKnown {
      let knowsBefore = knowsFrees || pointee.hasSeenFirstAllocation
      let before = knowsBefore ? remainingBefore : 0
      let (tracer, mapped) = (memory.tracer, memory.mapped)
      let slack =
        Int64(bitPattern: memory.heap) &- Int64(bitPattern: facts.scan.bytes)
        &- Int64(bitPattern: before)
      comments.write(&encoder, "usage_bytes", memory.usage)
      comments.write(&encoder, "usage_source") { $0.append("/proc/self/smaps (anonymous)") }
      comments.write(&encoder, "reconcile.traced_bytes", facts.scan.bytes)
      if knowsBefore { comments.write(&encoder, "reconcile.before_bytes", before) }
      comments.write(&encoder, "reconcile.mmap_bytes", mapped)
      comments.write(
        &encoder, knowsBefore ? "reconcile.slack_bytes" : "reconcile.before_and_slack_bytes"
      ) { $0.append(signed: slack) }
      comments.write(&encoder, "reconcile.tracer_bytes", tracer)
      comments.write(
        &encoder, "reconcile.other_bytes", memory.usage &- memory.heap &- mapped &- tracer)
    }
    comments.write(&encoder, "tracer_bytes", parts.total)
    comments.write(&encoder, "tracer.map_bytes", parts.map)
    comments.write(&encoder, "tracer.site_bytes", parts.sites)
    comments.write(&encoder, "tracer.row_bytes", parts.rows)
    comments.write(&encoder, "tracer.thread_bytes", parts.threads)
    comments.write(&encoder, "tracer.dump_bytes", parts.dumps)
  }

  /// The limit that the process is nearest to; at a crossing, the one whose mark was crossed.
  private func writeLimit(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    let reading = pointee.limits.reading
    guard reading.isKnown else { return }
    comments.write(&encoder, "limit_bytes", reading.limit)
    comments.write(&encoder, "limit_source") { appendLimitSource(to: &$0) }
    comments.write(&encoder, "limit_usage_bytes", reading.usage)
    comments.write(&encoder, "limit_headroom_bytes", reading.headroom)
    comments.write(&encoder, "limit_rate_bytes", reading.rate)
    if facts.trigger == .limit {
      comments.write(&encoder, "limit_mark") { pointee.limits.mark.describe(into: &$0) }
    }
  }

  /// Whether lost blocks were looked for, and what that came to.
  private func writeReach(_ encoder: inout ProfileEncoder, _ comments: inout CommentWriter) {
    guard let problem = pointee.leaks.outcome, problem != .notAsked else { return }
    guard problem == .none else {
      return comments.write(&encoder, "reach.problem") { $0.append(problem.words) }
    }
    comments.write(&encoder, "reach", 1)
    comments.write(&encoder, "reach.root_bytes", pointee.leaks.rootByteCount)
    comments.write(&encoder, "reach.stopped_ns", pointee.leaks.stoppedNanoseconds)
    if pointee.leaks.wasMoving { comments.write(&encoder, "reach.moving", 1) }
    if glibcRange.isEmpty { comments.write(&encoder, "reach.allocator", 1) }
  }

  private func writeLosses(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter, _ facts: DumpFacts
  ) {
    comments.write(&encoder, "lost.sites", facts.counts.lostSites)
    comments.write(&encoder, "lost.blocks", facts.counts.lostBlocks)
    comments.write(&encoder, "lost.nested", facts.counts.lostNested)
    comments.write(&encoder, "lost.frees", facts.counts.unseenFrees)
    comments.write(&encoder, "lost.rows", facts.counts.lostRows)
    comments.write(&encoder, "truncated_stacks", facts.counts.truncatedStacks)
    comments.write(&encoder, "broken_stacks", facts.counts.brokenStacks)
    comments.write(&encoder, "followed_stacks", facts.counts.followedStacks)
    comments.write(&encoder, "walked_stacks", facts.counts.walkedStacks)
    comments.write(&encoder, "published_balances", facts.counts.publications)
    comments.write(&encoder, "flushed_tallies", facts.counts.flushes)
    if facts.counts.checkedStacks > 0 {
      comments.write(&encoder, "checked_stacks", facts.counts.checkedStacks)
      comments.write(&encoder, "differing_stacks", facts.counts.differingStacks)
    }
  }
}
