// SPDX-License-Identifier: Apache-2.0
// What a tracer told the journal, as a value.

/// Something that a tracer, or `heaptap report`, told the journal.
///
/// The fields are the sender's own words: anyone may send an entry, with whatever in it. What the
/// journal itself knows of the sender is in `sender`, and cannot be made up.
public struct HeapEvent: Hashable, Sendable {
  /// What an entry is about.
  public enum Kind: String, Hashable, Sendable, CaseIterable {
    /// The tracer is loaded, and sleeps.
    case armed
    /// Recording has begun.
    case started
    /// A dump was written because somebody asked for it.
    case snapshot
    /// A mark of the memory limit was crossed: with a dump while recording, without while dormant.
    case limit
    /// Recording has ended.
    case stopped
    /// Something could not be done.
    case trouble
    /// A dump was read at the desk: its sites with files and lines.
    case report
  }

  /// A field of Heaptap's, by the journal's name in lower case and without `HEAPTAP_`.
  public struct Field: Hashable, Sendable {
    /// The field's name.
    public let name: String
    /// What the sender has written there.
    public let value: String

    /// A field by its name.
    public init(_ name: String, _ value: String) {
      self.name = name
      self.value = value
    }
  }

  /// What the journal knows of whoever sent the entry; `nil` where it found nothing out.
  public struct Sender: Hashable, Sendable {
    /// The host's name.
    public var host: String?
    /// 32 hexadecimal digits.
    public var machineID: String?
    /// The process that has sent it.
    public var pid: Int32?
    /// The user that the process ran as.
    public var userID: UInt32?
    /// By the sender's control group; `nil` where it had ended before the journal could look.
    public var unit: String?

    /// What is known of a sender.
    public init(
      host: String? = nil, machineID: String? = nil, pid: Int32? = nil, userID: UInt32? = nil,
      unit: String? = nil
    ) {
      self.host = host
      self.machineID = machineID
      self.pid = pid
      self.userID = userID
      self.unit = unit
    }
  }

  /// What the entry is about.
  public let kind: Kind
  /// When the journal took the entry: microseconds since 1970.
  public let timeMicroseconds: Int
  /// The first line is a sentence; sites may follow, one on a line.
  public let message: String
  /// As in syslog: 3 an error, 4 a warning, 5 worth a look, 6 for information.
  public let priority: Int?
  /// In the journal's order, each name once.
  public let fields: [Field]
  /// What the journal knows of who has sent it.
  public let sender: Sender

  /// An event by its parts.
  public init(
    _ kind: Kind, timeMicroseconds: Int, message: String = "", priority: Int? = nil,
    fields: [Field] = [], sender: Sender = Sender()
  ) {
    self.kind = kind
    self.timeMicroseconds = timeMicroseconds
    self.message = message
    self.priority = priority
    self.fields = fields
    self.sender = sender
  }

  /// The first field of that name; `nil` where there is none.
  public subscript(name: String) -> String? { fields.first { $0.name == name }?.value }

  /// A field as a number; `nil` where it is none.
  public func integer(_ name: String) -> Int? { self[name].flatMap { Int($0) } }
}

// The fields that have a meaning here.
extension HeapEvent {
  /// The traced process, in its own pid namespace.
  public var pid: Int32? { self["pid"].flatMap { Int32($0) } }
  /// The program as names of dumps have it.
  public var program: String? { self["program"] }
  /// The path of the executable file.
  public var executable: String? { self["exe"] }
  /// Why a dump was made: `signal`, `limit`…
  public var trigger: String? { self["trigger"] }
  /// The path of the dump that the event is about.
  public var dump: String? { self["dump"] }
  /// Which mark was crossed: `80%` or `512M`.
  public var mark: String? { self["mark"] }
  /// Bytes that were alive.
  public var liveBytes: Int? { integer("live_bytes") }
  /// Blocks that were alive.
  public var liveBlocks: Int? { integer("live_blocks") }
  /// Since the snapshot before, or since recording began.
  public var growthBytes: Int? { integer("growth_bytes") }
  /// Memory that cannot be reclaimed, of what the limit applies to.
  public var usageBytes: Int? { integer("usage_bytes") }
  /// The limit that the process was nearest to.
  public var limitBytes: Int? { integer("limit_bytes") }

  /// How full it was: 1 is at the limit. `nil` where no limit is known.
  public var fullness: Double? {
    guard let usage = usageBytes, let limit = limitBytes, usage >= 0, limit > 0 else { return nil }
    return Double(usage) / Double(limit)
  }

  /// The systemd unit of the traced process.
  ///
  /// The journal's word counts, and not the sender's, unless the sender is root: root's reports are
  /// about other units than its own. A sender that had ended by the time the journal looked is all
  /// that there is to ask; `isUnitVouchedFor` tells.
  public var unit: String? {
    if saysUnitItself { return self["unit"] ?? sender.unit }
    return sender.unit ?? self["unit"]
  }

  /// Whether the unit is the journal's or root's word. Anyone could have said it otherwise.
  public var isUnitVouchedFor: Bool {
    sender.userID == 0 || (sender.unit != nil && !saysUnitItself) || self["unit"] == nil
  }

  /// A report comes from another process than the one it is about.
  private var saysUnitItself: Bool { sender.userID == 0 || kind == .report }

  /// Whether the event is of a program, or of a unit named with or without its `.service`.
  public func isOf(_ name: String) -> Bool {
    unit == name || unit == name + ".service" || program == name
  }
}
