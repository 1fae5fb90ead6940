// SPDX-License-Identifier: Apache-2.0
// What a warm path costs, in instructions: the same on a busy machine, and held against what is kept.

import Foundation
import Testing

@Suite(
  .enabled(
    if: Workshop.find("valgrind") != nil && Workshop.find("python3") != nil,
    "needs valgrind and python3"))
struct InstructionCountTests {
  private static func instructions(_ options: [String]) throws -> Finished {
    let script = Workshop.package.appendingPathComponent("Benchmarks/instructions").path
    return try run(["/usr/bin/env", script, "--products", Workshop.products.path] + options)
  }

  /// What is counted now, in a file: half a minute's work, done once.
  private static let counts = Result {
    let file = try Workshop.makeDirectory().appendingPathComponent("counts.tsv").path
    let finished = try instructions(["--renew", "--file", file])
    guard finished.status == 0 else { throw GuestError(finished.output + finished.errors) }
    return file
  }

  /// What `Benchmarks/instructions` says, and its status: 1 where a path has grown, 77 where the tools are
  /// others than those that the counts were made with.
  private func compare(with kept: String? = nil) throws -> Finished {
    let finished = try Self.instructions(
      ["--counts", Self.counts.get()] + (kept.map { ["--file", $0] } ?? []))
    if finished.status == 77 { try Test.cancel("\(finished.output)") }
    return finished
  }

  @Test func `no warm path takes 5 % more instructions than are kept`() throws {
    let finished = try compare()
    #expect(
      finished.status == 0,
      """
      \(finished.output)\(finished.errors)
      Where a change is worth it, 'make instructions' keeps the new counts, and the commit says why.
      """)
  }

  @Test func `a path that takes a tenth more than is kept is told by name`() throws {
    let kept = Workshop.package.appendingPathComponent("Benchmarks/instructions.tsv")
    let lines = try String(contentsOf: kept, encoding: .utf8).split(separator: "\n").map { line in
      let fields = line.split(separator: "\t")
      guard fields.count == 3, fields[1] == "recording", let count = Double(fields[2]) else {
        return String(line)
      }
      return "\(fields[0])\t\(fields[1])\t\(count / 1.1)"
    }
    let file = try Workshop.makeDirectory().appendingPathComponent("instructions.tsv")
    try lines.joined(separator: "\n").write(to: file, atomically: true, encoding: .utf8)
    let finished = try compare(with: file.path)
    #expect(finished.status == 1)
    #expect(finished.output.contains("'pair-25', recording: "))
    #expect(finished.output.contains("in place of"))
  }
}
