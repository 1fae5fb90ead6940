// SPDX-License-Identifier: Apache-2.0
// What the environment asks for, read once when the library is loaded.

import CTracerPlatform

/// The settings of one process. All zero is what a process has that asks for nothing.
package struct Settings {
  package enum Mode: UInt8 {
    /// Not asked for: only the API may start recording.
    case unset = 0
    /// Off for good.
    case off
    /// Armed: dormant until it is asked.
    case armed
    /// Armed, and recording from the first allocation.
    case recording
  }

  package enum Log: UInt8 {
    /// The journal where there is one, else standard error.
    case automatic = 0
    case journal, standardError, off
  }

  package var mode: Mode = .unset
  package var log: Log = .automatic
  package var depth: UInt32 = 64
  /// Bytes from one sample to the next; 0 where every block is recorded.
  package var sampleByteCount: UInt64 = 0
  /// The signals that start and stop, and that write a snapshot; 0 for none.
  package var startSignal: Int32 = SIGUSR1
  package var snapshotSignal: Int32 = SIGUSR2
  package var dumpsAtExit = false
  /// Whether the dump at the end tells which blocks nothing leads to.
  package var looksForLeaks = false
  package var tracesChildren = true
  /// Whether every stack is walked as a whole too, and compared.
  package var checksStacks = false
  /// Whether snapshots say what the objects of Swift are.
  package var looksForTypes = true
  /// Whether stacks of different threads are told apart.
  package var tellsThreads = false
  /// Whether dumps say what was alive at the peak.
  package var keepsPeak = false
  /// The process that `heaptap run` is, if it started this one.
  package var runner: Int32 = 0
  /// At which marks a snapshot is written by itself; none where that is off.
  package var limitMarks = LimitMarks.standard
  /// At which recording begins by itself; unset where it does not.
  package var startMark = LimitMark()
  package var retention = Retention()
  package var directoryByteCount: Int = 0
  package var directory = InlineArray<1024, UInt8>(repeating: 0)

  package static var depthLimit: UInt32 { ThreadState.frameLimit }

  package init() {}

  /// A value that says nothing sensible: the variable, what it takes, and what it was.
  package struct Problem {
    package var variable: StaticString
    package var takes: StaticString
    package var value: UnsafePointer<CChar>
  }

  /// Reads the settings; the first problem is answered, and the caller stays off.
  ///
  /// The others are read all the same: one of them may say where the problem is to be told.
  package mutating func read(
    _ environment: UnsafeMutablePointer<UnsafePointer<CChar>?>, signalRange: ClosedRange<Int32>
  ) -> Problem? {
    var position = 0
    var first: Problem?
    while let entry = environment[position] {
      position &+= 1
      guard let name = Self.match(entry, "HEAPTAP") else { continue }
      let problem = apply(name, signalRange)
      if first == nil { first = problem }
    }
    // They are told of in that dump.
    if looksForLeaks { dumpsAtExit = true }
    // What leads to a block that was not sampled leads to nothing that is known.
    if first == nil, looksForLeaks, sampleByteCount != 0 {
      return Problem(
        variable: "HEAPTAP_LEAKS", takes: "0 where HEAPTAP_SAMPLE is set", value: Self.one)
    }
    return first
  }

  private static var one: UnsafePointer<CChar> {
    let text: StaticString = "1"
    return UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
  }

  /// What follows a prefix in a C string.
  private static func match(
    _ text: UnsafePointer<CChar>, _ prefix: StaticString
  ) -> UnsafePointer<CChar>? {
    var position = 0
    while position < prefix.utf8CodeUnitCount {
      guard UInt8(bitPattern: text[position]) == prefix.utf8Start[position] else { return nil }
      position &+= 1
    }
    return text + position
  }

  static func isEqual(_ text: UnsafePointer<CChar>, _ word: StaticString) -> Bool {
    guard let rest = match(text, word) else { return false }
    return rest.pointee == 0
  }

  private mutating func apply(
    _ entry: UnsafePointer<CChar>, _ signals: ClosedRange<Int32>
  ) -> Problem? {
    if let value = Self.match(entry, "=") {
      return problem("HEAPTAP", "0, 1 or record", value, readMode(value))
    }
    if let value = Self.match(entry, "_DEPTH=") {
      return problem("HEAPTAP_DEPTH", "a number from 1 to 1024", value, readDepth(value))
    }
    if let value = Self.match(entry, "_SAMPLE=") {
      return problem(
        "HEAPTAP_SAMPLE", "a size from 1K to 1G, such as 512K, or off", value, readSample(value))
    }
    if let value = Self.match(entry, "_SIGNALS=") {
      return problem(
        "HEAPTAP_SIGNALS", "two different signals such as USR1,USR2 or RTMIN+3,RTMIN+4, or none",
        value, readSignals(value, signals))
    }
    if let value = Self.match(entry, "_DIR=") {
      return problem(
        "HEAPTAP_DIR", "an absolute path of at most 1000 bytes", value, readDirectory(value))
    }
    if let value = Self.match(entry, "_LOG=") {
      return problem("HEAPTAP_LOG", "auto, journal, stderr or off", value, readLog(value))
    }
    if let value = Self.match(entry, "_EXIT=") {
      dumpsAtExit = Self.isEqual(value, "dump")
      return problem("HEAPTAP_EXIT", "dump", value, dumpsAtExit || value.pointee == 0)
    }
    if let value = Self.match(entry, "_LEAKS=") {
      return Self.readSwitch("HEAPTAP_LEAKS", value, &looksForLeaks)
    }
    if let value = Self.match(entry, "_CHILDREN=") {
      return Self.readSwitch("HEAPTAP_CHILDREN", value, &tracesChildren)
    }
    if let value = Self.match(entry, "_CHECK=") {
      return Self.readSwitch("HEAPTAP_CHECK", value, &checksStacks)
    }
    if let value = Self.match(entry, "_TYPES=") {
      return Self.readSwitch("HEAPTAP_TYPES", value, &looksForTypes)
    }
    if let value = Self.match(entry, "_THREADS=") {
      return Self.readSwitch("HEAPTAP_THREADS", value, &tellsThreads)
    }
    if let value = Self.match(entry, "_PEAK=") {
      return Self.readSwitch("HEAPTAP_PEAK", value, &keepsPeak)
    }
    if let value = Self.match(entry, "_LIMIT=") {
      return problem(
        "HEAPTAP_LIMIT", "marks such as 80% or 70%,90%,512M, at most 8, or off", value,
        readLimit(value))
    }
    if let value = Self.match(entry, "_START=") {
      return problem("HEAPTAP_START", "a mark such as 60% or 400M, or off", value, readStart(value))
    }
    if let value = Self.match(entry, "_KEEP=") {
      return problem(
        "HEAPTAP_KEEP", "a count, a size or both, such as 16,256M, or off", value, readKeep(value))
    }
    if let value = Self.match(entry, "_RUN=") {
      let number = Self.number(value)
      runner = Int32(truncatingIfNeeded: number ?? 0)
      return problem("HEAPTAP_RUN", "a process number", value, number != nil)
    }
    // HEAPTAP_LIBRARY and whatever else the command reads is not for this side.
    return nil
  }

  private func problem(
    _ variable: StaticString, _ takes: StaticString, _ value: UnsafePointer<CChar>, _ isGood: Bool
  ) -> Problem? {
    isGood ? nil : Problem(variable: variable, takes: takes, value: value)
  }

  private static func readSwitch(
    _ variable: StaticString, _ value: UnsafePointer<CChar>, _ isOn: inout Bool
  ) -> Problem? {
    let isOne = isEqual(value, "1")
    guard isOne || isEqual(value, "0") else {
      return Problem(variable: variable, takes: "0 or 1", value: value)
    }
    isOn = isOne
    return nil
  }

  private mutating func readMode(_ value: UnsafePointer<CChar>) -> Bool {
    if Self.isEqual(value, "0") {
      mode = .off
    } else if Self.isEqual(value, "1") {
      mode = .armed
    } else if Self.isEqual(value, "record") {
      mode = .recording
    } else {
      return value.pointee == 0
    }
    return true
  }

  private mutating func readLog(_ value: UnsafePointer<CChar>) -> Bool {
    if Self.isEqual(value, "journal") {
      log = .journal
    } else if Self.isEqual(value, "stderr") {
      log = .standardError
    } else if Self.isEqual(value, "off") {
      log = .off
    } else {
      return Self.isEqual(value, "auto") || value.pointee == 0
    }
    return true
  }

  private mutating func readDepth(_ value: UnsafePointer<CChar>) -> Bool {
    guard let number = Self.number(value), number >= 1, number <= UInt64(Self.depthLimit) else {
      return false
    }
    depth = UInt32(number)
    return true
  }

  private mutating func readSample(_ value: UnsafePointer<CChar>) -> Bool {
    if value.pointee == 0 || Self.isEqual(value, "off") || Self.isEqual(value, "0") {
      sampleByteCount = 0
      return true
    }
    guard let (number, unit) = Self.digits(value),
      let (byteCount, end) = LimitMark.size(number, unit), end.pointee == 0,
      SampleMean.range.contains(byteCount)
    else { return false }
    sampleByteCount = byteCount
    return true
  }

  private mutating func readLimit(_ value: UnsafePointer<CChar>) -> Bool {
    guard value.pointee != 0 else { return true }
    guard let marks = LimitMarks.read(value) else { return false }
    limitMarks = marks
    return true
  }

  private mutating func readStart(_ value: UnsafePointer<CChar>) -> Bool {
    if value.pointee == 0 || Self.isEqual(value, "off") {
      startMark = LimitMark()
      return true
    }
    guard let (mark, end) = LimitMark.read(value), end.pointee == 0 else { return false }
    startMark = mark
    return true
  }

  private mutating func readKeep(_ value: UnsafePointer<CChar>) -> Bool {
    guard value.pointee != 0 else { return true }
    guard let read = Retention.read(value) else { return false }
    retention = read
    return true
  }

  private mutating func readDirectory(_ value: UnsafePointer<CChar>) -> Bool {
    guard value.pointee != 0 else { return true }
    guard value.pointee == 0x2f else { return false }
    var length = 0
    while value[length] != 0 {
      guard length < 1000 else { return false }
      directory[length] = UInt8(bitPattern: value[length])
      length &+= 1
    }
    // A slash at the end would have a link followed.
    while length > 1, directory[length &- 1] == 0x2f { length &-= 1 }
    directory[length] = 0
    directoryByteCount = length
    return true
  }

  private mutating func readSignals(
    _ value: UnsafePointer<CChar>, _ range: ClosedRange<Int32>
  ) -> Bool {
    if Self.isEqual(value, "none") {
      startSignal = 0
      snapshotSignal = 0
      return true
    }
    guard let (start, rest) = Self.signal(value, range), rest.pointee == 0x2c,
      let (snapshot, end) = Self.signal(rest + 1, range), end.pointee == 0, start != snapshot
    else { return false }
    startSignal = start
    snapshotSignal = snapshot
    return true
  }

  /// A signal's number, and what follows its name.
  private static func signal(
    _ text: UnsafePointer<CChar>, _ range: ClosedRange<Int32>
  ) -> (Int32, UnsafePointer<CChar>)? {
    let name = match(text, "SIG") ?? text
    if let rest = match(name, "USR1") { return (SIGUSR1, rest) }
    if let rest = match(name, "USR2") { return (SIGUSR2, rest) }
    guard let rest = match(name, "RTMIN") else { return nil }
    guard rest.pointee == 0x2b else { return (range.lowerBound, rest) }
    guard let (offset, end) = digits(rest + 1), offset <= 64,
      range.contains(range.lowerBound &+ Int32(offset))
    else { return nil }
    return (range.lowerBound &+ Int32(offset), end)
  }

  private static func number(_ text: UnsafePointer<CChar>) -> UInt64? {
    guard let (value, end) = digits(text), end.pointee == 0 else { return nil }
    return value
  }

  static func digits(
    _ text: UnsafePointer<CChar>
  ) -> (UInt64, UnsafePointer<CChar>)? {
    var value: UInt64 = 0
    var position = 0
    while text[position] >= 0x30, text[position] <= 0x39, position < 18 {
      value = value &* 10 &+ UInt64(text[position] &- 0x30)
      position &+= 1
    }
    return position == 0 ? nil : (value, text + position)
  }

  /// The signals, as `HEAPTAP_SIGNALS` would name them.
  package func describeSignals(into text: inout TextBuffer, minimum: Int32) {
    guard startSignal != 0 else { return text.append("none") }
    Self.describe(startSignal, into: &text, minimum)
    text.append(0x2c)
    Self.describe(snapshotSignal, into: &text, minimum)
  }

  package static func describe(
    _ signal: Int32, into text: inout TextBuffer, _ minimum: Int32
  ) {
    switch signal {
    case SIGUSR1: text.append("USR1")
    case SIGUSR2: text.append("USR2")
    default:
      text.append("RTMIN+")
      text.append(decimal: UInt64(max(0, signal &- minimum)))
    }
  }
}
