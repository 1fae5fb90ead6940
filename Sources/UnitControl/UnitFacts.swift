// SPDX-License-Identifier: Apache-2.0
// What systemd knows of a unit, as far as arming it depends on that.

/// What systemd knows of a unit, read from the output of `systemctl show`.
public struct UnitFacts: Sendable {
  private var properties: [String: [String]] = [:]

  /// The properties that are read, as `systemctl show` takes them.
  static let names = [
    "Id", "LoadState", "LoadError", "Transient", "FragmentPath", "DropInPaths", "Environment",
    "EnvironmentFiles", "UnsetEnvironment", "ExecStart", "User", "Group", "DynamicUser",
    "NoNewPrivileges", "RootDirectory", "RootImage", "ProtectSystem", "ProtectHome", "PrivateTmp",
    "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "TemporaryFileSystem", "ExecPaths",
    "NoExecPaths", "RestrictAddressFamilies", "ActiveState",
  ]

  /// Reads `NAME=value` lines; a name that comes several times has several values.
  init(_ text: String) {
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2 else { continue }
      properties[String(parts[0]), default: []].append(String(parts[1]))
    }
  }

  private func value(_ name: String) -> String { properties[name]?.first ?? "" }
  private func isTrue(_ name: String) -> Bool { value(name) == "yes" }
  private func words(_ name: String) -> [String] { Quoting.words(value(name)) }

  /// Paths, without the marks for "may be missing" and "in the unit's root".
  private func paths(_ name: String) -> [String] {
    words(name).map { String($0.drop { $0 == "-" || $0 == "+" }) }
  }

  /// The unit's own name: that of what an alias stands for.
  var id: String { value("Id") }
  var loadState: String { value("LoadState") }
  /// Why it could not be loaded, in systemd's words.
  var loadError: String {
    Quoting.words(value("LoadError")).dropFirst().joined(separator: " ")
  }
  var isTransient: Bool { isTrue("Transient") }
  var isActive: Bool { ["active", "activating", "reloading"].contains(value("ActiveState")) }

  /// The files that it is made of, in the order in which systemd reads them.
  var files: [String] { words("FragmentPath") + words("DropInPaths") }

  var environment: [String: String] { Quoting.assignments(words("Environment")) }
  var unsetVariables: [String] { words("UnsetEnvironment") }
  /// Patterns of paths.
  var environmentFiles: [String] {
    (properties["EnvironmentFiles"] ?? []).compactMap { line in
      let end = line.firstRange(of: " (ignore_errors=")?.lowerBound ?? line.endIndex
      return end == line.startIndex ? nil : String(line[..<end])
    }
  }

  /// The programs that it starts.
  var programs: [String] {
    (properties["ExecStart"] ?? []).compactMap { command in
      guard let start = command.firstRange(of: "path=")?.upperBound,
        let end = command[start...].firstRange(of: " ; ")?.lowerBound
      else { return nil }
      return String(command[start..<end])
    }
  }

  /// Without some of the words of a property.
  func removing(from name: String, where isGone: (String) -> Bool) -> UnitFacts {
    var facts = self
    facts.properties[name] = [words(name).filter { !isGone($0) }.joined(separator: " ")]
    return facts
  }

  /// Empty for root.
  var user: String { value("User") }
  var group: String { value("Group") }
  var hasDynamicUser: Bool { isTrue("DynamicUser") }
  var gainsPrivileges: Bool { !isTrue("NoNewPrivileges") }

  /// The setting that gives the unit a root other than the machine's, as it is written.
  var foreignRoot: String? {
    for name in ["RootDirectory", "RootImage"] where !["", "/"].contains(value(name)) {
      return "\(name)=\(value(name))"
    }
    return nil
  }

  /// Whether it can open sockets of the kind that the journal has.
  var mayUseUnixSockets: Bool {
    let families = words("RestrictAddressFamilies")
    guard let first = families.first, first.hasPrefix("~") else {
      return properties["RestrictAddressFamilies"] == nil || families.contains("AF_UNIX")
    }
    return !families.contains("~AF_UNIX") && !families.contains("AF_UNIX")
  }

  // MARK: What it can see of the file system

  /// What the unit's sandbox makes of a path.
  enum Sight: Equatable {
    case writable, readOnly
    /// Under an empty file system of the unit's own, which something can be bound into.
    case covered(by: String)
    case hidden(by: String)
  }

  /// What the sandbox makes of a path, whoever the path's owner is.
  func sight(of path: String) -> Sight {
    // The innermost of the paths around it decides.
    var best = (byteCount: -1, sight: Sight.writable)
    func apply(_ places: [String], _ sight: Sight) {
      for place in places where Self.contains(place, path) && place.utf8.count >= best.byteCount {
        best = (place.utf8.count, sight)
      }
    }
    if value("ProtectSystem") == "strict" {
      apply(["/"], .readOnly)
      // They stay as they are.
      apply(["/dev", "/proc", "/sys"], .writable)
    } else if isTrue("ProtectSystem") || value("ProtectSystem") == "full" {
      apply(["/usr", "/boot", "/efi"], .readOnly)
      if value("ProtectSystem") == "full" { apply(["/etc"], .readOnly) }
    }
    let homes = ["/home", "/root", "/run/user"]
    switch value("ProtectHome") {
    case "yes": apply(homes, .hidden(by: "ProtectHome=yes"))
    case "tmpfs": apply(homes, .covered(by: "ProtectHome=tmpfs"))
    case "read-only": apply(homes, .readOnly)
    default: break
    }
    if isTrue("PrivateTmp") { apply(["/tmp", "/var/tmp"], .hidden(by: "PrivateTmp=yes")) }
    apply(paths("ReadOnlyPaths"), .readOnly)
    apply(paths("ReadWritePaths"), .writable)
    apply(
      paths("TemporaryFileSystem").map { String($0.prefix { $0 != ":" }) },
      .covered(by: "TemporaryFileSystem="))
    // Nothing that is inside of what cannot be entered can be reached.
    if let place = paths("InaccessiblePaths").first(where: { Self.contains($0, path) }) {
      return .hidden(by: "InaccessiblePaths=\(place)")
    }
    return best.sight
  }

  /// Whether code may be mapped from a path.
  func mayExecute(_ path: String) -> Bool {
    func depth(_ places: [String]) -> Int {
      places.filter { Self.contains($0, path) }.map(\.utf8.count).max() ?? -1
    }
    return depth(paths("NoExecPaths")) <= depth(paths("ExecPaths"))
  }

  private static func contains(_ place: String, _ path: String) -> Bool {
    place == "/" || path == place || path.hasPrefix(place.hasSuffix("/") ? place : place + "/")
  }
}
