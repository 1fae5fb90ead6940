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
  /// walk has to find out about, and leaves the image as it was.
  ///
  /// Cost: a dozen instructions, about 40 for each frame that changed and 4 for each that did not.
  @inline(never)
  func follow(
    _ registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable, own: Range<UInt64>,
    readable: inout ReadableRange
  ) -> StepOutcome {
    let reader = rows.reader
    readable.begin(at: UInt(bitPattern: registers))
    var place = FramePlace(registers)
    var top = Int(pointee.frameCount) &- 1
    var count = 0
    while true {
      if isMet(&top, place) { break }
      var number: UInt32 = 0
      var outcome = rows.find(place.counter, reader, own: own, &number)
      if outcome == .stepped {
        guard count < StackWalk.stepLimit else { return .complex }
        stepped[count] = SteppedFrame(place: place, row: number)
        count &+= 1
        outcome = place.step(reader.rows + Int(number), &readable)
      }
      if outcome == .stepped { continue }
      guard outcome == .ended(.outermost) else { return outcome }
      top = 0
      frames[0] = ImageFrame(
        place: place, hash: 0, row: 0, checkCount: 0, depth: 0, needsFramePointer: false,
        wasRead: place.counter == 0)
      pointee.elsewhereCount = 0
      break
    }
    guard top &+ count < StackCache.frameLimit else { return .complex }
    while count > 0 {
      count &-= 1
      top &+= 1
      append(stepped[count], at: top, reader)
    }
    pointee.frameCount = UInt32(truncatingIfNeeded: top &+ 1)
    return .stepped
  }

  /// Whether a frame of the image is where the walk is, and all that the walk would read from there
  /// on is unchanged. Leaves `top` at that frame, or else at the next one that may be met.
  @inline(__always)
  private func isMet(_ top: inout Int, _ place: FramePlace) -> Bool {
    while top > 0, frames[top].place.stackPointer < place.stackPointer { top &-= 1 }
    guard top > 0, frames[top].place.stackPointer == place.stackPointer,
      frames[top].place.counter == place.counter,
      !frames[top].needsFramePointer || frames[top].place.framePointer == place.framePointer
    else { return false }
    let changed = firstChange(from: top)
    guard changed != 0 else { return true }
    top = changed &- 1
    return false
  }

  /// The first frame, from one on outwards, out of which a step would lead elsewhere than it did; 0
  /// where there is none.
  @inline(__always)
  private func firstChange(from frame: Int) -> Int {
    var check = Int(frames[frame].checkCount)
    while check > 0 {
      check &-= 1
      if stackWord(checks[check].address) != checks[check].value {
        var changed = frame
        while frames[changed &- 1].checkCount > check { changed &-= 1 }
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
    let flags = row.pointee.flags
    var checkCount = Int(caller.pointee.checkCount)
    let isOutermost = index == 1 && !caller.pointee.wasRead
    var needs =
      row.pointee.cfaRule != .stackPointer || flags.rawValue & Row.Flags.usesRBP != 0
    if isOutermost {
      needs = needs && flags.contains(.guess)
    } else {
      // As a walk reads them, but the last one first.
      let frame = caller.pointee.place.stackPointer
      note(frame &- 8, UInt(caller.pointee.place.counter), &checkCount)
      if !flags.contains(.savesRBP), !flags.contains(.savesRBPAtRBP) {
        needs = needs || caller.pointee.needsFramePointer
      } else if caller.pointee.needsFramePointer {
        let from = flags.contains(.savesRBP) ? frame : stepped.place.framePointer
        note(
          from &+ UInt(bitPattern: Int(row.pointee.rbpOffset)), caller.pointee.place.framePointer,
          &checkCount)
      }
      if row.pointee.cfaRule == .wordAtFramePointer {
        note(
          stepped.place.framePointer &+ UInt(bitPattern: Int(row.pointee.cfaOffset)), frame,
          &checkCount)
      }
    }
    var hash = caller.pointee.hash
    var depth = caller.pointee.depth
    if !flags.contains(.own) {
      hash = StackHash.extended(hash, by: stepped.row)
      rows[Int(depth)] = stepped.row
      depth &+= 1
    }
    frames[index] = ImageFrame(
      place: stepped.place, hash: hash, row: stepped.row,
      checkCount: UInt32(truncatingIfNeeded: checkCount), depth: depth, needsFramePointer: needs,
      wasRead: true)
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
  func imageSite(_ sites: borrowing SiteTable, limit: UInt32, _ isNew: inout Bool) -> UInt32 {
    let total = last.pointee.depth
    guard total > limit else {
      return sites.intern(rows, count: total, total: total, hash: last.pointee.hash, &isNew)
    }
    if pointee.windowLength != limit {
      pointee.windowPower = StackHash.power(limit)
      pointee.windowLength = limit
    }
    var below = last - Int(limit)
    while below.pointee.depth > total &- limit { below -= 1 }
    return sites.intern(
      rows + Int(total &- limit), count: limit, total: total,
      hash: last.pointee.hash &- below.pointee.hash &* pointee.windowPower, &isNew)
  }
}
