// SPDX-License-Identifier: Apache-2.0
// Stacks of Swift's async functions lead to those who await, and on to who made the task.

import Foundation
import HeapModel
import Testing

@Suite struct AsyncStackTests {
  /// As the package manager builds: with frame pointers.
  static let asPackages = ["-g", "-parse-as-library", "-Xcc", "-fno-omit-frame-pointer"]
  private static let source =
    Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/awaiting.swift").path

  /// What the guest says of the blocks that it leaves: the functions that lead to each size.
  private func expectations(_ output: String) -> [(size: Int, functions: [String])] {
    output.split(separator: "\n").compactMap { line in
      let words = line.split(separator: " ")
      guard words.count == 2, let size = Int(words[0]) else { return nil }
      return (size, words[1].split(separator: "<").map(String.init))
    }
  }

  /// `four` of `specialized static Shop.four<A>(_:)`.
  private func bareName(_ function: String) -> String {
    let name = function.replacing(/<[^()]*>/, with: "").prefix { $0 != "(" }
    return String(name.split(separator: " ").last?.split(separator: ".").last ?? "")
  }

  /// Runs the guest, and compares each stack's functions of its own with what it says.
  private func check(_ program: String, hasLines: Bool = true) throws -> Snapshot {
    let box = try DumpBox()
    let result = try run(
      [program], environment: box.environment("record", ["HEAPTAP_DEPTH": "256"]))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let expected = expectations(result.output)
    #expect(expected.count == 65)
    let known = Set(expected.flatMap(\.functions))
    let lines = try String(contentsOfFile: Self.source, encoding: .utf8)
      .split(separator: "\n", omittingEmptySubsequences: false)
    let named = snapshot.named().folded()
    for (size, functions) in expected {
      let found = named.samples(ofSize: size)
      #expect(!found.isEmpty, "\(size)")
      // Optimised, a call may be in several places.
      for sample in found {
        let stack = named.stack(of: sample).filter { frame in
          // `main` is what the compiler makes around the program's own `Program.main()`.
          frame.function.map { $0 != "main" && known.contains(bareName($0)) } == true
            && (frame.file == nil || frame.file == Self.source && frame.line != 0)
        }
        #expect(stack.map { bareName($0.function ?? "") } == functions, "\(size)")
        guard hasLines else { continue }
        // Each caller is at a line that has the name of what it calls.
        for (caller, callee) in zip(stack.dropFirst(), functions) {
          let line = caller.line.flatMap { lines.indices.contains($0 - 1) ? lines[$0 - 1] : nil }
          #expect(line?.contains(callee) == true, "\(size): \(callee), line \(caller.line ?? 0)")
        }
      }
    }
    return snapshot
  }

  @Test(arguments: ["-Onone", "-O"], [["-no-static-stdlib"], ["-static-stdlib"]])
  func `every way to await leads to those who await, line by line`(
    _ optimisation: String, _ library: [String]
  ) throws {
    let program = try Programs.build(
      "awaiting.swift", [optimisation] + library + Self.asPackages)
    let named = try check(program).named()
    // No executor's frame, and nothing ends at its task: the program was recorded from the first.
    let functions = named.samples.filter { 10_000..<22_000 ~= $0.liveBytes }
      .map { named.functions(of: $0) }
    #expect(functions.count >= 60)
    for stack in functions {
      #expect(!stack.contains { $0.contains("swift_job_run") || $0.contains("_dispatch_") })
      #expect(stack.last == "_start", "\(stack)")
    }
  }
}
