// SPDX-License-Identifier: Apache-2.0
// Journal files that lost their end or were written over: they come from other machines.

import Foundation
import HeapModel
import JournalReader
import Testing

@Suite(.enabled(if: JournalBed.isAvailable, JournalBed.obstacle))
struct `Damaged journal files` {
  /// A file with twenty entries.
  private static func made() throws -> Data {
    let journal = try Workshop.makeDirectory()
    let entries = (0..<20).map { TestEntry(.armed, "entry \($0)", ["EXE": "/bin/\($0)"]) }
    let result = try run(
      JournalBed.prefix(journal: journal) + ["sh", "-c", try TestEntry.sending(entries)])
    guard result.status == 0 else { throw GuestError(result.errors) }
    let names = try FileManager.default.subpathsOfDirectory(atPath: journal.path)
    let name = try #require(names.first { $0.hasSuffix(".journal") })
    return try Data(contentsOf: journal.appendingPathComponent(name))
  }

  /// Reads a file, and answers with the command's end.
  private func read(_ data: Data, _ name: String, in directory: URL) throws -> Finished {
    let file = directory.appendingPathComponent("\(name).journal")
    try data.write(to: file)
    return try heaptap("journal", "--file", file.path, "--json")
  }

  @Test func `a file that is cut anywhere gives what can be read or one sentence`() throws {
    let whole = try Self.made()
    let directory = try Workshop.makeDirectory()
    let all = try read(whole, "whole", in: directory)
    #expect(all.status == 0 && all.output.split(separator: "\n").count == 20)
    for count in [0, 1, 100, 240, 4096, 100_000, whole.count / 2, whole.count - 1] {
      let result = try read(whole.prefix(count), "cut-\(count)", in: directory)
      #expect([0, 1, 2].contains(result.status), "\(count): \(result.errors)")
      #expect(result.errors.split(separator: "\n").count == (result.status == 0 ? 0 : 1))
    }
  }

  @Test func `a file that was written over gives what can be read or one sentence`() throws {
    let whole = try Self.made()
    let directory = try Workshop.makeDirectory()
    // What was written is near the beginning; the rest is room.
    let used = whole.lastIndex { $0 != 0 }! + 1
    var generator = SystemRandomNumberGenerator()
    for round in 0..<40 {
      var data = whole
      let places = (0..<8).map { _ in Int.random(in: 0..<used, using: &generator) }
      for place in places { data[place] = UInt8.random(in: 0...255, using: &generator) }
      let result = try read(data, "over-\(round)", in: directory)
      #expect([0, 1, 2].contains(result.status), "\(places): \(result.status) \(result.errors)")
      #expect(result.errors.split(separator: "\n").count <= 1)
    }
  }
}
