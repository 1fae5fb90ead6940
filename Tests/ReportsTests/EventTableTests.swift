// SPDX-License-Identifier: Apache-2.0
// Events of the journal as lines and as JSON.

import HeapModel
import Testing

@testable import Reports

private func event(
  _ kind: HeapEvent.Kind, _ fields: KeyValuePairs<String, String> = [:],
  message: String = "a sentence\nand more", sender: HeapEvent.Sender = HeapEvent.Sender(userID: 0)
) -> HeapEvent {
  HeapEvent(
    kind, timeMicroseconds: 1_795_256_877_123_456, message: message, priority: 5,
    fields: fields.map { HeapEvent.Field($0.key, $0.value) }, sender: sender)
}

@Suite struct `Events as text` {
  private func line(
    _ event: HeapEvent, hosts: Bool = false, style: TextStyle = .plain,
    _ presence: DumpPresence? = nil
  ) -> Substring {
    var table = EventTable(showsHosts: hosts, style: style)
    // Without the time, which is in the reader's zone.
    return table.lines(of: [event]) { _ in presence }[0].dropFirst(21)
  }

  @Test func `the bar says how full it was, and has its width where that is not known`() {
    let usage = { (bytes: Int) in
      event(.limit, ["usage_bytes": "\(bytes)", "limit_bytes": "1000"], message: "")
    }
    #expect(line(usage(0)).contains("  ░░░░░░░░░░    0 %  "))
    #expect(line(usage(49)).contains("  ░░░░░░░░░░    5 %  "))
    #expect(line(usage(830)).contains("  ████████░░   83 %  "))
    #expect(line(usage(5000)).contains("  ██████████  500 %  "))
    #expect(line(usage(.max)).contains("  ██████████  999 %  "))
    let without = line(event(.started, ["program": "a", "pid": "7"]))
    #expect(without == "a[7]  started" + String(repeating: " ", count: 21) + "-    a sentence")
  }

  @Test func `columns are as wide as what has come needs`() {
    var table = EventTable(showsHosts: false)
    let short = event(.started, ["program": "a", "live_bytes": "1"])
    let long = event(.snapshot, ["program": "abcdefgh", "pid": "1234", "live_bytes": "1000"])
    let lines = table.lines(of: [short, long]) { _ in nil }
    #expect(lines[0].contains("  a               started   "))
    #expect(lines[1].contains("  abcdefgh[1234]  snapshot  "))
    #expect(table.lines(of: [short]) { _ in nil }[0] == lines[0])
  }

  @Test func `a dump is named with its mark, and with what has become of it`() {
    let limit = event(.limit, ["dump": "/a.pb", "mark": "80%"])
    #expect(line(limit, .present).hasSuffix("  at 80%: /a.pb"))
    #expect(line(limit, nil).hasSuffix("  at 80%: /a.pb"))
    #expect(line(limit, .missing).hasSuffix("  at 80%: /a.pb (missing)"))
  }

  @Test func `a unit that only the sender names is marked`() {
    let fields: KeyValuePairs = ["unit": "a.service", "pid": "1"]
    let sender = { (user: UInt32, unit: String?) in
      HeapEvent.Sender(host: "h", userID: user, unit: unit)
    }
    #expect(line(event(.armed, fields, sender: sender(0, nil))).hasPrefix("a.service[1]  "))
    #expect(line(event(.armed, fields, sender: sender(9, nil))).hasPrefix("a.service?[1]  "))
    #expect(
      line(event(.armed, fields, sender: sender(9, "b.service"))).hasPrefix("b.service[1]  "))
    // A report is about another process than its sender.
    #expect(
      line(event(.report, fields, sender: sender(9, "b.service"))).hasPrefix("a.service?[1]  "))
    #expect(
      line(event(.report, fields, sender: sender(0, "b.service")), hosts: true)
        .hasPrefix("h  a.service[1]  "))
  }

  @Test func `control bytes are replaced`() {
    let hostile = "a\u{1b}[31m\u{9b}\u{202e}\r"
    let text = line(
      event(
        .limit, ["unit": hostile, "dump": hostile, "mark": hostile],
        sender: HeapEvent.Sender(host: hostile)), hosts: true)
    #expect(
      text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7f...0x9f).contains($0.value) })
    #expect(!text.contains("\u{202e}"))
  }

  @Test func `as JSON, figures are numbers and nothing passes for the journal's word`() {
    let object = JSONReport.event(
      event(
        .snapshot,
        [
          "event": "snapshot", "pid": "7", "live_bytes": "007", "growth_bytes": "-8", "lost": "x",
          "site_1": "+1", "sender_uid": "0", "timestamp": "never", "dump": "/a\n.pb",
        ], sender: HeapEvent.Sender(host: "h", pid: 8, userID: 9)),
      messageID: "id", presence: .missing)
    #expect(
      object.text == """
        {"timestamp":"2026-11-21T10:27:57.123456Z","message":"a sentence\\nand more",\
        "message_id":"id","priority":5,"sender_host":"h","sender_pid":8,"sender_uid":9,\
        "dump_state":"missing","event":"snapshot","pid":7,"live_bytes":"007","growth_bytes":-8,\
        "lost":"x","site_1":"+1","dump":"/a\\n.pb"}
        """)
  }

  @Test func `a time that no clock shows is no trap`() {
    let late = HeapEvent(.armed, timeMicroseconds: .max)
    var table = EventTable(showsHosts: true)
    #expect(table.lines(of: [late]) { _ in nil }.count == 1)
    #expect(JSONReport.event(late, messageID: "", presence: nil).text.contains("timestamp"))
  }
}
