// SPDX-License-Identifier: Apache-2.0
// What tracers told the journal, a line each: when, who, how full, how much more than before.

import HeapModel

/// Events as text: a line for each, in columns.
///
///     2026-11-21 10:27:57  myd.service[1234]  snapshot  ████████░░  83 %  50.0 MiB  +8.0 MiB  /var/lib/…
///
/// Columns are as wide as what has come so far needs, so that lines of a follower stay under one
/// another for most of the time.
public struct EventTable {
  private static let barWidth = 10

  private let showsHosts: Bool
  private let style: TextStyle
  private var widths = Array(repeating: 0, count: 5)

  /// - Parameter showsHosts: Whether lines say which machine they are from.
  public init(showsHosts: Bool, style: TextStyle = .plain) {
    self.showsHosts = showsHosts
    self.style = style
  }

  /// The lines of some events, without line ends.
  ///
  /// - Parameter presence: What has become of an event's dump; `nil` where that can't be known.
  public mutating func lines(
    of events: [HeapEvent], presence: (HeapEvent) -> DumpPresence?
  ) -> [String] {
    let rows = events.map { Self.cells(of: $0, showsHosts: showsHosts) }
    for column in widths.indices {
      widths[column] = rows.reduce(widths[column]) { max($0, $1[column].count) }
    }
    return zip(events, rows).map { event, cells in
      var cells = cells
      // Figures end under one another, words begin so.
      for column in cells.indices {
        cells[column] =
          column >= 3
          ? cells[column].rightAligned(to: widths[column])
          : cells[column].padded(to: widths[column])
      }
      cells[2] = style.accent(cells[2], Self.accent(of: event))
      cells.insert(bar(event.fullness), at: 3)
      let columns = showsHosts ? cells : Array(cells.dropFirst())
      let line = [LocalTime.text(microseconds: event.timeMicroseconds)] + columns
      return (line + [remark(event, presence(event))]).joined(separator: "  ").trimmingEnd
    }
  }

  private static func cells(of event: HeapEvent, showsHosts: Bool) -> [String] {
    let doubt = event.isUnitVouchedFor ? "" : "?"
    let name = event.unit.map { $0 + doubt } ?? event.program ?? "-"
    let pid = event.pid.map { "[\($0)]" } ?? ""
    return [
      showsHosts ? (event.sender.host ?? "-").printable : "", name.printable + pid,
      event.kind.rawValue, event.liveBytes.map { "\(ByteCount($0))" } ?? "-",
      event.growthBytes.map { ByteCount($0).signed } ?? "",
    ]
  }

  private static func accent(of event: HeapEvent) -> TextStyle.Accent? {
    switch event.kind {
    case .limit: .red
    case .trouble: .yellow
    case .armed, .started, .snapshot, .stopped, .report: nil
    }
  }

  /// `████████░░  83 %`, or as many spaces where no limit is known.
  private func bar(_ fullness: Double?) -> String {
    guard let fullness else { return String(repeating: " ", count: Self.barWidth + 7) }
    let percent = Int((min(fullness, 9.99) * 100).rounded())
    let cells = Int((min(fullness, 1) * Double(Self.barWidth)).rounded())
    let bar =
      String(repeating: "█", count: cells) + String(repeating: "░", count: Self.barWidth - cells)
    let accent: TextStyle.Accent? = fullness >= 0.9 ? .red : fullness >= 0.8 ? .yellow : nil
    return style.accent("\(bar) \("\(percent)".rightAligned(to: 4)) %", accent)
  }

  /// The mark and the dump; where there is no dump, what the event says.
  private func remark(_ event: HeapEvent, _ presence: DumpPresence?) -> String {
    guard let dump = event.dump else {
      return (event.message.split(separator: "\n").first.map(String.init) ?? "").printable
    }
    let mark = event.mark.map { "at \($0.printable): " } ?? ""
    let state =
      switch presence {
      case nil, .present: ""
      case .missing, .partial, .inaccessible: " (\(presence!.rawValue))"
      }
    return mark + dump.printable + style.accent(state, state.isEmpty ? nil : .yellow)
  }
}

extension String {
  fileprivate var trimmingEnd: String {
    var text = self
    while text.hasSuffix(" ") { text.removeLast() }
    return text
  }
}

extension JSONReport {
  /// An event as one object: `timestamp` (UTC), `message`, what the journal knows of the sender, and
  /// each field of Heaptap's by its name in lower case without `HEAPTAP_`; figures as numbers.
  ///
  /// | name | value |
  /// | --- | --- |
  /// | `timestamp` | `2026-11-21T10:27:57.123456Z`, when the journal took the entry |
  /// | `message`, `message_id`, `priority` | as in the journal |
  /// | `sender_host`, `sender_machine_id`, `sender_pid`, `sender_uid`, `sender_unit` | the journal's own word; absent where it found nothing out |
  /// | `dump_state` | `present`, `missing`, `partial` or `inaccessible`; absent without a dump and for other machines |
  public static func event(
    _ event: HeapEvent, messageID: String, presence: DumpPresence?
  ) -> JSON {
    var members: [JSON.Member] = [
      .init("timestamp", .string(UTC.text(microseconds: event.timeMicroseconds))),
      .init("message", .string(event.message)), .init("message_id", .string(messageID)),
    ]
    if let priority = event.priority { members.append(.init("priority", .integer(priority))) }
    let sender = event.sender
    let known: [(String, JSON?)] = [
      ("sender_host", sender.host.map(JSON.string)),
      ("sender_machine_id", sender.machineID.map(JSON.string)),
      ("sender_pid", sender.pid.map { .integer(Int($0)) }),
      ("sender_uid", sender.userID.map { .integer(Int($0)) }),
      ("sender_unit", sender.unit.map(JSON.string)),
      ("dump_state", presence.map { .string($0.rawValue) }),
    ]
    for case (let name, let value?) in known { members.append(.init(name, value)) }
    // A sender's field can't pass for one of the journal's.
    let taken = Set(["timestamp", "message", "message_id", "priority"] + known.map(\.0))
    members += event.fields.filter { !taken.contains($0.name) }
      .map { .init($0.name, value(of: $0)) }
    return .object(members)
  }

  private static func value(of field: HeapEvent.Field) -> JSON {
    let isFigure =
      field.name.hasSuffix("_bytes") || ["pid", "live_blocks", "lost"].contains(field.name)
    guard isFigure, let number = Int(field.value), "\(number)" == field.value else {
      return .string(field.value)
    }
    return .integer(number)
  }
}
