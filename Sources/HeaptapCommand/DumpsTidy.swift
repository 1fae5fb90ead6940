// SPDX-License-Identifier: Apache-2.0
// heaptap dumps gc

import ArgumentParser
import Glibc
import HeapModel
import JournalReader
import Pprof
import ProcessControl
import Reports

struct DumpsTidy: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "gc",
    abstract: "Remove old dumps, and salvage those that a kill left unfinished.",
    discussion: """
      What is kept is counted for each program in each directory, and the oldest dumps go first. \
      Without --keep, --keep-bytes and --older-than nothing is removed; with several of them, what \
      any of them says.

      A partial dump whose process is gone, and which can be read, gets its name without '.partial'; \
      no other file is ever replaced. One that cannot be read is reported, and left as it is unless \
      --older-than takes it. One of a living process is left alone. Links are not followed, and \
      nothing is removed that is not called like a dump, or belongs to another than its directory.

      \(howDumpsAreFound)

      Exit status: 0 done, 1 when nothing matches, 2 when a dump could not be removed or salvaged, \
      64 for bad usage.
      """)

  @OptionGroup var options: DumpMatchOptions

  @Option(help: ArgumentHelp("Keep so many of each program.", valueName: "n"))
  var keep: Int?

  @Option(
    help: ArgumentHelp("Keep so many bytes of each program: 256M, 2G.", valueName: "size"))
  var keepBytes: String?

  @Option(help: ArgumentHelp("Remove what is older: 30d, 12h.", valueName: "span"))
  var olderThan: String?

  @Flag(help: "Only say what would be done.")
  var dryRun = false

  func validate() throws {
    if let keep, keep < 0 { throw ValidationError("--keep takes a number from 0, not \(keep)") }
    if let keepBytes, byteCount(ofSize: keepBytes) == nil {
      throw ValidationError("--keep-bytes takes a size as in '256M', not '\(keepBytes)'")
    }
    if let olderThan {
      do {
        _ = try JournalTime.span(olderThan)
      } catch {
        throw ValidationError(error.description)
      }
    }
  }

  func run() throws {
    let all = try options.storedDumps().map {
      DumpEntry(
        file: $0.file, presence: $0.file.isPartial ? .partial : .present, stored: $0, event: nil)
    }
    let entries = try all.filter { try options.isWanted($0) }
    guard !entries.isEmpty else {
      complain(
        "no dump \(options.matches.isEmpty && !options.time.isGiven ? "is kept" : "matches")")
      throw ExitCode(NothingFound.exitStatus)
    }
    var failed = false
    for entry in entries where entry.file.isPartial {
      if !salvage(entry) { failed = true }
    }
    for dump in try surplus(entries.compactMap(\.stored).filter { !$0.file.isPartial }) {
      if !carryOut("removed", "remove", dump.file.path, { try dump.remove() }) { failed = true }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }

  /// Says what is done, after it is done.
  private func carryOut(
    _ done: String, _ toDo: String, _ path: String, _ body: () throws -> Void
  ) -> Bool {
    do {
      if !dryRun { try body() }
      Output.write("\(dryRun ? "would \(toDo)" : done) '\(path.plainText)'\n")
      return true
    } catch {
      complain("\(error)")
      return false
    }
  }

  // MARK: What is too much

  private func surplus(_ dumps: [StoredDump]) throws -> [StoredDump] {
    struct Group: Hashable {
      let directory: DumpDirectory
      let program: String
    }
    let bound = try olderThan.map { JournalTime.now - (try JournalTime.span($0)) } ?? .min
    let groups = Dictionary(grouping: dumps) {
      // Not by the program alone: who writes dumps under another's name must not push out theirs.
      Group(directory: $0.directory, program: $0.file.program)
    }
    return groups.values.flatMap { group in
      var count = 0
      var bytes = 0
      // From the newest on: the first that is too much takes all older ones with it.
      let newestFirst = group.sorted { $1.file < $0.file }
      let kept = newestFirst.prefix { dump in
        count += 1
        bytes += dump.byteCount
        return count <= keep ?? .max && bytes <= keepBytes.flatMap(byteCount) ?? .max
          && dump.file.timeMicroseconds >= bound
      }
      return newestFirst.dropFirst(kept.count)
    }.sorted { $0.file < $1.file }
  }

  // MARK: What a kill left

  /// Whether nothing went wrong.
  private func salvage(_ entry: DumpEntry) -> Bool {
    guard let dump = entry.stored else { return true }
    let path = dump.file.path.plainText
    let isOfThisBoot = entry.header.bootID.map { $0 == ThisBoot.id } ?? true
    switch dump.writer(isOfThisBoot: isOfThisBoot) {
    case .process(let pid):
      complain("'\(path)' is left alone: process \(pid) may still be writing it")
      return true
    case .somebody:
      complain("'\(path)' is left alone: somebody has it open for writing")
      return true
    case .none: break
    }
    do {
      let bytes = try DumpFile.contents(of: dump.file.path, .found)
      let snapshot = try Snapshot(profile: bytes)
      guard snapshot.header.isHeaptap, !snapshot.samples.isEmpty else {
        throw Failure("it ends before its first site")
      }
      return carryOut("salvaged", "salvage", dump.file.finalPath) { try dump.salvage() }
    } catch {
      if isTooOld(dump) { return carryOut("removed", "remove", path) { try dump.remove() } }
      complain("'\(path)' cannot be salvaged: \("\(error)".plainText)")
      return true
    }
  }

  private func isTooOld(_ dump: StoredDump) -> Bool {
    guard let span = olderThan.flatMap({ try? JournalTime.span($0) }) else { return false }
    return dump.file.timeMicroseconds < JournalTime.now - span
  }
}

/// The kernel's name for the time since this machine was started.
enum ThisBoot {
  static let id: String? = {
    let path = "/proc/sys/kernel/random/boot_id"
    let bytes = try? DumpFile.contents(of: path, .named, prefix: 64)
    return bytes.map { String(decoding: $0, as: UTF8.self) }?.split(separator: "\n").first
      .map(String.init)
  }()
}
