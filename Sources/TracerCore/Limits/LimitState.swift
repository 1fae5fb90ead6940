// SPDX-License-Identifier: Apache-2.0
// What is known of the limit that the process is nearest to, and which marks it has crossed.

import CTracerPlatform
import Synchronization

/// A limit, and how near the memory that it applies to has come. All bytes.
package struct LimitReading {
  /// 0 where no limit is known.
  package var limit: UInt64 = 0
  /// What counts against the limit and the kernel cannot take back.
  package var usage: UInt64 = 0
  /// How fast usage has grown lately, in bytes a second.
  package var rate: UInt64 = 0

  package init() {}

  package var isKnown: Bool { limit != 0 }
  package var headroom: UInt64 { limit > usage ? limit &- usage : 0 }
  /// How full it is, in thousandths.
  package var thousandths: UInt64 {
    limit == 0 ? 0 : UInt64(min(Double(usage) / Double(limit) * 1000, 10_000))
  }
}

/// The state of the watch, which the worker alone changes. All zero is one that has not looked yet.
package struct LimitState: ~Copyable {
  /// The limit with the least headroom as of the last look; at a crossing, the one that was crossed.
  package var reading: LimitReading
  var source: LimitSource
  /// The mark of the last crossing.
  package var mark: LimitMark

  var place: CgroupPlace
  var fingerprint: UInt64
  /// When the place was last looked for; 0 for never.
  var placedAt: UInt64
  var input: InlineArray<8192, UInt8>

  package var crossings: Crossings
  package var pace: GrowthPace
  /// The mark of traced bytes that threads were last given to wake the worker at; 0 for none.
  var wakeAtBytes: Int64
}

/// Which marks have been crossed, and when. All zero is none.
package struct Crossings {
  /// Between two crossings of one mark, in nanoseconds.
  package static var interval: UInt64 { 60_000_000_000 }
  /// The place of the mark at which recording begins, after those of HEAPTAP_LIMIT.
  private static var startPosition: Int { 8 }

  /// A bit for each mark that is crossed, until usage has fallen well below it.
  private var crossed: UInt32 = 0
  private var times = InlineArray<9, UInt64>(repeating: 0)
  /// Where recording began above every mark, a last one at half of what was left; in thousandths.
  private var lateThousandths: UInt64 = 0

  package init() {}

  /// Where usage stands, as marks see it.
  package struct Level {
    package var thousandths: UInt64
    package var ownBytes: UInt64

    package init(thousandths: UInt64, ownBytes: UInt64) {
      self.thousandths = thousandths
      self.ownBytes = ownBytes
    }

    func reaches(_ mark: LimitMark) -> Bool {
      mark.percent != 0
        ? thousandths >= UInt64(mark.percent) &* 10 : mark.isSet && ownBytes >= mark.bytes
    }

    /// Whether usage is so far below a mark that reaching it again is news.
    func isWellBelow(_ mark: LimitMark) -> Bool {
      guard mark.percent != 0 else { return ownBytes < mark.bytes &- mark.bytes / 10 }
      let low = UInt64(mark.percent)
      let points = UInt64(LimitMark.hysteresisPercent)
      return thousandths < (low > points ? low &- points : low / 2) &* 10
    }
  }

  /// Takes note of a look, and answers the highest mark that it finds newly crossed.
  package mutating func note(
    _ level: Level, _ marks: LimitMarks, now: UInt64
  ) -> LimitMark? {
    var highest: LimitMark?
    var position = 0
    while position < marks.count {
      let mark = marks[position]
      if note(level, mark, position, now), highest.map({ $0.isBelow(mark) }) ?? true {
        highest = mark
      }
      position &+= 1
    }
    if highest == nil, lateThousandths != 0, level.thousandths >= lateThousandths {
      var mark = LimitMark()
      mark.percent = UInt32(truncatingIfNeeded: level.thousandths / 10)
      highest = mark
    }
    if highest != nil || (lateThousandths != 0 && !hasCrossedAll(marks)) { lateThousandths = 0 }
    return highest
  }

  /// Whether the mark at which recording begins is newly crossed.
  package mutating func noteStart(_ level: Level, _ mark: LimitMark, now: UInt64) -> Bool {
    mark.isSet && note(level, mark, Self.startPosition, now)
  }

  private mutating func note(
    _ level: Level, _ mark: LimitMark, _ position: Int, _ now: UInt64
  ) -> Bool {
    let bit = UInt32(1) << UInt32(position)
    guard level.reaches(mark) else {
      if level.isWellBelow(mark) { crossed &= ~bit }
      return false
    }
    guard crossed & bit == 0, times[position] == 0 || now &- times[position] >= Self.interval else {
      return false
    }
    crossed |= bit
    times[position] = now
    return true
  }

  private func hasCrossedAll(_ marks: LimitMarks) -> Bool {
    let all = UInt32(1) << UInt32(marks.count) &- 1
    return crossed & all == all
  }

  /// Whether a mark is still ahead, for which the worker must be quick.
  package func isWaiting(_ marks: LimitMarks) -> Bool {
    marks.count > 0 && (lateThousandths != 0 || !hasCrossedAll(marks))
  }

  /// Recording begins. Where every mark is behind, there is one more, halfway to the limit: whoever
  /// starts because the journal said how full it is must not end without a dump.
  package mutating func recordingBegan(at thousandths: UInt64, _ marks: LimitMarks) {
    lateThousandths = 0
    guard marks.count > 0, hasCrossedAll(marks), thousandths < 1000 else { return }
    lateThousandths = 1000 &- (1000 &- thousandths) / 2
  }
}

/// How fast usage grows, and how long the worker may sleep because of it. All zero is not known.
package struct GrowthPace {
  /// The growth by mmap that is reckoned with when none has been seen yet, in bytes a second.
  package static var expectedRate: UInt64 { 1_000_000_000 }
  private static var shortestNanoseconds: UInt64 { 1_000_000 }
  private static var longestNanoseconds: UInt64 { 1_000_000_000 }

  private var usage: UInt64 = 0
  private var time: UInt64 = 0
  /// What the usage is of.
  private var limitNumber: UInt64 = 0
  /// Smoothed over about 20 ms, and the fastest since recording began, in bytes a second.
  package private(set) var rate: UInt64 = 0
  private var fastest: UInt64 = 0

  package init() {}

  /// Takes note of a usage.
  ///
  /// - Parameter newNumber: Which limit it counts against. What two of them are used up to differs by
  ///   much, and is no growth.
  package mutating func note(
    _ now: UInt64, usage newUsage: UInt64, limitNumber newNumber: UInt64 = 0
  ) {
    let elapsed = now &- time
    let isSame = newNumber == limitNumber
    guard elapsed >= Self.shortestNanoseconds || !isSame else { return }
    defer { (time, usage, limitNumber) = (now, newUsage, newNumber) }
    guard time != 0, isSame else { return }
    let grown = newUsage > usage ? newUsage &- usage : 0
    let speed = Double(grown) / (Double(elapsed) / 1e9)
    let share = Double(elapsed) / (Double(elapsed) + 20e6)
    rate = UInt64(min(Double(rate) + (speed - Double(rate)) * share, 1e15))
    fastest = max(fastest, UInt64(min(speed, 1e15)))
  }

  /// Begins anew, with a recording.
  package mutating func reset() { fastest = 0 }

  /// How long a sleep may last, so that at twice the fastest growth half of the headroom is left.
  package func sleepNanoseconds(headroom: UInt64) -> UInt64 {
    let rate = 2 &* max(fastest, Self.expectedRate)
    let nanoseconds = Double(headroom) / Double(rate) * 1e9
    return UInt64(
      min(max(nanoseconds, Double(Self.shortestNanoseconds)), Double(Self.longestNanoseconds)))
  }

  /// At which traced bytes threads are to wake the worker; 0 for not until it has slept.
  ///
  /// Where it was woken and they have fallen below again, a program takes much memory and gives it
  /// back, which may go on all day: the worker would do nothing but look.
  ///
  /// - Parameter last: The mark that the worker was woken at; 0 where it has slept as long as it may.
  package static func wakeMark(last: Int64, published: Int64, headroom: UInt64) -> Int64 {
    last != 0 && published < last ? 0 : max(1, published &+ wakeStep(headroom: headroom))
  }

  /// After how many more traced bytes the worker is to look again.
  package static func wakeStep(headroom: UInt64) -> Int64 {
    Int64(min(max(headroom / 64, 64 << 10), 1 << 40))
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Appends where the limit of the last look comes from: a file's path, or a limit's name.
  package func appendLimitSource(to text: inout TextBuffer) {
    pointee.limits.source.append(to: &text)
  }
}
