// SPDX-License-Identifier: Apache-2.0
// heaptap symbolize

import ArgumentParser
import Glibc
import HeapModel
import Pprof
import ProcessControl
import Symbolication

struct Symbolize: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Put functions and lines into dumps, for other machines and other tools.",
    usage: "heaptap symbolize [--output FILE | --in-place] [OPTIONS] DUMP…",
    discussion: """
      A dump has addresses. What this writes has functions, files, lines and inlined calls as well, \
      so that 'go tool pprof', and 'heaptap show' on a machine without the binaries, show the same \
      as here. All else in it stays as it is, and frames that have names keep them. The name of a \
      program or systemd unit stands for its newest dump.

      Without --output and --in-place, a file NAME.symbolized.pb is written in the current \
      directory. Files appear whole or not at all, and with mode 0600, or in place with that of the \
      dump.

      Exit status: 0 done, also where not all names are known, 2 when a dump cannot be read or \
      written, 64 for bad usage.
      """)

  @OptionGroup var copies: CopyOptions

  @Flag(help: "Replace the dump itself.")
  var inPlace = false

  @Flag(help: ReportOptions.fullNamesHelp)
  var fullNames = false

  @OptionGroup var sources: SymbolSources

  func validate() throws {
    if inPlace && copies.output != nil {
      throw ValidationError("symbolize takes --output or --in-place, not both")
    }
    if inPlace && copies.force {
      throw ValidationError("--force does not go with --in-place, which replaces the dump anyway")
    }
  }

  func run() throws {
    let symbolicator = try sources.symbolicator(fullNames: fullNames)
    var failed = false
    func trying(_ body: () throws -> Void) {
      do { try body() } catch {
        complain("\(error)")
        failed = true
      }
    }
    var work: [(dump: DumpToName, snapshot: Snapshot)] = []
    for name in copies.dumps {
      trying {
        let dump = try DumpToName(.found(for: name), inPlace: inPlace)
        work.append((dump, try dump.reference.snapshot(of: dump.bytes)))
      }
    }
    // All in one pass: they mostly share their files.
    let names = Symbols.calls(in: work.map(\.snapshot), by: symbolicator)
    for ((dump, snapshot), calls) in zip(work, names) {
      trying {
        let path = try write(dump, calls)
        let frames = snapshot.distinctFrames.filter { $0 != .lostStack }
        let named = frames.count { calls[$0, default: [$0]].contains { $0.function != nil } }
        Output.write(
          "wrote '\(path.plainText)': \(named) of \(frames.count) addresses have a function\n")
      }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }

  /// - Returns: Where it was written to.
  private func write(_ dump: DumpToName, _ calls: [Frame: [Frame]]) throws -> String {
    if inPlace {
      try dump.replaceByNamed(calls)
      return dump.reference.path
    }
    let target = copies.output ?? dump.nameOfCopy
    try OutputFile.write(
      try dump.named(calls, compressed: target.hasSuffix(".gz")), to: target,
      replacing: copies.replaceable)
    return target
  }
}

/// A dump with its bytes, and which file they came from.
struct DumpToName {
  let reference: DumpReference
  let bytes: [UInt8]
  /// The file that the bytes are from.
  private let original: stat

  /// A dump in a directory that others may write to: no link is followed.
  init(found path: String) throws {
    reference = DumpReference(path: path, origin: .found)
    (bytes, original) = try DumpFile.read(path, .found)
  }

  init(_ reference: DumpReference, inPlace: Bool) throws {
    guard inPlace else {
      self.reference = reference
      (bytes, original) = try DumpFile.read(reference.path, reference.origin)
      return
    }
    // The file and not a link to it: that is what is to have names.
    let path = try OutputFile.resolved(reference.path)
    if path.hasSuffix(".partial") {
      throw Failure(
        "'\(path.plainText)' is not whole and may still be written, pass --output to name a copy")
    }
    self.reference = DumpReference(path: path, origin: .found)
    (bytes, original) = try DumpFile.read(path, .found)
  }

  /// The bytes with names, all else as it is.
  func named(_ calls: [Frame: [Frame]], compressed: Bool) throws -> [UInt8] {
    do throws(ProfileError) {
      let bytes = try Snapshot.profile(bytes, naming: { calls[$0] ?? [] })
      return compressed ? try Gzip.compressed(bytes) : bytes
    } catch {
      throw Failure("cannot name '\(reference.path.plainText)': \("\(error)".plainText)")
    }
  }

  /// Puts the bytes with names in the place of the file that they came from, and of no other.
  func replaceByNamed(_ calls: [Frame: [Frame]]) throws {
    let bytes = try named(calls, compressed: Gzip.isCompressed(bytes))
    try OutputFile.write(bytes, to: reference.path, replacing: .file(original))
  }

  /// In the current directory; not a name that a tracer gives, or it would pass for another dump.
  var nameOfCopy: String {
    var name = reference.path.split(separator: "/").last.map(String.init) ?? reference.path
    var ending = ".symbolized.pb"
    for suffix in [".partial", ".gz", ".pb"] where name.hasSuffix(suffix) {
      name.removeLast(suffix.count)
      if suffix == ".gz" { ending += suffix }
    }
    return name + ending
  }
}
