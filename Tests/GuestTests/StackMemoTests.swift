// SPDX-License-Identifier: Apache-2.0
// Stacks that are remembered, or followed from the last one, are those that a whole walk finds.

import Foundation
import HeapModel
import Testing

/// Programs of many kinds, none of which knows that it is traced.
struct StackGuest: CustomTestStringConvertible, Sendable {
  var testDescription: String
  /// What to run; `nil` where the program is not installed.
  var command: @Sendable () throws -> [String]?
  var environment: [String: String] = [:]

  /// A program of Debian's, and not another of its name that a developer may have.
  static func debian(
    _ program: String, _ arguments: String..., environment: [String: String] = [:]
  ) -> Self {
    let path = "/usr/bin/\(program)"
    return Self(
      testDescription: program,
      command: {
        FileManager.default.isExecutableFile(atPath: path) ? [path] + arguments : nil
      },
      environment: environment)
  }

  static let all: [Self] = [
    Self(
      testDescription: "C++", command: { [try Programs.build("churn.cpp", ["-O2"])] }),
    Self(
      testDescription: "C without frame pointers",
      command: { [try Programs.build("wander.c", ["-O2", "-fomit-frame-pointer"]), "60000"] }),
    Self(
      testDescription: "C with frame pointers",
      command: { [try Programs.build("wander.c", ["-O2", "-fno-omit-frame-pointer"]), "60000"] }),
    Self(
      testDescription: "C, not optimised",
      command: { [try Programs.build("wander.c", ["-O0"]), "60000"] }),
    Self(
      testDescription: "Swift, awaiting, debug",
      command: { [try Programs.build("tasks.swift", ["-Onone", "-parse-as-library"])] }),
    Self(
      testDescription: "Swift, awaiting, release",
      command: {
        [
          try Programs.build(
            "tasks.swift", ["-O", "-parse-as-library", "-Xcc", "-fno-omit-frame-pointer"])
        ]
      }),
    .debian(
      "python3", "-c",
      "import json; d = json.dumps([{'a': i, 'b': list(range(9))} for i in range(999)]); json.loads(d)",
      environment: ["PYTHONMALLOC": "malloc"]),
    .debian(
      "sqlite3", ":memory:",
      """
      create table t(a, b); with recursive c(x) as (select 1 union all select x + 1 from c where \
      x < 3000) insert into t select x, hex(randomblob(9)) from c; select count(*) from (select b \
      from t order by b); create index i on t(b); select sum(a) from t where b > '8';
      """),
    .debian("perl", "-e", "my %h; $h{$_ % 99} .= $_ for 1..9999; print join ',', sort keys %h"),
  ]
}

@Suite struct StackMemoTests {
  @Test(arguments: StackGuest.all)
  func `every stack is the same in every way in which it is found`(_ guest: StackGuest) throws {
    let command = try #require(try guest.command(), "\(guest) is not installed")
    let box = try DumpBox()
    let result = try run(
      command,
      environment: box.environment(
        "record", guest.environment.merging(["HEAPTAP_CHECK": "1"]) { $1 }))
    #expect(result.status == 0, "\(result.errors)")
    let header = try box.snapshot().header
    #expect(try #require(header.integer("checked_stacks")) > 1000)
    #expect(header.integer("differing_stacks") == 0)
  }

  /// What was found without a whole walk and without following, as a share of all allocations.
  private func remembered(_ arguments: [String], _ settings: [String: String] = [:]) throws -> (
    share: Double, header: Header
  ) {
    let box = try DumpBox()
    let program = try Programs.build("wander.c", ["-O2"])
    let result = try run([program] + arguments, environment: box.environment("record", settings))
    #expect(result.status == 0, "\(result.errors)")
    let header = try box.snapshot().header
    let others =
      try #require(header.integer("followed_stacks")) + #require(header.integer("walked_stacks"))
    return (1 - Double(others) / Double(try #require(header.totalBlocks)), header)
  }

  @Test func `stacks that come again are remembered`() throws {
    #expect(try remembered(["200000", "300"]).share > 0.95)
  }

  @Test func `stacks without number are followed, and none is walked as a whole`() throws {
    let (share, header) = try remembered(["200000", "1000000"])
    #expect(share < 0.5)
    // What a thread allocates before it gets its memory of stacks.
    #expect(try #require(header.integer("walked_stacks")) < 1000)
  }

  @Test func `stacks deeper than the limit are remembered with their number of frames`() throws {
    let (share, header) = try remembered(["50000", "50"], ["HEAPTAP_DEPTH": "5"])
    #expect(share > 0.9)
    #expect(header.integer("truncated_stacks") == header.totalBlocks)
  }
}
