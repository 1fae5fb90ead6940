// SPDX-License-Identifier: Apache-2.0
// Who else knows a program's stacks: libunwind in the program itself, gdb from outside.

import Foundation
import Testing

/// How many sampled stacks an oracle found to be the same, from the caller of the allocator to the
/// outermost frame.
struct Verdict {
  var compared = 0
  var equal = 0
  /// Those that differ after a function without an unwind table, where each unwinder guesses.
  var untabled = 0
  /// Those that differ after an asynchronous function's part, where ours goes on to its awaiting
  /// callers.
  var async = 0
  /// Sampled blocks that the tracer did not know.
  var unknown = 0
  var frames = 0
  /// What both found for each stack that is not equal.
  var differences = ""

  /// Those that nothing explains.
  var unexplained: Int { compared - equal - untabled - async }
}

enum StackOracle: String, CaseIterable {
  case libunwind, gdb

  /// Which allocations are compared: every `every`th, each stack that is new, up to `limit`.
  struct Sampling {
    var every: Int
    var new = 0
    var limit = 100_000
  }

  /// `oracle.c`, for the program whose stacks are compared.
  private static func library() throws -> String {
    try Programs.build(
      "oracle.c",
      [
        "-O2", "-g", "-shared", "-fPIC", "-ftls-model=initial-exec", "-Wl,-z,nodelete",
        "-Wl,--version-script=\(Programs.path("oracle.map"))",
      ])
  }

  /// Runs a program with the oracle in it, and adds up what it says of the program's processes.
  ///
  /// `drive` is for programs that serve: it asks something, and has the program end.
  func judge(
    _ command: [String], _ sampling: Sampling, environment: [String: String] = [:],
    input: String? = nil, drive: ((Guest) throws -> Void)? = nil
  ) throws -> Verdict {
    let box = try DumpBox()
    // A server's children may be another user's.
    chmod(box.directory.path, 0o1777)
    var variables = [
      "LD_PRELOAD": "\(try Self.library()) \(Workshop.library)", "HEAPTAP": "record",
      "HEAPTAP_DIR": box.directory.path, "HEAPTAP_LOG": "off", "HEAPTAP_DEPTH": "1024",
      "ORACLE_DIR": box.directory.path, "ORACLE_EVERY": "\(sampling.every)",
      "ORACLE_NEW": "\(sampling.new)", "ORACLE_LIMIT": "\(sampling.limit)",
    ]
    variables.merge(environment) { $1 }
    var command = command
    if self == .gdb {
      variables["ORACLE_GDB"] = "1"
      variables = Dictionary(
        uniqueKeysWithValues: variables.map { ("ORACLE_GDB_\($0)", $1) })
      command =
        ["/usr/bin/env", "gdb", "-nx", "-batch", "-x", Programs.path("oracle_gdb.py"), "--args"]
        + command
    }
    let guest = try Guest(command, environment: variables, input: input)
    try drive?(guest)
    let result = guest.finish()
    guard result.status == 0 else {
      throw GuestError("\(command) ended with \(result.status): \(result.output) \(result.errors)")
    }
    return try self == .gdb ? Self.said(result.output) : Self.counted(in: box.directory)
  }

  /// What gdb's script printed.
  private static func said(_ output: String) throws -> Verdict {
    let words = output.split(separator: "\n").last { $0.hasPrefix("gdb ") }?
      .split(separator: " ").compactMap { Int($0) }
    guard let words, words.count == 5 else { throw GuestError("gdb only said: \(output)") }
    var verdict = Verdict(compared: words[0], equal: words[1], untabled: words[2], async: words[3])
    verdict.frames = words[4]
    verdict.differences = output
    return verdict
  }

  /// What `oracle.c` has counted in each process: `struct counts`.
  private static func counted(in directory: URL) throws -> Verdict {
    var verdict = Verdict()
    for name in try FileManager.default.contentsOfDirectory(atPath: directory.path)
    where name.hasSuffix(".counts") {
      let bytes = try Data(contentsOf: directory.appendingPathComponent(name))
      let numbers = bytes.withUnsafeBytes { all in
        (0..<6).map { Int(all.loadUnaligned(fromByteOffset: $0 * 8, as: UInt64.self)) }
      }
      verdict.compared += numbers[0]
      verdict.equal += numbers[1]
      verdict.unknown += numbers[2]
      verdict.frames += numbers[3]
      verdict.untabled += numbers[4]
      verdict.async += numbers[5]
    }
    let differences = directory.appendingPathComponent("differences")
    verdict.differences = (try? String(contentsOf: differences, encoding: .utf8)) ?? ""
    return verdict
  }
}
