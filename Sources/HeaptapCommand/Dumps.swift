// SPDX-License-Identifier: Apache-2.0
// heaptap dumps, and how dumps on disk and in the journal are put together.

import ArgumentParser
import Glibc
import HeapModel
import JournalReader
import Pprof
import ProcessControl
import Reports
import Symbolication

struct Dumps: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List, describe and tidy up the dumps that are kept, or have been.",
    subcommands: [DumpsList.self, DumpsInfo.self, DumpsTidy.self],
    defaultSubcommand: DumpsList.self)
}

/// What is said of how dumps are found.
let howDumpsAreFound = """
  Dumps are looked for in HEAPTAP_DIR, in /var/lib/heaptap with the directories of users and units \
  below it, and in /var/tmp/heaptap-<uid>; root looks in those of all users. A match is a pid, a \
  program's name, a systemd unit or the path of a dump; several are alternatives.
  """

/// Which dumps.
struct DumpMatchOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp("A pid, program, unit or path of a dump.", valueName: "match"),
    completion: .file(extensions: ["pb", "partial"]))
  var matches: [String] = []

  @OptionGroup var time: TimeOptions

  @Option(
    name: [.customLong("dir")],
    help: ArgumentHelp("Look only here and in the directories below.", valueName: "dir"),
    completion: .directory)
  var directory: String?

  /// The dumps on disk, those that are not to be touched included.
  func storedDumps() throws -> [StoredDump] {
    var seen: Set<StoredDump.FileIdentity> = []
    return try DumpDirectory.all(directory, environment: .current).flatMap(\.dumps)
      .sorted { $0.file < $1.file }.filter { seen.insert($0.identity).inserted }
  }

  func isWanted(_ entry: DumpEntry) throws -> Bool {
    let began = entry.file.timeMicroseconds
    guard began >= (try time.earliest) ?? .min, began <= (try time.latest) ?? .max else {
      return false
    }
    return matches.isEmpty || matches.contains { entry.matches($0) }
  }
}

/// A dump: on disk, or only told of by the journal.
struct DumpEntry {
  let file: DumpFile
  let presence: DumpPresence
  /// `nil` for a dump that is not there.
  let stored: StoredDump?
  /// What the tracer told the journal when it had written the dump.
  let event: HeapEvent?
  /// What the dump says of itself; empty where it cannot be read.
  let header: Header

  init(file: DumpFile, presence: DumpPresence, stored: StoredDump? = nil, event: HeapEvent?) {
    self.file = file
    self.presence = presence
    self.stored = stored
    self.event = event
    // Any prefix of a dump is a dump.
    let start =
      presence == .missing
      ? nil : try? DumpFile.contents(of: file.path, .found, prefix: 65536)
    header = start.flatMap { try? Snapshot(profile: $0).header } ?? Header()
  }

  /// The journal's own word before that of the dump's header.
  var unit: String? {
    let told = event?.unit
    return event?.isUnitVouchedFor == true ? told ?? header.unit : header.unit ?? told
  }
  var trigger: String? { header.trigger ?? event?.trigger }
  var liveBytes: Int? { header.liveBytes ?? event?.liveBytes }

  /// Whether somebody means this dump by a pid, a name or a path.
  func matches(_ text: String) -> Bool {
    if text.contains("/") { return Self.absolutePath(text) == file.path }
    if file.path.hasSuffix("/" + text) { return true }
    if let pid = Int32(text) { return file.pid == pid }
    return file.program == DumpFile.fileName(ofProgram: text) || unit == text
      || unit == text + ".service"
  }

  /// The path without links as far as its directory is there.
  private static func absolutePath(_ path: String) -> String {
    let end = path.lastIndex(of: "/").map { path.index(after: $0) } ?? path.startIndex
    guard let resolved = unsafe realpath(end == path.startIndex ? "." : String(path[..<end]), nil)
    else { return path }
    defer { unsafe free(resolved) }
    let directory = unsafe String(cString: resolved)
    return (directory == "/" ? "/" : directory + "/") + path[end...]
  }

  /// What is on disk, and what this machine's journal tells of besides; oldest first.
  ///
  /// Without a journal, or where it may not be read, there is what is on disk.
  static func all(_ options: DumpMatchOptions) throws -> [DumpEntry] {
    let stored = try options.storedDumps()
    let events = Self.events()
    var entries = stored.map { dump in
      DumpEntry(
        file: dump.file, presence: dump.file.isPartial ? .partial : .present, stored: dump,
        event: events[dump.file.finalPath])
    }
    let identities = Set(stored.map(\.identity))
    let paths = Set(stored.map(\.file.finalPath))
    let root = options.directory.map { absolutePath($0 + "/.") }.map { String($0.dropLast(2)) }
    for (path, event) in events where !paths.contains(path) {
      if let root, !path.hasPrefix(root + "/") { continue }
      guard let file = DumpFile(path: path), let presence = DumpPresence.ofDump(atPath: path) else {
        continue
      }
      // The same file may have been named by way of a link.
      if let identity = StoredDump.FileIdentity(path: path), identities.contains(identity) {
        continue
      }
      if presence == .partial { continue }
      entries.append(DumpEntry(file: file, presence: presence, event: event))
    }
    return try entries.filter { try options.isWanted($0) }.sorted { $0.file < $1.file }
  }

  /// The newest event of each dump that tracers on this machine told the journal of.
  private static func events() -> [String: HeapEvent] {
    guard let journal = try? Journal(.local),
      let events = try? journal.events(
        Journal.Query { $0.dump != nil && $0.kind != .report && $0.isOfThisMachine })
    else { return [:] }
    return Dictionary(events.map { ($0.dump!, $0) }, uniquingKeysWith: { $1 })
  }
}

/// Some of the entries, or the sentence that there are none.
struct DumpChoice: ParsableArguments {
  @OptionGroup var options: DumpMatchOptions

  @Flag(name: [.customShort("1")], help: "Only the newest.")
  var newest = false

  @Option(
    name: [.customShort("n")],
    help: ArgumentHelp("Only so many, the newest.", valueName: "count"))
  var count: Int?

  func validate() throws {
    if let count, count < 1 { throw ValidationError("-n takes a number from 1, not \(count)") }
  }

  func entries() throws -> [DumpEntry] {
    let entries = try DumpEntry.all(options)
    guard !entries.isEmpty else {
      let isChosen = !options.matches.isEmpty || options.time.isGiven
      complain("no dump \(isChosen ? "matches" : "is kept, and the journal tells of none")")
      throw ExitCode(NothingFound.exitStatus)
    }
    return entries.suffix(newest ? 1 : count ?? entries.count)
  }
}

struct DumpsList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list",
    abstract: "List dumps, oldest first: those that are there, and those that were (the default).",
    discussion: """
      STATE is 'present'; 'missing' for a dump that the journal tells of and that is gone; 'partial' \
      for one that is being written, or was left unfinished by a kill: 'heaptap dumps gc' salvages \
      these, and 'heaptap show' reads them; 'inaccessible' where we may not look.

      \(howDumpsAreFound)

      Exit status: 0 done, 1 when nothing matches, 2 when a directory cannot be read, 64 for bad \
      usage.
      """)

  @OptionGroup var choice: DumpChoice

  @Flag(help: "Print a JSON array.")
  var json = false

  func run() throws {
    let entries = try choice.entries()
    if json { return Output.write(JSON.array(entries.map(Self.object)).text + "\n") }
    let heading = ["TIME", "PROGRAM", "PID", "UNIT", "TRIGGER", "LIVE", "SIZE", "STATE", "PATH"]
    let rows = entries.map { entry in
      [
        LocalTime.text(microseconds: entry.file.timeMicroseconds), entry.file.program.plainText,
        "\(entry.file.pid)", (entry.unit ?? "-").plainText, (entry.trigger ?? "-").plainText,
        entry.liveBytes.map { "\(ByteCount($0))" } ?? "-",
        entry.stored.map { "\(ByteCount($0.byteCount))" } ?? "-", entry.presence.rawValue,
        entry.file.path.plainText,
      ]
    }
    Output.write(
      TextColumns.lines([heading] + rows, figures: [2, 5, 6]).joined(separator: "\n") + "\n")
  }

  private static func object(_ entry: DumpEntry) -> JSON {
    .object([
      .init("time", .string(UTC.text(microseconds: entry.file.timeMicroseconds))),
      .init("program", .string(entry.file.program)), .init("pid", .integer(Int(entry.file.pid))),
      .init("unit", entry.unit.map(JSON.string) ?? .null),
      .init("trigger", entry.trigger.map(JSON.string) ?? .null),
      .init("live_bytes", entry.liveBytes.map(JSON.integer) ?? .null),
      .init("size_bytes", entry.stored.map { .integer($0.byteCount) } ?? .null),
      .init("state", .string(entry.presence.rawValue)),
      .init("path", .string(entry.file.path)),
    ])
  }
}

struct DumpsInfo: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "info",
    abstract: "Tell what dumps are about: whose, why, how near the limit, and what is largest.",
    discussion: """
      \(howDumpsAreFound)

      Exit status: 0 done, 1 when nothing matches, 2 when a dump cannot be read, 64 for bad usage.
      """)

  private static let siteCount = 5

  @OptionGroup var choice: DumpChoice

  @Flag(help: "Show modules and offsets, and read no other files than the dumps.")
  var noSymbols = false

  @OptionGroup var sources: SymbolSources

  func run() throws {
    let symbolicator = noSymbols ? nil : try sources.symbolicator()
    var failed = false
    for (number, entry) in try choice.entries().enumerated() {
      if number > 0 { Output.write("\n") }
      let size = entry.stored.map { ", \(ByteCount($0.byteCount))" } ?? ""
      Output.write("\(entry.file.path.plainText) (\(entry.presence.rawValue)\(size))\n")
      guard entry.presence == .present || entry.presence == .partial else {
        Self.describe(entry)
        continue
      }
      do {
        try describe(
          DumpReference(path: entry.file.path, origin: .found).read(), by: symbolicator)
      } catch {
        complain("\(error)")
        failed = true
      }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }

  private func describe(_ snapshot: Snapshot, by symbolicator: Symbolicator?) {
    let named = (symbolicator.map { Symbols.named([snapshot], by: $0)[0] } ?? snapshot).folded()
    let hasColour = Output.wantsColour(environment: .current)
    let style = TextStyle(width: Output.terminalWidth, colour: hasColour ? .ansi : .never)
    let table = TextTable(
      named.statistics(groupedBy: .line), limit: Self.siteCount, style: style)
    Output.write(
      (Summary(of: named.withoutWarnings, style: style).lines + table.lines)
        .map { "  \($0)\n" }.joined())
  }

  /// What the journal still knows of a dump.
  private static func describe(_ entry: DumpEntry) {
    guard let event = entry.event else { return }
    let unit = event.unit.map { ", unit \($0)" } ?? ""
    let time = LocalTime.text(microseconds: event.timeMicroseconds)
    let lines =
      ["\(entry.file.program) (\(entry.file.pid))\(unit), \(time), says the journal:"]
      + event.message.split(separator: "\n").map(String.init)
    Output.write(lines.map { "  \($0.plainText)\n" }.joined())
  }
}
