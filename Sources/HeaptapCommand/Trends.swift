// SPDX-License-Identifier: Apache-2.0
// heaptap trend

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

struct Trends: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trend",
    abstract: "Show what leaks, how fast, and when the limit is reached, by any number of dumps.",
    usage: """
      heaptap trend [OPTIONS] DUMP DUMP…
      heaptap trend [OPTIONS] [NAME]
      """,
    discussion: """
      The dumps are those of one recording of one process, in any order. Without files they are all \
      that the newest process has left; a program, a systemd unit or a pid stands for those of its \
      newest process.

          heaptap trend myd
          heaptap trend /var/lib/heaptap/0/*-myd-1234-*.pb --by function

      RATE is how fast a row grows now, over the later half of the dumps: the median of the slopes of \
      all pairs (Theil and Sen). GREW IN counts the intervals between dumps. LIMIT IN is how long until \
      the memory limit is reached if nothing else grows. A row's VERDICT is

        leak        it grows, by Mann's test with one chance in twenty to err;
        levels off  it grew, and goes on at a quarter of its speed or less: a cache;
        churn       it goes up and down, and its rate is that of all dumps;
        undecided   it grew in fewer than four dumps, too lately or in few steps;
        steady, shrinks

      Four dumps can tell a leak, and more tell it better.


      """ + howItReads + "\n\n" + howReportsEnd)

  @Argument(
    help: ArgumentHelp("Dumps, or one program, unit or pid.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dumps: [String] = []

  @OptionGroup var options: ReportOptions

  func validate() throws {
    if dumps.count == 1, dumps[0].isPathOfDump { throw oneFile }
  }

  private var oneFile: ValidationError {
    ValidationError("trend takes two dumps at least, and '\(dumps[0])' is one; name others too")
  }

  private var references: [DumpReference] {
    get throws {
      if dumps.count > 1 { return dumps.map { .named($0) } }
      return try DumpReference.several(of: dumps.first, oneFile: oneFile) {
        try DumpReference.ofNewestProcess(atLeast: 2, of: $0)
      }
    }
  }

  func run() throws {
    let symbolicator = try options.sources.symbolicator(fullNames: options.fullNames)
    let folding = try options.folding
    var memory = SymbolMemory(symbolicator)
    var series = DumpSeries()
    var builder = try Trend.Builder(groupedBy: options.grouping, charging: options.charging)
    // Of those that were found, the newest one says which recording is meant.
    for reference in try references.reversed() {
      guard let snapshot = try series.read(reference) else { continue }
      let named = options.noSymbols ? snapshot : memory.named(snapshot)
      try builder.add(
        options.reported(named, folding), atNanoseconds: try series.time(of: snapshot, reference))
    }
    try series.check()
    let trend = builder.finish()
    if options.json {
      let report = JSONReport.trend(
        trend, paths: series.paths, groupedBy: options.grouping, charging: options.charging,
        limit: options.rowLimit)
      return Output.write("\(report.text)\n")
    }
    let text = TrendText(
      trend, groupedBy: options.grouping, charging: options.charging, limit: options.rowLimit,
      style: options.style)
    Output.write(text.lines.joined(separator: "\n") + "\n")
  }
}

/// Dumps of one recording, read one after the other.
private struct DumpSeries {
  private var recording: Header.Recording?
  private var firstPath = ""
  private var pathOfTime: [Int: String] = [:]
  private var otherRecordings = 0

  /// Of the dumps that were taken, oldest first.
  var paths: [String] { pathOfTime.sorted { $0.key < $1.key }.map(\.value) }

  /// The next dump; `nil` for one that is left out. One that was named has to be of the series.
  mutating func read(_ reference: DumpReference) throws -> Snapshot? {
    let path = reference.path.plainText
    let snapshot: Snapshot
    do {
      snapshot = try reference.read()
    } catch  where reference.origin == .found {
      // It may have been tidied up meanwhile.
      complain("\(error), continuing without it")
      return nil
    }
    let own = snapshot.header.recording
    if let recording, recording != own {
      guard reference.origin == .named else {
        otherRecordings += 1
        return nil
      }
      let isSameProcess =
        (recording.host, recording.bootID, recording.program, recording.pid)
        == (own.host, own.bootID, own.program, own.pid)
      throw Failure(
        "'\(firstPath)' and '\(path)' are of different "
          + (isSameProcess
            ? "recordings of one process, and know of different blocks"
            : "processes (\(recording.whose) and \(own.whose))")
          + "; name dumps of one, or pass the pid of a process for its newest recording")
    }
    if recording == nil { (recording, firstPath) = (own, path) }
    let time = try time(of: snapshot, reference)
    if let other = pathOfTime[time] {
      complain("'\(path)' is the same dump as '\(other.plainText)', continuing without it")
      return nil
    }
    pathOfTime[time] = reference.path
    return snapshot
  }

  /// Nanoseconds, by the clock that nobody sets if the dump has it.
  func time(of snapshot: Snapshot, _ reference: DumpReference) throws -> Int {
    let header = snapshot.header
    let time =
      header.startMonotonicNanoseconds == nil
      ? header.dumpWallNanoseconds : header.dumpMonotonicNanoseconds
    guard let time else {
      throw Failure(
        "'\(reference.path.plainText)' does not say when it was taken, so it has no place in a trend"
      )
    }
    return time
  }

  /// What is left out is said, and that there is too little.
  func check() throws {
    if otherRecordings > 0 {
      complain(
        "\(otherRecordings) of the process's dumps are of earlier recordings, continuing without them"
      )
    }
    guard pathOfTime.count > 1 else {
      throw Failure(
        "'\(firstPath)' is the only dump of its recording, and a trend takes two at least"
          + "; 'heaptap snapshot' writes another")
    }
  }
}

extension Header.Recording {
  /// `redis-server 1234`, as far as it is known.
  fileprivate var whose: String {
    let words = [program, pid.map(String.init)].compactMap { $0 }
    return words.isEmpty ? "one that is not named" : words.joined(separator: " ").plainText
  }
}
