// SPDX-License-Identifier: Apache-2.0
// The hidden subcommand behind show and diff: reads debug information where a crash costs little.

import ArgumentParser
import ProcessControl
import Symbolication

struct SymbolicateWorker: ParsableCommand {
  static let name = "symbolicate-worker"
  static let configuration = CommandConfiguration(
    commandName: name,
    abstract: "Answer the questions of another heaptap about files.",
    shouldDisplay: false)

  /// What the worker may do.
  enum Rights {
    /// What its parent may.
    case own
    /// Read whatever its parent may, and nothing else that takes a privilege: for a parent that writes
    /// other users' files, and has it read what they left.
    case confined

    var arguments: [String] {
      self == .confined ? [SymbolicateWorker.name, "--confined"] : [SymbolicateWorker.name]
    }
  }

  @Flag var confined = false

  func run() throws {
    if confined, !Capabilities.keepOnlyReading() {
      throw Failure("the worker cannot give up its privileges: \(SystemError.last.words)")
    }
    runSymbolicationWorker()
  }
}
