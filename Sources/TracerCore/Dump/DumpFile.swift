// SPDX-License-Identifier: Apache-2.0
// A dump on its way to disk: whole under its name, or not there.

import CTracerPlatform

/// Bytes to a file through a buffer. The first error stays, and what follows it is dropped.
struct FileSink: ByteSink, ~Copyable {
  let descriptor: Int32
  private let buffer: UnsafeMutableRawPointer
  private let capacity: Int
  private var used = 0
  private(set) var error: Int32 = 0
  private(set) var byteCount = 0
  /// The last two boundaries, some way apart, and the one that is on disk with room behind it.
  private var marks: (older: SinkMark, newer: SinkMark) = (SinkMark(), SinkMark())
  private(set) var safeMark = SinkMark()

  init(_ descriptor: Int32, buffer: UnsafeMutableRawPointer, capacity: Int) {
    self.descriptor = descriptor
    self.buffer = buffer
    self.capacity = capacity
  }

  @inline(__always)
  mutating func append(_ byte: UInt8) {
    if used == capacity { flush() }
    buffer.storeBytes(of: byte, toByteOffset: used, as: UInt8.self)
    used &+= 1
  }

  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    for byte in bytes { append(byte) }
  }

  mutating func flush() {
    if error == 0, used > 0 {
      let result = System.write(descriptor, buffer, used)
      if result < 0 { error = Int32(truncatingIfNeeded: 0 &- result) }
    }
    byteCount &+= used
    used = 0
    guard error == 0 else { return }
    let isEarly = marks.newer.offset &+ SinkMark.room <= byteCount
    safeMark = isEarly ? marks.newer : marks.older
  }

  /// Bytes so far, those that wait in the buffer included.
  var position: Int { byteCount &+ used }

  /// Notes that the file could end here, if it must.
  mutating func mark(sites: Int, strings: UInt64) {
    guard position >= marks.newer.offset &+ 1024 else { return }
    marks = (marks.newer, SinkMark(offset: position, sites: sites, strings: strings))
  }
}

/// A place where a dump may be cut off and ended. All zero is none.
struct SinkMark {
  /// What the end of a dump takes, in bytes: behind a safe mark it fits into what is on disk already.
  static var room: Int { 256 }

  var offset = 0
  var sites = 0
  var strings: UInt64 = 0
}

/// The name of a dump: `20261121T102757.123456Z-redis-server-1234-7.pb`.
struct DumpName {
  /// Appends the name. Sorted as text, names are sorted by time.
  static func append(
    to text: inout TextBuffer, wall: UInt64, program: UnsafeRawBufferPointer, process: Int32,
    sequence: UInt64
  ) {
    appendTime(to: &text, wall)
    text.append(0x2d)
    appendProgram(to: &text, program)
    text.append(0x2d)
    text.append(decimal: UInt64(UInt32(bitPattern: process)))
    text.append(0x2d)
    text.append(decimal: sequence)
    text.append(".pb")
  }

  /// A program's name with only such bytes as need no care in a shell, at most 48.
  static func appendProgram(to text: inout TextBuffer, _ program: UnsafeRawBufferPointer) {
    for byte in program.prefix(48) {
      switch byte {
      case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2e, 0x5f, 0x2b, 0x2d: text.append(byte)
      default: text.append(0x5f)
      }
    }
    if program.isEmpty { text.append(0x5f) }
  }

  static func appendTime(to text: inout TextBuffer, _ wall: UInt64) {
    let seconds = wall / 1_000_000_000
    let (year, month, day) = civil(daysSinceEpoch: Int(seconds / 86400))
    text.append(decimal: UInt64(year), width: 4)
    text.append(decimal: UInt64(month), width: 2)
    text.append(decimal: UInt64(day), width: 2)
    text.append(0x54)
    text.append(decimal: seconds % 86400 / 3600, width: 2)
    text.append(decimal: seconds % 3600 / 60, width: 2)
    text.append(decimal: seconds % 60, width: 2)
    text.append(0x2e)
    text.append(decimal: wall % 1_000_000_000 / 1000, width: 6)
    text.append(0x5a)
  }

  /// The Gregorian date of a day since 1970-01-01, counting from 1 March so that a leap day is a
  /// year's last, in eras of 400 years or 146097 days.
  static func civil(daysSinceEpoch days: Int) -> (year: Int, month: Int, day: Int) {
    let shifted = days &+ 719_468
    let era = shifted / 146_097
    let dayOfEra = shifted &- era &* 146_097
    let yearOfEra =
      (dayOfEra &- dayOfEra / 1460 &+ dayOfEra / 36524 &- dayOfEra / 146_096) / 365
    let dayOfYear = dayOfEra &- (365 &* yearOfEra &+ yearOfEra / 4 &- yearOfEra / 100)
    let march = (5 &* dayOfYear &+ 2) / 153
    let month = march < 10 ? march &+ 3 : march &- 9
    return (
      yearOfEra &+ era &* 400 &+ (month <= 2 ? 1 : 0), month,
      dayOfYear &- (153 &* march &+ 2) / 5 &+ 1
    )
  }
}
