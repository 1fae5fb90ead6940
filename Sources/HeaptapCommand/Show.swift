// SPDX-License-Identifier: Apache-2.0
// heaptap show

import ArgumentParser
import Glibc
import HeapModel
import ProcessControl
import Reports

struct Show: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what is allocated in a dump, the largest first.",
    discussion: """
      Without a dump the newest one is shown; the name of a program or systemd unit, or a pid, stands \
      for its newest dump.


      """ + howItReads + "\n\n" + howReportsEnd)

  @Argument(
    help: ArgumentHelp("A dump, or a program, unit or pid.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dump: String?

  @OptionGroup var options: ReportOptions

  enum SortKey: String, CaseIterable {
    case bytes, blocks, total
  }

  @Option(
    help: ArgumentHelp(
      "What comes first: most bytes, most blocks, or most bytes in total, freed or not.",
      valueName: "key"),
    completion: .list(SortKey.allCases.map(\.rawValue)))
  var sort = SortKey.bytes.rawValue

  enum Held: String, CaseIterable {
    case lost, indirect, leaked, held

    var reach: Set<Snapshot.Reach> {
      switch self {
      case .lost: [.lost]
      case .indirect: [.indirect]
      case .leaked: Snapshot.Reach.leaked
      case .held: [.held]
      }
    }
  }

  @Option(
    help: ArgumentHelp(
      """
      Keep only blocks that were lost when the process ended, those that only lost ones led to \
      (indirect), both (leaked), or all others (held); found by 'heaptap run --leaks' and HEAPTAP_LEAKS=1.
      """,
      valueName: "what"),
    completion: .list(Held.allCases.map(\.rawValue)))
  var reach: String?

  enum Format: String, CaseIterable {
    case text, json, folded
  }

  @Option(
    help: ArgumentHelp(
      "How to print: text, json, or folded: all stacks, a line each, for tools that draw flame graphs.",
      valueName: "format"),
    completion: .list(Format.allCases.map(\.rawValue)))
  var format: String?

  @Flag(help: peakHelp)
  var peak = false

  @Flag(
    help: """
      Show which allocations were temporary: freed before the same thread allocated again; the most first.
      """)
  var temporary = false

  @Flag(help: "Print everything that the dump says of itself, and no rows.")
  var header = false

  func validate() throws {
    _ = try choice(of: "--sort", sort) as SortKey
    if peak && temporary {
      throw ValidationError("--temporary does not go with --peak: it is about the whole recording")
    }
    if peak && reach != nil {
      throw ValidationError("--reach does not go with --peak: it is about the end of the process")
    }
    if temporary && sort != SortKey.bytes.rawValue {
      throw ValidationError("--temporary does not go with --sort: it has an order of its own")
    }
    if let reach { _ = try choice(of: "--reach", reach) as Held }
    guard let format else { return }
    let chosen: Format = try choice(of: "--format", format)
    if options.json && chosen != .json {
      throw ValidationError("--json does not go with --format \(format)")
    }
    if options.cumulative && chosen == .folded {
      throw ValidationError(
        "--cumulative does not go with --format folded: a stack is all of its frames already")
    }
  }

  /// Checked by `validate`.
  private var chosenFormat: Format {
    options.json ? .json : format.flatMap { Format(rawValue: $0) } ?? .text
  }

  func run() throws {
    let snapshot = try DumpReference.found(for: dump).read()
    if header {
      return Output.write("\(HeaderText(of: snapshot.header))\n")
    }
    if temporary { try snapshot.checkTemporaries(groupedBy: options.grouping) }
    let prepared = try options.prepared([try options.moment(peak, of: kept(snapshot))])[0]
    if chosenFormat == .folded {
      let stacks = FoldedStacks(of: prepared, counting: figure)
      return Output.write { output in stacks.forEachLine { output.write($0 + "\n") } }
    }
    let rows = try prepared.statistics(groupedBy: options.grouping, charging: options.charging)
    if chosenFormat == .json {
      let report = JSONReport.statistics(
        sorted(rows), of: prepared, groupedBy: options.grouping, charging: options.charging,
        moment: peak ? .peak : .dump, limit: options.rowLimit)
      return Output.write(report)
    }
    options.print(
      TextTable(
        sorted(rows), figures,
        limit: options.rowLimit, header: prepared.header, style: options.style),
      Summary(of: prepared.withoutWarnings, style: options.style))
  }

  /// What `--reach` leaves.
  private func kept(_ snapshot: Snapshot) throws -> Snapshot {
    guard let held = reach.flatMap({ Held(rawValue: $0) }) else { return snapshot }
    try snapshot.checkReach()
    return snapshot.filtered(reach: held.reach)
  }

  private var figures: TextTable.Figures {
    if temporary { return .temporary }
    return sort == SortKey.total.rawValue ? .liveAndTotal : .live
  }

  /// What a line of folded stacks ends with.
  private var figure: KeyPath<Snapshot.Sample, Int> {
    if temporary { return \.temporaryBlocks }
    return switch SortKey(rawValue: sort)! {
    case .bytes: \.liveBytes
    case .blocks: \.liveBlocks
    case .total: \.totalBytes
    }
  }

  /// Rows come by bytes; equal ones keep that order.
  private func sorted(_ rows: [Statistic]) -> [Statistic] {
    if temporary { return rows.sortedStably { $0.temporaryBlocks } }
    return switch SortKey(rawValue: sort)! {
    case .bytes: rows
    case .blocks: rows.sortedStably { $0.liveBlocks }
    case .total: rows.sortedStably { $0.totalBytes }
    }
  }
}

extension String {
  /// Whether it can only be meant as a file: by its slash, or by the ending of a dump that is there.
  var isPathOfDump: Bool {
    contains("/") || isFile && [".pb", ".pb.gz", ".pb.partial"].contains { hasSuffix($0) }
  }

  var isFile: Bool { unsafe access(self, F_OK) == 0 }
}

extension Array {
  /// Largest first; equal elements stay as they were.
  func sortedStably(by key: (Element) -> some Comparable) -> [Element] {
    enumerated().map { (key: key($0.element), place: $0.offset, element: $0.element) }
      .sorted { $0.key > $1.key || ($0.key == $1.key && $0.place < $1.place) }
      .map(\.element)
  }
}
