// SPDX-License-Identifier: Apache-2.0
// Where binaries and their debug files are looked for.

import ArgumentParser
import Glibc
import ProcessControl

struct SymbolSources: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Look for binaries and debug files below this directory first; repeatable.",
      valueName: "dir"),
    completion: .directory)
  var sysroot: [String] = []

  /// The directories that stand for `/`, the first first.
  func roots() throws -> [String] {
    try sysroot.map { directory in
      func failure(_ words: String) -> Failure {
        Failure("cannot look below '\(directory.plainText)': \(words)")
      }
      var status = stat()
      guard unsafe stat(directory, &status) == 0 else { throw failure(SystemError.last.words) }
      guard status.st_mode & S_IFMT == S_IFDIR else { throw failure("it is no directory") }
      var root = directory
      if !root.hasPrefix("/") {
        // To libdwfl, what is relative is relative to the binary.
        guard let here = unsafe getcwd(nil, 0) else { throw failure(SystemError.last.words) }
        defer { unsafe free(here) }
        root = unsafe String(cString: here) + "/" + root
      }
      // It separates the directories that libdwfl is given.
      guard !root.contains(":") else {
        throw failure("its path has a colon; a link to it from a path without will do")
      }
      return root
    } + ["/"]
  }
}
