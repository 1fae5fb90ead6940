// SPDX-License-Identifier: Apache-2.0
// heaptap diff and show on dumps of very many stacks.

import Foundation
import HeapModel
import Testing

extension CommandTests {
  @Suite struct Scale {
    private static let stackCount = 100_000

    /// The dump of a program of 100,000 stacks of 40 frames: of each a block, and in each further round of
    /// every third one.
    private func dump(rounds: Int, in directory: URL) throws -> String {
      let program = try Programs.build("../../../Benchmarks/Programs/comparison.cpp")
      let path = directory.appendingPathComponent("\(rounds)").path
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
      let result = try heaptap(
        "run", "-o", path, "--", program, "\(rounds)", "\(Self.stackCount)")
      try #require(result.status == 0, "\(result.errors)")
      let names = try FileManager.default.contentsOfDirectory(atPath: path)
      return "\(path)/\(try #require(names.first { $0.hasSuffix(".pb") }))"
    }

    private func report(_ arguments: String...) throws -> [String: Any] {
      let result = try heaptap(arguments + ["--json"])
      try #require(result.status == 0, "\(result.errors)")
      return try #require(
        try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
    }

    @Test func `two dumps of 100,000 stacks are compared block by block, by line and by stack`()
      throws
    {
      let directory = try Workshop.makeDirectory()
      let old = try dump(rounds: 1, in: directory)
      let new = try dump(rounds: 2, in: directory)
      let added = stride(from: 0, to: Self.stackCount, by: 3)
      let addedBytes = added.reduce(0) { $0 + 16 + $1 % 1000 }
      let addedBlocks = Array(added).count

      let lines = try report("diff", old, new, "--include", "*comparison*")
      let rows = try #require(lines["rows"] as? [[String: Any]])
      #expect(rows.count == 1)
      #expect(rows[0]["added_bytes"] as? Int == addedBytes)
      #expect(rows[0]["added_blocks"] as? Int == addedBlocks)
      #expect(rows[0]["live_blocks"] as? Int == Self.stackCount + addedBlocks)
      #expect((rows[0]["file"] as? String)?.hasSuffix("comparison.cpp") == true)

      let stacks = try report(
        "diff", old, new, "--include", "*comparison*", "--by", "stack", "-n", "1000")
      let shown = try #require(stacks["rows"] as? [[String: Any]])
      #expect(shown.count == 1000)
      #expect(stacks["omitted_rows"] as? Int == Self.stackCount - 1000)
      // The largest change is one block of the largest size; so many stacks have that.
      let largest = added.filter { $0 % 1000 == 999 }.count
      #expect(shown.prefix { $0["added_bytes"] as? Int == 1015 }.count == largest)
      // 40 calls, each but the outermost two inlined into the one before.
      let frames = try #require(shown[0]["frames"] as? [[String: Any]])
      #expect(frames.filter { $0["line"] != nil }.count > 70)

      let folded = try heaptap("show", new, "--format", "folded")
      #expect(folded.status == 0)
      let lineCount = folded.output.utf8.reduce(0) { $0 + ($1 == UInt8(ascii: "\n") ? 1 : 0) }
      #expect((1...Self.stackCount + 10).contains(lineCount))
    }
  }
}
