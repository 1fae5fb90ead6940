// SPDX-License-Identifier: Apache-2.0
// Every sentence that symbolication has for the user.

/// Collects what went less than well, and puts it into sentences.
///
/// Files in the same trouble share a sentence: a dump from another machine may have a hundred
/// files that are not on this one.
struct WarningList {
  private struct File {
    var path: String
    var name: String
    var buildID: String
  }

  private var particular: [String] = []
  private var changed: [(file: File, buildID: String)] = []
  private var missing: [File] = []
  private var withoutBuildID: [File] = []
  private var withoutRecordedBuildID: [File] = []
  private var withoutLines: [File] = []

  /// More than this are counted and not told.
  private static let changedFilesTold = 3

  /// What cost most names comes first.
  var sentences: [String] {
    let sentences = [
      particular, changedSentences, missingSentences, unverifiedSentences, withoutLinesSentences,
    ]
    var seen: Set<String> = []
    return sentences.joined().filter { seen.insert($0).inserted }
  }

  // MARK: Files

  mutating func add(_ findings: [Finding], about path: String, name: String, buildID: String) {
    let file = File(path: path, name: name, buildID: buildID)
    for finding in findings {
      switch finding {
      case .changed(let present): changed.append((file, present))
      case .missing: missing.append(file)
      case .unreadable(let reason):
        particular.append("cannot read '\(path)': \(reason), continuing with module offsets only")
      case .noBuildID: withoutBuildID.append(file)
      case .buildIDNotRecorded: withoutRecordedBuildID.append(file)
      case .noDebugInformation: withoutLines.append(file)
      case .damagedDebugInformation:
        particular.append(
          "debug information of '\(path)' is damaged, continuing with what could be read")
      case .splitFileMissing(let missing):
        particular.append(
          "debug information of '\(path)' was split off, and '\(missing)' is not there "
            + "(.dwp files are not read), continuing without inlined calls")
      case .sharedFileMissing(let missing):
        particular.append(
          "debug information of '\(path)' refers to '\(missing)', which is not there, "
            + "continuing without some names")
      case .unreadableCompression:
        particular.append(
          "debug information of '\(path)' is compressed in a way that elfutils does not read here, "
            + "continuing with symbol names only. "
            + "'objcopy --decompress-debug-sections' makes a copy that can be read")
      }
    }
  }

  private var changedSentences: [String] {
    let told = changed.prefix(Self.changedFilesTold).map { file, present in
      "'\(file.path)' has changed since the dump (build ID \(Self.short(file.buildID)) then, "
        + "\(Self.short(present)) now), continuing with module offsets only. "
        + "Install the old build or its debug symbols, or look under a root that has them"
    }
    let untold = changed.count - told.count
    guard untold > 0 else { return told }
    let subject = untold == 1 ? "1 more file has" : "\(untold) more files have"
    return told + ["\(subject) changed since the dump, continuing with module offsets only"]
  }

  private var missingSentences: [String] {
    guard !missing.isEmpty else { return [] }
    let verb = missing.count == 1 ? "is" : "are"
    return ["\(list(missing)) \(verb) not on this machine, continuing with module offsets only"]
  }

  private var unverifiedSentences: [String] {
    var sentences: [String] = []
    if !withoutBuildID.isEmpty {
      let (verb, pronoun) = withoutBuildID.count == 1 ? ("has", "it") : ("have", "they")
      sentences.append(
        "\(list(withoutBuildID)) \(verb) no build ID, continuing as if \(pronoun) had not changed "
          + "since the dump")
    }
    if !withoutRecordedBuildID.isEmpty {
      sentences.append(
        "the dump has no build ID for \(list(withoutRecordedBuildID)), continuing as if nothing had "
          + "changed since")
    }
    return sentences
  }

  private var withoutLinesSentences: [String] {
    guard !withoutLines.isEmpty else { return [] }
    return [
      "no debug information for \(list(withoutLines)), continuing with symbol names only"
    ]
  }

  /// One file with all that is known of it; of several the names, and of many only two.
  private func list(_ files: [File]) -> String {
    let names = files.map { "'\($0.name)'" }
    switch files.count {
    case 1 where files[0].buildID.isEmpty: return "'\(files[0].path)'"
    case 1: return "'\(files[0].path)' (build ID \(Self.short(files[0].buildID)))"
    case 2: return "\(names[0]) and \(names[1])"
    default: return "\(names[0]), \(names[1]) and \(files.count - 2) more"
    }
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
