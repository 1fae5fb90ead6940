// SPDX-License-Identifier: Apache-2.0
// heaptap enable and disable

import ArgumentParser
import ProcessControl
import UnitControl

struct Enable: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Arm systemd services, from their next start on.",
    usage: "heaptap enable [--runtime] [--dry-run] [<settings>] <unit> …",
    discussion: """
      Writes a drop-in with LD_PRELOAD, HEAPTAP=1 and HEAPTAP_DIR for each service and has systemd \
      read it; says which restart is left to do. A service's own LD_PRELOAD stays, after ours, and \
      nothing else of it is changed. A service that cannot be traced is refused with the reason. \
      For a template, x@.service, all of its instances are armed. The settings are those of \
      heaptap(7), for these services only; without them the tracer's own hold. Done again, it \
      replaces what it wrote.

      Exit status: 0 armed, also when it was before; 2 could not do it, and then no service is \
      changed unless the sentence says so; 64 for bad usage.
      """)

  @Flag(help: "Arm until the next boot, below /run instead of /etc.")
  var runtime = false

  @Flag(name: .customLong("dry-run"), help: "Print what would be done, and do nothing.")
  var isDry = false

  @Option(
    help: ArgumentHelp(
      "Where to dump by itself: \(TracerSetting.limit.takes) (HEAPTAP_LIMIT).", valueName: "marks"))
  var limit: String?

  @Option(
    help: ArgumentHelp(
      "Where to begin to record by itself: \(TracerSetting.start.takes) (HEAPTAP_START).",
      valueName: "mark"))
  var start: String?

  @Option(
    help: ArgumentHelp(
      "How many of the dumps near the limit stay: \(TracerSetting.keep.takes) (HEAPTAP_KEEP).",
      valueName: "bounds"))
  var keep: String?

  @Option(
    help: ArgumentHelp(
      "Frames kept of a stack: \(TracerSetting.depth.takes) (HEAPTAP_DEPTH).", valueName: "n"))
  var depth: String?

  @Option(
    help: ArgumentHelp(
      "Bytes for each sample, to record a few blocks for many: \(TracerSetting.sample.takes) (HEAPTAP_SAMPLE).",
      valueName: "size"))
  var sample: String?

  @Option(
    help: ArgumentHelp(
      "To start and to dump: \(TracerSetting.signals.takes) (HEAPTAP_SIGNALS).",
      valueName: "signals"))
  var signals: String?

  @Option(
    help: ArgumentHelp(
      "Where messages go: \(TracerSetting.log.takes) (HEAPTAP_LOG).", valueName: "where"))
  var log: String?

  @Argument(help: ArgumentHelp("Services, with or without '.service'.", valueName: "unit"))
  var units: [String]

  private var settings: [TracerSetting: String] {
    let given: [TracerSetting: String?] = [
      .limit: limit, .start: start, .keep: keep, .depth: depth, .sample: sample, .signals: signals,
      .log: log,
    ]
    return given.compactMapValues { $0 }
  }

  func validate() throws {
    for (setting, value) in settings where !setting.accepts(value) {
      throw ValidationError("--\(setting) takes \(setting.takes), not '\(value.plainText)'")
    }
  }

  func run() throws {
    let library = try TracerLibrary.locate(environment: .current)
    let plans = try units.map { unit in
      try Plan(
        arming: UnitName(unit), library: library, settings: settings,
        lifetime: runtime ? .untilReboot : .untilDisabled)
    }
    for sentence in plans.flatMap(\.warnings) { complain(sentence) }
    try PlansAtWork(plans: plans, done: "armed").carryOut(isDry: isDry)
  }
}

struct Disable: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Take back what 'enable' did.",
    usage: "heaptap disable [--dry-run] <unit> …",
    discussion: """
      Removes the drop-ins of 'heaptap enable', wherever they are, and has systemd read its files \
      anew; says which restart is left to do. A drop-in whose first line has changed is somebody's \
      own by now, and refused. Dumps stay.

      Exit status: 0 disarmed, also when it was before; 2 could not do it; 64 for bad usage.
      """)

  @Flag(name: .customLong("dry-run"), help: "Print what would be done, and do nothing.")
  var isDry = false

  @Argument(help: ArgumentHelp("Services, with or without '.service'.", valueName: "unit"))
  var units: [String]

  func run() throws {
    let plans = try units.map { try Plan(disarming: UnitName($0)) }
    try PlansAtWork(plans: plans, done: "disarmed").carryOut(isDry: isDry)
  }
}

/// Shows or carries out what is planned, and says what is left to do.
private struct PlansAtWork {
  let plans: [Plan]
  /// What a unit is afterwards.
  let done: String

  func carryOut(isDry: Bool) throws {
    if !isDry {
      for sentence in try plans.apply() { complain(sentence) }
    }
    var made: [Change] = []
    for plan in plans {
      for change in plan.changes {
        // The directory of all is made for the first that needs it.
        if case .makeDirectory = change {
          if made.contains(change) { continue }
          made.append(change)
        }
        Output.write(isDry ? change.intention : change.record)
      }
      if plan.changes.isEmpty { Output.write("'\(plan.unit)' is \(done) already\n") }
    }
    let changed = plans.filter { !$0.changes.isEmpty }
    guard !changed.isEmpty else { return }
    if isDry { Output.write("would run 'systemctl daemon-reload'\n") }
    let restart = "systemctl restart \(changed.map(\.unit.restarted).joined(separator: " "))"
    Output.write("\(done) from the next start on; now: \(restart)\n")
  }
}

extension Change {
  fileprivate var record: String {
    switch self {
    case .write(let path, _): "wrote '\(path)'\n"
    case .remove(let path): "removed '\(path)'\n"
    case .makeDirectory(let path): "made '\(path)'\n"
    // Where it was empty: not worth a line.
    case .removeEmptyDirectory: ""
    }
  }

  fileprivate var intention: String {
    switch self {
    case .write(let path, let text): "would write '\(path)':\n\(text)"
    case .remove(let path): "would remove '\(path)'\n"
    case .makeDirectory(let path): "would make '\(path)' (mode 1733)\n"
    case .removeEmptyDirectory(let path): "would remove '\(path)' if nothing is in it\n"
    }
  }
}
