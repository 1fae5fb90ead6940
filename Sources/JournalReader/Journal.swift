// SPDX-License-Identifier: Apache-2.0
// What tracers told the journal, oldest first, and what they tell it from now on.

import CSystemd
import Glibc
import HeapModel

/// A journal, open for reading Heaptap's entries and no others.
///
/// The bytes of a journal are not trusted: files may come from other hosts, and anyone may send
/// entries. Values are cut where nothing honest is as long.
@safe public struct Journal: ~Copyable {
  /// Where the entries are.
  public enum Source: Hashable, Sendable {
    /// This machine's own, those of services with a journal namespace of their own included.
    case local
    /// A directory of journal files, for instance of systemd-journal-remote.
    case directory(String)
    case files([String])
  }

  /// No honest value is longer: a message of ten sites with 64 frames of C++.
  private static let valueByteCountLimit = 256 << 10
  /// An entry of the tracer has some forty fields; libsystemd counts the journal's own as well.
  private static let fieldCountLimit = 512

  private let handle: OpaquePointer
  private let source: Source

  public init(_ source: Source) throws(JournalError) {
    self.source = source
    unsafe handle = try Self.open(source)
  }

  private static func open(_ source: Source) throws(JournalError) -> OpaquePointer {
    var opened: OpaquePointer?
    var result: Int32
    switch source {
    case .local:
      let flags = Int32(SD_JOURNAL_LOCAL_ONLY | SD_JOURNAL_ALL_NAMESPACES)
      result = unsafe sd_journal_open(&opened, flags)
    case .directory(let path):
      result = unsafe sd_journal_open_directory(&opened, path, 0)
    case .files(let paths):
      result = unsafe open(files: paths, &opened)
    }
    guard result >= 0, let journal = unsafe opened else {
      throw JournalError(.cannotOpen, "cannot open \(name(of: source))", errno: result)
    }
    _ = unsafe sd_journal_set_data_threshold(journal, valueByteCountLimit)
    for kind in HeapEvent.Kind.allCases {
      // Matches of one field are alternatives.
      let match = "MESSAGE_ID=\(kind.messageID)"
      result = unsafe sd_journal_add_match(journal, match, match.utf8.count)
      if result < 0 {
        unsafe sd_journal_close(journal)
        throw JournalError(.cannotOpen, "cannot search \(name(of: source))", errno: result)
      }
    }
    return unsafe journal
  }

  deinit { unsafe sd_journal_close(handle) }

  private static func open(files paths: [String], _ opened: inout OpaquePointer?) -> Int32 {
    var pointers = unsafe paths.map { unsafe UnsafePointer(strdup($0)) }
    unsafe pointers.append(nil)
    defer { unsafe pointers.forEach { unsafe free(UnsafeMutablePointer(mutating: $0)) } }
    return unsafe sd_journal_open_files(&opened, &pointers, 0)
  }

  private static func name(of source: Source) -> String {
    switch source {
    case .local: "the journal"
    case .directory(let path): "the journal in '\(path)'"
    case .files(let paths): paths.map { "'\($0)'" }.joined(separator: ", ")
    }
  }

  private func failure(_ result: Int32) -> JournalError {
    JournalError(.damaged, "cannot read \(Self.name(of: source))", errno: result)
  }
}

// Which events.
extension Journal {
  /// Which events are wanted.
  public struct Query {
    /// Microseconds since 1970, inclusive at both ends; `nil` for no bound.
    public var since: Int?
    public var until: Int?
    /// How many at most, the newest of those that match.
    public var count: Int?
    public var matches: (HeapEvent) -> Bool

    public init(
      since: Int? = nil, until: Int? = nil, count: Int? = nil,
      matches: @escaping (HeapEvent) -> Bool = { _ in true }
    ) {
      self.since = since
      self.until = until
      self.count = count
      self.matches = matches
    }

    func isInTime(_ event: HeapEvent) -> Bool {
      event.timeMicroseconds >= since ?? .min && event.timeMicroseconds <= until ?? .max
    }
  }

  /// The events that match, oldest first.
  public func events(_ query: Query = Query()) throws(JournalError) -> [HeapEvent] {
    guard let count = query.count else { return try forward(query) }
    // From the end: a journal of months holds the newest ten in its last pages.
    try seek(.end)
    var events: [HeapEvent] = []
    while events.count < count, try step(.back) {
      guard let event = event() else { continue }
      // Files from several machines are merged by time, but clocks may have been set: look on for
      // as long as an hour's worth of confusion.
      if event.timeMicroseconds < (query.since ?? .min).subtractingSaturated(3_600_000_000) {
        break
      }
      if query.isInTime(event), query.matches(event) { events.append(event) }
    }
    return events.reversed()
  }

  private func forward(_ query: Query) throws(JournalError) -> [HeapEvent] {
    if let since = query.since, since > 0 {
      try seek(.time(UInt64(since)))
    } else {
      try seek(.beginning)
    }
    var events: [HeapEvent] = []
    while try step(.forward) {
      if let event = event(), query.isInTime(event), query.matches(event) { events.append(event) }
    }
    return events
  }

  /// The events that match and come after this one is called, for ever; those that are there are
  /// handed over first, as `events` would.
  ///
  /// - Parameter isWanted: Asked about once a second; ends the wait with `false`.
  public func follow(
    _ query: Query, isWanted: () -> Bool, _ body: ([HeapEvent]) -> Void
  ) throws(JournalError) {
    // The place is held before the first look, so that nothing falls in between.
    try seek(.end)
    var place: String?
    if try step(.back) { place = cursor() }
    var first = query
    let seen = place == nil ? [] : try events(query)
    body(seen)
    first.count = nil
    if let place {
      try seek(.cursor(place))
      // The entry of the cursor itself has been seen.
      _ = try step(.forward)
    } else {
      try seek(.beginning)
    }
    var known = Set(seen)
    while isWanted() {
      var news: [HeapEvent] = []
      while try step(.forward) {
        guard let event = event(), query.isInTime(event), query.matches(event),
          known.remove(event) == nil
        else { continue }
        news.append(event)
      }
      known = []
      if !news.isEmpty { body(news) }
      let result = unsafe sd_journal_wait(handle, 1_000_000)
      if result < 0 && result != -EINTR { throw failure(result) }
    }
  }

  private enum Place {
    case beginning, end
    case time(UInt64)
    case cursor(String)
  }

  /// Goes to a place between entries: a step leads to the one before or after it.
  private func seek(_ place: Place) throws(JournalError) {
    let result =
      switch place {
      case .beginning: unsafe sd_journal_seek_head(handle)
      case .end: unsafe sd_journal_seek_tail(handle)
      case .time(let microseconds): unsafe sd_journal_seek_realtime_usec(handle, microseconds)
      case .cursor(let text): unsafe sd_journal_seek_cursor(handle, text)
      }
    if result < 0 { throw failure(result) }
  }

  private enum Direction { case forward, back }

  /// Whether there was an entry to step to.
  private func step(_ direction: Direction) throws(JournalError) -> Bool {
    let result =
      switch direction {
      case .forward: unsafe sd_journal_next(handle)
      case .back: unsafe sd_journal_previous(handle)
      }
    if result < 0 { throw failure(result) }
    return result > 0
  }

  private func cursor() -> String? {
    var text: UnsafeMutablePointer<CChar>?
    guard unsafe sd_journal_get_cursor(handle, &text) >= 0, let text = unsafe text else {
      return nil
    }
    defer { unsafe free(text) }
    return unsafe String(cString: text)
  }
}

// One entry.
extension Journal {
  /// The entry at the current place; `nil` for one that is damaged or only calls itself ours.
  private func event() -> HeapEvent? {
    var time: UInt64 = 0
    guard unsafe sd_journal_get_realtime_usec(handle, &time) >= 0 else { return nil }
    var entry = EntryFields()
    unsafe sd_journal_restart_data(handle)
    for _ in 0..<Self.fieldCountLimit {
      var data: UnsafeRawPointer?
      var byteCount = 0
      let result = unsafe sd_journal_enumerate_available_data(handle, &data, &byteCount)
      guard result > 0, let data = unsafe data else { break }
      let bytes = unsafe UnsafeRawBufferPointer(start: data, count: byteCount)
      unsafe entry.take(bytes, valueByteCountLimit: Self.valueByteCountLimit)
    }
    return entry.event(timeMicroseconds: Int(clamping: time))
  }
}

/// An entry's fields on their way to an event.
struct EntryFields {
  private static let prefix = "HEAPTAP_"
  private static let others: Set<String> = [
    "MESSAGE", "MESSAGE_ID", "PRIORITY", "_HOSTNAME", "_MACHINE_ID", "_PID", "_UID",
    "_SYSTEMD_UNIT",
  ]

  private var values: [String: String] = [:]
  private var fields: [HeapEvent.Field] = []

  /// Takes `NAME=value`. Of a name that is there several times the first counts.
  mutating func take(_ bytes: UnsafeRawBufferPointer, valueByteCountLimit: Int) {
    // Names are at most 64 bytes of capitals, digits and underscores: journald sees to it.
    guard let equals = unsafe bytes.prefix(65).firstIndex(of: UInt8(ascii: "=")) else { return }
    let name = unsafe String(decoding: bytes[..<equals], as: UTF8.self)
    let isOurs = name.hasPrefix(Self.prefix)
    guard isOurs || Self.others.contains(name), values[name] == nil else { return }
    let value = unsafe String(
      decoding: bytes[(equals + 1)...].prefix(valueByteCountLimit), as: UTF8.self)
    values[name] = value
    if isOurs {
      fields.append(HeapEvent.Field(name.dropFirst(Self.prefix.count).lowercased(), value))
    }
  }

  func event(timeMicroseconds: Int) -> HeapEvent? {
    guard let kind = values["MESSAGE_ID"].flatMap({ HeapEvent.Kind.byMessageID[$0] }),
      values["HEAPTAP_EVENT"] == kind.rawValue
    else { return nil }
    return HeapEvent(
      kind, timeMicroseconds: timeMicroseconds, message: values["MESSAGE"] ?? "",
      priority: values["PRIORITY"].flatMap { Int($0) }, fields: fields,
      sender: HeapEvent.Sender(
        host: values["_HOSTNAME"], machineID: values["_MACHINE_ID"],
        pid: values["_PID"].flatMap { Int32($0) }, userID: values["_UID"].flatMap { UInt32($0) },
        unit: values["_SYSTEMD_UNIT"]))
  }
}

extension Int {
  fileprivate func subtractingSaturated(_ other: Int) -> Int {
    let (difference, overflow) = subtractingReportingOverflow(other)
    return overflow ? .min : difference
  }
}
