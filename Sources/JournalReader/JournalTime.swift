// SPDX-License-Identifier: Apache-2.0
// Moments and spans as journalctl takes them: systemd.time(7).

import Glibc

/// A moment as a person writes it, after systemd.time(7).
public enum JournalTime {
  /// Microseconds since 1970 for `2026-11-21`, `2026-11-21 10:00[:00[.5]]` (local time, or with
  /// `UTC` or `Z` after it), `10:00`, `now`, `today`, `yesterday`, `tomorrow`, `-1h`, `+5min`,
  /// `2h 30min ago` and `@1795256877`.
  ///
  /// - Parameter now: The present in the same unit.
  public static func microseconds(_ text: String, now: Int) throws(JournalError) -> Int {
    let text = text.trimmed
    if let result = moment(text, now: now) { return result }
    throw JournalError(
      .badTime,
      "'\(text)' is no time; times are written as '2026-11-21 10:00', 'yesterday' or '10 min ago'")
  }

  /// Microseconds of a span: `90`, `5min`, `2h 30min`, `30 days`. Without a unit, seconds.
  public static func span(_ text: String) throws(JournalError) -> Int {
    if let result = microseconds(ofSpan: text[...]) { return result }
    throw JournalError(
      .badTime, "'\(text)' is no span of time; spans are written as '90', '5min' or '2h 30min'")
  }

  /// The present.
  public static var now: Int {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return time.tv_sec * 1_000_000 + time.tv_nsec / 1000
  }

  private static func moment(_ text: String, now: Int) -> Int? {
    if text == "now" { return now }
    if let day = ["yesterday": -1, "today": 0, "tomorrow": 1][text] {
      return startOfDay(now, daysLater: day)
    }
    if text.hasPrefix("@") { return number(text.dropFirst(), of: 1_000_000) }
    if text.hasPrefix("-") { return sum(now, microseconds(ofSpan: text.dropFirst()), -1) }
    if text.hasPrefix("+") { return sum(now, microseconds(ofSpan: text.dropFirst()), 1) }
    if text.hasSuffix(" ago") { return sum(now, microseconds(ofSpan: text.dropLast(4)), -1) }
    return calendar(text, now: now)
  }

  private static func sum(_ now: Int, _ span: Int?, _ sign: Int) -> Int? {
    guard let span else { return nil }
    let (result, overflow) = now.addingReportingOverflow(sign * span)
    return overflow ? nil : result
  }

  private static func startOfDay(_ now: Int, daysLater days: Int) -> Int? {
    var parts = unsafe broken(now, isUTC: false)
    unsafe (parts.tm_hour, parts.tm_min, parts.tm_sec) = (0, 0, 0)
    unsafe parts.tm_mday += Int32(days)
    return unsafe joined(&parts, isUTC: false)
  }

  private static func broken(_ microseconds: Int, isUTC: Bool) -> tm {
    var seconds = time_t(microseconds / 1_000_000)
    var parts = unsafe tm()
    _ = unsafe isUTC ? gmtime_r(&seconds, &parts) : localtime_r(&seconds, &parts)
    return unsafe parts
  }

  private static func joined(_ parts: inout tm, isUTC: Bool) -> Int? {
    // Summer time or not is for the date to say.
    unsafe parts.tm_isdst = -1
    let seconds = unsafe isUTC ? timegm(&parts) : mktime(&parts)
    let (result, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
    return overflow ? nil : result
  }

  /// `2026-11-21`, `2026-11-21 10:00`, `2026-11-21T10:00:00.5Z`, `10:00`.
  private static func calendar(_ text: String, now: Int) -> Int? {
    var rest = text[...]
    var isUTC = false
    for suffix in [" UTC", "Z"] where rest.hasSuffix(suffix) {
      rest = rest.dropLast(suffix.count)
      isUTC = true
    }
    var words = rest.split(whereSeparator: { $0 == " " || $0 == "T" })[...]
    guard (1...2).contains(words.count) else { return nil }
    var parts = unsafe broken(now, isUTC: isUTC)
    unsafe (parts.tm_hour, parts.tm_min, parts.tm_sec) = (0, 0, 0)
    if let date = words.first, date.contains("-") {
      let fields = date.split(separator: "-", omittingEmptySubsequences: false)
      guard fields.count == 3, fields[0].count == 4, let year = digits(fields[0], 1900...9999),
        let month = digits(fields[1], 1...12), let day = digits(fields[2], 1...31)
      else { return nil }
      unsafe (parts.tm_year, parts.tm_mon, parts.tm_mday) = (year - 1900, month - 1, day)
      words = words.dropFirst()
    } else if words.count == 2 {
      return nil
    }
    var fraction = 0
    if let time = words.first {
      let fields = time.split(separator: ":", omittingEmptySubsequences: false)
      guard (2...3).contains(fields.count), let hour = digits(fields[0], 0...23),
        let minute = digits(fields[1], 0...59)
      else { return nil }
      unsafe (parts.tm_hour, parts.tm_min) = (hour, minute)
      if fields.count == 3 {
        let second = fields[2].split(separator: ".", maxSplits: 1)
        guard let whole = second.first.flatMap({ digits($0, 0...60) }) else { return nil }
        unsafe parts.tm_sec = whole
        if second.count == 2 {
          guard let part = number("0." + second[1], of: 1_000_000) else { return nil }
          fraction = part
        }
      }
    }
    let day = unsafe parts.tm_mday
    guard let result = unsafe joined(&parts, isUTC: isUTC) else { return nil }
    // The 31st of a month that has thirty days would be another day.
    return unsafe parts.tm_mday == day ? result + fraction : nil
  }

  private static func digits(_ text: Substring, _ range: ClosedRange<Int32>) -> Int32? {
    guard text.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let number = Int32(text) else {
      return nil
    }
    return range.contains(number) ? number : nil
  }

  /// A number with an optional fraction, in a unit.
  private static func number(_ text: some StringProtocol, of unit: Int) -> Int? {
    let isPlain =
      !text.isEmpty
      && text.utf8.allSatisfy {
        (0x30...0x39).contains($0) || $0 == UInt8(ascii: ".")
      }
    guard isPlain, let value = Double(String(text)) else { return nil }
    return Int(exactly: (value * Double(unit)).rounded())
  }

  private static let units: [(names: [String], microseconds: Int)] = [
    (["us", "usec", "µs"], 1), (["ms", "msec"], 1000),
    (["", "s", "sec", "second", "seconds"], 1_000_000),
    (["m", "min", "minute", "minutes"], 60_000_000),
    (["h", "hr", "hour", "hours"], 3_600_000_000), (["d", "day", "days"], 86_400_000_000),
    (["w", "week", "weeks"], 7 * 86_400_000_000),
    // As systemd counts them: the mean month and year.
    (["M", "month", "months"], 2_629_800_000_000), (["y", "year", "years"], 31_557_600_000_000),
  ]

  private static func microseconds(ofSpan text: Substring) -> Int? {
    var rest = text.drop { $0 == " " }
    guard !rest.isEmpty else { return nil }
    var sum = 0
    while !rest.isEmpty {
      let figure = rest.prefix { $0.isNumber || $0 == "." }
      rest = rest[figure.endIndex...].drop { $0 == " " }
      let name = rest.prefix { $0.isLetter }
      rest = rest[name.endIndex...].drop { $0 == " " }
      guard let unit = units.first(where: { $0.names.contains(String(name)) }),
        let part = number(figure, of: unit.microseconds)
      else { return nil }
      let (total, overflow) = sum.addingReportingOverflow(part)
      if overflow { return nil }
      sum = total
    }
    return sum
  }
}

extension String {
  fileprivate var trimmed: String {
    String(drop { $0 == " " }.reversed().drop { $0 == " " }.reversed())
  }
}
