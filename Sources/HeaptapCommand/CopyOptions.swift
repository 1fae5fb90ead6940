// SPDX-License-Identifier: Apache-2.0
// What commands that write copies of dumps have in common.

import ArgumentParser

/// Which dumps are copied, and where to.
struct CopyOptions: ParsableArguments {
  @Argument(
    help: ArgumentHelp("A dump, or the name of a program or unit.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dumps: [String]

  @Option(
    name: [.short, .long],
    help: ArgumentHelp("Where to write; compressed if it ends in .gz.", valueName: "file"),
    completion: .file())
  var output: String?

  @Flag(help: "Replace a file that is there.")
  var force = false

  func validate() throws {
    if output != nil && dumps.count > 1 {
      throw ValidationError("--output takes one dump, not \(dumps.count)")
    }
  }

  var replaceable: OutputFile.Replaceable { force ? .anyFile : .nothing }
}
