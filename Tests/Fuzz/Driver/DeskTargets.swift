// SPDX-License-Identifier: Apache-2.0
// What the command reads: dumps, caches, answers of workers, lists, units, the journal.

@testable import HeapModel
@testable import JournalReader
@testable import Pprof
@testable import ProcessControl
@testable import Reports
@testable import Symbolication
@testable import UnitControl

/// Unpacked, an input may be so much larger than it is.
private let inflatedLimit = 4 << 20

private func snapshot(_ bytes: [UInt8]) -> Snapshot? {
  try? Snapshot(profile: bytes, inflatedByteCountLimit: inflatedLimit)
}

let deskTargets: [Target] = [
  // Reads a profile, and writes it again: the copy is read as the same.
  Target(name: "profile") { bytes in
    guard let read = snapshot(bytes) else { return }
    guard let copy = snapshot(read.profileBytes()) else { fatalError("the copy cannot be read") }
    precondition(copy.samples.count == read.samples.count && copy.liveBytes == read.liveBytes)
  },

  // Everything that `show` and `diff` make of a profile.
  Target(name: "report") { bytes in
    guard let read = snapshot(bytes) else { return }
    let style = TextStyle(width: 40, colour: .ansi)
    let folded = read.folded(by: .standard)
    let empty = Snapshot()
    for grouping in Snapshot.Grouping.allCases {
      for charging in [Snapshot.Charging.allocatingFrame, .everyFrame] {
        guard let rows = try? folded.statistics(groupedBy: grouping, charging: charging) else {
          continue
        }
        _ = TextTable(rows, .liveAndTotal, limit: 20, style: style).description
        _ = TextTable(rows, .temporary, limit: 20, style: style).description
        _ = JSONReport.statistics(rows, of: folded, groupedBy: grouping, limit: 20).text
        let changes = try? folded.compared(to: empty, groupedBy: grouping, charging: charging)
        _ = TextTable(changes ?? [], limit: 20, style: style).description
      }
    }
    _ = Summary(of: read, style: style)
    _ = Summary(of: read, comparedTo: read, style: style)
    if let peak = try? read.atPeak() { _ = Summary(of: peak, comparedTo: read, style: style) }
    _ = FoldedStacks(of: read, counting: \.liveBytes).lines
    _ = HeaderText(of: read.header).description
    _ = HistogramText(of: read.header).description
    _ = read.withoutSymbols()
    _ = read.filtered(.file("*a*"), !.function("b?"), .generation(1))
    for sample in read.samples.prefix(20) { _ = read.stack(of: sample).lines() }
  },

  // Puts names into a profile's bytes: what comes out is a profile if what went in was one.
  Target(name: "naming") { bytes in
    let named = try? Snapshot.profile(
      bytes,
      naming: { frame in
        var (inner, outer) = (frame, frame)
        (inner.function, inner.file, inner.line, inner.isInlined) = ("f", "a.c", 0, true)
        outer.function = "g\(frame.address % 3)"
        return [inner, outer]
      }, inflatedByteCountLimit: inflatedLimit)
    guard let named, let before = snapshot(bytes) else { return }
    guard let after = snapshot(named) else { fatalError("the named profile cannot be read") }
    precondition(after.liveBytes == before.liveBytes)
  },

  Target(name: "answer") { bytes in
    guard let answer = try? ModuleAnswer(message: bytes) else { return }
    precondition((try? ModuleAnswer(message: Array(answer.message.dropFirst(4)))) == answer)
  },
  Target(name: "request") { bytes in _ = try? ModuleRequest(message: bytes) },

  // The checksum is put right, or nothing would get past it.
  Target(name: "cache") { bytes in
    let sum = checksum(of: bytes)
    let whole = bytes + (0..<8).map { UInt8(truncatingIfNeeded: sum >> (8 * UInt64($0))) }
    let subject = SymbolCache.Subject(buildID: "0123456789", style: .simplified)
    guard let known = try? KnownCalls(file: whole, maker: "m", subject: subject) else { return }
    _ = known.merged(with: known).calls(at: [0, 1, 1 << 40])
    _ = known.missing(of: [0, 7])
  },

  Target(name: "demangler") { bytes in
    let name = bytes.text
    _ = Demangler(style: .simplified).demangled(name)
    _ = Demangler(style: .full).demangled(name)
    _ = ShortNames.cxx(name)
    _ = ShortNames.rust(name)
    _ = NestedNames.swift(name)
  },

  // A list that is taken can be applied.
  Target(name: "folding") { bytes in
    var folding = FrameFolding.standard
    guard (try? folding.add(list: bytes.text)) != nil else { return }
    let module = Module(start: 0, limit: 1, fileOffset: 0, path: "/usr/lib/libc.so.6", buildID: "")
    let frame = Frame(module: 0, function: "std::vector<int>::push_back(int&&)", file: "/a/b.h")
    _ = folding.matches(frame, in: module)
    _ = folding.isPassage(frame, in: module)
  },
  Target(name: "glob") { bytes in _ = Glob(bytes[text: 0]).matches(bytes[text: 1]) },

  // Settings: what the command says of a value is what systemd's own reader gives back.
  Target(name: "unit") { bytes in
    let text = bytes.text
    _ = try? UnitName(text)
    _ = Quoting.words(text)
    _ = Quoting.environmentFile(text)
    for setting in TracerSetting.allCases { _ = setting.accepts(text) }
    _ = SignalSettings(text)
    let facts = UnitFacts(text)
    _ = facts.sight(of: "/var/lib/heaptap")
    _ = facts.mayExecute("/usr/lib/libheaptap.so")
    guard !text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7f }) else {
      return
    }
    let line = Quoting.assignment("HEAPTAP_DIR", text, specifiers: .expanded)
    let words = Quoting.words(line.dropFirst("Environment=".count))
    // White space beyond ASCII's is no white space to systemd.
    guard text.allSatisfy({ !$0.isWhitespace || $0 == " " }) else { return }
    precondition(words == ["HEAPTAP_DIR=\(text)"], "quoting changes the value")
  },

  // An entry's fields, one after another.
  Target(name: "journal") { bytes in
    var entry = EntryFields()
    let kind = HeapEvent.Kind.limit
    for field in bytes.parts + [
      Array("MESSAGE_ID=\(kind.messageID)".utf8), Array("HEAPTAP_EVENT=limit".utf8),
    ] {
      field.withUnsafeBytes { entry.take($0, valueByteCountLimit: 4096) }
    }
    guard let event = entry.event(timeMicroseconds: bytes.reduce(0) { $0 &* 256 &+ Int($1) }) else {
      return
    }
    var table = EventTable(showsHosts: true, style: TextStyle(width: 40, colour: .ansi))
    _ = table.lines(of: [event]) { _ in nil }
    _ = JSONReport.event(event, messageID: kind.messageID, presence: nil).text
    _ = try? JournalTime.microseconds(bytes.text, now: 1_800_000_000_000_000)
    _ = try? JournalTime.span(bytes.text)
  },

  // Names of dumps, and the kernel's texts about other processes.
  Target(name: "process") { bytes in
    let text = bytes.text
    _ = DumpFile(path: text)?.timeMicroseconds
    _ = DumpFile(partialPath: text + ".partial")?.finalPath
    _ = ProcessFacts.namesTracer(maps: bytes)
    _ = ProcessStatus(text).hasHandler(for: 10)
    _ = PreloadObstacle(elf: bytes)
    _ = ControlGroups(text).isInside(unit: "a")
    _ = text.plainText
  },
]
