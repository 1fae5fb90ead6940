// SPDX-License-Identifier: Apache-2.0
// All that arming a unit depends on, gathered in one place before anything is decided.

import Glibc
import ProcessControl

/// All that arming a unit depends on: systemd's view of it, and what files say.
struct UnitPicture {
  var facts: UnitFacts
  /// The texts of the files that the unit is made of, in the order in which systemd reads them.
  var files: [String] = []
  /// What the manager puts into every unit's LD_PRELOAD.
  var managerPreload: String?
  /// The files of `EnvironmentFile=` that are there, and what they set.
  var environmentFiles: [(path: String, variables: [String: String])] = []
  /// What is in the way of the unit's programs, in their order; `nil` for those that can be traced.
  var obstacles: [(program: String, obstacle: PreloadObstacle?)] = []

  init(facts: UnitFacts) { self.facts = facts }

  /// Asks systemd for a unit, and reads its files.
  init(of name: UnitName) throws(UnitControlError) {
    facts = try Self.facts(of: name)
    files = facts.files.compactMap(text(ofFile:))
    let manager = try? Systemctl.succeed(["show-environment"])
    managerPreload =
      Quoting.assignments(
        (manager ?? "").split(separator: "\n").flatMap { Quoting.words($0) })["LD_PRELOAD"]
    environmentFiles = facts.environmentFiles.flatMap(Self.matches(of:)).compactMap { path in
      text(ofFile: path).map { (path, Quoting.environmentFile($0)) }
    }
    let runner = Self.runner(of: facts)
    obstacles = facts.programs.map { ($0, PreloadObstacle(program: $0, run: runner)) }
  }

  static func facts(of name: UnitName) throws(UnitControlError) -> UnitFacts {
    UnitFacts(
      try Systemctl.succeed(
        ["show", "--property=\(UnitFacts.names.joined(separator: ","))", "--", name.asked]))
  }

  private static func runner(of facts: UnitFacts) -> PreloadObstacle.Runner {
    var runner = PreloadObstacle.Runner(
      userID: nil, groupID: nil, gainsPrivileges: facts.gainsPrivileges)
    if facts.hasDynamicUser { return runner }
    if facts.user.isEmpty {
      runner.userID = 0
      runner.groupID = 0
    } else if let user = unsafe getpwnam(facts.user)
      ?? UInt32(facts.user).flatMap({ unsafe getpwuid($0) })
    {
      runner.userID = unsafe user.pointee.pw_uid
      runner.groupID = unsafe user.pointee.pw_gid
    }
    if let group = unsafe getgrnam(facts.group) { runner.groupID = unsafe group.pointee.gr_gid }
    return runner
  }

  /// The paths that a pattern matches, in the order in which systemd reads them.
  private static func matches(of pattern: String) -> [String] {
    var found = unsafe glob_t()
    defer { unsafe globfree(&found) }
    guard unsafe glob(pattern, 0, nil, &found) == 0 else { return [] }
    return (0..<Int(unsafe found.gl_pathc)).compactMap { index in
      unsafe found.gl_pathv[index].map { unsafe String(cString: $0) }
    }
  }
}
