// SPDX-License-Identifier: Apache-2.0
// heaptap report

import ArgumentParser
import Glibc
import HeapModel
import JournalReader
import Pprof
import ProcessControl
import Reports
import Symbolication

struct Report: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Tell the journal what is in dumps, with files and lines.",
    usage: """
      heaptap report [--symbolize] DUMP…
      heaptap report --new [--symbolize] [--state DIR] [--dir DIR]
      """,
    discussion: """
      Each dump becomes one entry, in the form of the tracer's own: how much, how much more than in \
      the dump before of the same process if that is still there, how full the limit was, the five \
      sites that grew most and the five largest. The tracer knows functions at most; here their files \
      and lines are read, in another process than the daemon and as 'heaptap show' reads them.

      --new is what heaptap-report.service runs, with --symbolize: each dump that is kept and was not \
      reported yet is, once. One that cannot be read is complained of once, and the others go on. Dumps \
      that are still being written wait for the next time.

      An entry of root's shows in 'journalctl -u UNIT'. A dump's unit is told only where more than the \
      dump says so: it is root's file, the journal has it from the process itself, or the process \
      still lives.

      Exit status: 0 done, 2 when a dump cannot be read or there is no journal (with --new, only \
      where there is no journal or no place to remember), 64 for bad usage.
      """)

  @Argument(
    help: ArgumentHelp("A dump.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz", "partial"]))
  var dumps: [String] = []

  @Flag(help: "Report every dump that has not been reported yet.")
  var new = false

  @Option(
    help: ArgumentHelp(
      "Where to remember what was reported; if not given, STATE_DIRECTORY of systemd.",
      valueName: "dir"),
    completion: .directory)
  var state: String?

  @Option(
    name: [.customLong("dir")],
    help: ArgumentHelp(
      "With --new, look for dumps only here and in the directories below.", valueName: "dir"),
    completion: .directory)
  var directory: String?

  @Flag(
    help:
      "When a dump is reported, put functions and lines into it, as 'symbolize --in-place' does.")
  var symbolize = false

  @OptionGroup var lists: FoldingLists
  @OptionGroup var sources: SymbolSources

  func validate() throws {
    if new && !dumps.isEmpty { throw ValidationError("report takes dumps or --new, not both") }
    if !new && dumps.isEmpty {
      throw ValidationError("report needs a dump, or --new for those not reported yet")
    }
    if !new && (state != nil || directory != nil) {
      throw ValidationError("--state and --dir go with --new only")
    }
    if new && stateDirectory == nil {
      throw ValidationError("--new needs --state, a directory to remember in, outside systemd")
    }
  }

  /// Several are separated by colons; ours is the first.
  private var stateDirectory: String? {
    state
      ?? ProcessEnvironment.current["STATE_DIRECTORY"]?.split(separator: ":").first
      .map(String.init)
  }

  func run() throws {
    let reporter = DumpReporter(
      symbolicator: try sources.symbolicator(rights: .confined), folding: try folding())
    if new { return try reportNew(reporter) }
    var failed = false
    for path in dumps {
      do {
        let named = try NamedDump(path)
        try reporter.report(named.path, owner: named.ownerID, among: named.neighbours, .named)
        Output.write("told the journal of '\(path.plainText)'\n")
        if symbolize { try reporter.putNames(into: named.path) }
      } catch let error as JournalError {
        throw error
      } catch {
        complain("\(error)")
        failed = true
      }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }

  /// What is folded. With --new nobody is there to mend a list, and reports go before its taste.
  private func folding() throws -> FrameFolding {
    do {
      return try lists.folding()
    } catch  where new && lists.lists.isEmpty {
      complain("\(error); continuing with the list that is built in")
      return .standard
    }
  }

  // MARK: What is new

  /// So many of one directory before the others get their turn: a burst in one holds up nobody.
  private static let turn = 16

  private func reportNew(_ reporter: DumpReporter) throws {
    try JournalSender.check()
    let memory = try ReportedDumps(directory: stateDirectory!)
    var all: [StoredDump] = []
    while true {
      all = try DumpDirectory.all(directory, environment: .current).flatMap(\.dumps)
        .filter { !$0.file.isPartial }.sorted { $0.file < $1.file }
      let fresh = all.filter { !memory.contains($0.file.path) }
      if fresh.isEmpty { break }
      let neighbours = Dictionary(grouping: all, by: \.directory)
      for (directory, dumps) in Dictionary(grouping: fresh, by: \.directory) {
        let files = neighbours[directory]!.map(\.file)
        for dump in dumps.prefix(Self.turn) { try report(dump, among: files, reporter, memory) }
      }
    }
    try memory.keepOnly(all.map(\.file.path))
  }

  private func report(
    _ dump: StoredDump, among files: [DumpFile], _ reporter: DumpReporter,
    _ memory: ReportedDumps
  ) throws {
    let path = dump.file.path
    // First of all: a dump that this process should die of must not be met again and again.
    try memory.note(path, .begun)
    do {
      try reporter.report(path, owner: dump.ownerID, among: files, .found)
    } catch let error as JournalError {
      try memory.note(path, .notYet)
      throw error
    } catch {
      complain("\(error), going on with the next")
    }
    try memory.note(path, .done)
    // After that: what is in the journal stays there, whatever becomes of this.
    guard symbolize else { return }
    do {
      try reporter.putNames(into: path)
    } catch {
      // Its process may have removed it meanwhile, to keep no more than it was told to.
      guard OutputFile.status(of: path) != nil else { return }
      complain("\(error), so it stays without names")
    }
  }
}

/// A dump that somebody typed the path of.
private struct NamedDump {
  let path: String
  let ownerID: uid_t
  let neighbours: [DumpFile]

  init(_ typed: String) throws {
    var file = stat()
    guard unsafe stat(typed, &file) == 0, let resolved = unsafe realpath(typed, nil) else {
      let words = unsafe String(cString: strerror(errno))
      throw Failure(
        "cannot read '\(typed.plainText)': \(words.prefix(1).lowercased() + words.dropFirst())")
    }
    defer { unsafe free(resolved) }
    path = unsafe String(cString: resolved)
    ownerID = file.st_uid
    neighbours = DumpFile.all(inDirectory: String(path[..<path.lastIndex(of: "/")!]))
  }
}

/// Makes journal entries of dumps.
private struct DumpReporter {
  let symbolicator: Symbolicator
  let folding: FrameFolding

  func report(
    _ path: String, owner: uid_t, among files: [DumpFile], _ origin: DumpFile.Origin
  ) throws {
    var snapshot = try Self.read(path, origin)
    let file = DumpFile(path: path) ?? DumpFile(partialPath: path)
    var earlier = file.flatMap { Self.earlier(snapshot, $0, files) }
    if let other = earlier, other.hasSymbols != snapshot.hasSymbols {
      // One of them was made self-contained: they are compared by what both have.
      (snapshot, earlier) = (snapshot.withoutSymbols(), other.withoutSymbols())
    }
    let summary = JournalSummary(of: snapshot, comparedTo: earlier) { few in
      Symbols.named([few], by: symbolicator, foldedBy: folding, complaining: false)[0]
    }
    let unit = try Self.unit(of: snapshot.header, path: path, owner: owner, file: file)
    try JournalSender.send(Self.fields(snapshot, summary, path: path, unit: unit))
  }

  /// Makes a dump self-contained: with the functions and lines that are known here.
  ///
  /// The file keeps its name, owner, mode and times, and is replaced as a whole. What is complete
  /// already is left as it is.
  func putNames(into path: String) throws {
    let dump = try DumpToName(found: path)
    let snapshot: Snapshot
    do throws(ProfileError) {
      snapshot = try Snapshot(profile: dump.bytes)
    } catch {
      throw Failure("cannot read '\(path.plainText)': \("\(error)".plainText)")
    }
    let calls = Symbols.calls(
      in: [snapshot], by: symbolicator, complaining: false)[0]
    let isNew = snapshot.distinctFrames.contains { frame in
      frame.function == nil && calls[frame, default: []].contains { $0.function != nil }
    }
    if isNew { try dump.replaceByNamed(calls) }
  }

  private static func read(_ path: String, _ origin: DumpFile.Origin) throws -> Snapshot {
    do {
      let snapshot = try Snapshot(profile: try DumpFile.contents(of: path, origin))
      guard snapshot.header.isHeaptap else {
        throw Failure("cannot report '\(path.plainText)': no Heaptap wrote it")
      }
      return snapshot
    } catch let error as ProfileError {
      throw Failure("cannot read '\(path.plainText)': \("\(error)".plainText)")
    }
  }

  /// The same recording's dump before this one, if it is still there.
  private static func earlier(
    _ snapshot: Snapshot, _ file: DumpFile, _ files: [DumpFile]
  ) -> Snapshot? {
    let own = files.filter { $0.pid == file.pid && $0.program == file.program }
    let before = file.ofTheSameProcess(in: own).last { $0 < file }
    guard let before, let bytes = try? DumpFile.contents(of: before.path, .found),
      let earlier = try? Snapshot(profile: bytes)
    else { return nil }
    let (now, then) = (snapshot.header, earlier.header)
    // A process may have recorded twice, and a dump in between may be gone.
    guard now.bootID == then.bootID,
      now.startMonotonicNanoseconds == then.startMonotonicNanoseconds,
      let opened = now.openedGeneration, let openedThen = then.openedGeneration,
      // They stop counting at some point.
      case (let step, false) = opened.subtractingReportingOverflow(openedThen),
      (0...1).contains(step)
    else { return nil }
    return earlier
  }

  // MARK: Whose

  /// The unit that a dump's header names, if more than the dump says so.
  ///
  /// Root's word counts for readers of the journal, so it must not be lent to whoever can write a
  /// file into his own directory. Other users speak for themselves.
  private static func unit(
    of header: Header, path: String, owner: uid_t, file: DumpFile?
  ) throws -> String? {
    guard let claimed = header.unit else { return nil }
    if geteuid() != 0 || owner == 0 { return claimed }
    // In a sandbox the kernel may not say which boot this is.
    let isOfThisBoot = ThisBoot.id.map { $0 == header.bootID } ?? true
    if let file, isOfThisBoot, file.unitOfLivingProcess(ofUser: owner) == claimed {
      return claimed
    }
    let isFresh = (file?.timeMicroseconds ?? 0) > JournalTime.now - 60_000_000
    for attempt in 0..<(isFresh ? 2 : 1) {
      // The tracer's own entry comes after its dump, and we may have been faster.
      if attempt > 0 { sleep(1) }
      let told = try Journal(.local).events(
        Journal.Query(since: file.map { $0.timeMicroseconds - 3_600_000_000 }) { event in
          event.dump == path && event.kind != .report && event.sender.userID == owner
            && event.isUnitVouchedFor && event.unit == claimed
        })
      if !told.isEmpty { return claimed }
    }
    return nil
  }

  // MARK: The entry

  private static func fields(
    _ snapshot: Snapshot, _ summary: JournalSummary, path: String, unit: String?
  ) -> [(name: String, value: String)] {
    let header = snapshot.header
    let kind = HeapEvent.Kind.report
    var fields: [(name: String, value: String)] = [
      ("MESSAGE", summary.message + "\nread from '\(path.plainText)'"),
      ("MESSAGE_ID", kind.messageID), ("PRIORITY", "5"), ("SYSLOG_IDENTIFIER", "heaptap"),
      ("HEAPTAP_EVENT", kind.rawValue),
    ]
    // journald takes it from root only, and shows the entry among the unit's.
    if geteuid() == 0, let unit { fields.append(("OBJECT_SYSTEMD_UNIT", unit)) }
    let lost = header.losses.filter { $0.key.hasPrefix("lost.") }.reduce(0) {
      $0.addingSaturated($1.count)
    }
    let words: [(String, String?)] = [
      ("PID", header.pid.map(String.init)), ("EXE", header.executable),
      ("PROGRAM", header.program), ("UNIT", unit), ("VERSION", header.tracerVersion),
      ("TRIGGER", header.trigger), ("DUMP", path),
      ("LIVE_BYTES", "\(header.scannedBytes ?? snapshot.liveBytes)"),
      ("LIVE_BLOCKS", "\(header.scannedBlocks ?? snapshot.liveBlocks)"),
      ("PEAK_BYTES", header.peakBytes.map(String.init)),
      ("GROWTH_BYTES", summary.growthBytes.map(String.init)),
      ("USAGE_BYTES", header.limitUsageBytes.map(String.init)),
      ("LIMIT_BYTES", header.limitBytes.map(String.init)), ("LIMIT_SOURCE", header.limitSource),
      ("HEADROOM_BYTES", header.limitHeadroomBytes.map(String.init)),
      ("RATE_BYTES", header.limitRateBytes.map(String.init)), ("MARK", header.limitMark),
      ("LOST", "\(lost)"), ("LEFT_OUT_BYTES", header.leftOutBytes.map(String.init)),
    ]
    for case (let name, let value?) in words { fields.append(("HEAPTAP_\(name)", value)) }
    for (number, site) in summary.sites.enumerated() {
      fields.append(("HEAPTAP_SITE_\(number + 1)", site))
    }
    return fields
  }
}
