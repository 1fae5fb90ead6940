// SPDX-License-Identifier: Apache-2.0
// Stacks of Swift's async functions lead to those who await, and on to who made the task.

import Foundation
import HeapModel
import Testing

@Suite struct AsyncStackTests {
  /// As the package manager builds: with frame pointers.
  private static let asPackages = ["-g", "-parse-as-library", "-Xcc", "-fno-omit-frame-pointer"]
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

  @Test func `without frame pointers the executor's task tells the same`() throws {
    _ = try check(try Programs.build("awaiting.swift", ["-O", "-g", "-parse-as-library"]))
  }

  @Test(arguments: [["-no-static-stdlib"], ["-static-stdlib"]])
  func `a stripped program has the same stacks, and its names where its debug file is`(
    _ library: [String]
  ) throws {
    let built = try Programs.build("awaiting.swift", ["-O"] + library + Self.asPackages)
    let directory = try Workshop.makeDirectory().path
    let (program, debugFile) = ("\(directory)/awaiting", "\(directory)/awaiting.debug")
    for command in [
      ["objcopy", "--only-keep-debug", built, debugFile],
      ["objcopy", "--strip-all", "--add-gnu-debuglink=\(debugFile)", built, program],
    ] {
      let result = try run(["/usr/bin/env"] + command)
      #expect(result.status == 0, "\(result.errors)")
    }
    _ = try check(program)
    try FileManager.default.removeItem(atPath: debugFile)
    // Nobody's names, and not a frame less.
    func depths(_ program: String) throws -> [Int: [Int]] {
      let box = try DumpBox()
      _ = try run([program], environment: box.environment("record", ["HEAPTAP_DEPTH": "256"]))
      let snapshot = try box.snapshot()
      let left = snapshot.samples.filter { 10_000..<22_000 ~= $0.liveBytes / max($0.liveBlocks, 1) }
      return Dictionary(grouping: left) { $0.liveBytes / $0.liveBlocks }
        .mapValues { $0.map { snapshot.stack(of: $0).count }.sorted() }
    }
    let (stripped, whole) = (try depths(program), try depths(built))
    #expect(stripped.count >= 60)
    // In how many places the optimiser's loop met its elements is chance.
    #expect(stripped.filter { $0.key != 18_001 } == whole.filter { $0.key != 18_001 })
  }

  @Test(arguments: ["-Onone", "-O"], [["-Xcc", "-fno-omit-frame-pointer"], []])
  func `of many tasks at a time, what is remembered of a stack is what a whole walk says`(
    _ optimisation: String, _ frames: [String]
  ) throws {
    let program = try Programs.build(
      "respawning.swift", [optimisation, "-g", "-parse-as-library"] + frames)
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record", ["HEAPTAP_CHECK": "1"]))
    #expect(result.output == "5000\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound(truncated: true)
    // Who declares an `async let` is searched for in what other threads are changing: the ways come one after
    // the other, and may find it at another moment each.
    let checked = try #require(snapshot.header.integer("checked_stacks"))
    #expect(checked > 10_000)
    #expect(snapshot.header.integer("differing_stacks") ?? .max <= checked / 1000)
    // Of the 5,000 tasks that made each other, only the first are stacks of their own.
    #expect(snapshot.header.integer("sites") ?? .max < 3000)
  }

  @Test(arguments: ["-Onone", "-O"], [["-Xcc", "-fno-omit-frame-pointer"], []])
  func `the stacks of requests that do the same are remembered, and are what a whole walk says`(
    _ optimisation: String, _ frames: [String]
  ) throws {
    let program = try Programs.build(
      "requests.swift", [optimisation, "-g", "-parse-as-library"] + frames)
    func record(_ rounds: Int, _ settings: [String: String] = [:]) throws -> Header {
      let box = try DumpBox()
      let result = try run(
        [program, String(rounds)], environment: box.environment("record", settings))
      #expect(result.output == "\(4 * rounds)\n", "\(result.errors)")
      return try box.snapshot().header
    }
    let checked = try record(50, ["HEAPTAP_CHECK": "1"])
    #expect(checked.integer("differing_stacks") == 0)
    #expect(checked.integer("checked_stacks") ?? 0 > 30_000)
    // Half of them are of the children of `async let`, and of tasks that are resumed without frame pointers.
    let header = try record(200)
    let walked = try #require(header.integer("walked_stacks"))
    #expect(walked * 10 < (header.totalBlocks ?? 0), "\(walked)")
  }

  @Test func `a server on SwiftNIO's event loops is as legible`() throws {
    let package =
      Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/echo").path
    let built = try run([
      "/usr/bin/env", "swift", "build", "--package-path", package, "-c", "release",
      "-Xswiftc", "-g", "--product", "echo",
    ])
    #expect(built.status == 0, "\(built.output)\(built.errors)")
    let box = try DumpBox()
    let result = try run(
      ["\(package)/.build/release/echo"],
      environment: box.environment("record", ["HEAPTAP_DEPTH": "256"]))
    #expect(result.output == "5\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    // The event loops close what is left while the process ends.
    snapshot.expectSound(isQuiet: false)
    let named = snapshot.named().folded()
    for size in [30_000, 30_001] {
      let sample = try #require(named.samples(ofSize: size).first)
      let stack = named.stack(of: sample)
      #expect(stack.last?.function == "_start")
      #expect(!stack.contains { $0.function?.hasPrefix("_dispatch_") == true })
      var functions: [String] = []
      for frame in stack where frame.file?.hasSuffix("/echo/main.swift") == true && frame.line != 0
      {
        let name = bareName(frame.function ?? "")
        // A function is there once for each of its closures too.
        if functions.last != name { functions.append(name) }
      }
      #expect(functions == ["keep", "remember", "answer", "serve", "accept", "main"], "\(size)")
    }
  }
}
