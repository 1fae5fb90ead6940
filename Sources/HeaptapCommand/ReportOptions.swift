// SPDX-License-Identifier: Apache-2.0
// What reports have in common: which rows, which frames, and how they are printed.

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

struct ReportOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      What a row stands for: line, file, function, stack, module, generation, type (what the objects of \
      Swift are), thread (who allocated; recorded with HEAPTAP_THREADS=1) or reach (what was lost; \
      found with HEAPTAP_LEAKS=1).
      """,
      valueName: "what"),
    completion: .list(Snapshot.Grouping.allCases.map(\.rawValue)))
  var by = Snapshot.Grouping.line.rawValue

  @Flag(help: "Charge every caller as well; rows then overlap.")
  var cumulative = false

  @Option(
    name: [.customShort("n"), .long],
    help: ArgumentHelp("How many rows to show; 0 shows all.", valueName: "n"))
  var limit = 10

  @Option(
    help: ArgumentHelp(
      "Keep only what has a file, function or module that matches this glob; repeatable.",
      valueName: "pattern"))
  var include: [String] = []

  @Option(
    help: ArgumentHelp(
      "Leave out what has a file, function or module that matches this glob; repeatable.",
      valueName: "pattern"))
  var exclude: [String] = []

  @Flag(help: "Show the frames of the allocator and of the language's runtime too.")
  var allFrames = false

  @OptionGroup var lists: FoldingLists

  @Flag(help: fullNamesHelp)
  var fullNames = false

  @Flag(help: "Show modules and offsets, and read no other files than the dumps.")
  var noSymbols = false

  @OptionGroup var sources: SymbolSources

  @Flag(help: "Print JSON.")
  var json = false

  static let fullNamesHelp: ArgumentHelp = """
    Keep modules, types and hashes in names, and closures apart from their functions.
    """

  func validate() throws {
    _ = try choice(of: "--by", by) as Snapshot.Grouping
    if cumulative && by == Snapshot.Grouping.stack.rawValue {
      throw ValidationError(
        "--cumulative does not go with --by stack: a stack is all of its frames already")
    }
    if limit < 0 { throw ValidationError("-n takes a number from 0, not \(limit)") }
  }

  // Checked by `validate`.
  var grouping: Snapshot.Grouping { Snapshot.Grouping(rawValue: by)! }
  var charging: Snapshot.Charging { cumulative ? .everyFrame : .allocatingFrame }

  /// A pattern is about whichever of file, function and module it matches.
  var filters: [Filter] {
    let scope: Filter.Scope = cumulative ? .anyFrame : .allocatingFrame
    func subjects(_ pattern: String) -> [Filter] {
      let glob = Glob(pattern)
      return [.file(glob, in: scope), .function(glob, in: scope), .module(glob, in: scope)]
    }
    return include.flatMap(subjects) + exclude.flatMap(subjects).map { !$0 }
  }

  /// The snapshot, or what it tells of the peak.
  func moment(_ isPeak: Bool, of snapshot: Snapshot) throws -> Snapshot {
    isPeak ? try snapshot.atPeak(groupedBy: grouping) : snapshot
  }

  /// `nil` shows all.
  var rowLimit: Int? { limit == 0 ? nil : limit }

  /// Rows first, so that the first line is the answer; then what the figures are part of.
  func print(_ table: TextTable, _ summary: Summary) {
    Output.write { output in
      table.forEachLine { output.write($0 + "\n") }
      if !table.isEmpty { output.write("\n") }
      for line in summary.lines { output.write(line + "\n") }
    }
  }

  /// Names are shortened on a terminal only: a file has room.
  var style: TextStyle {
    let hasColour = Output.wantsColour(environment: .current)
    return TextStyle(
      width: Output.terminalWidth, colour: hasColour ? .ansi : .never,
      drawsInASCII: !Output.showsUTF8(environment: .current))
  }
}

/// Of the flag `--peak`.
let peakHelp: ArgumentHelp = """
  Show what was alive when the heap was largest; kept by HEAPTAP_PEAK=1 and 'heaptap run --peak'.
  """

/// `256M` in bytes: K, M, G and T are powers of 1024.
func byteCount(ofSize text: String) -> Int? {
  let digits = text.prefix { $0.isNumber }
  let powers = ["": 0, "K": 10, "M": 20, "G": 30, "T": 40]
  guard let number = Int(digits),
    let power = powers[String(text[digits.endIndex...]).uppercased()]
  else { return nil }
  let (result, overflow) = number.multipliedReportingOverflow(by: 1 << power)
  return overflow ? nil : result
}

extension Output {
  static func write(_ report: JSONReport.Document) {
    write { output in
      report.write(to: &output)
      output.write("\n")
    }
  }
}

/// The case of a word, or a sentence that lists the words.
func choice<Choice: CaseIterable & RawRepresentable<String>>(
  of option: String, _ word: String
) throws -> Choice {
  if let choice = Choice(rawValue: word) { return choice }
  let words = Choice.allCases.map(\.rawValue)
  throw ValidationError(
    "\(option) takes \(words.dropLast().joined(separator: ", ")) or \(words.last!), not '\(word)'")
}

/// What these commands say of how dumps are found and read, and how they end.
let howItReads = """
  Dumps are looked for in HEAPTAP_DIR, the current directory, /var/lib/heaptap/<uid> and \
  /var/tmp/heaptap-<uid>; root looks in those of all users. Functions and lines are read from the \
  binaries, their separate debug files, or a server that DEBUGINFOD_URLS names, matched by build \
  ID, and are kept for the next time below XDG_CACHE_HOME or ~/.cache. A pattern is compared with \
  the frame that is charged; with --cumulative, with all of them. Colours are used on a terminal, \
  unless NO_COLOR is set or TERM is 'dumb'.
  """

let howReportsEnd =
  "Exit status: 0 done, 2 when a dump cannot be found or read, 64 for bad usage."
