// SPDX-License-Identifier: Apache-2.0
// heaptap strip

import ArgumentParser
import Glibc
import HeapModel
import Pprof
import ProcessControl

struct Strip: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write dumps that can be shown to strangers.",
    usage: "heaptap strip [--output FILE] [--keep-names] [--no-build-ids] [--force] DUMP…",
    discussion: """
      What is written has the figures, stacks and times of the dump and can be shown and compared as it \
      can. It is without the host, user, unit, program and directories, and without addresses of the \
      process. Functions, source files, modules, types and threads of the program have a number in \
      the place of their name, the same one in every dump; those of libc, of the C++ and Swift \
      runtimes and of what else the distribution has stay. Whoever has the binaries finds names again \
      by their build IDs; --no-build-ids leaves those out.

      Without --output, a file NAME.stripped.pb is written in the current directory; the number of the \
      process and the time that NAME has are in the dump, and the program's name is left out of it. \
      Files appear whole or not at all, with mode 0600.

      Exit status: 0 done, 2 when a dump cannot be read or written, 64 for bad usage.
      """)

  @OptionGroup var copies: CopyOptions

  @Flag(
    help: "Keep the names of functions, files, modules, types and threads, without directories.")
  var keepNames = false

  @Flag(help: "Leave out build IDs, by which whoever has the binaries finds names.")
  var noBuildIds = false

  func run() throws {
    let options = Snapshot.StrippingOptions(keepsNames: keepNames, keepsBuildIDs: !noBuildIds)
    var failed = false
    for name in copies.dumps {
      do {
        let dump = try DumpReference.found(for: name)
        let target = copies.output ?? Self.nameOfCopy(dump.path)
        let bytes = try dump.read().stripped(options).profileBytes()
        try OutputFile.write(
          target.hasSuffix(".gz") ? Gzip.compressed(bytes) : bytes, to: target,
          replacing: copies.replaceable)
        Output.write("wrote '\(target.plainText)'\n")
      } catch {
        complain("\(error)")
        failed = true
      }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }

  /// In the current directory. Of a name that a tracer gave, what tells the program is left out.
  private static func nameOfCopy(_ path: String) -> String {
    let ending = path.hasSuffix(".gz") ? ".stripped.pb.gz" : ".stripped.pb"
    if let dump = DumpFile(path: path) ?? DumpFile(partialPath: path) {
      return "\(dump.time)-\(dump.pid)-\(dump.sequence)\(ending)"
    }
    var name = path.split(separator: "/").last.map(String.init) ?? path
    for suffix in [".partial", ".gz", ".pb"] where name.hasSuffix(suffix) {
      name.removeLast(suffix.count)
    }
    return name + ending
  }
}
