// SPDX-License-Identifier: Apache-2.0
// heaptap run

import ArgumentParser
import Glibc
import HeapModel
import ProcessControl
import UnitControl

struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Run a command, record from its first allocation, and dump when it ends.",
    usage: """
      heaptap run [-o DIR] [--depth N] [--sample SIZE] [--threads] [--peak] [--leaks [--suppressions FILE]] [--children] -- COMMAND…
      """,
    discussion: """
      The command dumps when it returns from main, at exit, quick_exit and _exit, and on SIGTERM, \
      SIGINT and SIGHUP left at their default: it dumps, then dies by the same signal. SIGKILL \
      leaves nothing. With --leaks the last dump tells which blocks nothing led to any more, and their \
      stacks are printed to standard error: those that are lost, and those that only lost ones led to; \
      'heaptap show --reach leaked DUMP' shows them again. A program that it becomes by exec records under the same pid. The paths of \
      the dumps are printed to standard error.

      Exit status: the command's own; 128+n when signal n killed it; 127 when there is no such \
      command, 126 when it cannot be run; that of --leaks-exit-code when a command that \
      succeeded has lost something; 2 when heaptap cannot do its part, 64 for bad usage.

      Environment: HEAPTAP_LIBRARY names libheaptap.so where it is not beside heaptap or in its \
      ../lib. HEAPTAP_SIGNALS and HEAPTAP_LOG are left to the command, see heaptap(7).
      """)

  @Option(
    name: [.customShort("o"), .customLong("output")],
    help: ArgumentHelp("Where the dumps go.", valueName: "dir"), completion: .directory)
  var directory = "."

  @Option(help: ArgumentHelp("Frames kept of a stack, 1 to 1024; 64 if not given.", valueName: "n"))
  var depth: Int?

  @Option(
    help: ArgumentHelp(
      """
      Record a few blocks for many, one sample in so many bytes, and have estimates of the others: \
      \(TracerSetting.sample.takes).
      """,
      valueName: "size"))
  var sample: String?

  @Flag(help: "Record which thread allocates, for --by thread.")
  var threads = false

  @Flag(help: "Keep what was alive when the heap was largest, for 'heaptap show --peak'.")
  var peak = false

  @Flag(help: "Find out what is lost when the command ends, and show where it was allocated.")
  var leaks = false

  @Option(
    help: ArgumentHelp(
      """
      Exit with this status where the command exits with 0 and has lost something; with 2 where it \
      could not be looked for.
      """,
      valueName: "n"))
  var leaksExitCode: Int32?

  @Option(
    help: ArgumentHelp(
      "Leave out leaks that this file, written for LeakSanitizer, is about.", valueName: "file"),
    completion: .file())
  var suppressions: String?

  @Flag(help: "Trace the processes that the command starts as well; each dumps on its own.")
  var children = false

  @Argument(
    parsing: .postTerminator,
    help: ArgumentHelp("The command and its arguments.", valueName: "command"))
  var command: [String] = []

  func validate() throws {
    if command.isEmpty {
      throw ValidationError("run needs -- and a command, as in 'heaptap run -- ./server'")
    }
    if let depth, !(1...1024).contains(depth) {
      throw ValidationError("--depth takes a number from 1 to 1024, not \(depth)")
    }
    if let sample {
      guard TracerSetting.sample.accepts(sample) else {
        throw ValidationError(
          "--sample takes \(TracerSetting.sample.takes), not '\(sample.plainText)'")
      }
      if leaks, sample != "off", sample != "0" {
        throw ValidationError(
          "--leaks does not go with --sample: what leads to a lost block has to be known")
      }
    }
    if suppressions != nil, !leaks { throw ValidationError("--suppressions needs --leaks") }
    if let leaksExitCode {
      guard leaks else { throw ValidationError("--leaks-exit-code needs --leaks") }
      guard (1...255).contains(leaksExitCode) else {
        throw ValidationError(
          "--leaks-exit-code takes a number from 1 to 255, not \(leaksExitCode)")
      }
    }
  }

  func run() throws {
    // Before the command runs: it may be wrong.
    let suppressions = try suppressions.map { try Suppressions(file: $0) }
    let outcome = try TracedCommand(
      rawCommand, directory: directory, depthLimit: depth, sampling: sample, tellsThreads: threads,
      keepsPeak: peak,
      looksForLeaks: leaks, children: children ? .traced : .left,
      environment: .current
    ).run()
    for dump in outcome.dumps { Output.writeError("heaptap: wrote '\(dump.path.plainText)'\n") }
    if let reason = outcome.reasonForNoDump { complain(reason) }
    var status = outcome.ending.exitStatus
    if leaks {
      let verdict = try LeakVerdict(
        of: outcome.dumps, without: suppressions ?? Suppressions(rules: []))
      if status == 0, let leaksExitCode {
        if verdict.hasLeaks {
          status = leaksExitCode
        } else if !verdict.isKnown || outcome.reasonForNoDump != nil {
          status = Failure.exitStatus
        }
      }
    }
    throw ExitCode(status)
  }

  /// The command byte for byte. Parsed strings are repaired where they were not UTF-8, and the
  /// command is always the end of the line.
  private var rawCommand: [[UInt8]] {
    let arguments = unsafe UnsafeBufferPointer(
      start: CommandLine.unsafeArgv, count: Int(CommandLine.argc))
    return unsafe arguments.suffix(command.count).map { argument in
      let bytes = unsafe UnsafeRawBufferPointer(start: argument!, count: strlen(argument!))
      return unsafe Array(bytes)
    }
  }
}
