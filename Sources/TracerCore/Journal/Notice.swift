// SPDX-License-Identifier: Apache-2.0
// What the tracer says, and to whom: the journal, standard error, or nobody.

import CTracerPlatform
import Synchronization

/// What a message is about; `HEAPTAP_EVENT` in the journal.
package enum NoticeEvent {
  case armed, started, snapshot, limit, stopped, trouble

  var name: StaticString {
    switch self {
    case .armed: "armed"
    case .started: "started"
    case .snapshot: "snapshot"
    case .limit: "limit"
    case .stopped: "stopped"
    case .trouble: "trouble"
    }
  }

  /// `MESSAGE_ID`, by which the journal's catalog explains the event.
  package var identifier: StaticString {
    switch self {
    case .armed: "4899c9ca97d4445da6d17da3a41d1d5b"
    case .started: "e38e56705c624673b3d6df1fe35bdf13"
    case .snapshot: "df410400cfe645f782a4aa451255e28e"
    case .limit: "09d472c1d6e944519f8a008c4ad11f8b"
    case .stopped: "7193ff597ca24f1bac42ae3a87112d65"
    case .trouble: "2aa88f8c6b734d918dd40d9334af4417"
    }
  }

  /// syslog's levels: 2 critical, 3 an error, 4 a warning, 5 worth a look, 6 for information.
  ///
  /// - Parameter thousandths: How full the limit is. Nearer to it, a crossing is more urgent.
  package func priority(atThousandths thousandths: UInt64) -> StaticString {
    switch self {
    case .armed: "6"
    case .started, .snapshot, .stopped: "5"
    case .limit: thousandths >= 950 ? "2" : thousandths >= 900 ? "3" : "4"
    case .trouble: "4"
    }
  }

  /// Whether what is known of the limit belongs to it.
  var concernsMemory: Bool {
    switch self {
    case .armed, .trouble: false
    case .started, .snapshot, .limit, .stopped: true
    }
  }
}

/// What has been told, and to whom it can be.
package struct NoticeState: ~Copyable {
  /// Troubles that are told once a process.
  package let told: Atomic<UInt32>
  /// The worker's view of the process's memory as a file, plus one; 0 for none.
  var memoryFile: Int32
  /// Which file standard error was when the library was loaded; 0 where it was closed.
  package var errorDevice: UInt64
  package var errorNumber: UInt64
  /// Messages that nobody took, and of which no entry has told yet.
  package let dropped: Atomic<UInt64>
}

package enum Trouble: UInt32 {
  case foreignStartHandler = 1
  case foreignSnapshotHandler = 2
  case takenStartHandler = 4
  case takenSnapshotHandler = 8
  case noWorker = 16
}

/// What a dump came to, as a message tells it.
package struct NoticeFigures {
  var liveBytes: UInt64
  var liveBlocks: UInt64
  var peakBytes: UInt64
  /// Against the snapshot before; at the first, against the start of the recording.
  var grownBytes: Int64
  var isFirst: Bool
  var lost: UInt64
  var leftOutBytes: UInt64
  var trigger: DumpTrigger
  /// Bytes for each sample, and the standard error that comes of it; 0 where every block was recorded.
  var sampleBytes: UInt64
  var liveErrorBytes: UInt64
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Whether a trouble has not been told yet; from now on it has.
  package func isNews(_ trouble: Trouble) -> Bool {
    let told = pointee.notices.told.bitwiseOr(trouble.rawValue, ordering: .relaxed).oldValue
    return told & trouble.rawValue == 0
  }

  package func notify(_ event: NoticeEvent, _ message: StaticString) {
    notify(
      event, UnsafeRawBufferPointer(start: message.utf8Start, count: message.utf8CodeUnitCount))
  }

  /// Says something. Never waits: a journal that does not take it at once does not get it.
  ///
  /// - Parameters:
  ///   - message: One line, or several.
  ///   - dump: The path of a dump that the message is about; empty for none.
  ///   - figures: What the dump came to.
  ///   - sites: The stacks that the message shows.
  func notify(
    _ event: NoticeEvent, _ message: UnsafeRawBufferPointer,
    dump: UnsafeRawBufferPointer = UnsafeRawBufferPointer(start: nil, count: 0),
    figures: NoticeFigures? = nil, sites: HeapSummary? = nil
  ) {
    // What nobody took is counted until an entry gets through that tells of it.
    let untold = pointee.notices.dropped.exchange(0, ordering: .relaxed)
    var isTaken = false
    var isTold = false
    let log = pointee.settings.log
    if log == .off { return }
    if log != .standardError {
      isTold = sendToJournal(event, message, dump, figures, sites, untold: untold)
      isTaken = isTold
    }
    if !isTaken, log != .journal {
      // That nothing has happened yet is not worth a line in every program's output.
      isTaken = (event == .armed && log == .automatic) || writeToStandardError(message)
    }
    let missing = (isTold ? 0 : untold) &+ (isTaken ? 0 : 1)
    if missing != 0 { _ = pointee.notices.dropped.wrappingAdd(missing, ordering: .relaxed) }
  }

  // MARK: The journal

  private func sendToJournal(
    _ event: NoticeEvent, _ message: UnsafeRawBufferPointer, _ dump: UnsafeRawBufferPointer,
    _ figures: NoticeFigures?, _ sites: HeapSummary?, untold: UInt64
  ) -> Bool {
    func send(_ bytes: UnsafeMutableRawPointer, _ capacity: Int) -> Bool {
      var entry = JournalEntry(bytes, capacity: capacity)
      appendIdentity(event, to: &entry)
      if untold > 0 { entry.add("HEAPTAP_DROPPED", untold) }
      if dump.count > 0 { entry.add("HEAPTAP_DUMP") { $0.append(dump) } }
      if let figures { append(figures, to: &entry) }
      if event.concernsMemory { appendLimit(event, to: &entry) }
      if let sites { appendSites(sites, to: &entry) }
      entry.add("MESSAGE", cutting: message)
      return !entry.text.isFull && JournalSocket.send(entry.text.bytes)
    }
    if sites != nil {
      return send(HeapSummary.entryBuffer(pointee.dumps), HeapSummary.entryByteCount)
    }
    // Nothing is recorded, or not yet: there is only the stack.
    var bytes = InlineArray<8192, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      send($0.baseAddress.unsafelyUnwrapped, $0.count)
    }
  }

  /// Who this is, in fields of our own: of a sender that has ended when journald looks, it knows
  /// neither unit nor executable.
  private func appendIdentity(_ event: NoticeEvent, to entry: inout JournalEntry) {
    entry.add("SYSLOG_IDENTIFIER", "heaptap")
    entry.add("PRIORITY", event.priority(atThousandths: pointee.limits.reading.thousandths))
    entry.add("MESSAGE_ID", event.identifier)
    entry.add("HEAPTAP_EVENT", event.name)
    entry.add("HEAPTAP_VERSION", tracerVersion)
    entry.add("HEAPTAP_PID", UInt64(UInt32(bitPattern: pointee.processID)))
    entry.add("HEAPTAP_EXE") { appendExecutable(to: &$0) }
    entry.add("HEAPTAP_PROGRAM") { appendProgram(to: &$0) }
    var bytes = InlineArray<1024, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) { bytes in
      let base = bytes.baseAddress.unsafelyUnwrapped
      var unit = TextBuffer(base + 512, capacity: 512)
      if appendUnit(to: &unit, base, capacity: 512) {
        entry.add("HEAPTAP_UNIT") { $0.append(unit.bytes) }
      }
    }
  }

  private func append(_ figures: NoticeFigures, to entry: inout JournalEntry) {
    entry.add("HEAPTAP_TRIGGER", figures.trigger.name)
    entry.add("HEAPTAP_LIVE_BYTES", figures.liveBytes)
    entry.add("HEAPTAP_LIVE_BLOCKS", figures.liveBlocks)
    entry.add("HEAPTAP_PEAK_BYTES", figures.peakBytes)
    entry.add("HEAPTAP_GROWTH_BYTES") { $0.append(signed: figures.grownBytes) }
    entry.add("HEAPTAP_LOST", figures.lost)
    if figures.sampleBytes > 0 {
      entry.add("HEAPTAP_SAMPLE_BYTES", figures.sampleBytes)
      entry.add("HEAPTAP_LIVE_ERROR_BYTES", figures.liveErrorBytes)
    }
    if figures.leftOutBytes > 0 { entry.add("HEAPTAP_LEFT_OUT_BYTES", figures.leftOutBytes) }
  }

  private func appendLimit(_ event: NoticeEvent, to entry: inout JournalEntry) {
    let reading = pointee.limits.reading
    guard reading.isKnown else { return }
    entry.add("HEAPTAP_USAGE_BYTES", reading.usage)
    entry.add("HEAPTAP_LIMIT_BYTES", reading.limit)
    entry.add("HEAPTAP_LIMIT_SOURCE") { appendLimitSource(to: &$0) }
    entry.add("HEAPTAP_HEADROOM_BYTES", reading.headroom)
    entry.add("HEAPTAP_RATE_BYTES", reading.rate)
    if event == .limit, pointee.limits.mark.isSet {
      entry.add("HEAPTAP_MARK") { pointee.limits.mark.describe(into: &$0) }
    }
  }
}
