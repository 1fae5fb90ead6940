// SPDX-License-Identifier: Apache-2.0
// Which frames are folded: the list that is built in, and what machines and people add to it.

import ArgumentParser
import HeapModel
import ProcessControl

struct FoldingLists: ParsableArguments {
  @Option(
    name: [.customLong("folding")],
    help: ArgumentHelp(
      "Add this list of frames to fold to the others; repeatable. 'heaptap folding' prints them.",
      valueName: "file"),
    completion: .file())
  var lists: [String] = []

  /// What everybody on this machine wants, then the person, where there are such files.
  private static var places: [String] {
    let environment = ProcessEnvironment.current
    let home = environment["HOME"].flatMap { $0.hasPrefix("/") ? "\($0)/.config" : nil }
    // A path that is not absolute is to be ignored. (XDG Base Directory Specification)
    let own = environment["XDG_CONFIG_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? home
    return ["/etc/heaptap/folding"] + (own.map { ["\($0)/heaptap/folding"] } ?? [])
  }

  /// The lists that are in effect besides the one that is built in, in their order.
  func texts() throws -> [(path: String, text: String)] {
    let found = Self.places.filter { isAccessible($0) }
    return try (found + lists).map { path in
      do throws(SystemError) {
        return (path, String(decoding: try contents(ofFile: path), as: UTF8.self))
      } catch {
        throw Failure("cannot read '\(path.plainText)': \(error.words)")
      }
    }
  }

  /// What is folded, all lists taken together.
  func folding() throws -> FrameFolding {
    var folding = FrameFolding.standard
    for (path, text) in try texts() {
      do throws(FrameFolding.ListError) {
        try folding.add(list: text)
      } catch {
        throw Failure(
          "line \(error.line) of '\(path.plainText)' is no pattern to fold by: "
            + "\(error.description.plainText)")
      }
    }
    return folding
  }
}

struct Folding: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the list of frames that reports leave out.",
    discussion: """
      Frames of the allocator and of the language's runtime are folded, so that a report's first row \
      is somebody's code. The list is built in; /etc/heaptap/folding and then \
      $XDG_CONFIG_HOME/heaptap/folding (~/.config if that is not set) add to it, and --folding does. Of \
      patterns that fit a frame the last counts.

      A line is a pattern for functions, with *, ? and [a-z]. Before it may be 'module:', 'file:', \
      'passage:' (functions wherever in a stack they are), 'module-without-lines:', 'compiler-made:' or \
      'function:'; a '!' before all has such frames stay. Lines that begin with # are remarks.

      Exit status: 0 done, 2 when a list cannot be read, 64 for bad usage.
      """)

  @OptionGroup var lists: FoldingLists

  func run() throws {
    // For its complaints.
    _ = try lists.folding()
    let added = try lists.texts().map { path, text in
      "\n# Of '\(path.plainText)':\n" + text + (text.hasSuffix("\n") ? "" : "\n")
    }
    Output.write(FrameFolding.standardList + added.joined())
  }
}
