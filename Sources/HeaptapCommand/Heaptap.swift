// SPDX-License-Identifier: Apache-2.0
// The command `heaptap`: what it can do, and how it ends.

import ArgumentParser
import Glibc
import ProcessControl

@main
struct Heaptap: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "heaptap",
    abstract: "Heap tracing for Linux daemons that sleeps until it is asked.",
    discussion: """
      A process carries the tracer when it was started with LD_PRELOAD=libheaptap.so and HEAPTAP=1. \
      It sleeps until 'heaptap start' or SIGUSR1, and writes a dump at 'heaptap snapshot' or \
      SIGUSR2; 'heaptap diff' names the source lines that grew in between.

      Exit status: 0 done, 1 nothing was found or 'check' failed, 2 could not do it, 64 bad usage. 'run' exits as its command does.
      The tracer's settings and files are described in heaptap(7).
      """,
    version: "0.1.0",
    subcommands: [
      Enable.self, Disable.self, Run.self, List.self, Start.self, TakeSnapshot.self, Stop.self,
      Show.self, Diff.self, Survivors.self, Trends.self, Check.self, Symbolize.self, Strip.self,
      Folding.self,
      ReadJournal.self, Dumps.self, Report.self,
      SymbolicateWorker.self,
    ])

  static func main() {
    do {
      var command = try parseAsRoot()
      try command.run()
    } catch {
      end(with: error)
    }
  }

  /// Says what went wrong in one sentence; the way to more is named and not printed.
  private static func end(with error: any Error) -> Never {
    switch error {
    case let failure as TracedCommand.StartFailure:
      complain(failure.description)
      Glibc.exit(failure.exitStatus)
    case let code as ExitCode:
      Glibc.exit(code.rawValue)
    default: break
    }
    switch exitCode(for: error) {
    case .success:
      Output.write(fullMessage(for: error) + "\n")
      Glibc.exit(0)
    case .validationFailure:
      let name = CommandLine.arguments.dropFirst().first { name in
        configuration.subcommands.contains { $0._commandName == name }
      }
      let help = ["heaptap", name, "--help"].compactMap { $0 }.joined(separator: " ")
      complain("\(sentence(message(for: error))); see '\(help)'")
      Glibc.exit(ExitCode.validationFailure.rawValue)
    default:
      complain("\(error)")
      Glibc.exit(Failure.exitStatus)
    }
  }

  /// The parser's sentences, as ours are: on one line, from a small letter, without a full stop.
  private static func sentence(_ text: String) -> String {
    var text = text.split(separator: "\n").joined(separator: " ")
    if text.hasSuffix(".") { text.removeLast() }
    return text.prefix(1).lowercased() + text.dropFirst()
  }
}

/// Something could not be done, in one sentence.
struct Failure: Error, CustomStringConvertible {
  static let exitStatus: Int32 = 2

  let description: String

  init(_ description: String) { self.description = description }
}

func complain(_ sentence: String) { Output.writeError("heaptap: \(sentence)\n") }
