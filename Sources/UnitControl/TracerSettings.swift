// SPDX-License-Identifier: Apache-2.0
// The tracer's settings as the command line gives them, checked before a service is started with them.

/// A variable of the tracer's, and what it takes.
///
/// The tracer has the last word, and stays off at a value that it does not understand: here a person
/// is told at once. A test holds the two together.
public enum TracerSetting: String, CaseIterable, Sendable {
  case limit = "HEAPTAP_LIMIT"
  case start = "HEAPTAP_START"
  case keep = "HEAPTAP_KEEP"
  case depth = "HEAPTAP_DEPTH"
  case sample = "HEAPTAP_SAMPLE"
  case signals = "HEAPTAP_SIGNALS"
  case log = "HEAPTAP_LOG"

  /// What it takes, in words.
  public var takes: String {
    switch self {
    case .limit: "marks such as 80% or 70%,90%,512M, at most 8, or off"
    case .start: "a mark such as 60% or 400M, or off"
    case .keep: "a count, a size or both, such as 16,256M, or off"
    case .depth: "a number from 1 to 1024"
    case .sample: "a size from 1K to 1G, such as 512K, or off"
    case .signals: "two different signals such as USR1,USR2 or RTMIN+3,RTMIN+4, or none"
    case .log: "auto, journal, stderr or off"
    }
  }

  public func accepts(_ value: String) -> Bool {
    let parts = value.split(separator: ",", omittingEmptySubsequences: false)
    switch self {
    case .limit: return value == "off" || parts.count <= 8 && parts.allSatisfy(Self.isMark)
    case .start: return value == "off" || Self.isMark(Substring(value))
    case .keep:
      let sizes = parts.filter { $0.last?.isNumber == false }.count
      return value == "off"
        || parts.allSatisfy { Self.byteCount($0) != nil } && sizes <= 1 && parts.count - sizes <= 1
    case .depth: return Self.number(Substring(value)).map { (1...1024).contains($0) } ?? false
    case .sample:
      return value == "off" || value == "0"
        || Self.byteCount(Substring(value)).map { (1 << 10...1 << 30).contains($0) } ?? false
    case .signals:
      let signals = parts.map { $0.hasPrefix("SIG") ? $0.dropFirst(3) : $0 }
        .map { $0 == "RTMIN" ? "RTMIN+0" : $0 }
      return value == "none"
        || signals.count == 2 && signals[0] != signals[1] && signals.allSatisfy(Self.isSignal)
    case .log: return ["auto", "journal", "stderr", "off"].contains(value)
    }
  }

  private static func isMark(_ text: Substring) -> Bool {
    guard text.hasSuffix("%") else {
      return text.last?.isNumber == false && byteCount(text) != nil
    }
    return number(text.dropLast()).map { (1...100).contains($0) } ?? false
  }

  private static func byteCount(_ text: Substring) -> Int? {
    let units: [Character: Int] = ["K": 10, "M": 20, "G": 30, "T": 40]
    guard let last = text.uppercased().last, let shift = units[last] else {
      return number(text).flatMap { $0 > 0 ? $0 : nil }
    }
    guard let value = number(text.dropLast()), value > 0, value < 1 << (62 - shift) else {
      return nil
    }
    return value << shift
  }

  private static func isSignal(_ name: Substring) -> Bool {
    if name == "USR1" || name == "USR2" { return true }
    guard name.hasPrefix("RTMIN+"), let offset = number(name.dropFirst(6)) else { return false }
    // glibc keeps the first two of 32 to 64.
    return (0...30).contains(offset)
  }

  private static func number(_ text: Substring) -> Int? {
    guard (1...18).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) })
    else { return nil }
    return Int(text)
  }
}
