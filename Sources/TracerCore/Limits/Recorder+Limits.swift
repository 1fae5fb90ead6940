// SPDX-License-Identifier: Apache-2.0
// The watch: how near the process is to its limit, and what happens at the marks.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  private var watchesLimits: Bool {
    // In a table of descriptors that is the daemon's too, a file that is opened and closed every second
    // may be closed by the daemon, and its number then be another's when it is closed here.
    (pointee.settings.mode == .armed || pointee.settings.mode == .recording)
      && pointee.requests.workerHasOwnDescriptors.load(ordering: .relaxed) != 0
      && (pointee.settings.limitMarks.count > 0 || pointee.settings.startMark.isSet)
  }

  /// Looks at the limits and does what the marks ask for. Answers how long the worker may sleep, in
  /// nanoseconds.
  ///
  /// Cost: about a dozen of the kernel's small files, 0.1 ms.
  func watchLimits() -> Int {
    let second = 1_000_000_000
    guard watchesLimits else { return second }
    let now = System.monotonicTime
    var look = lookAtLimits(now)
    let level = Crossings.Level(
      thousandths: look.fullest.thousandths, ownBytes: look.own.unreclaimable)
    let reachesStart = pointee.limits.crossings.noteStart(
      level, pointee.settings.startMark, now: now)
    // Both before either is acted upon: where one step has led past both, what begins to record must
    // know that this mark is behind, and set another.
    let crossed = pointee.limits.crossings.note(level, pointee.settings.limitMarks, now: now)
    let wasRecording = pointee.isRecording.load(ordering: .relaxed) != 0
    if reachesStart, !wasRecording { startAtMark(look) }
    if let mark = crossed {
      take(look, at: mark)
      carryOutCrossing(wasRecording: wasRecording)
      // A dump takes its time, and so does what is told of it.
      look = lookAtLimits(System.monotonicTime)
    }
    return pause(look)
  }

  /// Reads all limits, keeps the nearest, and measures the growth.
  @discardableResult
  func lookAtLimits(_ now: UInt64) -> LimitLook {
    var look = LimitLook()
    withUnsafeMutableBytes(of: &pointee.limits.input) { bytes in
      let files = KernelFiles(
        buffer: bytes.baseAddress.unsafelyUnwrapped, capacity: bytes.count)
      findPlace(files, now)
      look = LimitLook.all(files, pointee.limits.place, exactFrom: exactFrom)
    }
    if look.nearest.isKnown {
      pointee.limits.pace.note(
        now, usage: look.nearest.usage, limitNumber: look.nearestSource.fingerprint)
    }
    take(look.nearest, look.nearestSource)
    return look
  }

  /// Usage is to be exact from where it decides, which is ten points below the lowest mark.
  private var exactFrom: UInt64 {
    let lowest = pointee.settings.limitMarks.lowestPercent(and: pointee.settings.startMark)
    let points = UInt64(LimitMark.hysteresisPercent)
    return min(CgroupUsage.exactFrom, lowest > points ? lowest &- points : 0)
  }

  /// Finds the cgroup at first, when the process was moved, and once a minute for what was mounted.
  private func findPlace(_ files: KernelFiles, _ now: UInt64) {
    let fingerprint = CgroupPlace.fingerprint(files)
    guard
      pointee.limits.placedAt == 0 || fingerprint != pointee.limits.fingerprint
        || now &- pointee.limits.placedAt > 60_000_000_000
    else { return }
    pointee.limits.place = CgroupPlace.find(files)
    pointee.limits.fingerprint = fingerprint
    pointee.limits.placedAt = max(now, 1)
  }

  private func take(_ reading: LimitReading, _ source: LimitSource) {
    pointee.limits.reading = reading
    pointee.limits.reading.rate = pointee.limits.pace.rate
    pointee.limits.source = source
  }

  /// Takes note of a mark that is crossed, and of the limit that it is of.
  func take(_ look: borrowing LimitLook, at mark: LimitMark) {
    pointee.limits.mark = mark
    guard !look.fullest.isKnown else { return take(look.fullest, look.fullestSource) }
    // Where no limit is known, the size that was asked for is one.
    var reading = LimitReading()
    reading.limit = mark.bytes
    reading.usage = look.own.unreclaimable
    var source = LimitSource()
    source.set { $0.append("HEAPTAP_LIMIT") }
    take(reading, source)
  }

  // MARK: Pace

  /// Sets the mark at which threads wake the worker, and answers how long it may sleep until then.
  private func pause(_ look: borrowing LimitLook) -> Int {
    let second = 1_000_000_000
    if pointee.isRecording.load(ordering: .relaxed) == 1 {
      pointee.dumps.prepare(sites: pointee.sites.limit, pointee.rows)
    }
    guard pointee.isRecording.load(ordering: .relaxed) == 1, look.fullest.isKnown || hasSizes,
      pointee.limits.crossings.isWaiting(pointee.settings.limitMarks)
    else {
      pointee.limits.wakeAtBytes = 0
      armGrowth()
      return second
    }
    let headroom = min(
      look.nearest.isKnown ? look.nearest.headroom : UInt64.max,
      room(belowSizes: look.own.unreclaimable))
    // What threads have published by now, and a step: they see the mark at their next publishing.
    let published = pointee.publishedBytes.load(ordering: .relaxed)
    let isSpent =
      pointee.wakeAtBytes.load(ordering: .relaxed) == 0
      && pointee.armedAtBytes == pointee.limits.wakeAtBytes
    pointee.limits.wakeAtBytes = GrowthPace.wakeMark(
      last: isSpent ? pointee.limits.wakeAtBytes : 0, published: published, headroom: headroom)
    armGrowth()
    return Int(pointee.limits.pace.sleepNanoseconds(headroom: headroom))
  }

  private var hasSizes: Bool { room(belowSizes: 0) != UInt64.max }

  /// What is left below the next mark that is a size.
  private func room(belowSizes own: UInt64) -> UInt64 {
    var room = UInt64.max
    var position = 0
    while position < pointee.settings.limitMarks.count {
      let mark = pointee.settings.limitMarks[position]
      if mark.bytes > own { room = min(room, mark.bytes &- own) }
      position &+= 1
    }
    return room
  }

  // MARK: At a mark

  private func carryOutCrossing(wasRecording: Bool) {
    if wasRecording {
      preferred { _ = snapshot(.limit, .limit) }
      finishDump()
    } else {
      tellFull()
    }
  }

  /// Runs the body before the daemon's own threads, where the process may ask for that.
  ///
  /// Sixteen threads on two processors that allocate as fast as they can leave the worker an eighth of
  /// one: too little for a dump before the limit is reached. With a system call filter nothing is asked
  /// for: systemd's `@system-service` has no setpriority, and may end who calls it.
  private func preferred(_ body: () -> Void) {
    let before = 20 &- System.call(SYS_getpriority, 0, 0)
    let isPreferred = !System.isFiltered && System.call(SYS_setpriority, 0, 0, -20) == 0
    body()
    if isPreferred { _ = System.call(SYS_setpriority, 0, 0, before) }
  }

  /// Whether the limit is so near, as usage grows, that a dump must do without what takes long.
  var isPressed: Bool {
    let reading = pointee.limits.reading
    return reading.isKnown && reading.headroom < reading.rate
  }

  /// Recording began by whoever's wish: the marks ahead of it are counted from here.
  func noteRecordingBegan() {
    pointee.limits.pace.reset()
    guard watchesLimits else { return }
    let look = lookAtLimits(System.monotonicTime)
    pointee.limits.crossings.recordingBegan(
      at: look.fullest.thousandths, pointee.settings.limitMarks)
  }
}
