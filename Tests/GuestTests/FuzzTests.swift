// SPDX-License-Identifier: Apache-2.0
// Every parser, with its corpus and some seconds of what libFuzzer makes of it.

import Foundation
import Testing

@Suite struct FuzzTests {
  /// Built by itself, since all that it calls has libFuzzer and AddressSanitizer in it; seconds once the
  /// scratch directory is there.
  @Test func `no input makes a parser trap, hang or take much memory`() throws {
    let directory = Workshop.package.appendingPathComponent("Tests/Fuzz")
    let built = try run([directory.appendingPathComponent("build").path, "debug"])
    try #require(built.status == 0, "\(built.errors.suffix(4000))")
    let driver = Workshop.package.appendingPathComponent(
      built.output.trimmingCharacters(in: .newlines))
    let parsers = try run([driver.path]).output.split(separator: "\n").map(String.init)
    let corpora = try FileManager.default.contentsOfDirectory(
      atPath: directory.appendingPathComponent("Corpus").path)
    #expect(parsers.sorted() == corpora.sorted())
    let result = try run([directory.appendingPathComponent("run").path, driver.path, "2"])
    #expect(result.status == 0, "\(result.output)\(result.errors)")
    #expect(result.output.split(separator: "\n").count == parsers.count)
  }
}
