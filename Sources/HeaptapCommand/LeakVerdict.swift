// SPDX-License-Identifier: Apache-2.0
// What the last dumps of a command say of its leaks.

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

/// What the processes of a command had lost when they ended, as it is printed.
struct LeakVerdict {
  private(set) var hasLeaks = false
  /// Whether there is an answer for each of them, and for one at least.
  private(set) var isKnown = false

  /// So many stacks of each kind; the dump has them all.
  private static let stackCount = 20

  /// Reads the dumps that were written at an end, and tells standard error what was lost and is not
  /// suppressed.
  init(of dumps: [DumpFile], without suppressions: Suppressions) throws {
    let sources = try SymbolSources.parse([])
    let symbolicators = try [false, true].map { try sources.symbolicator(fullNames: $0) }
    let folding = try FoldingLists.parse([]).folding()
    var (known, unknown) = (0, 0)
    for dump in dumps {
      let snapshot = try DumpReference(path: dump.path, origin: .found).read()
      guard ["exit", "terminated"].contains(snapshot.header.trigger) else { continue }
      guard snapshot.header.hasReach else {
        unknown += 1
        let reason = snapshot.header.reachProblem ?? "the dump does not say so"
        complain("leaks were not looked for: \(reason.plainText)")
        continue
      }
      known += 1
      let report = LeakReport(of: snapshot, limit: Self.stackCount) { leaks in
        let outcome = Symbols.named([leaks], by: symbolicators, without: suppressions)[0]
        return Snapshot.Suppressed(rest: outcome.rest.folded(by: folding), taken: outcome.taken)
      }
      if report.hasLeaks { hasLeaks = true }
      let whose = Self.whose(snapshot.header)
      Output.writeError("heaptap: \(whose)\(report.lines.joined(separator: "\n"))\n")
    }
    isKnown = known > 0 && unknown == 0
  }

  /// `server (1234): `
  private static func whose(_ header: Header) -> String {
    guard let program = header.program, let pid = header.pid else { return "" }
    return "\(program.plainText) (\(pid)): "
  }
}
