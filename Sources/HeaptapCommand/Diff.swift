// SPDX-License-Identifier: Apache-2.0
// heaptap diff

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

struct Diff: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what changed between two dumps, the largest change first.",
    usage: """
      heaptap diff [OPTIONS] OLD NEW
      heaptap diff [OPTIONS] [NAME]
      """,
    discussion: """
      Without files the newest two dumps of the newest process are compared; the name of a program \
      or systemd unit stands for the newest two of its newest process, and a pid for those of that one.


      """ + howItReads + "\n\n" + howReportsEnd)

  @Argument(
    help: ArgumentHelp(
      "The earlier and the later dump, or a program, unit or pid.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dumps: [String] = []

  @OptionGroup var options: ReportOptions

  @Flag(help: peakHelp)
  var peak = false

  enum SortKey: String, CaseIterable {
    case bytes, blocks
  }

  @Option(
    help: ArgumentHelp("What comes first: most bytes or most blocks of change.", valueName: "key"),
    completion: .list(SortKey.allCases.map(\.rawValue)))
  var sort = SortKey.bytes.rawValue

  func validate() throws {
    _ = try choice(of: "--sort", sort) as SortKey
    if dumps.count > 2 {
      throw ValidationError(
        "diff takes two dumps, one name or nothing, not \(dumps.count) arguments")
    }
    if dumps.count == 1, dumps[0].isPathOfDump { throw oneFile }
  }

  private var oneFile: ValidationError {
    ValidationError("diff takes two dumps, and '\(dumps[0])' is one; name the later one too")
  }

  private var references: [DumpReference] {
    get throws {
      if dumps.count == 2 { return dumps.map { .named($0) } }
      return try DumpReference.several(of: dumps.first, oneFile: oneFile) {
        try DumpReference.newest(2, of: $0)
      }
    }
  }

  func run() throws {
    let references = try references
    if dumps.count < 2 {
      // Which two were chosen is part of the answer, but not of what a program reads.
      complain(
        "comparing '\(references[0].path.plainText)' with '\(references[1].path.plainText)'")
    }
    let snapshots = try options.prepared(
      try references.map { try options.moment(peak, of: $0.read()) })
    let rows = try snapshots[1].compared(
      to: snapshots[0], groupedBy: options.grouping, charging: options.charging)
    if options.json {
      let report = JSONReport.comparison(
        sorted(rows), of: snapshots[1], comparedTo: snapshots[0], groupedBy: options.grouping,
        charging: options.charging, moment: peak ? .peak : .dump, limit: options.rowLimit)
      return Output.write(report)
    }
    options.print(
      TextTable(sorted(rows), limit: options.rowLimit, style: options.style),
      Summary(
        of: snapshots[1].withoutWarnings, comparedTo: snapshots[0].withoutWarnings,
        style: options.style))
  }

  private func sorted(_ rows: [StatisticDifference]) -> [StatisticDifference] {
    switch SortKey(rawValue: sort)! {
    case .bytes: rows
    case .blocks: rows.sortedStably { $0.addedBlocks.magnitude }
    }
  }
}
