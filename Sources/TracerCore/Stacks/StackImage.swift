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

/// How far a walk has come that looks for the image of the last one.
struct StackWay {
  var place: FramePlace
  var range: ReadableRange
  /// The frame of the image that may be met next.
  var top: UnsafeMutablePointer<ImageFrame>
  /// Frames that were stepped.
  var count: Int
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
  /// Cost: some 250 instructions, about 120 for each frame that changed and 5 for each that did not.
  @inline(never)
  func follow(
    _ registers: UnsafePointer<tracer_registers>, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> StepOutcome {
    // Further down it is as deep: 2,048 steps in vain, before a whole walk takes them again.
    if UInt(bitPattern: registers) <= pointee.overlongStart { return .complex }
    let reader = core.pointee.rows.reader
    var way = StackWay(
      place: FramePlace(registers), range: thread.pointee.readable,
      top: frames + (Int(pointee.frameCount) &- 1), count: 0)
    way.range.begin(at: UInt(bitPattern: registers))
    var outcome = StepOutcome.stepped
    while outcome == .stepped {
      stepPlainly(&way, reader)
      var number: UInt32 = 0
      let changed = meet(&way, core, thread)
      if changed == 0 {
        thread.pointee.readable = way.range
        return compose(way.count, on: way.top - frames, reader.rows)
      }
      if changed > 0 {
        // Up to there all is as it was.
        take(to: changed, &way, reader)
        way.top = frames + (changed &- 1)
        number = frames[changed].row
      } else {
        outcome = core.pointee.rows.find(
          way.place.counter, reader, own: core.pointee.ownStart..<core.pointee.ownEnd, &number)
        if outcome != .stepped { break }
      }
      if way.count >= StackWalk.stepLimit {
        pointee.overlongStart = UInt(bitPattern: registers)
        outcome = .complex
        break
      }
      stepped[way.count] = SteppedFrame(place: way.place, row: number)
      way.count &+= 1
      let row = reader.rows + Int(number)
      outcome = way.place.guessLeavesPage(row) ? .complex : way.place.step(row, &way.range)
    }
    thread.pointee.readable = way.range
    switch outcome {
    case .awaited:
      guard begin(awaitedAt: way.place.framePointer &- 8, of: 0, way.place, core, thread) else {
        return .complex
      }
      return compose(way.count, on: 0, reader.rows)
    case .complex:
      guard beginExecuted(way.count &- 1, registers, way.place, core, thread, reader) else {
        return .complex
      }
      return compose(way.count &- 1, on: 0, reader.rows)
    case .ended(.outermost):
      guard way.count < StackCache.frameLimit else { return .complex }
      begin(at: way.place)
      return compose(way.count, on: 0, reader.rows)
    default: return outcome
    }
  }

  /// Steps by plain rows, through what was found readable, up to a frame that may be the image's or that takes
  /// more than that; most steps do not.
  ///
  /// A function of its own, and without calls: where it is keeps to registers.
  @inline(never)
  private func stepPlainly(_ way: inout StackWay, _ reader: RowReader) {
    let range = way.range
    let bottom = frames
    let end = stepped + StackWalk.stepLimit
    var place = way.place
    var top = way.top
    var step = stepped + way.count
    while step < end {
      while top > bottom, top.pointee.place.stackPointer < place.stackPointer { top -= 1 }
      if top > bottom, top.pointee.place.stackPointer == place.stackPointer,
        top.pointee.place.counter == place.counter
      {
        break
      }
      let number = reader.find(place.counter)
      let row = reader.rows + Int(number)
      let flags = row.pointee.flags
      guard number != 0, flags.rawValue & Row.Flags.special == 0 else { break }
      let base = row.pointee.cfaRule == .stackPointer ? place.stackPointer : place.framePointer
      let frame = base &+ UInt(bitPattern: Int(row.pointee.cfaOffset))
      guard frame &- place.stackPointer &- 1 < StackWalk.frameByteLimit,
        range.coversWord(frame &- 8)
      else { break }
      var framePointer = place.framePointer
      if flags.contains(.savesRBP) {
        let saved = frame &+ UInt(bitPattern: Int(row.pointee.rbpOffset))
        guard range.coversWord(saved) else { break }
        framePointer = stackWord(saved)
      }
      step.pointee = SteppedFrame(place: place, row: number)
      step += 1
      place.counter = UInt64(stackWord(frame &- 8))
      place.stackPointer = frame
      place.framePointer = framePointer
    }
    way.place = place
    way.top = top
    way.count = step - stepped
  }

  /// Takes frames of the image as if they had been stepped, from the one that was met to the one whose
  /// caller has changed; the way goes on there.
  private func take(to changed: Int, _ way: inout StackWay, _ reader: RowReader) {
    var frame = way.top - frames
    while frame > changed, way.count < StackWalk.stepLimit {
      let row = frames[frame].row
      stepped[way.count] = SteppedFrame(place: way.place, row: row)
      way.count &+= 1
      frame &-= 1
      // What rbp is has not been kept where no caller needed it.
      let flags = (reader.rows + Int(row)).pointee.flags
      let offset = UInt(bitPattern: Int((reader.rows + Int(row)).pointee.rbpOffset))
      let caller = frames[frame].place
      if flags.contains(.savesRBP) {
        way.place.framePointer = stackWord(caller.stackPointer &+ offset)
      } else if flags.contains(.savesRBPAtRBP) {
        way.place.framePointer = stackWord(way.place.framePointer &+ offset)
      }
      way.place.stackPointer = caller.stackPointer
      way.place.counter = caller.counter
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
  private func compose(
    _ count: Int, on top: Int, _ rowBase: UnsafeMutablePointer<Row>
  ) -> StepOutcome {
    guard top &+ count < StackCache.frameLimit,
      Int(frames[top].depth) &+ count < StackCache.frameLimit
    else {
      forget()
      return .complex
    }
    append(count, behind: frames + top, rowBase)
    pointee.frameCount = UInt32(truncatingIfNeeded: top &+ count &+ 1)
    return .stepped
  }

  /// Adds the frames that were stepped to the image, behind a caller's.
  ///
  /// A function of its own: it has all registers for itself.
  @inline(never)
  private func append(
    _ count: Int, behind caller: UnsafeMutablePointer<ImageFrame>,
    _ rowBase: UnsafeMutablePointer<Row>
  ) {
    var frame = caller
    var last = frame.pointee
    var step = stepped + count
    while step > stepped {
      step -= 1
      frame += 1
      let row = rowBase + Int(step.pointee.row)
      let flags = row.pointee.flags.rawValue
      guard flags & (Row.Flags.special | Row.Flags.own.rawValue) == 0, frame > frames + 1 else {
        appendSpecially(step.pointee, at: frame, row)
        last = frame.pointee
        continue
      }
      // What a step out of it has read, the last word first.
      var check = checks + Int(last.checkCount)
      let end = last.place.stackPointer
      check.pointee = StackCheck(address: end &- 8, value: UInt(last.place.counter))
      last.checkCount &+= 1
      if flags & Row.Flags.savesRBP.rawValue != 0 {
        if last.needsFramePointer {
          check += 1
          check.pointee = StackCheck(
            address: end &+ UInt(bitPattern: Int(row.pointee.rbpOffset)),
            value: last.place.framePointer)
          last.checkCount &+= 1
        }
        last.needsFramePointer = false
      }
      if row.pointee.cfaRule != .stackPointer { last.needsFramePointer = true }
      rows[Int(last.depth)] = step.pointee.row
      last.depth &+= 1
      last.hash = StackHash.extended(last.hash, by: step.pointee.row)
      last.row = step.pointee.row
      last.place = step.pointee.place
      frame.pointee = last
    }
  }

  /// Whether a frame of the image, above one, is where the walk is: 0 where it is and all that the
  /// walk would read from there on is unchanged, else the first frame out of which a step would lead
  /// elsewhere than it did; below 0 where there is none. The frame is then the top of the way, or the next
  /// one that may be met.
  @inline(__always)
  private func meet(
    _ way: inout StackWay, _ core: UnsafeMutablePointer<Core>,
    _ thread: UnsafeMutablePointer<ThreadState>
  ) -> Int {
    let place = way.place
    var top = way.top
    while top > frames, top.pointee.place.stackPointer < place.stackPointer { top -= 1 }
    way.top = top
    guard top > frames, top.pointee.place.stackPointer == place.stackPointer,
      top.pointee.place.counter == place.counter,
      !top.pointee.needsFramePointer || top.pointee.place.framePointer == place.framePointer
    else { return -1 }
    let changed = firstChange(from: top - frames)
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
    // By fours while all are what they were, which is nearly always to the end; each only after the one before it.
    while check >= 4 {
      let four = checks + (check &- 4)
      if four[3].isOther || four[2].isOther || four[1].isOther || four[0].isOther { break }
      check &-= 4
    }
    while check > 0 {
      check &-= 1
      if checks[check].isOther {
        var changed = frame
        while changed > 1, frames[changed &- 1].checkCount > check { changed &-= 1 }
        return changed
      }
    }
    return 0
  }

  /// The same for one frame of any kind.
  @inline(never)
  private func appendSpecially(
    _ stepped: SteppedFrame, at frame: UnsafeMutablePointer<ImageFrame>,
    _ row: UnsafeMutablePointer<Row>
  ) {
    let caller = frame - 1
    var checkCount = Int(caller.pointee.checkCount)
    var needs = false
    if row.pointee.flags.contains(.async) {
      // What it keeps is told by who awaits it.
      needs = true
    } else {
      // A counter of zero was read, and may be something else the next time.
      needs = noteStep(
        stepped.place, row, caller,
        isOutermost: frame == frames + 1 && pointee.imageAwaitingSite == 0
          && caller.pointee.place.counter != 0, &checkCount)
    }
    var hash = caller.pointee.hash
    var depth = caller.pointee.depth
    if !row.pointee.flags.contains(.own) {
      hash = StackHash.extended(hash, by: stepped.row)
      rows[Int(depth)] = stepped.row
      depth &+= 1
    }
    frame.pointee = ImageFrame(
      place: stepped.place, hash: hash, row: stepped.row,
      checkCount: UInt32(truncatingIfNeeded: checkCount), depth: depth, needsFramePointer: needs)
  }

  /// Notes what a step out of a frame has read, the last word first; answers whether rbp had a part in
  /// finding it or its callers.
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
