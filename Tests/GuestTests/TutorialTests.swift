// SPDX-License-Identifier: Apache-2.0
// The tutorial is what happens: each of its commands is run, and prints what the page shows.

import Foundation
import Testing

@Suite struct TutorialTests {
  /// A command of the page, and what is shown below it.
  private struct Step {
    var command: String
    var shown: [Substring] = []
  }

  private func steps(of page: String) throws -> [Step] {
    let text = try String(
      contentsOf: Workshop.package.appendingPathComponent("docs/\(page)"), encoding: .utf8)
    var steps: [Step] = []
    var isFenced = false
    for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
      if line.hasPrefix("```") {
        #expect(isFenced || line == "```console", "commands are in fences that say so")
        isFenced.toggle()
      } else if isFenced, line.hasPrefix("$ ") {
        steps.append(Step(command: String(line.dropFirst(2))))
      } else if isFenced {
        steps[steps.count - 1].shown.append(line)
      }
    }
    return steps
  }

  /// Whether a line is as the page shows it, where `…` stands for anything, and spaces for spaces.
  private func fits(_ line: Substring, _ shown: Substring) -> Bool {
    var pattern = ""
    for (index, word) in shown.split(separator: " ").enumerated() {
      if index > 0 { pattern += " +" }
      pattern += word.split(separator: "…", omittingEmptySubsequences: false)
        .map { NSRegularExpression.escapedPattern(for: String($0)) }.joined(separator: ".*")
    }
    return line.range(of: "^ *\(pattern) *$", options: .regularExpression) != nil
  }

  /// Whether the lines are those shown, one by one; a `…` alone stands for any number of them.
  private func fit(_ lines: ArraySlice<Substring>, _ shown: ArraySlice<Substring>) -> Bool {
    guard let first = shown.first else { return lines.isEmpty }
    if first == "…" {
      return (lines.startIndex...lines.endIndex).contains {
        fit(lines[$0...], shown.dropFirst())
      }
    }
    guard let line = lines.first, fits(line, first) else { return false }
    return fit(lines.dropFirst(), shown.dropFirst())
  }

  @Test func `what the page shows is told from what it does not`() {
    func fit(_ output: String, _ shown: String) -> Bool {
      self.fit(
        output.split(separator: "\n", omittingEmptySubsequences: false)[...],
        shown.split(separator: "\n", omittingEmptySubsequences: false)[...])
    }
    #expect(fit("a 12 b\nlast", "a … b\nlast"))
    #expect(fit("  a   b", "a b"))
    #expect(fit("1\n2\n3\nend", "…\nend"))
    #expect(fit("end", "…\nend"))
    #expect(!fit("a 12 c", "a … b"))
    #expect(!fit("1\n2\nend\nmore", "…\nend"))
    #expect(!fit("a", "a\nb"))
    #expect(!fit("(+1 B)", "(+2 B)"))
  }

  @Test func `every command of the tutorial does what the page shows`() throws {
    let steps = try steps(of: "find-a-leak.md")
    #expect(steps.count > 12)
    let home = try Workshop.makeDirectory()
    let files = FileManager.default
    // As after 'make install', below a prefix of our own.
    let prefix = home.appendingPathComponent("prefix")
    for (folder, name, product) in [
      ("bin", "heaptap", Workshop.command), ("lib", "libheaptap.so", Workshop.library),
    ] {
      let directory = prefix.appendingPathComponent(folder)
      try files.createDirectory(at: directory, withIntermediateDirectories: true)
      try files.createSymbolicLink(
        atPath: directory.appendingPathComponent(name).path, withDestinationPath: product)
    }
    let examples = Workshop.package.appendingPathComponent("Examples").path
    try files.createSymbolicLink(
      atPath: home.appendingPathComponent("Examples").path, withDestinationPath: examples)

    let end = "--- the end of step "
    let script = steps.enumerated().map { index, step in
      "\(step.command)\nstatus=$?; echo; echo '\(end)'\(index) $status\n"
    }.joined().replacing("/usr/local", with: prefix.path)
    let file = home.appendingPathComponent("tutorial.bash")
    // Whatever goes wrong, nothing stays that it has started.
    let begin = "cd \(home.path) || exit\nexec 2>&1\ntrap 'kill $(jobs -p)' EXIT\n"
    try (begin + script)
      .write(to: file, atomically: true, encoding: .utf8)
    let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
    let result = try run(
      ["/usr/bin/env", "timeout", "120", "bash", file.path],
      environment: ["PATH": "\(prefix.path)/bin:\(path)", "HEAPTAP_DIR": ""])
    var rest = result.output[...]
    for (index, step) in steps.enumerated() {
      let mark = "\n\(end)\(index) "
      let range = try #require(
        rest.range(of: mark), "'\(step.command)' did not end: \(rest)\(result.errors)")
      var lines = rest[..<range.lowerBound].split(
        separator: "\n", omittingEmptySubsequences: false)[...]
      if lines.last == "" { lines.removeLast() }
      let status = rest[range.upperBound...].prefix { $0 != "\n" }
      rest = rest[range.upperBound...].drop { $0 != "\n" }.dropFirst()
      #expect(status == "0", "'\(step.command)': \(lines.joined(separator: "\n"))")
      #expect(
        fit(lines, step.shown[...]),
        "'\(step.command)' printed \(lines.joined(separator: "\n"))")
    }
  }
}
