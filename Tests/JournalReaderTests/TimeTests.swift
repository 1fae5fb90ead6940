// SPDX-License-Identifier: Apache-2.0
// Moments and spans as people write them.

import Foundation
import Testing

@testable import JournalReader

/// 2026-11-21 10:27:57.5 UTC.
private let present = 1_795_256_877_500_000

@Suite struct `Times as journalctl takes them` {
  @Test(arguments: [
    ("now", 0), ("-1h", -3_600_000_000), ("+90s", 90_000_000), ("10 min ago", -600_000_000),
    ("2h 30min ago", -9_000_000_000), ("-1.5h", -5_400_000_000), ("-90", -90_000_000),
    ("1 week ago", -604_800_000_000), ("@1795256877", -500_000), ("@1795256878.25", 750_000),
    ("2026-11-21 10:27:57 UTC", -500_000), ("2026-11-21T10:27:57.5Z", 0),
    ("2026-11-21 UTC", -37_677_500_000), ("  now ", 0), ("10:27 UTC", -57_500_000),
  ])
  func `moments`(text: String, difference: Int) throws {
    #expect(try JournalTime.microseconds(text, now: present) == present + difference)
  }

  @Test(arguments: [
    ("2026-11-21", (2026, 11, 21, 0, 0, 0)), ("2026-11-21 10:00", (2026, 11, 21, 10, 0, 0)),
    ("2026-02-28 23:59:59", (2026, 2, 28, 23, 59, 59)),
  ])
  func `without a zone they are local`(
    text: String, parts: (Int, Int, Int, Int, Int, Int)
  ) throws {
    let date = DateComponents(
      calendar: Calendar(identifier: .gregorian), year: parts.0, month: parts.1, day: parts.2,
      hour: parts.3, minute: parts.4, second: parts.5
    ).date!
    #expect(
      try JournalTime.microseconds(text, now: present)
        == Int(date.timeIntervalSince1970) * 1_000_000)
  }

  @Test func `days begin at midnight`() throws {
    let calendar = Calendar(identifier: .gregorian)
    let today = calendar.startOfDay(for: Date(timeIntervalSince1970: 1_795_256_877.5))
    for (name, days) in [("yesterday", -1), ("today", 0), ("tomorrow", 1)] {
      let day = calendar.date(byAdding: .day, value: days, to: today)!
      #expect(
        try JournalTime.microseconds(name, now: present)
          == Int(day.timeIntervalSince1970) * 1_000_000)
    }
  }

  @Test(arguments: [
    "", "soon", "2026-13-01", "2026-02-30", "26-11-21", "10", "25:00", "10:60", "-", "-1 parsec",
    "ago", "@", "@x", "2026-11-21 10:00:00.x", "2026-11-21 10:00 11:00", "10:00 2026-11-21",
    "-99999999999999y", "@1e400", "١٢:00",
  ])
  func `what is no time is an error that names the ways to write one`(text: String) {
    #expect {
      try JournalTime.microseconds(text, now: present)
    } throws: {
      "\($0)".hasPrefix("'\(text)' is no time; times are written as ")
    }
  }

  @Test func `spans`() throws {
    #expect(try JournalTime.span("30d") == 30 * 86_400_000_000)
    #expect(try JournalTime.span("1h 30 min") == 5_400_000_000)
    #expect(try JournalTime.span("90") == 90_000_000)
    #expect(throws: JournalError.self) { try JournalTime.span("1 parsec") }
    #expect(throws: JournalError.self) { try JournalTime.span("-5min") }
  }
}
