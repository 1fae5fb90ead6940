// SPDX-License-Identifier: Apache-2.0
// The last walk, kept so that the next one need only step what has changed.

import CTracerPlatform
import Synchronization

/// The polynomial hash of a stack's rows, which can be told of a part from two wholes.
///
/// With rows r1…rn from the outermost on, H(n) = H(n-1) · p + r(n) · k; the last w of them hash to
/// H(n) - H(n-w) · p^w.
package enum StackHash {
  @inline(__always)
  static func extended(_ hash: UInt64, by row: UInt32) -> UInt64 {
    hash &* 0xD6E8_FEB8_6659_FD93 &+ UInt64(row) &* 0x9E37_79B9_7F4A_7C15
  }

  static func power(_ exponent: UInt32) -> UInt64 {
    var power: UInt64 = 1
    for _ in 0..<exponent { power = power &* 0xD6E8_FEB8_6659_FD93 }
    return power
  }

  /// The hash of rows, the outermost first.
  package static func of(_ rows: UnsafePointer<UInt32>, count: UInt32) -> UInt64 {
    var hash: UInt64 = 0
    for position in 0..<Int(count) { hash = extended(hash, by: rows[position]) }
    return hash
  }
}

/// A thread's last walk. A new one steps by rows from the innermost frame on until it meets a frame
/// of the last one (the same return address at the same place), and from there on only looks whether
/// every word that was read then is still the same. Words are looked at in the order in which a walk
/// reads them, so that none is read that a walk would not read.
///
/// What is met is exact: where a walk goes is a function of its registers, of the words that it reads
/// and of the unwind tables, and nothing else.
extension UnsafeMutablePointer where Pointee == StackCache {
  /// Brings the image up to date with a stack. `.stepped` once it is; anything else is what a whole
  /// walk has to find out about, and leaves the image as it was, or none.
  ///
  /// Cost: a few dozen instructions, about 80 for each frame that changed and 4 for each that did not.
  @inline(never)
  func follow(
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> StepOutcome {
    // Further down it is as deep: 2,048 steps in vain, before a whole walk takes them again.
    if UInt(bitPattern: registers) <= pointee.overlongStart { return .complex }
    let reader = core.pointee.rows.reader
    var range = thread.pointee.readable
    range.begin(at: UInt(bitPattern: registers))
    var place = FramePlace(registers)
    var top = Int(pointee.frameCount) &- 1
    var count = 0
    var outcome = StepOutcome.stepped
    while outcome == .stepped {
      var number: UInt32 = 0
      let changed = meet(&top, place, core, thread)
      if changed == 0 {
        thread.pointee.readable = range
        return compose(count, on: top, reader)
      }
      if changed > 0 {
        // Up to there all is as it was.
        take(from: top, to: changed, &count, &place, reader)
        top = changed &- 1
        number = frames[changed].row
      } else {
        outcome = core.pointee.rows.find(
          place.counter, reader, own: core.pointee.ownStart..<core.pointee.ownEnd, &number)
        if outcome != .stepped { break }
      }
      if count >= StackWalk.stepLimit {
        pointee.overlongStart = UInt(bitPattern: registers)
        outcome = .complex
        break
      }
      stepped[count] = SteppedFrame(place: place, row: number)
      count &+= 1
      let row = reader.rows + Int(number)
      outcome = place.guessLeavesPage(row) ? .complex : place.step(row, &range)
    }
    thread.pointee.readable = range
    switch outcome {
    case .awaited:
      guard begin(awaitedAt: place.framePointer &- 8, of: 0, place, core, thread) else {
        return .complex
      }
      return compose(count, on: 0, reader)
    case .complex:
      guard beginExecuted(count &- 1, registers, place, core, thread, reader) else {
        return .complex
      }
      return compose(count &- 1, on: 0, reader)
    case .ended(.outermost):
      guard count < StackCache.frameLimit else { return .complex }
      begin(at: place)
      return compose(count, on: 0, reader)
    default: return outcome
    }
  }

  /// Takes frames of the image as if they had been stepped, from one that was met to the one whose
  /// caller has changed; `place` becomes that one's.
  @inline(__always)
  private func take(
    from top: Int, to changed: Int, _ count: inout Int, _ place: inout FramePlace,
    _ reader: RowReader
  ) {
    var frame = top
    while frame > changed, count < StackWalk.stepLimit {
      let row = frames[frame].row
      stepped[count] = SteppedFrame(place: place, row: row)
      count &+= 1
      frame &-= 1
      // What rbp is has not been kept where no caller needed it.
      let flags = (reader.rows + Int(row)).pointee.flags
      let offset = UInt(bitPattern: Int((reader.rows + Int(row)).pointee.rbpOffset))
      let caller = frames[frame].place
      if flags.contains(.savesRBP) {
        place.framePointer = stackWord(caller.stackPointer &+ offset)
      } else if flags.contains(.savesRBPAtRBP) {
        place.framePointer = stackWord(place.framePointer &+ offset)
      }
      place.stackPointer = caller.stackPointer
      place.counter = caller.counter
    }
  }

  // MARK: The beginning of the image

  /// Begins an image whose outermost frame has no caller.
  private func begin(at place: FramePlace) {
    frames[0] = ImageFrame(
      place: place, hash: 0, row: 0, checkCount: 0, depth: 0, needsFramePointer: false)
    pointee.imageAwaitingSite = 0
    pointee.imageOriginDepth = 0
    pointee.rowsBegin = 0
  }

  /// Leaves no image.
  private func forget() { pointee.frameCount = 0 }

  /// Begins an image whose outermost frame is awaited by those whom a context leads to; `false`, with the
  /// image as it was, where they are not known for sure.
  ///
  /// - Parameters:
  ///   - context: Where the context is kept.
  ///   - task: Where the task is kept, if an executor has told it; else 0.
  ///   - place: What was come to behind the outermost frame.
  @inline(never)
  private func begin(
    awaitedAt context: UInt, of task: UInt, _ place: FramePlace,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Bool {
    let record = awaitingRecord(
      stackWord(context), of: task == 0 ? 0 : stackWord(task), core, thread)
    let number = record.pointee.site
    guard number != 0 else { return false }
    let site = core.pointee.sites.site(number)
    let (kept, total) = (UInt32(site.pointee.frameCount), site.pointee.totalFrameCount)
    guard Int(total) < StackCache.frameLimit else { return false }
    let known = core.pointee.sites.rows(of: site.pointee)
    for position in 0..<Int(kept) { rows[Int(total) &- 1 &- position] = known[position] }
    pointee.rowsBegin = total &- kept
    pointee.imageAwaitingSite = number
    pointee.imageOriginDepth = record.pointee.originDepth
    pointee.imageContextAddress = context
    pointee.imageTaskAddress = task
    frames[0] = ImageFrame(
      place: place, hash: StackHash.of(rows + Int(pointee.rowsBegin), count: kept), row: 0,
      checkCount: 0, depth: total, needsFramePointer: false)
    return true
  }

  /// The same for a frame that an executor has called: the last of so many that were stepped, behind which
  /// the executor's is.
  @inline(never)
  private func beginExecuted(
    _ count: Int, _ registers: UnsafePointer<tracer_registers>, _ place: FramePlace,
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>,
    _ reader: RowReader
  ) -> Bool {
    guard count > 0 else { return false }
    let executor = Int((reader.rows + Int(stepped[count].row)).pointee.executor)
    guard executor != 0 else { return false }
    var kept = KeptRegisters(registers)
    var context: UInt = 0
    for position in 0..<count {
      context = kept.addresses[0]
      let places = (reader.rows + Int(stepped[position].row)).pointee.kept
      guard places.isFit,
        kept.step(
          places, from: stepped[position &+ 1].place.stackPointer, &thread.pointee.readable)
      else { return false }
    }
    return begin(
      awaitedAt: context, of: kept.addresses[executor &- 1], place, core, thread)
  }

  /// Makes the image of what was stepped, on top of what is still the same.
  @inline(__always)
  private func compose(_ steppedCount: Int, on imageTop: Int, _ reader: RowReader) -> StepOutcome {
    var count = steppedCount
    var top = imageTop
    guard top &+ count < StackCache.frameLimit,
      Int(frames[top].depth) &+ count < StackCache.frameLimit
    else {
      forget()
      return .complex
    }
    while count > 0 {
      count &-= 1
      top &+= 1
      append(stepped[count], at: top, reader)
    }
    pointee.frameCount = UInt32(truncatingIfNeeded: top &+ 1)
    return .stepped
  }

  /// Whether a frame of the image, above one, is where the walk is: 0 where it is and all that the
  /// walk would read from there on is unchanged, else the first frame out of which a step would lead
  /// elsewhere than it did; below 0 where there is none. Leaves `top` at the frame, or at the next one
  /// that may be met.
  @inline(__always)
  private func meet(
    _ top: inout Int, _ place: FramePlace, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Int {
    while top > 0, frames[top].place.stackPointer < place.stackPointer { top &-= 1 }
    guard top > 0, frames[top].place.stackPointer == place.stackPointer,
      frames[top].place.counter == place.counter,
      !frames[top].needsFramePointer || frames[top].place.framePointer == place.framePointer
    else { return -1 }
    let changed = firstChange(from: top)
    return changed != 0 || pointee.imageAwaitingSite == 0 || isStillAwaited(core, thread)
      ? changed : 1
  }

  /// Whether those await the outermost frame who did.
  @inline(never)
  private func isStillAwaited(
    _ core: UnsafeMutablePointer<Core>, _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Bool {
    // Where registers are kept that an executor's task is found by, depends on all frames.
    pointee.imageTaskAddress == 0
      && awaitingSite(stackWord(pointee.imageContextAddress), of: 0, core, thread)
        == pointee.imageAwaitingSite
  }

  /// The first frame, from one on outwards, out of which a step would lead elsewhere than it did, or
  /// 1 where the outermost would; 0 where there is none.
  @inline(__always)
  private func firstChange(from frame: Int) -> Int {
    var check = Int(frames[frame].checkCount)
    while check > 0 {
      check &-= 1
      if stackWord(checks[check].address) != checks[check].value {
        var changed = frame
        while changed > 1, frames[changed &- 1].checkCount > check { changed &-= 1 }
        return changed
      }
    }
    return 0
  }

  /// Adds a frame to the image, whose caller is the frame before.
  @inline(__always)
  private func append(_ stepped: SteppedFrame, at index: Int, _ reader: RowReader) {
    let caller = frames + (index &- 1)
    let row = reader.rows + Int(stepped.row)
    var checkCount = Int(caller.pointee.checkCount)
    var needs = false
    if row.pointee.flags.contains(.async) {
      // What it keeps is told by who awaits it.
      needs = true
    } else {
      // A counter of zero was read, and may be something else the next time.
      needs = noteStep(
        stepped.place, row, caller,
        isOutermost: index == 1 && pointee.imageAwaitingSite == 0
          && caller.pointee.place.counter != 0, &checkCount)
    }
    var hash = caller.pointee.hash
    var depth = caller.pointee.depth
    if !row.pointee.flags.contains(.own) {
      hash = StackHash.extended(hash, by: stepped.row)
      rows[Int(depth)] = stepped.row
      depth &+= 1
    }
    frames[index] = ImageFrame(
      place: stepped.place, hash: hash, row: stepped.row,
      checkCount: UInt32(truncatingIfNeeded: checkCount), depth: depth, needsFramePointer: needs)
  }

  /// Notes what a step out of a frame has read, the last word first; answers whether rbp had a part in
  /// finding it or its callers.
  @inline(__always)
  private func noteStep(
    _ place: FramePlace, _ row: UnsafeMutablePointer<Row>,
    _ caller: UnsafeMutablePointer<ImageFrame>, isOutermost: Bool, _ checkCount: inout Int
  ) -> Bool {
    let flags = row.pointee.flags
    let needs = row.pointee.cfaRule != .stackPointer || flags.rawValue & Row.Flags.usesRBP != 0
    if isOutermost { return needs && flags.contains(.guess) }
    let frame = caller.pointee.place.stackPointer
    note(frame &- 8, UInt(caller.pointee.place.counter), &checkCount)
    let saves = flags.contains(.savesRBP) || flags.contains(.savesRBPAtRBP)
    if saves, caller.pointee.needsFramePointer {
      let from = flags.contains(.savesRBP) ? frame : place.framePointer
      note(
        from &+ UInt(bitPattern: Int(row.pointee.rbpOffset)), caller.pointee.place.framePointer,
        &checkCount)
    }
    if row.pointee.cfaRule == .wordAtFramePointer {
      note(place.framePointer &+ UInt(bitPattern: Int(row.pointee.cfaOffset)), frame, &checkCount)
    }
    return needs || !saves && caller.pointee.needsFramePointer
  }

  @inline(__always)
  private func note(_ address: UInt, _ value: UInt, _ checkCount: inout Int) {
    checks[checkCount] = StackCheck(address: address, value: value)
    checkCount &+= 1
  }

  // MARK: What the image shows

  @inline(__always)
  private var last: UnsafeMutablePointer<ImageFrame> { frames + Int(pointee.frameCount &- 1) }

  /// Frames of the stack in the image.
  var imageTotal: UInt32 { last.pointee.depth }

  /// The stack in the image as a site: its innermost frames up to a limit.
  func imageSite(
    _ sites: borrowing SiteTable, thread: UInt32, limit: UInt32, _ isNew: inout Bool
  ) -> UInt32 {
    let total = last.pointee.depth
    guard total > limit else {
      return sites.intern(
        rows, count: total, total: total, isBroken: false, thread: thread,
        hash: last.pointee.hash, &isNew)
    }
    if pointee.windowLength != limit {
      pointee.windowPower = StackHash.power(limit)
      pointee.windowLength = limit
    }
    let first = total &- limit
    return sites.intern(
      rows + Int(first), count: limit,
      total: StackWalk.total(
        total &- pointee.imageOriginDepth, behind: pointee.imageOriginDepth, limit: limit),
      isBroken: false,
      thread: thread,
      hash: last.pointee.hash &- hash(before: first) &* pointee.windowPower, &isNew)
  }

  /// The hash of the rows below a depth.
  private func hash(before depth: UInt32) -> UInt64 {
    // In the part that is another stack's no frame keeps it.
    if depth < frames[0].depth {
      return StackHash.of(rows + Int(pointee.rowsBegin), count: depth &- pointee.rowsBegin)
    }
    var frame = last - Int(last.pointee.depth &- depth)
    while frame.pointee.depth > depth { frame -= 1 }
    return frame.pointee.hash
  }
}
