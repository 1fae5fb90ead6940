// SPDX-License-Identifier: Apache-2.0
// The command as users type it, under the real tracer: what its tests have in common, and its manual.

import Foundation
import HeapModel
import Pprof
import Testing

/// Tests of `heaptap`, by subcommand, in the files beside this one.
@Suite struct CommandTests {
  // MARK: The command line and its manual

  @Test(arguments: [
    "enable", "disable", "run", "list", "start", "snapshot", "stop", "show", "diff", "survivors",
    "trend", "check", "symbolize", "strip", "journal", "dumps", "report",
  ])
  func `the manual has every flag of a subcommand, and no other`(subcommand: String) throws {
    let commands =
      subcommand == "dumps" ? ["list", "info", "gc"].map { [subcommand, $0] } : [[subcommand]]
    var told: Set<String> = []
    for command in commands {
      told.formUnion(flags(inHelp: try heaptap(command + ["--help"]).output))
    }
    told.subtract(["-h", "--help", "--version"])
    #expect(!told.isEmpty)
    #expect(try flagsInManual(of: subcommand) == told)
  }

  @Test(arguments: [
    ([], "OVERVIEW"), (["--help"], "OVERVIEW"), (["help", "show"], "--cumulative"),
    (["--version"], "0."),
  ])
  func `help and version are no failures`(arguments: [String], text: String) throws {
    let result = try heaptap(arguments)
    #expect(result.status == 0 && result.output.contains(text) && result.errors.isEmpty)
    #expect(!result.output.contains("symbolicate-worker"))
  }

  @Test(arguments: [
    (["nonsense"], "unexpected argument 'nonsense'; see 'heaptap --help'"),
    (["run"], "run needs -- and a command, as in 'heaptap run -- ./server'"),
    (["run", "true"], "run needs -- and a command"),
    (["run", "--depth", "0", "--", "true"], "--depth takes a number from 1 to 1024, not 0"),
    (["run", "--depth", "1025", "--", "true"], "--depth takes a number from 1 to 1024, not 1025"),
    (["enable"], "<unit>"), (["disable"], "<unit>"),
    (
      ["enable", "--limit", "90%", "--depth", "0", "myd"],
      "--depth takes a number from 1 to 1024, not '0'"
    ),
    (["enable", "--keep", "1,2", "myd"], "--keep takes a count, a size or both, such as 16,256M"),
    (["start"], "<target>"), (["snapshot"], "<target>"), (["stop"], "<target>"),
    (["start", "--timeout", "0", "1"], "--timeout takes seconds above 0"),
    (["list", "1"], "unexpected argument '1'"),
    (["show", "a", "b"], "unexpected argument 'b'"),
    (
      ["show", "--by", "func"],
      "--by takes line, file, function, stack, module, generation, type, thread or reach"
    ),
    (["show", "--sort", "size"], "--sort takes bytes, blocks or total, not 'size'"),
    (["show", "--format", "flame"], "--format takes text, json or folded, not 'flame'"),
    (["show", "--format", "text", "--json"], "--json does not go with --format text"),
    (
      ["show", "--format", "folded", "--cumulative"],
      "--cumulative does not go with --format folded"
    ),
    (["show", "-n", "-1"], "-n"), (["show", "-n", "many"], "many"),
    (["show", "--by", "stack", "--cumulative"], "--cumulative does not go with --by stack"),
    (["diff", "a", "b", "c"], "diff takes two dumps, one name or nothing, not 3 arguments"),
    (["symbolize"], "<dump>"),
    (
      ["symbolize", "--in-place", "-o", "a", "b"],
      "symbolize takes --output or --in-place, not both"
    ),
    (["symbolize", "--in-place", "--force", "b"], "--force does not go with --in-place"),
    (["symbolize", "-o", "a", "b", "c"], "--output takes one dump, not 2"),
    (["diff", "--sort", "total"], "--sort takes bytes or blocks, not 'total'"),
    (["journal", "-n", "0"], "-n takes a number from 1, not 0"),
    (["journal", "--since", "soon"], "'soon' is no time; times are written as "),
    (["journal", "-D", "/", "--file", "a"], "-D does not go with --file"),
    (["journal", "-f", "--until", "now"], "--follow does not go with --until"),
    (["dumps", "list", "--until", "x"], "'x' is no time"),
    (["dumps", "gc", "--keep", "-1"], "--keep"),
    (["dumps", "gc", "--keep-bytes", "1x"], "--keep-bytes takes a size as in '256M', not '1x'"),
    (["dumps", "gc", "--older-than", "long"], "'long' is no span of time"),
    (["report"], "report needs a dump, or --new"), (["report", "--new", "a"], "not both"),
    (["report", "--new"], "--new needs --state"), (["report", "a", "--state", "/"], "--new only"),
    (["diff", "--header"], "--header"), (["diff", "./one.pb"], "name the later one too"),
    (["trend", "./one.pb"], "trend takes two dumps at least, and './one.pb' is one"),
    (["trend", "--by", "stack", "--cumulative"], "--cumulative does not go with --by stack"),
    (["survivors", "--born", "3..2"], "--born takes generations as in '2..3', '2' or '2..'"),
    (["survivors", "--born", "0"], "not '0'"), (["survivors", "--born", ".."], "not '..'"),
    (["survivors", "--born", "2...3"], "not '2...3'"), (["survivors", "--born", ""], "not ''"),
    (["survivors", "--born=-1..2"], "not '-1..2'"), (["survivors", "a", "b"], "argument 'b'"),
    (["check", "a", "b"], "check needs a bound: --max-growth, --max-live or --per-line"),
    (["check", "--max-growth", "big"], "--max-growth takes a size as in '10M', not 'big'"),
    (["check", "--per-line=-1"], "--per-line takes a size as in '10M', not '-1'"),
    (["check", "--max-live", "1", "a", "b", "c"], "two dumps, one or a name, not 3 arguments"),
    (["check", "--max-growth", "1", "./one.pb"], "'./one.pb' is one; name the later one too"),
    (["check", "--max-live", "1", "--format", "html"], "--format takes text, json or markdown"),
    (
      ["check", "--max-live", "1", "--json", "--format", "text"],
      "--json does not go with --format text"
    ),
  ])
  func `bad usage is one sentence that names the way to more`(
    arguments: [String], sentence: String
  ) throws {
    let result = try heaptap(arguments)
    #expect(result.status == 64 && result.output.isEmpty)
    #expect(result.errors.contains(sentence), "\(result.errors)")
    #expect(result.errors.hasPrefix("heaptap: ") && result.errors.contains("; see 'heaptap"))
    #expect(result.errors.split(separator: "\n").count == 1)
  }

  /// The flags at the beginning of the lines under `OPTIONS:`.
  private func flags(inHelp help: String) -> Set<String> {
    let options = help.components(separatedBy: "OPTIONS:\n").last!
    let heads = options.split(separator: "\n").filter { $0.hasPrefix("  -") }
    return Set(
      heads.flatMap { head in
        head.components(separatedBy: "   ")[0].matches(of: /--?[a-zA-Z1][-a-z]*/)
          .map { String($0.output) }
      })
  }

  /// The flags that have an item of their own below a subcommand's item in the manual.
  private func flagsInManual(of subcommand: String) throws -> Set<String> {
    let page = try String(
      contentsOf: Workshop.package.appendingPathComponent("docs/man/heaptap.1"), encoding: .utf8)
    var flags: Set<String> = []
    // An item of a subcommand is followed by those of its flags; start and snapshot leave theirs to
    // stop, and reports have a section.
    var isOurs = false
    for line in page.split(separator: "\n") {
      if line.hasPrefix(".Sh EN") { break }
      if line.hasPrefix(".It Cm ") {
        let name = line.split(separator: " ")[2]
        let asks: Set = ["start", "snapshot", "stop"]
        isOurs = name == subcommand || asks.contains(subcommand) && asks.contains(String(name))
      } else if line.hasPrefix(".Ss Options of") {
        isOurs = Self.reports.contains(subcommand)
      } else if line.hasPrefix(".Ss") {
        isOurs = false
      }
      if isOurs {
        if line.hasPrefix(".It Fl ") { flags.formUnion(Self.flags(inMacro: line)) }
        if line == ".It Cm list Op Fl -json" { flags.insert("--json") }
      }
    }
    // The section says in words whose these are.
    switch subcommand {
    case "diff": return flags.subtracting(["--header", "--reach", "--format", "--temporary"])
    case "survivors", "trend":
      return flags.subtracting([
        "--header", "--reach", "--format", "--sort", "--peak", "--temporary",
      ])
    case "check":
      return flags.subtracting(["--header", "--reach", "--sort", "--peak", "--temporary"])
    default: return flags
    }
  }

  private static let reports: Set = ["show", "diff", "survivors", "trend", "check"]

  private static func flags(inMacro line: Substring) -> [String] {
    line.components(separatedBy: "Fl ").dropFirst().map { "-\($0.prefix { $0 != " " })" }
  }
}

/// Runs the command to its end, which has to come soon.
func heaptap(
  _ arguments: [String], environment: [String: String] = [:], directory: URL? = nil,
  input: String? = nil
) throws -> Finished {
  // What one test found must be no answer to another, nor stay behind: no cache can be made there.
  try run(
    ["/usr/bin/timeout", "--foreground", "120", Workshop.command] + arguments,
    environment: ["XDG_CACHE_HOME": "/dev/null"].merging(environment) { $1 }, directory: directory,
    input: input)
}

func heaptap(_ arguments: String...) throws -> Finished { try heaptap(arguments) }

/// Copies a program that is to be run, in a process of its own: a descriptor of ours that is open for
/// writing may be in another test's child, and nobody may run the file until that has let go of it.
func copyProgram(_ program: String, to copy: String) throws {
  let result = try run(["/bin/cp", program, copy])
  guard result.status == 0 else { throw GuestError(result.errors) }
}

extension Finished {
  /// The lines of a report above the empty one.
  var rows: [String] {
    output.components(separatedBy: "\n\n")[0].split(separator: "\n").map(String.init)
  }

  /// What was printed, as JSON.
  var json: [String: Any] {
    get throws {
      let value = try JSONSerialization.jsonObject(with: Data(output.utf8))
      return try #require(value as? [String: Any])
    }
  }
}

extension DumpBox {
  /// Where the dump of an outcome is, from its name's pid.
  func dumps(of pid: pid_t) -> [URL] {
    dumps.filter { $0.lastPathComponent.contains("-\(pid)-") }
  }
}
