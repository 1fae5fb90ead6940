// SPDX-License-Identifier: Apache-2.0
// Dumps are pprof profiles: the Go project's own tool is the judge.

import Foundation
import Testing

@Suite(.enabled(if: Workshop.find("go") != nil, "go is not installed (golang-go)"))
struct PprofToolTests {
  private func dump() throws -> (box: DumpBox, path: String) {
    let box = try DumpBox()
    let program = try Programs.build("interface.c", Self.options)
    _ = try run(
      [program], environment: ["HEAPTAP_DIR": box.directory.path, "HEAPTAP_LOG": "stderr"])
    return (box, try #require(box.dumps.first).path)
  }

  private static var options: [String] {
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    let products = Workshop.products.path
    return ["-O1", "-g", "-I\(headers)", "-L\(products)", "-lheaptap", "-Wl,-rpath,\(products)"]
  }

  private func pprof(_ arguments: String...) throws -> Finished {
    try run(
      [Workshop.find("go")!, "tool", "pprof"] + arguments,
      environment: ["HOME": Workshop.makeDirectory().path])
  }

  @Test func `pprof -top names the function and what it has allocated`() throws {
    let (box, path) = try dump()
    defer { withExtendedLifetime(box) {} }
    let result = try pprof("-top", path)
    #expect(result.status == 0)
    #expect(result.output.contains("Type: inuse_space"))
    let row = result.output.split(separator: "\n").first { $0.hasSuffix("main") }
    #expect(row?.contains("7.59kB") == true, "\(result.output) \(result.errors)")
  }

  @Test func `pprof -raw reads every sample, location and mapping`() throws {
    let (box, path) = try dump()
    defer { withExtendedLifetime(box) {} }
    let result = try pprof("-raw", path)
    #expect(result.status == 0)
    #expect(result.output.contains("alloc_objects/count alloc_space/bytes inuse_objects/count"))
    #expect(result.output.contains("generation:[1]"))
    #expect(result.output.contains("Comment: complete=1"))
    #expect(result.output.contains("interface-"), "the program is among the mappings")
  }

  @Test func `a stack that is not whole is no root of its own in a flame graph`() throws {
    let box = try DumpBox()
    let program = try Programs.build("depths.c", ["-O1", "-g"])
    _ = try run([program, "30"], environment: box.environment("record", ["HEAPTAP_DEPTH": "5"]))
    let result = try pprof("-traces", try #require(box.dumps.first).path)
    // A trace is a line of figures with the innermost call, then one for each caller; rules part them.
    let traces = result.output.split(separator: "\n").split { $0.contains("-----+-----") }.map {
      $0.map { $0.split(separator: " ").last.map(String.init) ?? "" }
    }
    let deep = try #require(traces.first { $0.contains("descend") }, "\(result.output)")
    #expect(deep.last == "[truncated]", "\(result.output)")
    let whole = try #require(traces.first { $0.contains("main") }, "\(result.output)")
    #expect(whole.last?.hasPrefix("[depths") == true, "\(result.output)")
  }

  @Test func `pprof compares two dumps`() throws {
    let (box, path) = try dump()
    let later = try #require(box.dumps.last).path
    let result = try pprof("-top", "-diff_base", path, later)
    #expect(result.status == 0)
  }
}
