// SPDX-License-Identifier: Apache-2.0
// Times as text, without a calendar library: always UTC.

/// Moments in UTC.
public enum UTC {
  /// `2026-11-21T10:27:57Z` for nanoseconds since 1970.
  static func text(nanoseconds: Int) -> String {
    text(seconds: nanoseconds.dividedRoundingDown(by: 1_000_000_000).quotient)
  }

  private static func text(seconds: Int) -> String {
    let (day, time) = seconds.dividedRoundingDown(by: 86_400)
    let date = civilDate(daysSince1970: day)
    return "\(pad(date.year, 4))-\(pad(date.month, 2))-\(pad(date.day, 2))T"
      + "\(pad(time / 3600, 2)):\(pad(time / 60 % 60, 2)):\(pad(time % 60, 2))Z"
  }

  /// `2026-11-21T10:27:57.123456Z` for microseconds since 1970.
  public static func text(microseconds: Int) -> String {
    let (seconds, fraction) = microseconds.dividedRoundingDown(by: 1_000_000)
    return "\(text(seconds: seconds).dropLast()).\(pad(fraction, 6))Z"
  }

  /// `3 d 4 h`, `4 h 5 min`, `5 min 6 s` or `6.7 s`: the two units that matter.
  static func duration(nanoseconds: Int) -> String {
    let seconds = nanoseconds / 1_000_000_000
    if seconds >= 86_400 { return "\(seconds / 86_400) d \(seconds % 86_400 / 3600) h" }
    if seconds >= 3600 { return "\(seconds / 3600) h \(seconds % 3600 / 60) min" }
    if seconds >= 60 { return "\(seconds / 60) min \(seconds % 60) s" }
    return "\(seconds).\(nanoseconds / 100_000_000 % 10) s"
  }

  /// The Gregorian date of a day.
  ///
  /// Counts years from March, so that the leap day is a year's last, in eras of 400 years, which
  /// all have the same number of days.
  private static func civilDate(daysSince1970 day: Int) -> (year: Int, month: Int, day: Int) {
    let daysInEra = 146_097
    let (era, dayOfEra) = (day + 719_468).dividedRoundingDown(by: daysInEra)
    let yearOfEra =
      (dayOfEra - dayOfEra / 1460 + dayOfEra / 36_524 - dayOfEra / (daysInEra - 1)) / 365
    let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
    let monthFromMarch = (5 * dayOfYear + 2) / 153
    let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
    return (
      year: era * 400 + yearOfEra + (month <= 2 ? 1 : 0), month: month,
      day: dayOfYear - (153 * monthFromMarch + 2) / 5 + 1
    )
  }

  private static func pad(_ number: Int, _ width: Int) -> String {
    let digits = "\(number)"
    return String(repeating: "0", count: max(width - digits.count, 0)) + digits
  }
}

extension Int {
  /// Division that rounds down also below zero: times before 1970. The remainder is not made of the product, which
  /// is less than any number where the number is among the least.
  fileprivate func dividedRoundingDown(by divisor: Int) -> (quotient: Int, remainder: Int) {
    let (quotient, remainder) = quotientAndRemainder(dividingBy: divisor)
    return remainder < 0 ? (quotient - 1, remainder + divisor) : (quotient, remainder)
  }
}
