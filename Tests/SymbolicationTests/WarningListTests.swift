// SPDX-License-Identifier: Apache-2.0
// What the user is told, and how little of it when it is the same each time.

import Testing

@testable import Symbolication

@Suite struct WarningListTests {
  private func sentences(_ findings: [Finding], buildID: String = "0011223344") -> [String] {
    var list = WarningList()
    for (number, finding) in findings.enumerated() {
      let name = "lib\(number).so"
      list.add([finding], about: "/lib/\(name)", name: name, buildID: buildID)
    }
    return list.sentences
  }

  @Test func `files in the same trouble share a sentence`() {
    #expect(
      sentences([.missing, .missing]) == [
        "'lib0.so' and 'lib1.so' are not on this machine, continuing with module offsets only"
      ])
    #expect(
      sentences(Array(repeating: .noDebugInformation, count: 40)) == [
        "no debug information for 'lib0.so', 'lib1.so' and 38 more, "
          + "continuing with symbol names only"
      ])
    #expect(
      sentences([.noBuildID, .noBuildID], buildID: "") == [
        "'lib0.so' and 'lib1.so' have no build ID, continuing as if they had not changed since "
          + "the dump"
      ])
  }

  @Test func `of many files that have changed, three are told and the others counted`() {
    let sentences = sentences((0..<9).map { .changed(buildID: "ff0000000\($0)") })
    #expect(sentences.count == 4)
    #expect(sentences[0].hasPrefix("'/lib/lib0.so' has changed since the dump"))
    #expect(
      sentences[3]
        == "6 more files have changed since the dump, continuing with module offsets only"
    )
  }

  @Test func `a file that has lost its build ID has changed`() {
    #expect(
      sentences([.changed(buildID: "")])[0].contains("(build ID 00112233… then, none now)"))
  }
}
