// SPDX-License-Identifier: Apache-2.0
// Which dumps are chosen when nobody names one.

import Glibc
import Testing

@testable import ProcessControl

private func name(_ second: Int, _ program: String, _ pid: Int, _ sequence: Int) -> String {
  "20261121T1027\(second < 10 ? "0" : "")\(second).000000Z-\(program)-\(pid)-\(sequence).pb"
}

@Suite struct `Dumps on disk` {
  @Test func `a name tells time, program, pid and number`() throws {
    let dump = try #require(
      DumpFile(path: "/tmp/20261121T102757.123456Z-redis-server-1234-7.pb"))
    #expect(dump.time == "20261121T102757.123456Z")
    #expect(dump.program == "redis-server")
    #expect(dump.pid == 1234)
    #expect(dump.sequence == 7)
  }

  @Test(arguments: [
    "", "a.pb", "20261121T102757.123456Z-a-1-1.pb.partial", "20261121T102757Z-a-1-1.pb",
    "20261121T102757.123456Z-1-1.pb", "20261121T102757.123456Z-a-x-1.pb",
    "20261121T102757.123456Z-a-0-1.pb", "2026112xT102757.123456Z-a-1-1.pb",
  ])
  func `other files are no dumps`(name: String) {
    #expect(DumpFile(path: name) == nil)
  }

  @Test func `the time in names is the wall clock`() {
    let time = TracedCommand.nameTime()
    #expect(DumpFile(path: "\(time)-a-1-1.pb") != nil)
    #expect(time > "20250101T000000.000000Z")
  }

  @Test func `the newest two are of the newest process`() throws {
    let directory = TemporaryDirectory()
    for file in [name(1, "a", 7, 1), name(2, "a", 7, 2), name(3, "b", 8, 1), name(4, "a", 7, 3)] {
      _ = directory.file(file)
    }
    let selection = DumpSelection(directories: [directory.path])
    #expect(
      try selection.newest(2, of: nil) { _ in nil }.map(\.path)
        == [name(2, "a", 7, 2), name(4, "a", 7, 3)].map { "\(directory.path)/\($0)" })
    #expect(try selection.newest(1, of: "b") { _ in nil }.map(\.pid) == [8])
  }

  @Test func `a process that had the pid before is another process`() throws {
    let directory = TemporaryDirectory()
    for file in [name(1, "a", 7, 4), name(2, "a", 7, 1)] { _ = directory.file(file) }
    let selection = DumpSelection(directories: [directory.path])
    #expect(throws: ProcessControlError.self) { try selection.newest(2, of: "a") { _ in nil } }
    #expect(try selection.newest(1, of: "a") { _ in nil }.map(\.sequence) == [1])
  }

  @Test func `a unit's dumps are found by what their headers say`() throws {
    let directory = TemporaryDirectory()
    for file in [name(1, "a", 7, 1), name(2, "a", 7, 2), name(3, "b", 8, 1)] {
      _ = directory.file(file)
    }
    let selection = DumpSelection(directories: [directory.path])
    for target in ["myd", "myd.service"] {
      #expect(
        try selection.newest(2, of: target) { $0.program == "a" ? "myd.service" : nil }
          .map(\.sequence) == [1, 2])
    }
  }

  @Test func `nothing to choose from is an error that names the places`() {
    let directory = TemporaryDirectory()
    #expect {
      try DumpSelection(directories: [directory.path]).newest(2, of: nil) { _ in nil }
    } throws: {
      "\($0)" == "there is no dump in '\(directory.path)'; HEAPTAP_DIR names another directory"
    }
  }

  @Test func `a directory is searched once, whatever it is called`() {
    let directory = TemporaryDirectory()
    let found = DumpDirectories.searched(
      environment: ["HEAPTAP_DIR": directory.path + "/."], userID: 4_000_000)
    #expect(found == [directory.path + "/.", "."])
  }

  @Test func `a link or a pipe that was found is nobody's dump, and one that was named is`() throws
  {
    let directory = TemporaryDirectory()
    let file = directory.file("a.pb", Array("bytes".utf8))
    let link = "\(directory.path)/b.pb"
    unsafe symlink(file, link)
    let pipe = "\(directory.path)/c.pb"
    unsafe mkfifo(pipe, 0o600)
    #expect(try DumpFile.contents(of: file, .found) == Array("bytes".utf8))
    #expect(try DumpFile.contents(of: file, .found, prefix: 2) == Array("by".utf8))
    #expect(try DumpFile.contents(of: link, .named) == Array("bytes".utf8))
    #expect(throws: ProcessControlError.self) { try DumpFile.contents(of: link, .found) }
    #expect {
      try DumpFile.contents(of: pipe, .found)
    } throws: {
      "\($0)" == "cannot read '\(pipe)': it is not a file"
    }
    #expect {
      try DumpFile.contents(of: directory.path, .named)
    } throws: {
      "\($0)" == "cannot read '\(directory.path)': it is a directory"
    }
  }
}
