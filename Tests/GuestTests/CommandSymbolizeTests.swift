// SPDX-License-Identifier: Apache-2.0
// heaptap symbolize: dumps that carry their names to where no binary is.

import Foundation
import HeapModel
import Pprof
import Testing

extension CommandTests {
  @Suite struct Symbolizing {
    private typealias Reported = Reports.Reported

    private let directory: URL

    init() throws { directory = try Workshop.makeDirectory() }

    private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

    /// A dump of a program that is gone by the time that it is asked about.
    private func orphan(
      _ symbolize: (Reported) throws -> Void
    ) throws -> Reported {
      let program = directory.appendingPathComponent("reported-gone")
      let reported = try Reported(copyTo: program)
      try symbolize(reported)
      try FileManager.default.removeItem(at: program)
      return reported
    }

    @Test func `a dump with names is shown in full where the program is gone`() throws {
      let output = path("out.pb")
      let reported = try orphan { reported in
        let result = try heaptap("symbolize", reported.dump, "--output", output)
        #expect(result.status == 0, "\(result.errors)")
        #expect(
          result.output.contains(
            try Regex("^wrote '\(output)': [1-9]\\d* of \\d+ addresses have a function\n$")))
      }
      // Without its own libraries: what names there are must be in the dump.
      let shown = try heaptap("show", output, "--no-symbols", "--exclude", "libstdc++*")
      #expect(shown.status == 0 && shown.errors.isEmpty, "\(shown.errors)")
      #expect(
        shown.rows == [
          "\(reported.place("BIG")) in main: size=1024 KiB, count=1, average=1024 KiB",
          "\(reported.place("INSERT")) in cache::Store::insert: size=1000 B, count=10, average=100 B",
        ])
      #expect(try !heaptap("show", output).errors.contains("reported-gone"))
      #expect(try heaptap("show", reported.dump).errors.contains("reported-gone"))
      let diff = try heaptap("diff", output, output)
      #expect(diff.status == 0 && !diff.errors.contains("reported-gone"), "\(diff.errors)")
      #expect(diff.rows.first?.hasPrefix("\(reported.place("BIG")) in main: ") == true)
    }

    @Test(.enabled(if: Workshop.find("go") != nil, "go is not installed (golang-go)"))
    func `go tool pprof shows its functions, lines and inlined calls`() throws {
      let program = directory.appendingPathComponent("inlined-gone")
      try copyProgram(try Programs.build("inlined.cpp", ["-O2", "-g"]), to: program.path)
      let box = try DumpBox()
      _ = try heaptap("run", "-o", box.directory.path, "--", program.path)
      let dump = try #require(box.dumps.first).path
      let output = path("inlined.pb.gz")
      #expect(try heaptap("symbolize", dump, "-o", output).status == 0)
      try FileManager.default.removeItem(at: program)

      func pprof(_ arguments: String...) throws -> String {
        let result = try run(
          [Workshop.find("go")!, "tool", "pprof"] + arguments + [output],
          environment: ["HOME": directory.path, "PPROF_BINARY_PATH": "/nowhere"])
        #expect(result.status == 0, "\(result.errors)")
        #expect(!result.errors.contains("inlined-gone"), "\(result.errors)")
        return result.output
      }
      let text = try String(
        contentsOf: Workshop.package.appendingPathComponent(
          "Tests/GuestTests/Programs/inlined.cpp"),
        encoding: .utf8)
      func line(_ mark: String) -> Int {
        text.components(separatedBy: "\n").firstIndex { $0.hasSuffix("// \(mark)") }! + 1
      }
      let rows = try pprof("-top", "-lines").split(separator: "\n")
      // The inner call, its caller that it was inlined into, and where that one was called from.
      for (function, mark) in [
        ("cache::grow", "INNER"), ("cache::Store::insert", "OUTER"),
        ("main", "MAIN"),
      ] {
        #expect(
          rows.contains {
            $0.contains(" \(function) ") && $0.contains("inlined.cpp:\(line(mark))")
          },
          "\(function) \(rows)")
      }
      #expect(rows.contains { $0.contains("cache::grow") && $0.contains("(inline)") }, "\(rows)")
      let list = try pprof("-list", "cache::Store::insert")
      #expect(list.contains("ROUTINE ======================== cache::Store::insert"), "\(list)")
      // Nothing but the names has come in.
      let raw = try pprof("-raw")
      #expect(raw.contains("Comment: complete=1") && raw.contains("generation:["))
      #expect(raw.contains(/inlined-gone [0-9a-f]{8,} \[FN\]\[FL\]\[LN\]\[IN\]/), "\(raw)")
    }

    @Test func `--sysroot is where the binaries of a container are`() throws {
      let program = directory.appendingPathComponent("reported-inside")
      let reported = try Reported(copyTo: program)
      let root = directory.appendingPathComponent("root")
      let inside = URL(fileURLWithPath: root.path + program.path)
      try FileManager.default.createDirectory(
        at: inside.deletingLastPathComponent(), withIntermediateDirectories: true)
      try FileManager.default.moveItem(at: program, to: inside)
      // Another build where the dump has the program: the first that has the right one counts.
      try copyProgram("/bin/true", to: program.path)

      let row =
        "\(reported.place("BIG")) in main: size=1024 KiB, count=1, average=1024 KiB"
      #expect(try reported.rows().first != row)
      #expect(try reported.rows("--sysroot", root.path).first == row)
      #expect(try reported.rows("--sysroot", "/var", "--sysroot", root.path).first == row)
      let relative = try heaptap(
        ["show", "--sysroot", "root", reported.dump], directory: directory)
      #expect(relative.rows.first == row && !relative.errors.contains("reported-inside"))
      let diff = try heaptap("diff", "--sysroot", root.path, reported.dump, reported.dump)
      #expect(diff.rows.first?.hasPrefix("\(reported.place("BIG")) in main: ") == true)
      #expect(
        try heaptap("symbolize", "--sysroot", root.path, "--in-place", reported.dump).status == 0)
      #expect(try reported.rows("--no-symbols").first == row)
    }

    @Test(arguments: ["show", "diff", "symbolize", "report"])
    func `a sysroot that is none is a failure and not a search elsewhere`(command: String) throws {
      let reported = try Reported()
      let dumps = command == "diff" ? [reported.dump, reported.dump] : [reported.dump]
      func errors(_ sysroot: String) throws -> String {
        let result = try heaptap([command, "--sysroot", sysroot] + dumps, directory: directory)
        #expect(result.status == 2 && result.output.isEmpty)
        return result.errors
      }
      #expect(
        try errors("gone") == "heaptap: cannot look below 'gone': no such file or directory\n")
      #expect(
        try errors("/dev/null") == "heaptap: cannot look below '/dev/null': it is no directory\n")
      try FileManager.default.createDirectory(
        atPath: path("a:b"), withIntermediateDirectories: false)
      #expect(try errors("a:b").contains("its path has a colon"))
    }

    @Test func `only names are new in it`() throws {
      let reported = try Reported()
      let output = path("out.pb")
      #expect(try heaptap("symbolize", reported.dump, "-o", output).status == 0)
      let before = try reported.box.snapshot()
      let after = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: output))))
      #expect(after.header == before.header && after.modules == before.modules)
      #expect(after.warnings.isEmpty)
      try #require(after.samples.count == before.samples.count)
      for (ours, theirs) in zip(after.samples, before.samples) {
        var (ours, theirs) = (ours, theirs)
        // Addresses once: inlined calls share theirs.
        let addresses = after.stack(of: ours).filter { !$0.isInlined }.map(\.address)
        #expect(addresses == before.stack(of: theirs).map(\.address))
        (ours.stack, theirs.stack) = (0, 0)
        #expect(ours == theirs)
      }
    }

    @Test func `without --output it goes to the current directory, under a name of its own`() throws
    {
      let reported = try Reported()
      let name = URL(fileURLWithPath: reported.dump).deletingPathExtension().lastPathComponent
      let first = try heaptap(["symbolize", reported.dump], directory: directory)
      #expect(first.status == 0 && first.output.hasPrefix("wrote '\(name).symbolized.pb': "))
      let mode = try FileManager.default.attributesOfItem(atPath: path("\(name).symbolized.pb"))
      #expect(mode[.posixPermissions] as? Int == 0o600)
      #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).count == 1)

      let second = try heaptap(["symbolize", reported.dump], directory: directory)
      #expect(second.status == 2)
      #expect(
        second.errors.hasSuffix(
          "heaptap: '\(name).symbolized.pb' exists, pass --force to replace it\n"))
      #expect(
        try heaptap(["symbolize", "--force", reported.dump], directory: directory).status == 0)
    }

    @Test func `in place the dump keeps its name, owner and mode, and links lead to it`() throws {
      let reported = try Reported()
      let link = path("link.pb")
      try FileManager.default.createSymbolicLink(
        atPath: link, withDestinationPath: reported.dump)
      chmod(reported.dump, 0o640)
      let isRoot = geteuid() == 0
      if isRoot { chown(reported.dump, 4242, 4343) }
      #expect(try heaptap("symbolize", "--in-place", link).status == 0)
      var status = stat()
      lstat(reported.dump, &status)
      #expect(status.st_mode == S_IFREG | 0o640)
      if isRoot { #expect(status.st_uid == 4242 && status.st_gid == 4343) }
      #expect(reported.box.names.count == 1, "\(reported.box.names)")
      #expect(try reported.box.snapshot().distinctFrames.contains { $0.function == "main" })
      #expect(try reported.box.snapshot().header.isComplete)
      lstat(link, &status)
      #expect(status.st_mode & S_IFMT == S_IFLNK)
      // Again, compressed as it was.
      try run(["/bin/gzip", reported.dump])
      #expect(try heaptap("symbolize", "--in-place", reported.dump + ".gz").status == 0)
      #expect(try run(["/bin/gzip", "-t", reported.dump + ".gz"]).status == 0)
    }

    @Test
    func `of several dumps one that cannot be read does not keep the others from their names`()
      throws
    {
      let reported = try Reported()
      let junk = path("junk.pb")
      try Data(repeating: 0xff, count: 500).write(to: URL(fileURLWithPath: junk))
      let result = try heaptap("symbolize", "--in-place", junk, "/nowhere/a.pb", reported.dump)
      #expect(result.status == 2)
      #expect(result.errors.contains("'\(junk)'") && result.errors.contains("'/nowhere/a.pb'"))
      #expect(result.output.hasPrefix("wrote '\(reported.dump)'"))
      #expect(try Data(contentsOf: URL(fileURLWithPath: junk)) == Data(repeating: 0xff, count: 500))
    }

    @Test func `what is no ordinary file, or no whole dump, is left as it is`() throws {
      let reported = try Reported()
      let device = try heaptap("symbolize", "--force", "-o", "/dev/null", reported.dump)
      #expect(device.status == 2)
      #expect(
        device.errors.hasSuffix(
          "heaptap: '/dev/null' is no ordinary file, name another one to write to\n"))
      var status = stat()
      lstat("/dev/null", &status)
      #expect(status.st_mode & S_IFMT == S_IFCHR)

      let partial = reported.dump + ".partial"
      try FileManager.default.copyItem(atPath: reported.dump, toPath: partial)
      let result = try heaptap("symbolize", "--in-place", partial)
      #expect(result.status == 2 && result.errors.contains("pass --output to name a copy"))
      #expect(try heaptap(["symbolize", partial], directory: directory).status == 0)
      for target in [path("no/dir/out.pb"), directory.path + "/"] {
        let result = try heaptap("symbolize", "-o", target, reported.dump)
        #expect(result.status == 2 && result.errors.contains("cannot write '\(target)'"))
      }
    }
  }
}
