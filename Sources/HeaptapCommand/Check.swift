// SPDX-License-Identifier: Apache-2.0
// heaptap check

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

struct Check: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Fail if a heap grew by too much between two dumps, or holds too much in one.",
    usage: """
      heaptap check [OPTIONS] --max-growth SIZE [--per-line SIZE] BASE NOW
      heaptap check [OPTIONS] --max-live SIZE [--per-line SIZE] DUMP
      """,
    discussion: """
      For tests and CI: the exit status says whether the bounds hold, and the lines at fault are \
      printed. Sizes are bytes, or as in 64K, 10M, 1G. Names find dumps as with 'heaptap diff' and, \
      for one dump, 'heaptap show'.

          heaptap check base.pb now.pb --max-growth 10M --per-line 1M
          heaptap run -o out -- ./tests && heaptap check out/*.pb --max-live 64K
          heaptap check base.pb now.pb --max-growth 0 --format markdown >> summary.md

      A suppressions file has lines of 'leak:pattern', as LeakSanitizer reads it: the pattern is any \
      part of the module, function or source file of any frame, with * for any text, and ^ and $ for \
      the beginning and the end. What is used is listed with the blocks and bytes that it left out, and \
      what is not used is told.


      """ + howItReads + """


        Exit status: 0 within bounds, 1 out of them, 2 when a dump or the suppressions cannot be read, 64 \
        for bad usage.
        """)

  @Argument(
    help: ArgumentHelp(
      "The earlier and the later dump, or one; or a program, unit or pid.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dumps: [String] = []

  @Option(
    help: ArgumentHelp("How much more may be alive in the later dump.", valueName: "size"))
  var maxGrowth: String?

  @Option(help: ArgumentHelp("How much may be alive in the later dump.", valueName: "size"))
  var maxLive: String?

  @Option(
    help: ArgumentHelp(
      "How much more any one line, or what --by says, may have; of one dump, how much at all.",
      valueName: "size"))
  var perLine: String?

  @Option(
    help: ArgumentHelp("What to leave out: lines of leak:pattern.", valueName: "file"),
    completion: .file())
  var suppressions: String?

  enum Format: String, CaseIterable {
    case text, json, markdown
  }

  @Option(
    help: ArgumentHelp(
      "How to print: text, json, or markdown for the summary of a job.", valueName: "format"),
    completion: .list(Format.allCases.map(\.rawValue)))
  var format: String?

  @OptionGroup var options: ReportOptions

  func validate() throws {
    for (name, size) in [
      ("--max-growth", maxGrowth), ("--max-live", maxLive), ("--per-line", perLine),
    ] {
      if let size, byteCount(ofSize: size) == nil {
        throw ValidationError("\(name) takes a size as in '10M', not '\(size)'")
      }
    }
    if maxGrowth == nil && maxLive == nil && perLine == nil {
      throw ValidationError("check needs a bound: --max-growth, --max-live or --per-line")
    }
    if dumps.count > 2 {
      throw ValidationError("check takes two dumps, one or a name, not \(dumps.count) arguments")
    }
    if maxGrowth != nil, dumps.count == 1, dumps[0].isPathOfDump { throw oneFile }
    guard let format else { return }
    let chosen: Format = try choice(of: "--format", format)
    if options.json && chosen != .json {
      throw ValidationError("--json does not go with --format \(format)")
    }
  }

  private var oneFile: ValidationError {
    ValidationError(
      "--max-growth compares two dumps, and '\(dumps[0])' is one; name the later one too, or pass "
        + "--max-live")
  }

  /// Checked by `validate`.
  private var chosenFormat: Format {
    options.json ? .json : format.flatMap { Format(rawValue: $0) } ?? .text
  }

  private var bounds: GrowthCheck.Bounds {
    GrowthCheck.Bounds(
      growthBytes: maxGrowth.flatMap(byteCount), liveBytes: maxLive.flatMap(byteCount),
      rowBytes: perLine.flatMap(byteCount))
  }

  /// The earlier dump, if two are compared, and the later one.
  private var references: [DumpReference] {
    get throws {
      if dumps.count == 2 { return dumps.map { .named($0) } }
      guard maxGrowth != nil else { return [try .found(for: dumps.first)] }
      return try DumpReference.several(of: dumps.first, oneFile: oneFile) {
        try DumpReference.newest(2, of: $0)
      }
    }
  }

  func run() throws {
    // Before what takes longer: it may be wrong.
    let suppressions = try suppressions.map { try Suppressions(file: $0) }
    let references = try references
    if references.count == 2 && dumps.count < 2 {
      complain(
        "comparing '\(references[0].path.plainText)' with '\(references[1].path.plainText)'")
    }
    let snapshots = try references.map { try $0.whole() }
    let prepared =
      try suppressions.map { try options.prepared(snapshots, without: $0) }
      ?? options.prepared(snapshots).map { Snapshot.Suppressed(rest: $0, taken: []) }
    let earlier = prepared.count == 2 ? prepared[0] : nil
    let later = prepared[prepared.count - 1]
    let check = try GrowthCheck(
      of: later.rest, comparedTo: earlier?.rest ?? Snapshot(), groupedBy: options.grouping,
      charging: options.charging, bounds)
    let report = CheckReport(
      check, Self.matches(suppressions, earlier: earlier, later: later),
      groupedBy: options.grouping, charging: options.charging, compares: earlier != nil,
      limit: options.rowLimit)
    switch chosenFormat {
    case .text:
      Output.write(report.lines(style: options.style).joined(separator: "\n") + "\n")
    case .markdown: Output.write(report.markdown.joined(separator: "\n") + "\n")
    case .json: Output.write(report.json.text + "\n")
    }
    if !check.passes { throw ExitCode(Self.failedExitStatus) }
  }

  private static let failedExitStatus: Int32 = 1

  /// What each suppression has left out: of growth, where two dumps are compared.
  private static func matches(
    _ suppressions: Suppressions?, earlier: Snapshot.Suppressed?, later: Snapshot.Suppressed
  ) -> [CheckReport.Suppression] {
    (suppressions?.rules ?? []).enumerated().map { number, rule in
      let (before, now) = (earlier?.taken[number], later.taken[number])
      let amount = Snapshot.Suppressed.Amount(
        bytes: (now?.bytes ?? 0) - (before?.bytes ?? 0),
        blocks: (now?.blocks ?? 0) - (before?.blocks ?? 0))
      return CheckReport.Suppression(
        rule: rule, taken: before == nil && now == nil ? nil : amount)
    }
  }
}
