// SPDX-License-Identifier: Apache-2.0
// Where binaries and their debug files are looked for, and where what was found is kept.

import ArgumentParser
import Glibc
import ProcessControl
import Symbolication

struct SymbolSources: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Look for binaries and debug files below this directory first; repeatable.",
      valueName: "dir"),
    completion: .directory)
  var sysroot: [String] = []

  @Flag(help: "Neither use nor keep what was found before, in XDG_CACHE_HOME or ~/.cache.")
  var noCache = false

  /// What names frames by these sources, in a process of its own.
  func symbolicator(
    fullNames: Bool = false, rights: SymbolicateWorker.Rights = .own
  ) throws -> Symbolicator {
    Symbolicator(
      worker: .subprocess(executable: "/proc/self/exe", arguments: rights.arguments),
      roots: try roots(), style: fullNames ? .full : .simplified,
      cache: noCache ? nil : SymbolCache(maker: Self.thisBuild) { ProcessEnvironment.current[$0] })
  }

  /// What tells this build of the command from others: its file's length and time.
  private static var thisBuild: String {
    var status = stat()
    guard unsafe stat("/proc/self/exe", &status) == 0 else { return Heaptap.configuration.version }
    let time = status.st_mtim
    return "\(Heaptap.configuration.version) \(status.st_size) \(time.tv_sec).\(time.tv_nsec)"
  }

  /// The directories that stand for `/`, the first first.
  private func roots() throws -> [String] {
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
