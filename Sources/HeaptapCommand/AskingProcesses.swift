// SPDX-License-Identifier: Apache-2.0
// heaptap start, snapshot, stop

import ArgumentParser
import ProcessControl

/// Whom a command asks, and how long it waits.
struct TargetOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp(
      "A pid, a program's name or a systemd unit; a name stands for all that have it.",
      valueName: "target"))
  var targets: [String]

  @Option(help: ArgumentHelp("How long to wait for each answer.", valueName: "seconds"))
  var timeout = 30.0

  func validate() throws {
    if !(timeout > 0 && timeout <= 1_000_000) {
      throw ValidationError("--timeout takes seconds above 0 and up to 1000000, not \(timeout)")
    }
  }

  /// Asks each process once. One that fails is told, and the next one is still asked.
  func forEachProcess(_ ask: (ArmedProcess, Duration) throws -> Void) throws {
    let table = ProcessTable()
    var asked: Set<Int32> = []
    var failed = false
    for target in targets {
      do {
        for process in try table.processes(Target(target))
        where asked.insert(process.pid).inserted {
          do {
            try ask(process, .seconds(timeout))
          } catch {
            complain("\(error)")
            failed = true
          }
        }
      } catch {
        complain("\(error)")
        failed = true
      }
    }
    if failed { throw ExitCode(Failure.exitStatus) }
  }
}

/// What all three say of how they reach a process.
private let howItAsks = """
  A process is asked through its control page, which interrupts nothing. Where there is none, a \
  signal with a value is sent, and only to a process that certainly handles it: others are never \
  signalled. Processes of other users need root.

  Exit status: 0 when every process did it, 2 when one could not, 64 for bad usage.
  """

struct Start: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Start recording in armed processes.",
    discussion: "A process that records already goes on.\n\n" + howItAsks)

  @OptionGroup var options: TargetOptions

  func run() throws {
    try options.forEachProcess { process, timeout in
      switch try process.start(timeout: timeout) {
      case .started: Output.write("\(process.place) is recording\n")
      case .wasRecording: Output.write("\(process.place) was recording already\n")
      case .signalled:
        Output.write("\(process.place) was asked by signal to start; its log has the answer\n")
      }
    }
  }
}

struct TakeSnapshot: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "snapshot",
    abstract: "Have recording processes write a dump, and print its path.",
    discussion: """
      Waits until the dump is whole. Each snapshot begins a new generation, so that the next one \
      tells what was allocated since and is still alive.


      """ + howItAsks)

  @OptionGroup var options: TargetOptions

  func run() throws {
    try options.forEachProcess { process, timeout in
      Output.write("\(try process.snapshot(timeout: timeout))\n")
    }
  }
}

struct Stop: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Write a last dump, stop recording, and give the memory back.",
    discussion: """
      Prints the path of the last dump. A process that does not record is left as it is.


      """ + howItAsks)

  @OptionGroup var options: TargetOptions

  func run() throws {
    try options.forEachProcess { process, timeout in
      switch try process.stop(timeout: timeout) {
      case .stopped(let dump, let problem):
        if let dump { Output.write("\(dump)\n") }
        if let problem { throw Failure(problem) }
      case .wasDormant: Output.writeError("heaptap: \(process.place) was not recording\n")
      case .signalled:
        Output.writeError(
          "heaptap: \(process.place) was asked by signal to stop; its log has the answer\n")
      }
    }
  }
}
