// SPDX-License-Identifier: Apache-2.0
// heaptap strip: dumps that can be shown to strangers.

import Foundation
import HeapModel
import Pprof
import Testing

extension CommandTests {
  @Suite struct Stripping {
    private let directory: URL

    init() throws { directory = try Workshop.makeDirectory() }

    private func path(_ name: String) -> String { directory.appendingPathComponent(name).path }

    /// Figures of rows, in their order, without the places that they are of.
    private func figures(_ result: Finished) -> [Substring] {
      result.output.split(separator: "\n").compactMap { line in
        line.firstRange(of: "size=").map { line[$0.lowerBound...] }
      }
    }

    @Test(arguments: [false, true])
    func `a stripped dump shows the same figures, and has no word in it of whose it is`(
      symbolized: Bool
    ) throws {
      let program = directory.appendingPathComponent("acme-ledger")
      let reported = try Reports.Reported(copyTo: program)
      if symbolized {
        #expect(try heaptap("symbolize", "--in-place", reported.dump).status == 0)
      }
      let output = path("out.pb")
      let result = try heaptap("strip", reported.dump, "-o", output)
      #expect(result.status == 0 && result.errors.isEmpty, "\(result.errors)")
      #expect(result.output == "wrote '\(output)'\n")

      let everything = String(
        decoding: try Data(contentsOf: URL(fileURLWithPath: output)), as: UTF8.self)
      let host = try String(contentsOfFile: "/proc/sys/kernel/hostname", encoding: .utf8)
        .trimmingCharacters(in: .newlines)
      let secrets =
        [
          "acme", "ledger", "reported", "cache", "Store", "insert", "uid=", "host=", "boot_id=",
          "executable=", "program=", "unit=",
          try String(contentsOfFile: "/proc/sys/kernel/random/boot_id", encoding: .utf8)
            .trimmingCharacters(in: .newlines),
        ] + [host].filter { $0.count > 3 }  // 'vm' is a part of many a name
        // As directories: '__libc_start_main', which stays, has the name of many a directory in it.
        + Set(directory.pathComponents + Workshop.package.pathComponents)
        .filter { $0.count > 3 }.map { "/" + $0 }
      for secret in secrets {
        #expect(!everything.contains(secret), "'\(secret)'")
      }

      let before = try heaptap(
        "show", reported.dump, "--by", "stack", "-n", "0", "--no-symbols", "--all-frames")
      let after = try heaptap(
        "show", output, "--by", "stack", "-n", "0", "--no-symbols", "--all-frames")
      #expect(after.status == 0 && after.errors.isEmpty, "\(after.errors)")
      #expect(figures(before).count > 1 && figures(before) == figures(after))
      let compared = try heaptap("diff", output, output, "--no-symbols")
      #expect(compared.status == 0 && compared.errors.isEmpty, "\(compared.errors)")
      #expect(compared.output.contains("(+0 B)"))
    }

    @Test func `whoever has the binary finds names by the build ID`() throws {
      let program = directory.appendingPathComponent("acme-ledger")
      let reported = try Reports.Reported(copyTo: program)
      let output = path("out.pb")
      #expect(try heaptap("strip", "--keep-names", reported.dump, "-o", output).status == 0)
      // The file lies below the root of whoever was sent the dump, under the name that was kept.
      let shown = try heaptap(
        "show", output, "--sysroot", directory.path, "--by", "function", "-n", "0", "--no-cache")
      #expect(shown.output.contains("cache::Store::insert"), "\(shown.errors)")
      #expect(try heaptap("strip", "--no-build-ids", reported.dump, "-o", path("b.pb")).status == 0)
      let bare = try Snapshot(
        profile: Array(Data(contentsOf: URL(fileURLWithPath: path("b.pb")))))
      #expect(bare.modules.allSatisfy { $0.buildID.isEmpty })
    }

    @Test func `without a name for it a stripped dump lies in the current directory`() throws {
      let reported = try Reports.Reported()
      let copy = path("mine.pb")
      try FileManager.default.copyItem(atPath: reported.dump, toPath: copy)
      func strip(_ options: String...) throws -> Finished {
        try run([Workshop.command, "strip"] + options, directory: directory)
      }
      let result = try strip(reported.dump, copy)
      #expect(result.status == 0, "\(result.errors)")
      let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
      #expect(names.contains("mine.stripped.pb"))
      let own = try #require(
        names.first { $0.hasSuffix(".stripped.pb") && $0 != "mine.stripped.pb" })
      #expect(own.wholeMatch(of: /\d{8}T\d{6}\.\d{6}Z-\d+-\d+\.stripped\.pb/) != nil, "\(own)")
      let again = try strip(copy)
      #expect(again.status == 2)
      #expect(again.errors == "heaptap: 'mine.stripped.pb' exists, pass --force to replace it\n")
      #expect(try strip("--force", copy, "-o", "mine.stripped.pb").status == 0)
      #expect(try strip("/dev/null", copy, "--force").status == 2)
    }
  }
}
