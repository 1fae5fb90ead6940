// SPDX-License-Identifier: Apache-2.0
// heaptap survivors, trend and check, on dumps of the real tracer.

import Foundation
import HeapModel
import Pprof
import Testing

extension CommandTests {
  @Suite struct Analysis {
    /// The dumps of one run of `courses.c`, and where its lines are.
    struct Courses {
      let box: DumpBox
      private let source: [String]

      init(rounds: Int, milliseconds: Int = 20) throws {
        box = try DumpBox()
        let program = try Programs.build("courses.c", ["-O1", "-g", SelfTests.header])
        let result = try run(
          ["/usr/bin/timeout", "120", program, "\(rounds)", "\(milliseconds)"],
          environment: box.environment("record", ["HEAPTAP_EXIT": "", "HEAPTAP_LOG": "off"]))
        try #require(result.status == 0, "\(result.errors)")
        try #require(box.dumps.count == rounds, "\(box.names)")
        source = try String(contentsOfFile: Programs.path("courses.c"), encoding: .utf8)
          .components(separatedBy: "\n")
      }

      var dumps: [String] { box.dumps.map(\.path) }

      /// The place of the line with a mark, as reports have it.
      func place(_ mark: String) -> String {
        "\(Programs.path("courses.c")):\(source.firstIndex { $0.hasSuffix("/* \(mark) */") }! + 1)"
      }

      /// The command with dumps looked for where these are.
      func heaptap(_ arguments: [String]) throws -> Finished {
        try GuestTests.heaptap(
          arguments,
          environment: [
            "HEAPTAP_DIR": box.directory.path, "LC_ALL": "C.UTF-8", "DEBUGINFOD_URLS": "",
          ],
          directory: box.directory)
      }
    }

    // MARK: trend

    @Test func `a leak, a cache, a buffer and a table are told apart in a real program`() throws {
      let courses = try Courses(rounds: 24)
      let json = try courses.heaptap(["trend", "--json"]).json
      let rows = try #require(json["rows"] as? [[String: Any]])
      var verdicts: [String: String] = [:]
      for row in rows {
        verdicts[try #require(row["key"] as? String)] = row["verdict"] as? String
      }
      #expect(
        verdicts == [
          courses.place("LEAK"): "leak", courses.place("CACHE"): "levels off",
          courses.place("CHURN"): "churn", courses.place("TABLE"): "steady",
        ])
      #expect(rows[0]["key"] as? String == courses.place("LEAK"))
      // 100 bytes a millisecond.
      let speed = try #require(rows[0]["bytes_per_hour"] as? Double)
      #expect((180_000_000...540_000_000).contains(speed), "\(speed)")
      let series = try #require(rows[0]["series"] as? [Int])
      #expect(series.count == 24 && series == series.sorted() && series.last! > 0)
      let dumps = try #require(json["dumps"] as? [[String: Any]])
      #expect(
        dumps.map { URL(fileURLWithPath: $0["path"] as! String).lastPathComponent }
          == courses.box.dumps.map(\.lastPathComponent))
      #expect(json["omitted_rows"] as? Int == 0)
    }

    @Test func `the answer is the first line, files come in any order, and a name finds all`()
      throws
    {
      let courses = try Courses(rounds: 9)
      let named = try courses.heaptap(["trend"] + courses.dumps.reversed())
      #expect(named.status == 0 && named.errors.isEmpty, "\(named.errors)")
      #expect(
        named.output.contains(/^courses\.c:\d+ in [a-z_]+ leaks, \+[0-9.]+ [KMG]iB\/h/),
        "\(named.output)")
      #expect(named.output.contains("\n9 dumps in "))
      let pid = try #require(DumpFileName(courses.box.dumps[0]).pid)
      for arguments in [[], [courses.box.program], [pid]] {
        let found = try courses.heaptap(["trend"] + arguments)
        #expect(found.status == 0 && found.output == named.output, "\(arguments) \(found.errors)")
      }
      // What was asked for twice counts once.
      let doubled = try courses.heaptap(["trend"] + courses.dumps + [courses.dumps[3]])
      #expect(doubled.output == named.output)
      #expect(doubled.errors.contains("is the same dump as"), "\(doubled.errors)")
    }

    @Test func `every grouping has a trend, and stacks have their frames`() throws {
      let courses = try Courses(rounds: 5)
      for grouping in Snapshot.Grouping.allCases {
        let result = try courses.heaptap(["trend", "--by", grouping.rawValue] + courses.dumps)
        #expect(result.status == 0 && result.output.contains("VERDICT"), "\(result.errors)")
      }
      let stacks = try courses.heaptap(["trend", "--by", "stack"] + courses.dumps).output
      #expect(stacks.contains("\n  \(courses.place("LEAK")) in leak\n"))
      let offsets = try courses.heaptap(["trend", "--no-symbols", "--no-cache"] + courses.dumps)
      #expect(offsets.errors.isEmpty && offsets.output.contains("courses-"))
      let letters = try GuestTests.heaptap(
        ["trend"] + courses.dumps, environment: ["LC_ALL": "C"])
      #expect(!letters.output.contains("█") && letters.output.contains("#  leak"))
    }

    @Test func `dumps that do not belong together are refused, or left out where they were found`()
      throws
    {
      let (one, other) = (try Courses(rounds: 2), try Courses(rounds: 2))
      let mixed = try one.heaptap(["trend"] + one.dumps + other.dumps)
      #expect(mixed.status == 2 && mixed.output.isEmpty)
      #expect(
        mixed.errors.contains(
          /are of different processes \(courses.* \d+ and courses.* \d+\); name/),
        "\(mixed.errors)")

      // Another recording of the same process: rewritten, as it takes a process some luck to have both.
      var snapshot = try #require(one.box.snapshots().first)
      snapshot.header["start_monotonic_ns"] = "1"
      snapshot.header["dump_monotonic_ns"] = "2"
      let early = one.box.directory.appendingPathComponent(
        one.box.dumps[0].lastPathComponent.replacingOccurrences(of: "-1.pb", with: "-0.pb"))
      try Data(snapshot.profileBytes()).write(to: early)
      let both = try one.heaptap(["trend"] + one.dumps)
      #expect(
        both.status == 2 && both.errors.contains("are of different recordings of one process"))
      let found = try one.heaptap(["trend"])
      #expect(found.status == 0 && found.output.contains("\n2 dumps in "), "\(found.errors)")
      #expect(found.errors.contains("1 of the process's dumps are of earlier recordings"))
    }

    @Test func `a trend needs two dumps, and says how to get them`() throws {
      let courses = try Courses(rounds: 1)
      let named = try courses.heaptap(["trend", courses.dumps[0]])
      #expect(named.status == 64 && named.errors.contains("trend takes two dumps at least, and"))
      let found = try courses.heaptap(["trend"])
      #expect(found.status == 2 && found.errors.contains("has only one dump"), "\(found.errors)")
      let twice = try courses.heaptap(["trend", courses.dumps[0], courses.dumps[0]])
      #expect(twice.status == 2 && twice.errors.contains("is the only dump of its recording"))
      let absent = try courses.heaptap(["trend", courses.dumps[0], "/nowhere/a.pb"])
      #expect(absent.status == 2 && absent.errors.contains("cannot read '/nowhere/a.pb'"))
    }

    // MARK: survivors

    @Test func `what outlived a snapshot is told by line and by stack, from one dump`() throws {
      let courses = try Courses(rounds: 6)
      let last = courses.dumps[5]
      let result = try courses.heaptap(["survivors", last])
      #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
      // 4 generations of 8 blocks; that of the last snapshot, and the first with its table, are left out.
      #expect(
        result.rows[0]
          == "\(courses.place("CACHE")) in fill_cache: size=128 KiB, count=32, average=4096 B, "
          + "left by 4 of 4 generations")
      #expect(result.rows[1].hasPrefix("\(courses.place("LEAK")) in leak: size="))
      #expect(result.rows.count == 2)
      #expect(result.output.contains(/\nborn in generations 2 to 5 of 6: \d/))

      let all = try courses.heaptap(["survivors", last, "--born", "..6"])
      #expect(
        all.rows[0].contains("in main: size=293 KiB, count=1, average=293 KiB, left by 1 of 6"))
      let one = try courses.heaptap(["survivors", last, "--born", "1"])
      #expect(one.rows.count == 2 && one.rows[1].contains("size=32.0 KiB, count=8"), "\(one.rows)")
      let late = try courses.heaptap(["survivors", last, "--born", "6.."])
      #expect(late.output.contains("\nborn in generation 6 of 6: 0.0 s to "))
      let stacks = try courses.heaptap(["survivors", last, "--born", "2..3", "--by", "stack"])
      #expect(stacks.rows[1] == "  \(courses.place("CACHE")) in fill_cache")
      let json = try courses.heaptap(["survivors", last, "--json"]).json
      #expect(json["report"] as? String == "survivors")
      let rows = try #require(json["rows"] as? [[String: Any]])
      #expect((rows[0]["generations"] as? [[String: Any]])?.count == 4)
    }

    @Test func `generations are listed with their ages`() throws {
      let courses = try Courses(rounds: 3)
      let rows = try courses.heaptap(["show", courses.dumps[2], "--by", "generation"]).rows
      #expect(rows.count == 3)
      #expect(rows[0].contains(/^generation 1, \d.* s to \d.* s old: size=/), "\(rows)")
    }

    @Test func `generations that are not there are one sentence`() throws {
      let courses = try Courses(rounds: 2)
      func refusal(_ arguments: String...) throws -> String {
        let result = try courses.heaptap(["survivors"] + arguments)
        #expect(result.status == 2 && result.output.isEmpty)
        return result.errors
      }
      let (first, second) = (courses.dumps[0], courses.dumps[1])
      #expect(try refusal(first).contains("is the first dump of its recording"))
      #expect(
        try refusal(second, "--born", "7").contains(
          "has generations 1 to 2, so there is nothing for --born 7"))
      #expect(try refusal(first, "--born", "2..").contains("has generation 1 only"))
      #expect(try courses.heaptap(["survivors", second]).status == 0)

      var foreign = try #require(courses.box.snapshots().first)
      foreign.header = [:]
      for index in foreign.samples.indices { foreign.samples[index].generation = nil }
      let file = courses.box.directory.appendingPathComponent("foreign.pb")
      try Data(foreign.profileBytes()).write(to: file)
      #expect(try refusal(file.path).contains("says nothing of generations"))
    }

    // MARK: check

    @Test func `growth within bounds is 0, beyond them 1 with the lines at fault`() throws {
      let courses = try Courses(rounds: 8)
      let (base, now) = (courses.dumps[0], courses.dumps[7])
      let good = try courses.heaptap(["check", base, now, "--max-growth", "10M"])
      #expect(good.status == 0 && good.errors.isEmpty && good.rows.count == 1)
      #expect(good.output.hasPrefix("within bounds: grew by "))

      let bad = try courses.heaptap(["check", base, now, "--max-growth", "1K"])
      #expect(bad.status == 1 && bad.errors.isEmpty)
      #expect(bad.output.contains(/^grew by [0-9.]+ KiB, 1024 B allowed\n\n/), "\(bad.output)")
      for mark in ["LEAK", "CACHE", "CHURN"] { #expect(bad.output.contains(courses.place(mark))) }
      #expect(!bad.output.contains(courses.place("TABLE")))

      let line = try courses.heaptap(
        ["check", base, now, "--max-growth", "10M", "--per-line", "210K"])
      #expect(line.status == 1 && line.output.hasPrefix("1 line grew by more than the 210 KiB"))
      #expect(
        line.output.hasSuffix(
          "\n\(courses.place("CACHE")) in fill_cache: size=256 KiB (+224 KiB), count=64 (+56), "
            + "average=4096 B\n"), "\(line.output)")
      let function = try courses.heaptap(
        ["check", base, now, "--per-line", "210K", "--by", "function"])
      #expect(
        function.output.contains("1 function grew") && function.output.contains("fill_cache ("))
      // By a name, the newest two.
      let named = try courses.heaptap(["check", "--max-growth", "10M"])
      #expect(named.status == 0 && named.errors.contains("comparing '"), "\(named.errors)")
    }

    @Test func `one dump is checked for what is alive`() throws {
      let courses = try Courses(rounds: 1)
      let result = try courses.heaptap(
        ["check", courses.dumps[0], "--max-live", "300K", "--per-line", "100K"])
      #expect(result.status == 1)
      #expect(result.output.contains(/^[0-9.]+ KiB alive, 300 KiB allowed\n1 line has more than/))
      #expect(result.output.contains("\(courses.place("TABLE")) in main: size=293 KiB, count=1"))
      #expect(try courses.heaptap(["check", "--max-live", "1M"]).status == 0)
    }

    @Test func `a dump that was cut short passes no check`() throws {
      let courses = try Courses(rounds: 2)
      let file = courses.box.directory.appendingPathComponent("cut.pb")
      let whole = try Data(contentsOf: URL(fileURLWithPath: courses.dumps[1]))
      try whole.prefix(whole.count * 3 / 4).write(to: file)
      for dumps in [[courses.dumps[0], file.path], [file.path, courses.dumps[1]]] {
        let result = try courses.heaptap(["check"] + dumps + ["--max-growth", "1G"])
        #expect(result.status == 2 && result.output.isEmpty, "\(result.output)")
        #expect(result.errors.contains("'\(file.path)' lacks its end"), "\(result.errors)")
      }
    }

    @Test func `suppressions hide what they fit, are counted, and told where they fit nothing`()
      throws
    {
      let courses = try Courses(rounds: 8)
      let (base, now) = (courses.dumps[0], courses.dumps[7])
      let list = courses.box.directory.appendingPathComponent("list")
      func check(_ text: String, _ more: String...) throws -> Finished {
        try text.write(to: list, atomically: true, encoding: .utf8)
        return try courses.heaptap(
          ["check", base, now, "--max-growth", "1K", "--suppressions", list.path] + more)
      }
      let all = try check("# All of it\nleak:^main$\n")
      #expect(
        all.status == 0 && all.output.hasPrefix("within bounds: grew by 0 B"), "\(all.output)")
      let some = try check("leak:^fill_*e\nleak:nobody\n")
      #expect(some.status == 1 && !some.output.contains(courses.place("CACHE")))
      #expect(
        some.output.hasSuffix(
          "\n\nSuppressions used:\n  count      bytes template\n     56     229376 ^fill_*e\n\n"
            + "suppression not used: 'leak:nobody' (line 2)\n"), "\(some.output)")
      // By file and by module, of frames that reports fold, too.
      #expect(try check("leak:/courses.c").status == 0)
      #expect(try check("leak:libc.so.6").status == 0)

      let markdown = try check("leak:leak$\n", "--format", "markdown")
      #expect(
        markdown.status == 1 && markdown.output.hasPrefix("### Heap: out of bounds\n\n- grew by"))
      #expect(markdown.output.contains("| Growth | Live | Blocks | Line |"))
      let json = try check("leak:leak$\n", "--json").json
      #expect(json["passed"] as? Bool == false)

      for (text, sentence) in [
        ("leak:a\nrace:b", "line 2 of '\(list.path)': 'race:b' is no suppression of leaks"),
        ("leak:", "line 1 of '\(list.path)': there is no pattern"),
      ] {
        let refused = try check(text)
        #expect(refused.status == 2 && refused.errors.contains(sentence), "\(refused.errors)")
      }
      let absent = try courses.heaptap(
        ["check", base, now, "--max-growth", "1", "--suppressions", "/nowhere/list"])
      #expect(absent.status == 2)
      #expect(absent.errors == "heaptap: cannot read '/nowhere/list': no such file or directory\n")
    }

    @Test func `suppressions are written for names in full or as reports show them`() throws {
      let reported = try CommandTests.Reports.Reported()
      let list = reported.box.directory.appendingPathComponent("list")
      for pattern in ["^cache::Store::insert(", "^cache::Store::insert$", "reported.cpp"] {
        try "leak:\(pattern)\n".write(to: list, atomically: true, encoding: .utf8)
        let result = try heaptap(
          "check", reported.dump, "--max-live", "1T", "--suppressions", list.path)
        #expect(result.status == 0 && !result.output.contains("not used"), "\(result.output)")
      }
    }
  }
}

/// The pid in a dump's name.
private struct DumpFileName {
  let pid: String?

  init(_ file: URL) {
    pid = file.deletingPathExtension().lastPathComponent.split(separator: "-").dropLast().last
      .map(String.init)
  }
}

extension DumpBox {
  /// The program in the dumps' names.
  fileprivate var program: String {
    let name = dumps[0].deletingPathExtension().lastPathComponent
    return name.split(separator: "-").dropFirst().dropLast(2).joined(separator: "-")
  }
}
