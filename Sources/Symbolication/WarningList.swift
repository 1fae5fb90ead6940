// SPDX-License-Identifier: Apache-2.0
// Every sentence that symbolication has for the user.

/// Collects what went less than well, and puts it into sentences.
struct WarningList {
  private var particular: [String] = []
  /// Names of files that had no debug information. Most systems' libraries have none, so they
  /// share one sentence, at the end.
  private var namesWithoutLines: [(name: String, buildID: String)] = []

  var sentences: [String] {
    var seen: Set<String> = []
    return (particular + [withoutLines].compactMap(\.self)).filter { seen.insert($0).inserted }
  }

  // MARK: Files

  mutating func add(_ findings: [Finding], about path: String, name: String, buildID: String) {
    for finding in findings {
      switch finding {
      case .changed(let present):
        particular.append(
          "'\(path)' has changed since the dump (build ID \(Self.short(buildID)) then, "
            + "\(Self.short(present)) now), continuing with module offsets only. "
            + "Install the old build or its debug symbols, or look under a root that has them")
      case .missing:
        let known = buildID.isEmpty ? "" : " (build ID \(Self.short(buildID)))"
        particular.append(
          "'\(path)'\(known) is not on this machine, continuing with module offsets only")
      case .unreadable(let reason):
        particular.append("cannot read '\(path)': \(reason), continuing with module offsets only")
      case .noBuildID:
        particular.append(
          "'\(path)' has no build ID, continuing as if it had not changed since the dump")
      case .buildIDNotRecorded:
        particular.append(
          "the dump has no build ID for '\(path)', continuing as if the file had not changed since")
      case .noDebugInformation:
        namesWithoutLines.append((name, buildID))
      case .damagedDebugInformation:
        particular.append(
          "debug information of '\(path)' is damaged, continuing with what could be read")
      }
    }
  }

  private var withoutLines: String? {
    guard let first = namesWithoutLines.first else { return nil }
    let names: String
    switch namesWithoutLines.count {
    case 1 where first.buildID.isEmpty: names = "'\(first.name)'"
    case 1: names = "'\(first.name)' (build ID \(Self.short(first.buildID)))"
    case 2: names = "'\(first.name)' and '\(namesWithoutLines[1].name)'"
    case let count:
      names = "'\(first.name)', '\(namesWithoutLines[1].name)' and \(count - 2) more"
    }
    return "no debug information for \(names), continuing with symbol names only"
  }

  /// Enough of a build ID to tell two apart, and for `debuginfod-find` users to recognise.
  private static func short(_ buildID: String) -> String {
    if buildID.isEmpty { return "none" }
    return buildID.utf8.count <= 8 ? buildID : buildID.prefix(8) + "…"
  }

  // MARK: Workers

  /// A worker that could not be had at all.
  mutating func add(_ failure: WorkerFailure, executable: String) {
    switch failure {
    case .cannotStart(let error):
      particular.append("cannot start '\(executable)': \(error), continuing without symbols")
    default:
      particular.append(
        "'\(executable)' did not answer as a symbolication worker, continuing without symbols")
    }
  }

  /// A worker that was lost over one file.
  mutating func add(
    _ failure: WorkerFailure, name: String, hasSymbols: Bool, secondsLimit: UInt32
  ) {
    let rest = hasSymbols ? "symbol names only" : "module offsets only"
    let trouble =
      switch failure {
      case .crashed(let signal): "reading '\(name)' ended the worker by signal \(signal)"
      case .timedOut: "reading '\(name)' took more than \(secondsLimit) seconds"
      case .garbled: "the worker's answer about '\(name)' made no sense"
      case .cannotStart, .notAWorker, .ended: "reading '\(name)' ended the worker"
      }
    particular.append("\(trouble), continuing with \(rest)")
  }
}
