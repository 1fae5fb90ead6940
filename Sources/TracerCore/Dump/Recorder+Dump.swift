// SPDX-License-Identifier: Apache-2.0
// A snapshot, from the moment that it is asked for to the file under its final name.

import CTracerPlatform
import Synchronization

/// What became of a snapshot.
package struct DumpOutcome {
  package var isWritten: Bool
  /// An errno, where nothing was written.
  package var error: Int32
}

/// The numbers of locations that are no row's.
private enum ExtraLocation {
  /// Stands for a stack that could not be kept.
  static var lost: UInt32 { RowTable.limit }
  static var truncated: UInt32 { RowTable.limit &+ 1 }
  static var broken: UInt32 { RowTable.limit &+ 2 }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Writes a snapshot, and begins the next generation.
  ///
  /// Allocates nothing, stops no thread, and leaves no file under a final name unless it is whole.
  /// `message` gets the path of the dump, or one sentence that says why there is none.
  package func writeDump(
    _ trigger: DumpTrigger, path: inout TextBuffer, message: inout TextBuffer
  ) -> DumpOutcome {
    guard
      pointee.dumps.isBusy.compareExchange(
        expected: 0, desired: 1, ordering: .acquiringAndReleasing
      ).exchanged
    else {
      message.append("another snapshot is being written")
      return DumpOutcome(isWritten: false, error: EBUSY)
    }
    defer { pointee.dumps.isBusy.store(0, ordering: .releasing) }
    let (directory, problem) = DumpDirectory.open(pointee.settings, path: &path)
    guard let directory else {
      describe(problem, path, into: &message)
      if trigger == .limit { _ = gatherFacts(trigger) }
      return DumpOutcome(isWritten: false, error: ENOENT)
    }
    defer {
      directory.close()
      closeGeneratedCode()
    }
    pointee.dumps.sequence &+= 1
    // At a crossing the watch has looked just now.
    if trigger != .limit { lookAtLimits(System.monotonicTime) }
    let facts = gatherFacts(trigger)
    findGeneratedCode(trigger)
    let outcome = writeFile(in: directory, facts, path: &path, message: &message)
    guard outcome.isWritten else {
      // Where there is no dump, nothing was left out of one.
      pointee.dumps.leftOutBytes = 0
      return outcome
    }
    if trigger == .limit { removeOldDumps(in: directory) }
    directory.ring(process: pointee.processID)
    return outcome
  }

  /// Writes a snapshot to a file of the program's choice, in the place of what was there, and begins
  /// the next generation; 0 or an errno. It is not synced to disk: its reader is at hand.
  package func writeDump(
    to name: UnsafePointer<CChar>, partial: UnsafePointer<CChar>
  ) -> Int32 {
    guard
      pointee.dumps.isBusy.compareExchange(
        expected: 0, desired: 1, ordering: .acquiringAndReleasing
      ).exchanged
    else { return EBUSY }
    defer { pointee.dumps.isBusy.store(0, ordering: .releasing) }
    pointee.dumps.sequence &+= 1
    lookAtLimits(System.monotonicTime)
    // What a kill left unfinished; somebody else's, or a link, stays, and is an error below.
    _ = System.call(SYS_unlinkat, Int(AT_FDCWD), Int(bitPattern: partial), 0)
    let error = writeFile(
      in: AT_FDCWD, name, partial, gatherFacts(.api), isSynced: false)
    if error == 0 { _ = pointee.dumps.written.wrappingAdd(1, ordering: .relaxed) }
    return error
  }

  // MARK: Gathering

  private func gatherFacts(_ trigger: DumpTrigger) -> DumpFacts {
    let (wall, monotonic) = (System.wallTime, System.monotonicTime)
    // First, so that what is born from here on is not in this dump.
    let generation = openGeneration(wall, monotonic)
    let counts = counterValues()
    raisePeakByOwnBalance()
    if pointee.settings.looksForLeaks, trigger == .exit || trigger == .terminated {
      searchForLeaks()
    }
    let scan = scan(bornBefore: generation, trigger)
    forgetLeaks()
    keepPeak(scan)
    if trigger != .limit || !isPressed { readThreadNames() }
    pointee.dumps.leftOutBytes = 0
    pointee.dumps.previous = pointee.dumps.last
    pointee.dumps.last = ScanTotals(
      bytes: scan.bytes, blocks: scan.blocks,
      errorBytes: pointee.sampling.mean.standardError(scan.sampled.variance),
      siteCount: scan.siteCount)
    // The kernel takes as long to walk the page tables as the scan has taken.
    let memory =
      trigger == .limit && isPressed
      ? MemoryFacts()
      : MemoryFacts.read(
        pointee.dumps.input, capacity: DumpState.inputByteCount
      ) {
        pointee.sampling.isOn
          ? pointee.sampling.blocks.hasTouched($0) : pointee.map.hasTouched($0)
      }
    return DumpFacts(
      trigger: trigger, generation: generation, wall: wall, monotonic: monotonic, counts: counts,
      scan: scan, memory: memory)
  }

  /// Begins the next generation; the last that a word can name lasts for ever.
  func openGeneration(_ wall: UInt64, _ monotonic: UInt64) -> UInt32 {
    let current = pointee.generation.load(ordering: .relaxed)
    guard current < BlockWord.generationLimit else { return current &+ 1 }
    let next = current &+ 1
    generationStart(next).pointee = GenerationStart(wall: wall, monotonic: monotonic)
    // Releasing: a block that carries the new number is younger than this dump.
    pointee.generation.store(next, ordering: .releasing)
    pointee.birth.store(
      BlockWord.birth(generation: next, epoch: pointee.epoch.load(ordering: .relaxed)),
      ordering: .releasing)
    return next
  }

  package func generationStart(_ number: UInt32) -> UnsafeMutablePointer<GenerationStart> {
    UnsafeMutablePointer<GenerationStart>(
      bitPattern: pointee.generationStarts
    ).unsafelyUnwrapped + Int(min(number, BlockWord.generationLimit))
  }

  /// With one thread the high-water mark is exact: what it has not yet published counts too.
  func raisePeakByOwnBalance() {
    guard pointee.threads.threadCount.load(ordering: .relaxed) == 1 else { return }
    pointee.threads.forEach { thread in
      let high = thread.pointee.balanceHigh.load(ordering: .relaxed)
      raisePeak(to: pointee.publishedBytes.load(ordering: .relaxed) &+ high)
    }
  }

  /// The sums of all threads, those that have ended included.
  ///
  /// A thread that ends meanwhile could be counted in both places, or in neither: then it is summed
  /// up again, a hundred times at most, where threads end without a pause.
  package func counterValues() -> CounterValues {
    var values = CounterValues()
    for _ in 0..<100 {
      let finished = pointee.retiredThreads.load(ordering: .acquiring)
      values = sumCounters()
      if pointee.retiring.load(ordering: .acquiring) == finished { break }
    }
    return pointee.sampling.isOn ? values.estimated : values
  }

  private func sumCounters() -> CounterValues {
    var values = pointee.retired.values
    let epoch = pointee.epoch.load(ordering: .relaxed)
    pointee.threads.forEach { thread in
      if thread.pointee.epoch.load(ordering: .acquiring) == epoch {
        values.add(thread.pointee.counters.values)
      }
    }
    return values
  }

  /// The tracer's own memory by what it is for, in bytes that were touched.
  package var tracerParts:
    (map: UInt64, sites: UInt64, rows: UInt64, threads: UInt64, dumps: UInt64, total: UInt64)
  {
    let map = UInt64(
      pointee.map.touchedByteCount &+ pointee.sampling.blocks.touchedByteCount)
    let sites = UInt64(pointee.sites.usedByteCount &+ pointee.tracked.usedByteCount)
    let rows = UInt64(pointee.rows.usedByteCount)
    let threads = UInt64(pointee.threads.usedByteCount &+ pointee.threadTable.usedByteCount)
    let dumps = UInt64(
      pointee.dumps.usedByteCount(sites: pointee.sites.limit) &+ pointee.peaks.usedByteCount)
    return (map, sites, rows, threads, dumps, map &+ sites &+ rows &+ threads &+ dumps)
  }

  // MARK: Writing

  private func writeFile(
    in directory: DumpDirectory, _ facts: DumpFacts, path: inout TextBuffer,
    message: inout TextBuffer
  ) -> DumpOutcome {
    var names = InlineArray<512, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &names) { bytes in
      let base = bytes.baseAddress.unsafelyUnwrapped
      var name = TextBuffer(base, capacity: 256)
      var partial = TextBuffer(base + 256, capacity: 256)
      appendName(to: &name, facts)
      partial.append(name.bytes)
      partial.append(".partial")
      path.append(0x2f)
      path.append(name.bytes)
      let error = writeFile(
        in: directory.descriptor, name.cString(), partial.cString(), facts, isSynced: true)
      if error == 0 { return DumpOutcome(isWritten: true, error: 0) }
      message.append("cannot write '")
      message.append(printable: path.bytes)
      message.append("': ")
      describe(error, into: &message)
      return DumpOutcome(isWritten: false, error: error)
    }
  }

  private func appendName(to name: inout TextBuffer, _ facts: DumpFacts) {
    var program = InlineArray<64, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &program) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 64)
      appendProgram(to: &text)
      DumpName.append(
        to: &name, wall: facts.wall, program: text.bytes, process: pointee.processID,
        sequence: pointee.dumps.sequence)
    }
  }

  /// Under a temporary name first, and under its own when it is whole and on disk.
  ///
  /// Near a limit it has its name as soon as it is whole: the page cache outlives a kill, and to wait
  /// for the disk may take longer than there is.
  private func writeFile(
    in directory: Int32, _ name: UnsafePointer<CChar>, _ partial: UnsafePointer<CChar>,
    _ facts: DumpFacts, isSynced: Bool
  ) -> Int32 {
    let descriptor = System.open(
      partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600, in: directory)
    guard descriptor >= 0 else { return 0 &- descriptor }
    let isHurried = facts.trigger == .limit
    var error = encode(to: descriptor, facts)
    if error == 0, isSynced, !isHurried { error = Self.sync(descriptor) }
    if error == 0 {
      error = Int32(
        0
          &- System.call(
            SYS_renameat2, Int(directory), Int(bitPattern: partial), Int(directory),
            Int(bitPattern: name), 0))
    }
    if error == 0, isHurried {
      pointee.dumps.unsynced = descriptor &+ 1
      return 0
    }
    System.close(descriptor)
    if error != 0 {
      _ = System.call(
        SYS_unlinkat, Int(directory), Int(bitPattern: partial), 0)
    } else if isSynced {
      _ = System.call(SYS_fsync, Int(directory))
    }
    return error
  }

  /// 0, or the errno of a disk that did not take the file.
  private static func sync(_ descriptor: Int32) -> Int32 {
    let error = Int32(0 &- System.call(SYS_fsync, Int(descriptor)))
    // A file system that cannot sync, such as some in memory, has nothing to lose.
    return error == EINVAL || error == EROFS ? 0 : error
  }

  /// Puts a dump that was in a hurry on disk.
  func finishDump() {
    guard pointee.dumps.unsynced != 0 else { return }
    let descriptor = pointee.dumps.unsynced &- 1
    pointee.dumps.unsynced = 0
    _ = Self.sync(descriptor)
    System.close(descriptor)
  }

  private func encode(to descriptor: Int32, _ facts: DumpFacts) -> Int32 {
    let isHurried = facts.trigger == .limit
    forgetThreadStrings()
    // In smaller steps where the disk may be full: what is on it then can be made a dump.
    var encoder = ProfileEncoder(
      FileSink(
        descriptor, buffer: pointee.dumps.output,
        capacity: isHurried ? 16 << 10 : DumpState.outputByteCount))
    encoder.writeTypes(
      wall: facts.wall, duration: facts.monotonic &- pointee.startMonotonic,
      hasPeak: pointee.settings.keepsPeak,
      period: pointee.sampling.isOn ? pointee.sampling.mean.byteCount : 1)
    writeHeader(&encoder, facts)
    writeMappings(&encoder)
    let siteCount = writeSites(&encoder, facts)
    writeEnd(&encoder, facts.scan, sites: siteCount)
    let (error, safeMark) = encoder.finish()
    let isFull = error == ENOSPC || error == EDQUOT || error == EFBIG
    guard isHurried, isFull, safeMark.sites > 0 else { return error }
    return cutOff(descriptor, at: safeMark, facts.scan)
  }

  /// Says what was left out, and that this is the end.
  private func writeEnd(_ encoder: inout ProfileEncoder, _ scan: HeapScan, sites: Int) {
    var comments = CommentWriter(
      text: TextBuffer(pointee.dumps.text, capacity: DumpState.textByteCount))
    pointee.dumps.leftOutBytes = 0
    var position = sites
    while position < scan.siteCount {
      pointee.dumps.leftOutBytes =
        pointee.dumps.leftOutBytes
        &+ summary(pointee.dumps.sortedSites[position]).pointee.liveBytes
      position &+= 1
    }
    if sites < scan.siteCount {
      comments.write(&encoder, "left_out_sites", UInt64(scan.siteCount &- sites))
      comments.write(&encoder, "left_out_bytes", pointee.dumps.leftOutBytes)
    }
    comments.write(&encoder, "complete", 1)
  }

  /// Makes a dump of what a full disk has taken: its largest sites, and the word that there were more.
  private func cutOff(_ descriptor: Int32, at mark: SinkMark, _ scan: HeapScan) -> Int32 {
    let moved = System.call(SYS_lseek, Int(descriptor), mark.offset, 0)
    guard moved >= 0 else { return Int32(0 &- moved) }
    var encoder = ProfileEncoder(
      FileSink(descriptor, buffer: pointee.dumps.output, capacity: DumpState.outputByteCount),
      strings: mark.strings)
    writeEnd(&encoder, scan, sites: mark.sites)
    let end = mark.offset &+ encoder.position
    let (error, _) = encoder.finish()
    return error != 0 ? error : Int32(0 &- System.call(SYS_ftruncate, Int(descriptor), end))
  }

  // MARK: Mappings and sites

  private func writeMappings(_ encoder: inout ProfileEncoder) {
    var number: UInt32 = 1
    while number <= pointee.rows.modules.moduleCount {
      let module = pointee.rows.modules.module(number).pointee
      if module.isReady == 1 {
        var path = TextBuffer(pointee.dumps.text, capacity: DumpState.textByteCount / 2)
        appendPath(of: module, to: &path)
        var buildID = TextBuffer(
          pointee.dumps.text + DumpState.textByteCount / 2, capacity: 128)
        for position in 0..<Int(min(module.buildIDByteCount, 32)) {
          buildID.append(hexadecimal: module.buildID[position])
        }
        encoder.writeMapping(UInt64(number), module, path: path.bytes, buildID: buildID.bytes)
      }
      number &+= 1
    }
    if pointee.dumps.code.namedCount > 0 {
      encoder.writeGeneratedMapping(UInt64(ModuleTable.limit))
    }
  }

  /// The path that the loader knows, or the program's own; absolute where that can be found out.
  private func appendPath(of module: LoadedModule, to text: inout TextBuffer) {
    let name = pointee.rows.modules.path(of: module)
    if name.after("/") != nil { return text.append(printable: name) }
    if name.after("linux-vdso") != nil { return text.append("[vdso]") }
    var isFound = false
    let (input, capacity) = (pointee.dumps.input, DumpState.inputByteCount)
    _ = MemoryMaps.forEach(input, capacity: capacity) { range, path in
      if !isFound, range.contains(module.moduleStart), path.after("/") != nil {
        text.append(printable: path)
        isFound = true
      }
    }
    if !isFound { text.append(printable: name) }
  }

  /// Writes the sites, largest first, and answers how many there was room for.
  private func writeSites(_ encoder: inout ProfileEncoder, _ facts: DumpFacts) -> Int {
    let scan = facts.scan
    var room = facts.trigger == .limit ? roomNearLimit(encoder.position) : Int.max
    var checked = encoder.position
    let written = pointee.dumps.writtenRows
    UnsafeMutableRawPointer(written).initializeMemory(
      as: UInt8.self, repeating: 0, count: DumpState.writtenByteCount)
    // Before the sites: few bytes, and each may be where the next stack ends.
    encoder.writeLocation(UInt64(ExtraLocation.truncated), named: .truncatedRoot)
    encoder.writeLocation(UInt64(ExtraLocation.broken), named: .brokenRoot)
    var position = 0
    while position < scan.siteCount, encoder.error == 0, encoder.position < room {
      writeSite(&encoder, pointee.dumps.sortedSites[position], written)
      position &+= 1
      encoder.mark(sites: position)
      if room != Int.max, encoder.position &- checked >= 1 << 20 {
        lookAtLimits(System.monotonicTime)
        checked = encoder.position
        room = roomNearLimit(checked)
      }
    }
    return position
  }

  /// How large the file may become: half of what is left goes to it, the other half is the daemon's.
  /// The pages of a file that was just written count as the writer's.
  private func roomNearLimit(_ position: Int) -> Int {
    let reading = pointee.limits.reading
    guard reading.isKnown else { return Int.max }
    return position &+ Int(truncatingIfNeeded: min(max(reading.headroom / 2, 64 << 10), 1 << 40))
  }

  private func writeSite(
    _ encoder: inout ProfileEncoder, _ number: UInt32, _ written: UnsafeMutablePointer<UInt8>
  ) {
    let site = pointee.sites.site(number)
    let summary = summary(number).pointee
    var lost = ExtraLocation.lost
    var count = Int(site.pointee.frameCount)
    var frames = count == 0 ? nil : pointee.sites.rows(of: site.pointee)
    if count == 0 {
      // The stack that could not be kept has one frame, at address 0.
      encoder.writeLocation(UInt64(lost), mapping: 0, address: 0)
      count = 1
    } else {
      writeLocations(&encoder, frames.unsafelyUnwrapped, count, written)
    }
    withUnsafePointer(to: &lost) { lost in
      if frames == nil { frames = lost }
      // What the site has given back is told with its first tally.
      var gone = freed(of: number)
      var peak = pointee.settings.keepsPeak ? pointee.peaks.tally(of: number) : PeakTally()
      let thread = threadLabels(site.pointee, &encoder)
      var offset = summary.firstBorn
      repeat {
        let born =
          offset == 0
          ? BornTally(
            next: 0, generation: 0, reach: .held, domain: 0, type: 0, blocks: 0, bytes: 0)
          : bornTally(offset).pointee
        encoder.writeSample(
          locations: frames.unsafelyUnwrapped, count: count, root: root(of: site.pointee),
          values: [
            gone.blocks &+ born.blocks, gone.bytes &+ born.bytes, born.blocks, born.bytes,
            peak.blocks, peak.bytes,
          ],
          labels: ProfileEncoder.Labels(
            generation: UInt32(born.generation), domain: born.domain,
            type: typeString(born, &encoder), thread: thread, reach: born.reach,
            temporaries: min(gone.temporaries, gone.blocks), sampled: sampled(offset),
            totalErrorBytes: errorOfTotal(gone, offset)))
        gone = SiteTotals()
        peak = PeakTally()
        offset = born.next
      } while offset != 0
    }
  }

  /// Of how many samples the figures of a tally are an estimate, and how good it is.
  private func sampled(_ tally: UInt32) -> (blocks: UInt64, errorBytes: UInt64) {
    guard pointee.sampling.isOn, tally != 0 else { return (0, 0) }
    let sample = sampleTally(tally).pointee
    return (UInt64(sample.blocks), pointee.sampling.mean.standardError(sample.variance))
  }

  /// How far what a tally has alive and what is gone may be off together.
  private func errorOfTotal(_ gone: SiteTotals, _ tally: UInt32) -> UInt64 {
    guard pointee.sampling.isOn else { return 0 }
    let alive = tally == 0 ? 0 : sampleTally(tally).pointee.variance
    return pointee.sampling.mean.standardError(gone.variance &+ alive)
  }

  /// The number of the string that names a tally's type, written if the dump does not have it yet; 0 where
  /// the type is not known.
  private func typeString(_ tally: BornTally, _ encoder: inout ProfileEncoder) -> UInt64 {
    guard tally.type != 0 else { return 0 }
    let entry = pointee.dumps.types.entry(tally.type)
    if entry.pointee.string == 0 {
      entry.pointee.string = encoder.string(pointee.dumps.types.name(of: entry.pointee))
    }
    return entry.pointee.string
  }

  /// A stack that is not whole ends in a location that says so, or else what happens to be its
  /// outermost frame would be a root beside `_start` in every tool that draws flames.
  private func root(of site: borrowing Site) -> ProfileEncoder.Root {
    let missing = site.isTruncated ? site.totalFrameCount &- UInt32(site.frameCount) : 0
    let location =
      site.isTruncated ? ExtraLocation.truncated : site.isBroken ? ExtraLocation.broken : 0
    return ProfileEncoder.Root(
      location: location, missingFrames: missing, isBroken: site.isBroken)
  }

  private func writeLocations(
    _ encoder: inout ProfileEncoder, _ frames: UnsafePointer<UInt32>, _ count: Int,
    _ written: UnsafeMutablePointer<UInt8>
  ) {
    for position in 0..<count {
      let number = frames[position]
      let bit = UInt8(1) << UInt8(number & 7)
      guard number < RowTable.limit, written[Int(number >> 3)] & bit == 0 else { continue }
      written[Int(number >> 3)] |= bit
      let row = pointee.rows.row(number)
      // Readers take one off every address; an interrupted instruction's is already the right one.
      let isExact = row.pointee.key & Row.exactFlag != 0
      let module = UInt64(row.pointee.module)
      let function = module == 0 ? generatedFunction(row, &encoder) : 0
      encoder.writeLocation(
        UInt64(number), mapping: function == 0 ? module : UInt64(ModuleTable.limit),
        address: row.pointee.address &+ (isExact ? 1 : 0), function: function)
    }
  }

  // MARK: Sentences

  private func describe(
    _ problem: DirectoryProblem, _ path: TextBuffer, into message: inout TextBuffer
  ) {
    switch problem {
    case .cannotOpen(let error):
      message.append("cannot open the directory '")
      message.append(printable: path.bytes)
      message.append("' for dumps: ")
      describe(error, into: &message)
    case .cannotMake(let error):
      message.append("cannot make the directory '")
      message.append(printable: path.bytes)
      message.append("' for dumps: ")
      describe(error, into: &message)
    case .isNotOurs:
      message.append("'")
      message.append(printable: path.bytes)
      message.append("' belongs to another user or is open to others, so no dump is written there")
    case .isOpenToAll:
      message.append("'")
      message.append(printable: path.bytes)
      message.append("' may be written to by everybody and has no sticky bit, so no dump is")
      message.append(" written there")
    }
    message.append(" (HEAPTAP_DIR names another directory)")
  }

  private func describe(_ error: Int32, into message: inout TextBuffer) {
    switch error {
    case ENOSPC: message.append("no space left on the device")
    case EDQUOT: message.append("the disk quota is used up")
    case EFBIG: message.append("larger than the process may write (RLIMIT_FSIZE)")
    case EROFS: message.append("the file system is read-only")
    case EACCES, EPERM: message.append("permission denied")
    case ENOENT: message.append("no such file or directory")
    case ENOTDIR, ELOOP: message.append("not a directory, or a link")
    case EMFILE, ENFILE: message.append("too many open files")
    case EIO: message.append("input/output error")
    default:
      message.append("error ")
      message.append(decimal: UInt64(UInt32(bitPattern: error)))
    }
  }
}
