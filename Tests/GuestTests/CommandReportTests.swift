// SPDX-License-Identifier: Apache-2.0
// heaptap show and diff, on dumps of the real tracer.

import Foundation
import HeapModel
import Pprof
import Testing

extension CommandTests {
  @Suite struct Reports {
    /// One dump of `reported.cpp`, and where its lines are.
    struct Reported {
      let box: DumpBox
      let program: String
      let dump: String
      let source: [String]

      init(copyTo copy: URL? = nil) throws {
        box = try DumpBox()
        let built = try Programs.build("reported.cpp", ["-O1", "-g"])
        if let copy { try copyProgram(built, to: copy.path) }
        program = copy?.path ?? built
        let result = try heaptap("run", "-o", box.directory.path, "--", program)
        try #require(result.status == 0, "\(result.errors)")
        dump = try #require(box.dumps.first).path
        let path = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/reported.cpp")
        source = try String(contentsOf: path, encoding: .utf8).components(separatedBy: "\n")
      }

      /// The place of the line with a mark, as reports have it.
      func place(_ mark: String) -> String {
        let line = source.firstIndex { $0.hasSuffix("// \(mark)") }! + 1
        return Workshop.package.path + "/Tests/GuestTests/Programs/reported.cpp:\(line)"
      }

      func show(_ options: String...) throws -> Finished {
        let result = try heaptap(["show", dump] + options)
        #expect(result.status == 0, "\(result.errors)")
        return result
      }

      /// The rows of our program: a C++ runtime may keep a block of its own.
      func rows(_ options: String...) throws -> [String] {
        try heaptap(["show", dump, "--exclude", "libstdc++*"] + options).rows
      }
    }

    // MARK: show

    @Test func `lines come in tracemalloc's form with the function beside, the largest first`()
      throws
    {
      let reported = try Reported()
      #expect(
        try reported.rows() == [
          "\(reported.place("BIG")) in main: size=1024 KiB, count=1, average=1024 KiB",
          "\(reported.place("INSERT")) in cache::Store::insert: size=1000 B, count=10, average=100 B",
        ])
    }

    @Test func `lists of one's own fold more, and have folded frames stay`() throws {
      let reported = try Reported()
      let directory = try Workshop.makeDirectory()
      let own = directory.appendingPathComponent("heaptap")
      try FileManager.default.createDirectory(at: own, withIntermediateDirectories: true)
      try "# Ours.\ncache::Store::*\n".write(
        to: own.appendingPathComponent("folding"), atomically: true, encoding: .utf8)
      let list = directory.appendingPathComponent("list").path
      func names(_ options: String..., function: String) throws -> Bool {
        let result = try run(
          [Workshop.command, "show", reported.dump, "--by", "function", "-n", "0"] + options,
          environment: ["XDG_CONFIG_HOME": directory.path])
        #expect(result.status == 0, "\(result.errors)")
        return result.output.contains(function)
      }
      #expect(try !names(function: "Store::insert"))
      #expect(try names("--all-frames", function: "operator new"))
      // What is named by hand comes last, and so wins.
      try "!cache::Store::insert*\n".write(toFile: list, atomically: true, encoding: .utf8)
      #expect(try names("--folding", list, function: "Store::insert"))
      try "!module:libstdc++.so*\n!operator new*\n".write(
        toFile: list, atomically: true, encoding: .utf8)
      #expect(try names("--folding", list, function: "operator new"))

      let printed = try run(
        [Workshop.command, "folding", "--folding", list],
        environment: ["XDG_CONFIG_HOME": directory.path])
      #expect(printed.output.hasPrefix(FrameFolding.standardList))
      #expect(printed.output.contains("\n# Of '\(own.path)/folding':\n# Ours.\ncache::Store::*\n"))
      #expect(
        printed.output.hasSuffix("\n# Of '\(list)':\n!module:libstdc++.so*\n!operator new*\n"))

      try "malloc\nmodul:x\n".write(toFile: list, atomically: true, encoding: .utf8)
      for command in [["show"], ["diff", reported.dump], ["report"]] {
        let refused = try heaptap(command + [reported.dump, "--folding", list])
        #expect(refused.status == 2)
        #expect(
          refused.errors.hasPrefix(
            "heaptap: line 2 of '\(list)' is no pattern to fold by: 'modul:'"),
          "\(refused.errors)")
      }
      let absent = try heaptap("show", reported.dump, "--folding", "/nowhere/list")
      #expect(absent.status == 2)
      #expect(absent.errors == "heaptap: cannot read '/nowhere/list': no such file or directory\n")
    }

    @Test func `folded stacks are what flame graphs are drawn from`() throws {
      let reported = try Reported()
      // But for what the C++ runtime keeps since it was loaded.
      let lines = try reported.show("--format", "folded", "--exclude", "libstdc++*").output
        .split(separator: "\n")
      let big = try #require(lines.first)
      #expect(big.hasSuffix(";main 1048576"), "\(big)")
      #expect(lines.contains { $0.hasSuffix(";cache::Store::insert 1000") }, "\(lines)")
      let blocks = try reported.show("--format", "folded", "--sort", "blocks").output
      #expect(blocks.contains(";cache::Store::insert 10\n"), "\(blocks)")
      // All stacks have one root, that of the program.
      #expect(Set(lines.map { $0.split(separator: ";")[0] }).count == 1, "\(lines)")
    }

    @Test func `rows are what --by says`() throws {
      let reported = try Reported()
      let program = URL(fileURLWithPath: reported.program).lastPathComponent
      let file = reported.place("BIG").components(separatedBy: ":")[0]
      let whole = "size=1025 KiB, count=11, average=93.2 KiB"
      #expect(try reported.rows("--by", "file") == ["\(file): \(whole)"])
      #expect(try reported.rows("--by", "module") == ["\(program): \(whole)"])
      let generations = try reported.rows("--by", "generation")
      #expect(generations.count == 1)
      #expect(generations[0].contains(/^generation 1, 0\.0 s to \d+\.\d s old:/))
      #expect(generations[0].hasSuffix(" old: \(whole)"))
      #expect(
        try reported.rows("--by", "function") == [
          "main (\(program)): size=1024 KiB, count=1, average=1024 KiB",
          "cache::Store::insert (\(program)): size=1000 B, count=10, average=100 B",
        ])
      let stacks = try reported.rows("--by", "stack", "--sort", "blocks", "-n", "1")
      #expect(
        stacks.prefix(2) == [
          "size=1000 B, count=10, average=100 B",
          "  \(reported.place("INSERT")) in cache::Store::insert",
        ])
      #expect(stacks.contains { $0.hasSuffix(" in main") })
      #expect(stacks.contains("… and 1 more row"))
    }

    @Test func `--cumulative charges every caller`() throws {
      let reported = try Reported()
      let rows = try reported.rows("--by", "function", "--cumulative")
      let main = try #require(rows.first { $0.hasPrefix("main ") })
      #expect(main.hasSuffix("size=1025 KiB, count=11, average=93.2 KiB"))
      #expect(rows.contains { $0.hasPrefix("_start ") })
    }

    @Test func `-n and --sort choose the rows and their order`() throws {
      let reported = try Reported()
      #expect(try reported.rows("-n", "1").count == 2)
      #expect(try reported.rows("-n", "1").last == "… and 1 more row")
      #expect(try reported.rows("--limit", "0").count == 2)
      #expect(try reported.rows("--sort", "blocks")[0].contains("Store::insert"))
    }

    @Test func `--sort total tells also of what was freed`() throws {
      let reported = try Reported()
      let rows = try reported.rows("--sort", "total")
      #expect(rows[0].hasSuffix("total=1024 KiB, allocations=1"))
      #expect(
        rows[1]
          == "\(reported.place("CHURN")) in churn: size=0 B, count=0, total=400 KiB, allocations=40"
      )
    }

    @Test func `patterns match files, functions and modules`() throws {
      let reported = try Reported()
      let program = URL(fileURLWithPath: reported.program).lastPathComponent
      func rows(_ options: String...) throws -> [String] {
        try heaptap(["show", reported.dump] + options).rows
      }
      for pattern in ["reported.cpp", "*/Programs/*.cpp", program, "reported-*"] {
        #expect(try rows("--include", pattern).count == 2, "\(pattern)")
        #expect(try !rows("--exclude", pattern).contains { $0.contains("reported") }, "\(pattern)")
      }
      #expect(try rows("--include", "cache::*").count == 1)
      #expect(try rows("--include", "cache::*", "--include", "main").count == 2)
      #expect(try rows("--include", "reported.cpp", "--exclude", "main").count == 1)
      // With callers, main is in every stack.
      #expect(try rows("--include", "main", "--cumulative", "--by", "function").count > 2)
      let part = try heaptap("show", reported.dump, "--include", "cache::*")
      #expect(
        part.output.contains(/\ntotal: size=1000 B of \d+ KiB, count=10 of \d+, average=100 B\n/))
    }

    @Test func `--all-frames shows the allocator's frames, which are left out otherwise`() throws {
      let reported = try Reported()
      #expect(try reported.show("--all-frames").output.contains("operator new"))
      #expect(try !reported.show("--by", "stack").output.contains("operator new"))
    }

    @Test func `--no-symbols shows offsets, and no warning`() throws {
      let reported = try Reported()
      let program = URL(fileURLWithPath: reported.program).lastPathComponent
      let result = try reported.show("--no-symbols")
      #expect(result.errors.isEmpty)
      #expect(result.rows[0].contains(/^[-a-z0-9]+\+0x[0-9a-f]+: size=1024 KiB, count=1,/))
      #expect(result.rows[0].hasPrefix(program + "+0x"))
    }

    @Test func `--header prints all that the dump says, and no rows`() throws {
      let reported = try Reported()
      let result = try reported.show("--header")
      let header = try reported.box.snapshot().header
      #expect(result.output == header.entries.map { $0.comment + "\n" }.joined())
      #expect(result.output.contains("\ntrigger=exit\n") && result.errors.isEmpty)
    }

    @Test func `JSON has the names that the manual has`() throws {
      let reported = try Reported()
      let json = try reported.show("--json", "--include", "cache::*").json
      #expect(
        json.keys.sorted() == [
          "by", "charging", "header", "moment", "omitted_rows", "report", "rows", "total",
          "warnings",
        ])
      let rows = try #require(json["rows"] as? [[String: Any]])
      #expect(
        rows[0].keys.sorted() == [
          "average_bytes", "file", "function", "key", "line", "live_blocks", "live_bytes",
          "temporary_blocks", "total_blocks", "total_bytes",
        ])
      #expect(rows.count == 1 && rows[0]["key"] as? String == reported.place("INSERT"))
      #expect(rows[0]["function"] as? String == "cache::Store::insert")
      #expect(rows[0]["live_bytes"] as? Int == 1000 && rows[0]["live_blocks"] as? Int == 10)
      #expect((json["header"] as? [String: Any])?["trigger"] as? String == "exit")
      let manual = try String(
        contentsOf: Workshop.package.appendingPathComponent("docs/man/heaptap.1"), encoding: .utf8)
      for name in Array(json.keys) + rows[0].keys {
        #expect(
          manual.split(whereSeparator: { !$0.isLetter && $0 != "_" }).contains { $0 == name },
          "\(name)")
      }
    }

    @Test func `a heap that nobody touched adds up to what is in memory`() throws {
      let text = try Reported().show().output
      #expect(text.contains("\nmemory in use: "))
      #expect(text.contains(/\n  allocated, but not in memory +-/))
      #expect(!text.contains(/free or rounding in the allocator +-/))
      #expect(!text.contains(/\n  .* 0 B\n/))
    }

    @Test func `Swift functions have their simple names, and full ones if asked`() throws {
      let box = try DumpBox()
      let source = box.directory.appendingPathComponent("shop.swift")
      try """
      final class Session {
        let name: String
        init(name: String) { self.name = name }
      }
      struct Registry {
        var sessions: [Session] = []
        @inline(never) mutating func open(_ name: String) {
          sessions.append(Session(name: name))
        }
      }
      nonisolated(unsafe) var registry = Registry()
      for number in 0..<100 { registry.open("a name that is too long to be small \\(number)") }
      """.write(to: source, atomically: true, encoding: .utf8)
      let program = box.directory.appendingPathComponent("shop").path
      let built = try run(
        ["/usr/bin/env", "swiftc", "-O", "-g", source.path, "-o", program],
        directory: box.directory)
      try #require(built.status == 0, "\(built.errors)")
      _ = try heaptap("run", "-o", box.directory.path, "--", program)
      let dump = try #require(box.dumps.first).path
      let simple = try heaptap("show", dump, "--by", "function", "--include", "shop")
      #expect(simple.output.contains("Registry.open(_:) (shop): size="), "\(simple.output)")
      #expect(!simple.output.contains("swift_allocObject"))
      let full = try heaptap(
        "show", dump, "--by", "function", "--include", "shop", "--full-names")
      #expect(full.output.contains("shop.Registry.open(Swift.String) -> ()"), "\(full.output)")
    }

    @Test(.enabled(if: Workshop.find("python3") != nil, "python3 is not installed"))
    func `python3 is shown with its own functions`() throws {
      let box = try DumpBox()
      let result = try heaptap(
        [
          "run", "-o", box.directory.path, "--", "/usr/bin/env", "python3", "-c",
          "import os; kept = [str(i) * 20 for i in range(20000)]; os._exit(3)",
        ], environment: ["PYTHONMALLOC": "malloc"])
      #expect(result.status == 3)
      let dump = try #require(box.dumps.last).path
      let json = try heaptap("show", dump, "--by", "module", "--json").json
      let rows = try #require(json["rows"] as? [[String: Any]])
      #expect((rows.first?["module"] as? String)?.contains("python") == true)
      #expect(rows.first?["live_blocks"] as? Int ?? 0 >= 20000)
    }

    // MARK: Where it is printed

    @Test func `colours are for terminals only, and NO_COLOR forbids them`() throws {
      let reported = try Reported()
      let command = "\(Workshop.command) diff \(reported.dump) \(reported.dump)"
      func terminal(_ environment: [String: String]) throws -> String {
        try run(
          ["/usr/bin/env", "script", "-qec", command, "/dev/null"],
          environment: ["TERM": "xterm", "NO_COLOR": ""].merging(environment) { $1 }
        ).output
      }
      #expect(try terminal([:]).contains("\u{1b}["))
      #expect(try !terminal(["NO_COLOR": "1"]).contains("\u{1b}["))
      #expect(try !terminal(["TERM": "dumb"]).contains("\u{1b}["))
      #expect(try !reported.show().output.contains("\u{1b}"))
    }

    @Test(arguments: ["show X", "show X --json", "show X --header", "diff X X", "list --json"])
    func `a reader that has seen enough is no failure`(line: String) throws {
      let reported = try Reported()
      let typed = line.replacingOccurrences(of: "X", with: reported.dump)
      let result = try run(
        [
          "/bin/bash", "-c",
          "set -o pipefail; \(Workshop.command) \(typed) | head -c 1 > /dev/null",
        ])
      #expect(result.status == 0, "\(result.errors)")
    }

    @Test func `a terminal that does not show UTF-8 gets none, and files get all`() throws {
      let reported = try Reported()
      // What is left out is told with a character that is not ASCII.
      let command =
        "stty cols 60; \(Workshop.command) show \(reported.dump) --by stack --all-frames -n 1 --no-symbols"
      func terminal(_ environment: [String: String]) throws -> String {
        try run(["/usr/bin/env", "script", "-qec", command, "/dev/null"], environment: environment)
          .output
      }
      for locale in ["LC_ALL": "C", "LANG": "de_DE.ISO-8859-1"] {
        let environment = ["LC_ALL": "", "LC_CTYPE": "", "LANG": ""]
          .merging([locale.key: locale.value]) { $1 }
        #expect(try terminal(environment).utf8.allSatisfy { $0 < 0x80 })
      }
      for locale in ["C.UTF-8", "en_US.utf8", ""] {
        #expect(
          try terminal(["LC_ALL": locale, "LC_CTYPE": "", "LANG": ""]).contains("…"))
      }
      let piped = try run(
        [Workshop.command, "show", reported.dump, "-n", "1", "--by", "stack"],
        environment: ["LC_ALL": "C"])
      #expect(piped.output.contains("… and "))
    }

    @Test(arguments: [1, 2, 20, 79, 1000])
    func `a terminal may have any width`(width: Int) throws {
      let reported = try Reported()
      for line in ["show \(reported.dump)", "diff \(reported.dump) \(reported.dump)"] {
        let result = try run([
          "/usr/bin/env", "script", "-qec",
          "stty cols \(width); \(Workshop.command) \(line) --by stack --no-symbols", "/dev/null",
        ])
        #expect(result.status == 0 && result.output.contains("size="), "\(result.output)")
      }
    }

    @Test func `a file that does not fit into memory is refused in a sentence`() throws {
      let path = try Workshop.makeDirectory().appendingPathComponent("large.pb").path
      // A hole: it takes no room on the disk.
      #expect(FileManager.default.createFile(atPath: path, contents: nil))
      #expect(truncate(path, 800 << 20) == 0)
      let limited = try run([
        "/bin/sh", "-c", "ulimit -v 1000000; exec \(Workshop.command) show \(path)",
      ])
      #expect(limited.status == 2)
      #expect(
        limited.errors
          == "heaptap: cannot read '\(path)': its 800 MiB do not fit into the memory that is"
          + " left; read it on a machine with more\n")
      #expect(truncate(path, 2 << 30) == 0)
      let refused = try heaptap("show", path)
      #expect(
        refused.errors == "heaptap: cannot read '\(path)': it is larger than 1 GiB, as no dump is\n"
      )
    }

    @Test func `a full disk is a failure`() throws {
      let reported = try Reported()
      let result = try run(
        ["/bin/sh", "-c", "\(Workshop.command) show \(reported.dump) --no-symbols > /dev/full"])
      #expect(result.status == 2)
      #expect(
        result.errors == "heaptap: cannot write to standard output: no space left on device\n")
    }

    // MARK: diff

    @Test func `diff shows what grew, the largest change first`() throws {
      let guest = try Obedient("record")
      try guest.tell("allocate 10 100")
      let first = try heaptap("snapshot", "\(guest.pid)").output.trimmingCharacters(in: .newlines)
      try guest.tell("allocate 20 100")
      let second = try heaptap("snapshot", "\(guest.pid)").output.trimmingCharacters(in: .newlines)
      let diff = try heaptap("diff", first, second)
      #expect(diff.status == 0)
      #expect(diff.rows.count == 1)
      #expect(
        diff.rows[0].contains(
          /obedient\.c:\d+ in allocate: size=3000 B \(\+2000 B\), count=30 \(\+20\), average=100 B$/
        ),
        "\(diff.rows)")
      #expect(diff.output.hasSuffix("\ntotal: size=3000 B (+2000 B), count=30 (+20)\n"))
      let back = try heaptap("diff", second, first)
      #expect(back.rows[0].hasSuffix("size=1000 B (-2000 B), count=10 (-20), average=100 B"))

      let json = try heaptap("diff", first, second, "--json", "--by", "stack").json
      let row = try #require((json["rows"] as? [[String: Any]])?.first)
      #expect(row["added_bytes"] as? Int == 2000 && row["added_blocks"] as? Int == 20)
      #expect((row["frames"] as? [[String: Any]])?.first?["function"] as? String == "allocate")
      #expect(json["report"] as? String == "comparison" && json["earlier_header"] != nil)

      // The newest two of the newest process, by nobody's name and by its own.
      let environment = ["HEAPTAP_DIR": guest.box.directory.path]
      let elsewhere = try Workshop.makeDirectory()
      let program = try #require(try guest.snapshots()[0].header.program)
      for arguments in [["diff"], ["diff", program]] {
        let newest = try heaptap(arguments, environment: environment, directory: elsewhere)
        #expect(newest.output == diff.output)
        #expect(newest.errors.contains("comparing '\(first)' with '\(second)'\n"))
      }
      let shown = try heaptap(["show", program], environment: environment, directory: elsewhere)
      #expect(shown.rows[0].hasSuffix("size=3000 B, count=30, average=100 B"))
    }

    @Test func `a name is found beside a program of that name`() throws {
      let reported = try Reported()
      let program = URL(fileURLWithPath: reported.program).lastPathComponent
      let box = reported.box.directory
      try copyProgram(reported.program, to: box.appendingPathComponent(program).path)
      let shown = try heaptap(["show", program], directory: box)
      #expect(shown.status == 0 && shown.output.contains("Store::insert"), "\(shown.errors)")
      _ = try heaptap("run", "-o", box.path, "--", reported.program)
      let diff = try heaptap(["diff", program], directory: box)
      // Two processes with one dump each: nothing of one process to compare.
      #expect(diff.status == 2)
      #expect(diff.errors.contains("' (pid ") && diff.errors.contains("has only one dump"))
    }

    @Test func `missing dumps are explained`() throws {
      let directory = try Workshop.makeDirectory()
      let environment = ["HEAPTAP_DIR": directory.path]
      // By a name that no program has: root looks in the directories of all users.
      for arguments in [["show", "nobody-here"], ["diff", "nobody-here"]] {
        let result = try heaptap(arguments, environment: environment, directory: directory)
        #expect(result.status == 2 && result.output.isEmpty)
        #expect(
          result.errors.hasPrefix(
            "heaptap: 'nobody-here' is no file, and no program, unit or process of that name has a dump in '"
          ))
        #expect(result.errors.contains("'\(directory.path)'"))
        #expect(result.errors.hasSuffix("; HEAPTAP_DIR names another directory\n"))
      }
      let reported = try Reported()
      let missing = try heaptap("diff", reported.dump, "./gone.pb")
      #expect(missing.status == 2)
      #expect(missing.errors == "heaptap: cannot read './gone.pb': no such file or directory\n")
    }

    // MARK: Files that are not as they should be

    @Test func `a binary that was rebuilt is refused, and offsets are shown`() throws {
      let directory = try Workshop.makeDirectory()
      let program = directory.appendingPathComponent("rebuilt")
      let reported = try Reported(copyTo: program)
      try FileManager.default.removeItem(at: program)
      try copyProgram(try Programs.build("family.c"), to: program.path)
      let result = try reported.show()
      #expect(result.errors.contains("'\(program.path)'"), "\(result.errors)")
      #expect(result.errors.contains("changed since"), "\(result.errors)")
      #expect(result.rows[0].hasPrefix("rebuilt+0x"), "\(result.rows)")
      try FileManager.default.removeItem(at: program)
      let gone = try reported.show()
      #expect(gone.rows[0].hasPrefix("rebuilt+0x"), "\(gone.rows)")
      #expect(gone.errors.contains("rebuilt"))
    }

    @Test func `a dump that lost its tail is read as far as it goes, with a warning`() throws {
      let reported = try Reported()
      let bytes = try Data(contentsOf: URL(fileURLWithPath: reported.dump))
      let cut = reported.box.directory.appendingPathComponent("cut.pb")
      try bytes.dropLast(12).write(to: cut)
      let result = try heaptap("show", cut.path)
      #expect(result.status == 0)
      let warning = try #require(result.errors.split(separator: "\n").first)
      #expect(warning.hasPrefix("heaptap: '\(cut.path)': "), "\(result.errors)")
      #expect(result.rows[0].contains("size=1024 KiB"))
      for length in stride(from: 0, to: bytes.count, by: 37) {
        try bytes.prefix(length).write(to: cut)
        let result = try heaptap("show", cut.path, "--no-symbols")
        #expect([0, 2].contains(result.status), "\(length): \(result.errors)")
        #expect(result.errors.contains("'\(cut.path)'"), "\(length): \(result.errors)")
      }
    }

    @Test func `what is no dump is one sentence with its place, and status 2`() throws {
      let reported = try Reported()
      let directory = reported.box.directory
      func file(_ name: String, _ bytes: Data) throws -> String {
        let file = directory.appendingPathComponent(name)
        try bytes.write(to: file)
        return file.path
      }
      var damaged = try Data(contentsOf: URL(fileURLWithPath: reported.dump))
      let tail = damaged.count / 2..<damaged.count
      damaged.replaceSubrange(tail, with: Data(repeating: 0xff, count: tail.count))
      let text = try file("text", Data("hello, world\n".utf8))
      try run(["/bin/gzip", "-k", text])
      let fifo = directory.appendingPathComponent("pipe").path
      try #require(mkfifo(fifo, 0o600) == 0)
      let cases = [
        (try file("damaged.pb", damaged), "(byte "), ("\(text).gz", "(byte "),
        (reported.program, "(byte 0)"), (text, "(byte "),
        (try file("empty.pb", Data()), "is empty"),
        (directory.path, "it is a directory"), (fifo, "it is a pipe, and nobody writes to it"),
        (directory.appendingPathComponent("gone.pb").path, "no such file or directory"),
      ]
      for (path, words) in cases {
        for arguments in [["show", path], ["diff", path, reported.dump]] {
          let result = try heaptap(arguments)
          #expect(result.status == 2 && result.output.isEmpty, "\(arguments)")
          #expect(result.errors.hasPrefix("heaptap: cannot read '\(path)': "), "\(result.errors)")
          #expect(result.errors.contains(words), "\(result.errors)")
          #expect(result.errors.split(separator: "\n").count == 1)
        }
      }
    }

    @Test func `a profile of something else says what it is`() throws {
      let box = try DumpBox()
      // sample_type {type: 1, unit: 2} and the strings "", "cpu", "nanoseconds".
      var bytes: [UInt8] = [0x0a, 4, 8, 1, 16, 2, 0x32, 0, 0x32, 3] + Array("cpu".utf8)
      bytes += [0x32, 11] + Array("nanoseconds".utf8)
      let file = box.directory.appendingPathComponent("cpu.pb")
      try Data(bytes).write(to: file)
      let result = try heaptap("show", file.path)
      #expect(result.status == 2)
      #expect(
        result.errors == """
          heaptap: cannot read '\(file.path)': not a heap profile: first sample type is 'cpu', \
          expected 'inuse_space'

          """)
    }

    @Test func `compressed dumps and pipes are read as well`() throws {
      let reported = try Reported()
      try run(["/bin/gzip", "-k", reported.dump])
      let whole = try heaptap("show", reported.dump)
      #expect(try heaptap("show", reported.dump + ".gz").output == whole.output)
      let piped = try run(
        ["/bin/bash", "-c", "\(Workshop.command) show <(sleep 0.2; cat '\(reported.dump)')"])
      #expect(piped.output == whole.output, "\(piped.errors)")
    }
  }
}
