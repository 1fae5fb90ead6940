// SPDX-License-Identifier: Apache-2.0
// The hidden subcommand behind show and diff: reads debug information where a crash costs little.

import ArgumentParser
import Symbolication

struct SymbolicateWorker: ParsableCommand {
  static let name = "symbolicate-worker"
  static let configuration = CommandConfiguration(
    commandName: name,
    abstract: "Answer the questions of another heaptap about files.",
    shouldDisplay: false)

  func run() { runSymbolicationWorker() }
}
