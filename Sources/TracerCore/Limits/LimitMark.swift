// SPDX-License-Identifier: Apache-2.0
// The marks at which something happens by itself, as HEAPTAP_LIMIT and HEAPTAP_START name them.

/// A mark: a share of the limit, or a size of the process's own memory.
package struct LimitMark {
  /// Of the limit; 0 where the mark is a size.
  package var percent: UInt32 = 0
  /// Of the process's own memory; 0 where the mark is a share.
  package var bytes: UInt64 = 0

  package init() {}

  package var isSet: Bool { percent != 0 || bytes != 0 }

  /// Whether another mark says more, where both are crossed: the higher one, and a share of the limit
  /// more than a size.
  func isBelow(_ other: LimitMark) -> Bool {
    percent != other.percent ? percent < other.percent : bytes < other.bytes
  }

  /// How far below itself usage must fall before a mark counts again: ten points, or a tenth.
  package static var hysteresisPercent: UInt32 { 10 }

  /// As the settings would name it: `80%`, `512M`.
  package func describe(into text: inout TextBuffer) {
    guard percent == 0 else {
      text.append(decimal: UInt64(percent))
      return text.append("%")
    }
    let units: StaticString = "KMGT"
    var (value, unit) = (bytes, 0)
    while unit < 4, value != 0, value & 1023 == 0 {
      value >>= 10
      unit &+= 1
    }
    text.append(decimal: value)
    if unit > 0 { text.append(units.utf8Start[unit &- 1]) }
  }

  /// Reads a mark, and answers what follows it; `nil` where there is none.
  package static func read(
    _ text: UnsafePointer<CChar>
  ) -> (LimitMark, UnsafePointer<CChar>)? {
    guard let (value, rest) = Settings.digits(text), value > 0 else { return nil }
    var mark = LimitMark()
    if rest.pointee == 0x25 {
      guard value <= 100 else { return nil }
      mark.percent = UInt32(value)
      return (mark, rest + 1)
    }
    // A number alone would be so many bytes, and is a share without its sign more likely.
    guard let (bytes, end) = size(value, rest), end != rest else { return nil }
    mark.bytes = bytes
    return (mark, end)
  }

  /// A size in bytes of a number and the unit that may follow it, which is binary: K, M, G or T.
  package static func size(
    _ value: UInt64, _ unit: UnsafePointer<CChar>
  ) -> (UInt64, UnsafePointer<CChar>)? {
    let shift: UInt64
    switch UInt8(bitPattern: unit.pointee) {
    case 0x4b, 0x6b: shift = 10
    case 0x4d, 0x6d: shift = 20
    case 0x47, 0x67: shift = 30
    case 0x54, 0x74: shift = 40
    default: return (value, unit)
    }
    guard value < 1 << (62 &- shift) else { return nil }
    return (value << shift, unit + 1)
  }
}

/// The marks of HEAPTAP_LIMIT, in the order that they were given.
package struct LimitMarks {
  package static var countLimit: Int { 8 }

  package private(set) var count = 0
  private var marks = InlineArray<8, LimitMark>(repeating: LimitMark())

  package init() {}

  package subscript(position: Int) -> LimitMark { marks[position] }

  mutating func append(_ mark: LimitMark) -> Bool {
    guard count < Self.countLimit else { return false }
    marks[count] = mark
    count &+= 1
    return true
  }

  /// The lowest share among the marks and another, in hundredths; 100 where none is one.
  package func lowestPercent(and other: LimitMark) -> UInt64 {
    var lowest: UInt64 = other.percent == 0 ? 100 : UInt64(other.percent)
    for position in 0..<count where marks[position].percent != 0 {
      lowest = min(lowest, UInt64(marks[position].percent))
    }
    return lowest
  }

  /// The marks that hold where nothing else is asked for.
  package static var standard: LimitMarks {
    var marks = LimitMarks()
    var mark = LimitMark()
    mark.percent = 80
    _ = marks.append(mark)
    return marks
  }

  /// Reads a list of marks, or `off`; `nil` where it is neither.
  package static func read(_ text: UnsafePointer<CChar>) -> LimitMarks? {
    var marks = LimitMarks()
    if Settings.isEqual(text, "off") { return marks }
    var rest = text
    while true {
      guard let (mark, end) = LimitMark.read(rest), marks.append(mark) else { return nil }
      if end.pointee == 0 { return marks }
      guard end.pointee == 0x2c else { return nil }
      rest = end + 1
    }
  }
}

/// How many of the dumps that were written by themselves are kept.
package struct Retention {
  /// Of one program; `UInt64.max` for all.
  package var count: UInt64 = 16
  package var bytes: UInt64 = 256 << 20

  package init() {}

  package var keepsAll: Bool { count == UInt64.max && bytes == UInt64.max }

  /// Reads `COUNT,SIZE`, either alone, or `off`; a size has a unit.
  package static func read(_ text: UnsafePointer<CChar>) -> Retention? {
    var retention = Retention()
    if Settings.isEqual(text, "off") {
      retention.count = UInt64.max
      retention.bytes = UInt64.max
      return retention
    }
    var rest = text
    var (hasCount, hasBytes) = (false, false)
    while true {
      guard let (value, unit) = Settings.digits(rest), value > 0,
        let (size, end) = LimitMark.size(value, unit)
      else { return nil }
      let isSize = end != unit
      guard isSize ? !hasBytes : !hasCount else { return nil }
      if isSize {
        retention.bytes = size
        hasBytes = true
      } else {
        retention.count = value
        hasCount = true
      }
      if end.pointee == 0 { break }
      guard end.pointee == 0x2c else { return nil }
      rest = end + 1
    }
    // Who names one of the two has the other without a bound.
    if !hasCount { retention.count = UInt64.max }
    if !hasBytes { retention.bytes = UInt64.max }
    return retention
  }
}
