// SPDX-License-Identifier: Apache-2.0
// Arming a unit: which drop-in it takes, and which units cannot work.

import Glibc
import ProcessControl

/// How long a drop-in stays.
public enum Lifetime: Sendable {
  case untilDisabled, untilReboot

  /// Where systemd looks for it.
  var directory: String {
    switch self {
    case .untilDisabled: "/etc/systemd/system"
    case .untilReboot: "/run/systemd/system"
    }
  }
}

enum Place {
  /// Where all users' dumps are.
  static let dumps = "/var/lib/heaptap"

  static func dropIn(of unit: UnitName, _ lifetime: Lifetime) -> String {
    "\(lifetime.directory)/\(unit).d/\(DropIn.fileName)"
  }

  /// The directory of a unit whose user is another every time.
  static func dumps(of unit: UnitName) -> String { "\(dumps)/\(unit)" }

  /// Has the reporter watch such a directory.
  static func watch(of unit: UnitName, _ lifetime: Lifetime) -> String {
    "\(lifetime.directory)/\(reporter).d/\(unit).conf"
  }

  static let reporter = "heaptap-report.path"
}

extension Plan {
  /// What arming a unit comes to, from what is on this machine.
  public init(
    arming name: UnitName, library: String, settings: [TracerSetting: String], lifetime: Lifetime
  ) throws(UnitControlError) {
    let picture = try UnitPicture(of: name)
    try self.init(
      arming: name, picture, library: library, settings: settings, lifetime: lifetime)
    let other: Lifetime = lifetime == .untilReboot ? .untilDisabled : .untilReboot
    let otherPath = Place.dropIn(of: unit, other)
    if text(ofFile: otherPath).map(DropIn.isOurs) ?? false {
      guard lifetime == .untilDisabled else {
        throw UnitControlError(
          "'\(unit)' is armed for good by '\(otherPath)', which comes before --runtime; 'heaptap"
            + " disable \(unit)' first")
      }
      changes.insert(.remove(path: otherPath), at: 0)
    }
    // What is there already stays as it is.
    var left: [Change] = []
    for change in changes where try !change.isDone() { left.append(change) }
    changes = left
    warnings += Self.directoryWarnings()
  }

  /// What arming a unit comes to.
  init(
    arming name: UnitName, _ picture: UnitPicture, library: String,
    settings: [TracerSetting: String], lifetime: Lifetime
  ) throws(UnitControlError) {
    let facts = picture.facts
    let unit = try Self.unit(name, facts)
    self.init(unit: unit, library: library)
    try checkPrograms(picture)
    try checkSight(facts)
    if let variable = facts.unsetVariables.first(where: Self.isOurs) {
      throw UnitControlError(
        "'\(unit)' has \(variable.plainText) in its UnsetEnvironment=, so that nothing can arm it")
    }

    // An operator's own choice stays.
    let chosen = UnitFiles.value(of: "HEAPTAP_DIR", in: picture.files)
    let directory = chosen ?? (facts.hasDynamicUser ? Place.dumps(of: unit) : Place.dumps)
    var dropIn = DropIn(library: library, preloaded: nil, directory: directory)
    dropIn.preloaded =
      UnitFiles.value(of: "LD_PRELOAD", in: picture.files)
      ?? picture.managerPreload.map { $0.replacing("%", with: "%%") }
    dropIn.opensCode = !facts.withoutOurs(library).mayExecute(library)
    dropIn.settings = Dictionary(uniqueKeysWithValues: settings.map { ($0.rawValue, $1) })
    switch facts.withoutOurs(library).sight(of: directory) {
    case .writable: break
    case .readOnly: dropIn.access = .writable
    case .covered: dropIn.access = .bound
    case .hidden(let setting):
      throw UnitControlError(
        "'\(unit)' cannot write dumps: its \(setting.plainText) hides"
          + " '\(directory.plainText)'")
    }
    if chosen == nil { changes.append(.makeDirectory(path: Place.dumps)) }
    if chosen == nil && facts.hasDynamicUser {
      changes.append(.makeDirectory(path: directory))
      changes.append(
        .write(path: Place.watch(of: unit, lifetime), text: DropIn.watching(directory)))
    }
    changes.append(.write(path: Place.dropIn(of: unit, lifetime), text: dropIn.text))
    warn(of: picture, library)
  }

  /// The unit that a name stands for: aliases lead to it.
  private static func unit(
    _ name: UnitName, _ facts: UnitFacts
  ) throws(UnitControlError) -> UnitName {
    switch facts.loadState {
    case "loaded": break
    case "not-found":
      throw UnitControlError(
        "there is no unit '\(name)'; 'systemctl list-unit-files --type=service' lists them")
    case "masked":
      throw UnitControlError("'\(name)' is masked; 'systemctl unmask \(name)' first")
    default:
      throw UnitControlError(
        "systemd cannot load '\(name)': \(facts.loadError.plainText); 'systemctl status \(name)'"
          + " says more")
    }
    guard !facts.isTransient else {
      throw UnitControlError(
        "'\(name)' is made by a program and gone when it ends, so that it cannot be restarted; give"
          + " 'systemd-run' --setenv=HEAPTAP=1 and --setenv=LD_PRELOAD=… instead")
    }
    let found = UnitName(checked: facts.id)
    return name.isTemplate ? found.template ?? found : found
  }

  private func checkPrograms(_ picture: UnitPicture) throws(UnitControlError) {
    if let root = picture.facts.foreignRoot {
      throw UnitControlError(
        "'\(unit)' has a root of its own (\(root.plainText)), where neither libheaptap.so nor"
          + " '\(Place.dumps)' is; put the library in there, and set LD_PRELOAD, HEAPTAP=1 and"
          + " HEAPTAP_DIR by 'systemctl edit'")
    }
    guard let first = picture.obstacles.first else {
      throw UnitControlError("'\(unit)' starts no program: it has no ExecStart=")
    }
    guard picture.obstacles.allSatisfy({ $0.obstacle != nil }), let obstacle = first.obstacle
    else { return }
    throw UnitControlError(
      "'\(unit)' cannot be traced: it runs '\(first.program.plainText)', and \(obstacle.words)")
  }

  private func checkSight(_ facts: UnitFacts) throws(UnitControlError) {
    guard let library else { return }
    switch facts.sight(of: library) {
    case .writable, .readOnly: break
    case .covered(let setting), .hidden(let setting):
      throw UnitControlError(
        "'\(unit)' cannot load '\(library)': its \(setting.plainText) hides it; install the library"
          + " elsewhere, and name it by HEAPTAP_LIBRARY")
    }
  }

  // MARK: What the operator should know

  private static func isOurs(_ variable: String) -> Bool {
    let name = variable.prefix { $0 != "=" }
    return name == "LD_PRELOAD" || name == "HEAPTAP" || name.hasPrefix("HEAPTAP_")
  }

  private mutating func warn(of picture: UnitPicture, _ library: String) {
    for (program, obstacle) in picture.obstacles {
      guard let obstacle else { continue }
      warnings.append(
        "of the programs of '\(unit)', '\(program.plainText)' cannot be traced: \(obstacle.words)")
    }
    for (path, variables) in picture.environmentFiles {
      for name in variables.keys.sorted() where Self.isOurs(name) {
        let wayOut =
          name == "LD_PRELOAD"
          ? "begin its value with '\(library):', or '\(unit)' will not be armed"
          : "take it out, unless you mean it"
        warnings.append(
          "'\(path.plainText)' sets \(name.plainText), and an EnvironmentFile= comes before the"
            + " drop-in: \(wayOut)")
      }
    }
    if !picture.facts.mayUseUnixSockets {
      warnings.append(
        "'\(unit)' cannot reach the journal, since its RestrictAddressFamilies= leaves AF_UNIX out:"
          + " it will dump, and say nothing")
    }
  }

  private static func directoryWarnings() -> [String] {
    guard let directory = try? status(ofFile: Place.dumps),
      directory.st_mode & S_IFMT != S_IFDIR || directory.st_mode & 0o1003 != 0o1003
        || directory.st_uid != 0
    else { return [] }
    return [
      "'\(Place.dumps)' is not a directory of root's that every user may write to; 'install -d -m 1733"
        + " \(Place.dumps)' makes it one"
    ]
  }
}

extension UnitFacts {
  /// Without the paths that an earlier drop-in of ours has opened.
  fileprivate func withoutOurs(_ library: String) -> UnitFacts {
    removing(from: "ReadWritePaths") { $0.hasPrefix("-\(Place.dumps)") }
      .removing(from: "ExecPaths") { $0 == "-\(library)" }
  }
}

extension Change {
  /// Whether nothing is left to be done. A file that is not ours is nobody's to replace.
  fileprivate func isDone() throws(UnitControlError) -> Bool {
    switch self {
    case .write(let path, let text):
      guard let found = UnitControl.text(ofFile: path) else { return false }
      try Self.checkOurs(path, found)
      return found == text
    case .makeDirectory(let path): return (try? status(ofFile: path)) != nil
    case .remove, .removeEmptyDirectory: return false
    }
  }

  static func checkOurs(_ path: String, _ text: String) throws(UnitControlError) {
    guard DropIn.isOurs(text) else {
      throw UnitControlError(
        "'\(path)' does not begin as 'heaptap enable' wrote it, so it stays as it is; move it away"
          + " yourself")
    }
  }
}

extension Plan {
  /// What disarming a unit comes to, from what is on this machine.
  public init(disarming name: UnitName) throws(UnitControlError) {
    let facts = try UnitPicture.facts(of: name)
    // A unit that is gone may have left its drop-in.
    let isKnown = facts.loadState != "not-found"
    let unit = isKnown ? UnitName(checked: facts.id) : name
    self.init(unit: name.isTemplate ? unit.template ?? name : unit, library: nil)
    for lifetime in [Lifetime.untilDisabled, .untilReboot] { try remove(lifetime) }
    guard changes.isEmpty else {
      changes.append(.removeEmptyDirectory(path: Place.dumps(of: self.unit)))
      return
    }
    if let template = self.unit.template, Self.isArmed(template) {
      throw UnitControlError(
        "'\(self.unit)' is armed by its template; 'heaptap disable \(template)' disarms all of its"
          + " instances")
    }
    guard isKnown else {
      throw UnitControlError("there is no unit '\(name)', and none of that name is armed")
    }
  }

  private static func isArmed(_ unit: UnitName) -> Bool {
    [Lifetime.untilDisabled, .untilReboot].contains { lifetime in
      text(ofFile: Place.dropIn(of: unit, lifetime)).map(DropIn.isOurs) ?? false
    }
  }

  private mutating func remove(_ lifetime: Lifetime) throws(UnitControlError) {
    for path in [Place.dropIn(of: unit, lifetime), Place.watch(of: unit, lifetime)] {
      guard let text = text(ofFile: path) else { continue }
      try Change.checkOurs(path, text)
      let directory = String(path[..<path.lastIndex(of: "/")!])
      changes += [.remove(path: path), .removeEmptyDirectory(path: directory)]
    }
  }
}

extension [Plan] {
  /// Carries out what is planned, has systemd read its files anew, and looks at what came of it.
  ///
  /// - Returns: What the operator should know: settings that do not reach their unit.
  public func apply() throws(UnitControlError) -> [String] {
    let changes = flatMap(\.changes)
    guard !changes.isEmpty else { return [] }
    for change in changes { try change.apply() }
    try Systemctl.succeed(["daemon-reload"])
    if changes.contains(where: \.isForReporter) {
      // It watches by what it read when it started. Not there, or not running: nothing to do.
      _ = try Systemctl.run(["try-restart", Place.reporter])
    }
    var warnings: [String] = []
    for plan in self {
      guard let library = plan.library else { continue }
      let environment = try UnitPicture.facts(of: plan.unit).environment
      let first = environment["LD_PRELOAD"]?.split(separator: ":").first
      if first.map(String.init) != library || environment["HEAPTAP"] != "1" {
        warnings.append(
          "a drop-in that is read later than ours takes LD_PRELOAD or HEAPTAP from '\(plan.unit)':"
            + " 'systemctl cat \(plan.unit)' shows which")
      }
    }
    return warnings
  }
}

extension Change {
  fileprivate var isForReporter: Bool {
    switch self {
    case .write(let path, _), .remove(let path): path.contains("/\(Place.reporter).d/")
    default: false
    }
  }
}
