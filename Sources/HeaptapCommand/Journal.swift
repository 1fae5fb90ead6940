// SPDX-License-Identifier: Apache-2.0
// heaptap journal

import ArgumentParser
import Glibc
import HeapModel
import JournalReader
import ProcessControl
import Reports

struct ReadJournal: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "journal",
    abstract: "Show what tracers told the journal, a line each.",
    discussion: """
      A line has the time, the unit or else the program with its pid, the event, how full the memory \
      limit was, what was traced, how much that had grown since the snapshot before, and the dump, or \
      what the event says where there is none. A dump that is not there any more is 'missing'.

      A unit's name is the journal's own word, or root's. A '?' after it marks the sender's: it had \
      ended before the journal could look. Program names are always the sender's word.

      Times are written as journalctl takes them: '2026-11-21', '2026-11-21 10:00', 'yesterday', \
      '-1h', '10 min ago'.

      Exit status: 0 done, 1 when nothing matches, 2 when the journal cannot be read, 64 for bad \
      usage.
      """)

  @Argument(
    help: ArgumentHelp("A systemd unit or the name of a program.", valueName: "name"))
  var name: String?

  @OptionGroup var time: TimeOptions

  @Option(
    name: [.customShort("n"), .customLong("lines")],
    help: ArgumentHelp("Show only so many, the newest.", valueName: "count"))
  var count: Int?

  @Flag(
    name: [.customShort("f"), .long],
    help: "Show the newest 10, or as -n says, and go on with what comes.")
  var follow = false

  @Flag(help: "Print a JSON object a line.")
  var json = false

  @OptionGroup var source: JournalOptions

  func validate() throws {
    if let count, count < 1 { throw ValidationError("-n takes a number from 1, not \(count)") }
    if follow && time.until != nil {
      throw ValidationError("--follow does not go with --until")
    }
  }

  func run() throws {
    let journal = try Journal(source.source)
    var query = Journal.Query(
      since: try time.earliest, until: try time.latest, count: count ?? (follow ? 10 : nil))
    if let name { query.matches = { $0.isOf(name) } }
    if follow {
      var printer = EventPrinter(json: json, showsHosts: !source.isLocal)
      Output.endWell(at: [SIGINT, SIGTERM])
      return try journal.follow(query, isWanted: { Output.isWanted }) { printer.print($0) }
    }
    let events = try journal.events(query)
    guard !events.isEmpty else {
      complain(nothingFound)
      throw ExitCode(NothingFound.exitStatus)
    }
    let hosts = Set(events.map(\.sender.host))
    var printer = EventPrinter(json: json, showsHosts: !source.isLocal || hosts.count > 1)
    printer.print(events)
  }

  private var nothingFound: String {
    let whose = name.map { " of '\($0.plainText)'" } ?? ""
    let rights =
      source.isLocal && geteuid() != 0
      ? "; entries of other users are shown to root and the group 'systemd-journal'" : ""
    return "the journal has no entry of a tracer\(whose)\(time.isGiven ? " in that time" : "")"
      + rights
  }
}

/// Nothing was found: neither success nor failure, as with coredumpctl and grep.
enum NothingFound {
  static let exitStatus: Int32 = 1
}

/// From when to when.
struct TimeOptions: ParsableArguments {
  // Times may begin with a dash.
  @Option(
    parsing: .unconditional, help: ArgumentHelp("Not older than this.", valueName: "time"))
  var since: String?

  @Option(
    parsing: .unconditional, help: ArgumentHelp("Not newer than this.", valueName: "time"))
  var until: String?

  func validate() throws {
    do {
      _ = (try earliest, try latest)
    } catch let error as JournalError {
      throw ValidationError(error.description)
    }
  }

  var isGiven: Bool { since != nil || until != nil }

  /// Microseconds since 1970; `nil` for no bound.
  var earliest: Int? {
    get throws { try since.map { try JournalTime.microseconds($0, now: JournalTime.now) } }
  }
  var latest: Int? {
    get throws { try until.map { try JournalTime.microseconds($0, now: JournalTime.now) } }
  }
}

/// Which journal.
struct JournalOptions: ParsableArguments {
  @Option(
    name: [.customShort("D"), .long],
    help: ArgumentHelp(
      "Read the journal files in this directory, also of other hosts.", valueName: "dir"),
    completion: .directory)
  var directory: String?

  @Option(
    help: ArgumentHelp("Read this journal file; repeatable.", valueName: "file"),
    completion: .file(extensions: ["journal"]))
  var file: [String] = []

  func validate() throws {
    if directory != nil && !file.isEmpty { throw ValidationError("-D does not go with --file") }
  }

  var isLocal: Bool { directory == nil && file.isEmpty }

  var source: Journal.Source {
    if let directory { return .directory(directory) }
    return file.isEmpty ? .local : .files(file)
  }
}

/// Prints events as they come.
private struct EventPrinter {
  private let json: Bool
  private var table: EventTable

  init(json: Bool, showsHosts: Bool) {
    self.json = json
    let hasColour = Output.wantsColour(environment: .current)
    table = EventTable(
      showsHosts: showsHosts,
      style: TextStyle(width: Output.terminalWidth, colour: hasColour ? .ansi : .never))
  }

  mutating func print(_ events: [HeapEvent]) {
    if events.isEmpty { return }
    let lines =
      json
      ? events.map {
        JSONReport.event($0, messageID: $0.kind.messageID, presence: $0.dumpPresence).text
      }
      : table.lines(of: events) { $0.dumpPresence }
    Output.write(lines.joined(separator: "\n") + "\n")
  }
}

extension HeapEvent {
  /// What has become of the dump; `nil` without one, and for other machines, whose files are not
  /// here, whatever lies under that path.
  var dumpPresence: DumpPresence? {
    guard isOfThisMachine, let dump else { return nil }
    return DumpPresence.ofDump(atPath: dump)
  }

  var isOfThisMachine: Bool { sender.machineID != nil && sender.machineID == ThisMachine.id }
}

extension DumpPresence {
  /// What has become of the dump that an entry names; `nil` for what is no dump's name.
  static func ofDump(atPath path: String) -> DumpPresence? {
    guard path.hasPrefix("/"), DumpFile(path: path) != nil else { return nil }
    var file = stat()
    // Of the file itself: a link is nobody's dump.
    if unsafe lstat(path, &file) == 0 {
      return file.st_mode & S_IFMT == S_IFREG ? .present : .missing
    }
    if errno != ENOENT && errno != ENOTDIR { return .inaccessible }
    return unsafe lstat(path + ".partial", &file) == 0 ? .partial : .missing
  }
}
