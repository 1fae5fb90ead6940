// SPDX-License-Identifier: Apache-2.0
// Every frame of whole dumps, compared with what llvm-symbolizer says of its address.

import Foundation
import HeapModel
import Pprof
import Symbolication
import Testing

@Suite(.enabled(if: Tool.symbolizer.isInstalled, "no llvm-symbolizer")) struct LineOracleTests {
  @Test(
    arguments: [
      ("shapes.c", ["-O2", "-gdwarf-5"]), ("shapes.c", ["-O2", "-gdwarf-4"]),
      ("churn.c", ["-O3", "-g", "-fomit-frame-pointer"]),
      ("reading.cpp", ["-O2", "-g"]), ("inlined.cpp", ["-O2", "-g"]),
      ("allocators.cpp", ["-O2", "-g", "-ffunction-sections"]),
      ("objects.swift", ["-parse-as-library", "-Onone", "-g"]),
      ("objects.swift", ["-parse-as-library", "-O", "-g"]),
    ])
  func `a program's frames are named as llvm-symbolizer does`(
    source: String, options: [String]
  ) throws {
    let program = try Programs.build(source, options)
    let box = try DumpBox()
    // How it ends is its own affair: some fail on purpose, and each leaves a dump.
    _ = try run([program], environment: box.environment("record"))
    try compare(try box.snapshots(), "\(source) \(options.joined(separator: " "))", least: 1)
  }

  /// The command that this package builds is a large Swift program, and has much inlined.
  @Test func `the frames of a large dump are named as llvm-symbolizer does`() throws {
    let box = try DumpBox()
    let reported = try CommandTests.Reports.Reported()
    for arguments in [
      ["show", "--by", "stack", "--all-frames"], ["diff", reported.dump], ["show", "--json"],
      ["symbolize", "-o", box.directory.appendingPathComponent("named.out").path],
    ] {
      let result = try run(
        [Workshop.command] + arguments + [reported.dump],
        environment: box.environment("record", ["XDG_CACHE_HOME": "/dev/null"]))
      #expect(result.status == 0, "\(result.errors)")
    }
    try compare(try box.snapshots(), "heaptap", least: 500)
  }

  private func compare(
    _ snapshots: [Snapshot], _ name: String, least: Int,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    var compared = 0
    var differences: [String] = []
    for snapshot in snapshots {
      let ours = Symbolicator(worker: .inProcess, style: .full)
        .symbolicate(snapshot.distinctFrames, modules: snapshot.modules).frames
      for (number, module) in snapshot.modules.enumerated()
      where module.path.hasPrefix("/") && FileManager.default.fileExists(atPath: module.path) {
        let file = try MappedFile(path: module.path)
        let frames = zip(snapshot.distinctFrames, ours).filter { $0.0.module == number }
        let addresses = frames.map {
          file.address(ofFileOffset: module.fileOffset(of: $0.0.address - 1))
        }
        let theirs = try SymbolizerOracle.frames(
          of: file, at: addresses, scratch: Scratch(), style: .full)
        for (mine, other) in zip(frames.map(\.1), theirs) {
          // Where there are no lines it tells other names of the same function, and files without
          // directories that the symbol table mentions.
          guard let other,
            [mine, other].joined().contains(where: { ["/", "<"].contains($0.file?.first) })
          else { continue }
          compared += 1
          guard !mine.elementsEqual(other, by: Self.areAlike) else { continue }
          differences.append("\(mine.map(\.summary)), not \(other.map(\.summary))")
        }
      }
    }
    print(
      "\(name): \(compared - differences.count) of \(compared) frames are named as llvm-symbolizer does"
    )
    #expect(compared >= least, sourceLocation: sourceLocation)
    #expect(
      differences.isEmpty, "\(differences.prefix(5).joined(separator: "\n"))",
      sourceLocation: sourceLocation)
  }

  private static func areAlike(_ a: Frame, _ b: Frame) -> Bool {
    (a.function, a.file, a.line) == (b.function, b.file, b.line) && a.isInlined == b.isInlined
  }
}
