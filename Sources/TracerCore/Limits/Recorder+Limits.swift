// SPDX-License-Identifier: Apache-2.0
// The watch: how near the process is to its limit, and what happens at the marks.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  private var watchesLimits: Bool {
    (pointee.settings.mode == .armed || pointee.settings.mode == .recording)
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
    if pointee.limits.crossings.noteStart(level, pointee.settings.startMark, now: now),
      pointee.isRecording.load(ordering: .relaxed) == 0
    {
      take(look.fullest, look.fullestSource)
      pointee.limits.mark = pointee.settings.startMark
      startAtMark()
    }
    if let mark = pointee.limits.crossings.note(level, pointee.settings.limitMarks, now: now) {
      take(look.fullest, look.fullestSource)
      pointee.limits.mark = mark
      if !look.fullest.isKnown { takeSize(mark, look.own.unreclaimable) }
      carryOutCrossing()
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
      look = LimitLook.all(files, pointee.limits.place)
    }
    if look.nearest.isKnown { pointee.limits.pace.note(now, usage: look.nearest.usage) }
    take(look.nearest, look.nearestSource)
    return look
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

  /// Where no limit is known, the size that was asked for is one.
  private func takeSize(_ mark: LimitMark, _ own: UInt64) {
    var reading = LimitReading()
    reading.limit = mark.bytes
    reading.usage = own
    var source = LimitSource()
    source.set { $0.append("HEAPTAP_LIMIT") }
    take(reading, source)
  }

  // MARK: Pace

  /// Sets the mark at which threads wake the worker, and answers how long it may sleep until then.
  private func pause(_ look: borrowing LimitLook) -> Int {
    let second = 1_000_000_000
    if pointee.isRecording.load(ordering: .relaxed) == 1 {
      pointee.dumps.prepare(sites: pointee.sites.limit)
    }
    guard pointee.isRecording.load(ordering: .relaxed) == 1, look.fullest.isKnown || hasSizes,
      pointee.limits.crossings.isWaiting(pointee.settings.limitMarks)
    else {
      pointee.wakeAtBytes.store(0, ordering: .relaxed)
      return second
    }
    let headroom = min(
      look.nearest.isKnown ? look.nearest.headroom : UInt64.max,
      room(belowSizes: look.own.unreclaimable))
    // What threads have published by now, and a step: they see the mark at their next publishing.
    let published = pointee.publishedBytes.load(ordering: .relaxed)
    pointee.wakeAtBytes.store(
      max(1, published &+ GrowthPace.wakeStep(headroom: headroom)), ordering: .relaxed)
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

  private func carryOutCrossing() {
    if pointee.isRecording.load(ordering: .relaxed) != 0 {
      snapshot(.limit, .limit)
      finishDump()
    } else {
      tellFull()
    }
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
