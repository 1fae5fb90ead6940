// SPDX-License-Identifier: Apache-2.0
// From what was typed to snapshots with names: find the dumps, read them, name their frames.

import HeapModel
import Pprof
import ProcessControl
import Symbolication

/// A dump that somebody named, or that was found for a name.
struct DumpReference {
  let path: String
  let origin: DumpFile.Origin

  static func named(_ path: String) -> DumpReference {
    DumpReference(path: path, origin: .named)
  }

  /// The dump at a path, or the newest of a program or unit; without a name the newest of all.
  static func found(for name: String?) throws -> DumpReference {
    guard let name else { return try newest(1, of: nil)[0] }
    if name.isPathOfDump { return .named(name) }
    do {
      return try newest(1, of: name)[0]
    } catch {
      // The directory of a service holds its program, too: a name comes before a file of any sort.
      guard name.isFile else { throw error }
      return .named(name)
    }
  }

  /// The newest dumps of one process, oldest first.
  static func newest(_ count: Int, of name: String?) throws -> [DumpReference] {
    try ofNewestProcess(atLeast: count, of: name).suffix(count)
  }

  /// All dumps of the newest process, or of the newest of a name, oldest first.
  static func ofNewestProcess(atLeast count: Int, of name: String?) throws -> [DumpReference] {
    let directories = DumpDirectories.searched(environment: .current)
    return try DumpSelection(directories: directories)
      .ofNewestProcess(atLeast: count, of: name) {
        DumpReference(path: $0.path, origin: .found).unit
      }
      .map { DumpReference(path: $0.path, origin: .found) }
  }

  /// What is meant by one name, or by none, where several dumps of it are wanted.
  ///
  /// - Parameter oneFile: What is said of a file, which has one dump only.
  static func several(
    of name: String?, oneFile: @autoclosure () -> any Error,
    _ found: (String?) throws -> [DumpReference]
  ) throws -> [DumpReference] {
    if name?.isPathOfDump == true { throw oneFile() }
    do {
      return try found(name)
    } catch let error as ProcessControlError where error.code == .noDump {
      // A file that is no dump's, and no program's or unit's of which there would be one.
      let isName = (try? newest(1, of: name)) != nil
      throw !isName && name?.isFile == true ? oneFile() : error
    }
  }

  /// The systemd unit in the header, which is near the beginning: any prefix of a dump is a dump.
  private var unit: String? {
    guard let bytes = try? DumpFile.contents(of: path, origin, prefix: 65536) else { return nil }
    return try? Snapshot(profile: bytes).header.unit
  }

  /// Reads the dump; what had to be put up with goes to standard error.
  func read() throws -> Snapshot {
    try snapshot(of: try DumpFile.contents(of: path, origin))
  }

  /// Reads the dump; fails where its end is missing, and with it blocks that would count.
  func whole() throws -> Snapshot {
    let snapshot = try read()
    guard !snapshot.header.isHeaptap || snapshot.header.isComplete else {
      throw Failure(
        "'\(path.plainText)' lacks its end, and what is alive with it; take another dump")
    }
    return snapshot
  }

  /// The snapshot that the dump's bytes are.
  func snapshot(of bytes: [UInt8]) throws -> Snapshot {
    do throws(ProfileError) {
      let snapshot = try Snapshot(profile: bytes)
      for warning in snapshot.warnings {
        complain("'\(path.plainText)': \(warning.plainText)")
      }
      return snapshot
    } catch {
      throw Failure("cannot read '\(path.plainText)': \("\(error)".plainText)")
    }
  }
}

extension ReportOptions {
  /// The snapshots as reports want them: named, folded and filtered.
  func prepared(_ snapshots: consuming [Snapshot]) throws -> [Snapshot] {
    for number in snapshots.indices { try snapshots[number].check(grouping) }
    let symbolicator = try sources.symbolicator(fullNames: fullNames)
    // Before what takes longer: it may be wrong.
    let folding = try folding
    guard noSymbols else {
      return Symbols.named(snapshots, by: symbolicator, foldedBy: folding)
        .map { $0.filtered(by: filters) }
    }
    return snapshots.map { reported($0, folding) }
  }

  /// The snapshots as reports want them, without what suppressions are about.
  ///
  /// A pattern may be written for a name as reports show it, or for the whole of it as LeakSanitizer
  /// knows it, and is about any frame, also one that is folded.
  func prepared(
    _ snapshots: [Snapshot], without suppressions: Suppressions
  ) throws -> [Snapshot.Suppressed] {
    let symbolicators =
      try noSymbols
      ? [] : [fullNames, !fullNames].map { try sources.symbolicator(fullNames: $0) }
    let folding = try folding
    return Symbols.named(snapshots, by: symbolicators, without: suppressions).map {
      Snapshot.Suppressed(rest: reported($0.rest, folding), taken: $0.taken)
    }
  }

  /// What is folded; `nil` where all frames are wanted.
  var folding: FrameFolding? {
    get throws { allFrames ? nil : try lists.folding() }
  }

  /// A snapshot with names as reports want it: folded and filtered.
  func reported(_ named: Snapshot, _ folding: FrameFolding?) -> Snapshot {
    (folding.map { named.folded(by: $0) } ?? named).filtered(by: filters)
  }
}

/// Names for frames.
enum Symbols {
  /// Names the frames of all snapshots in one pass: they mostly share their files.
  ///
  /// - Parameters:
  ///   - folding: What is left out of the result; `nil` leaves all frames in.
  ///   - complaining: Whether what is missing is said on standard error.
  static func named(
    _ snapshots: consuming [Snapshot], by symbolicator: Symbolicator,
    foldedBy folding: FrameFolding? = nil, complaining: Bool = true
  ) -> [Snapshot] {
    let calls = calls(in: snapshots, by: symbolicator, complaining: complaining)
    // In place, so that of large ones no more than one is in memory twice.
    for number in snapshots.indices {
      let names = calls[number]
      snapshots[number] = snapshots[number].replacingFrames(foldedBy: folding) { names[$0] ?? [] }
    }
    return snapshots
  }

  /// The snapshots without what suppressions are about, named as the first symbolicator does. A pattern
  /// may be written for what any of them calls a frame.
  static func named(
    _ snapshots: [Snapshot], by symbolicators: [Symbolicator], without suppressions: Suppressions
  ) -> [Snapshot.Suppressed] {
    let names = symbolicators.enumerated().map { number, symbolicator in
      calls(in: snapshots, by: symbolicator, complaining: number == 0)
    }
    return snapshots.enumerated().map { number, snapshot in
      let outcome = snapshot.suppressed(by: suppressions) { frame in
        names.flatMap { $0[number][frame] ?? [] }
      }
      let named = names.first.map { shown in
        outcome.rest.replacingFrames { shown[number][$0] ?? [] }
      }
      return Snapshot.Suppressed(rest: named ?? outcome.rest, taken: outcome.taken)
    }
  }

  /// For each snapshot the calls at each of its distinct frames, innermost first.
  static func calls(
    in snapshots: [Snapshot], by symbolicator: Symbolicator, complaining: Bool = true
  ) -> [[Frame: [Frame]]] {
    var modules: [Module] = []
    var frames: [Frame] = []
    for snapshot in snapshots {
      frames += snapshot.distinctFrames.map { $0.renumbered(by: modules.count) }
      modules += snapshot.modules
    }
    let outcome = symbolicator.symbolicate(frames, modules: modules)
    if complaining { for warning in outcome.warnings { complain(warning.plainText) } }

    var firstModule = 0
    var answers = outcome.frames[...]
    return snapshots.map { snapshot in
      let ours = answers.prefix(snapshot.distinctFrames.count)
        .map { calls in calls.map { $0.renumbered(by: -firstModule) } }
      answers = answers.dropFirst(ours.count)
      firstModule += snapshot.modules.count
      return Dictionary(
        zip(snapshot.distinctFrames, ours), uniquingKeysWith: { first, _ in first })
    }
  }
}

/// Names for the frames of one snapshot after the other, of which only the names stay in memory.
///
/// What one snapshot has is not asked for again with the next, and nothing is complained of twice.
struct SymbolMemory {
  private struct Place: Hashable {
    let path: String
    let buildID: String
    let offset: UInt64
  }

  private let symbolicator: Symbolicator
  private var calls: [Place: [Frame]] = [:]
  private var warnings: Set<String> = []

  init(_ symbolicator: Symbolicator) { self.symbolicator = symbolicator }

  mutating func named(_ snapshot: Snapshot) -> Snapshot {
    let unknown = snapshot.distinctFrames.filter { frame in
      Self.place(of: frame, in: snapshot).map { calls[$0] == nil } ?? false
    }
    let outcome = symbolicator.symbolicate(unknown, modules: snapshot.modules)
    for warning in outcome.warnings where warnings.insert(warning).inserted {
      complain(warning.plainText)
    }
    for (frame, found) in zip(unknown, outcome.frames) {
      calls[Self.place(of: frame, in: snapshot)!] = found
    }
    return snapshot.replacingFrames { frame in
      let found = Self.place(of: frame, in: snapshot).flatMap { calls[$0] } ?? []
      // The file may lie elsewhere by now, and have another number.
      return found.map { call in
        var call = call
        (call.address, call.module) = (frame.address, frame.module)
        return call
      }
    }
  }

  /// Where a frame without a name is; `nil` for what no file can name.
  private static func place(of frame: Frame, in snapshot: Snapshot) -> Place? {
    guard frame.function == nil, let module = snapshot.module(of: frame), module.isBackedByFile
    else { return nil }
    return Place(
      path: module.path, buildID: module.buildID, offset: module.fileOffset(of: frame.address))
  }
}

extension Snapshot {
  /// Without what was said on standard error when it was read.
  var withoutWarnings: Snapshot {
    var snapshot = self
    snapshot.warnings = []
    return snapshot
  }
}

extension Frame {
  /// The frame in a list of modules that begins elsewhere.
  fileprivate func renumbered(by offset: Int) -> Frame {
    var frame = self
    frame.module = module.map { $0 + offset }
    return frame
  }
}
