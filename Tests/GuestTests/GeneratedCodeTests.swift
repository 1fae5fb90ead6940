// SPDX-License-Identifier: Apache-2.0
// Code that was generated is named by what its compiler told, while it was there.

import Foundation
import HeapModel
import Testing

@Suite struct GeneratedCodeTests {
  private func record(_ how: String) throws -> Snapshot {
    let box = try DumpBox()
    let program = try Programs.build("generated.c", ["-O1", "-g"])
    let guest = try Guest([program, how], environment: box.environment("record"))
    defer {
      for path in ["/tmp/perf-\(guest.pid).map", "/tmp/perf-\(guest.pid).map.other"] {
        unlink(path)
      }
    }
    let result = guest.finish()
    #expect(result.output == "done\n", "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    return snapshot
  }

  private func stack(ofSize size: Int, in snapshot: Snapshot) throws -> Stack {
    snapshot.stack(of: try #require(snapshot.samples(ofSize: size).first))
  }

  @Test func `an address is named by the last line about it, and its name is made harmless`() throws
  {
    let snapshot = try record("")
    // The names are the dump's own: the map is gone.
    let stack = try stack(ofSize: 50001, in: snapshot)
    #expect(stack.first?.function == "JS:*grow ?[31mä? /app/cache.js:7:3")
    #expect(stack.first.flatMap { snapshot.module(of: $0) }?.path == "[jit]")
    // By its frame pointer the walk goes on, to the end.
    let named = snapshot.named()
    #expect(try self.stack(ofSize: 50001, in: named).dropFirst().map(\.function).contains("main"))
    let long = try #require(try self.stack(ofSize: 50002, in: snapshot).first?.function)
    #expect(long == String(repeating: "n", count: 512))
    #expect(snapshot.header.integer("jit.addresses") == 2)
    #expect(snapshot.header.integer("jit.named") == 2)
    #expect(snapshot.header["jit.map"]?.hasPrefix("/tmp/perf-") == true)
    #expect(
      snapshot.header.integer("jit.map_bytes") == snapshot.header.integer("jit.map_read_bytes"))
  }

  @Test(arguments: [
    ("open", "everybody may write to it"), ("link", "it is not a file of one name"),
    ("pipe", "it is not a file of one name"), ("absent", "there is none"),
  ])
  func `a map that somebody else may have written is not believed`(
    _ how: String, _ problem: String
  ) throws {
    try expectNoNames(how, problem)
  }

  @Test(.enabled("needs root, to give a file away") { geteuid() == 0 })
  func `another user's map is not believed`() throws {
    try expectNoNames("foreign", "it belongs to another user")
  }

  private func expectNoNames(_ how: String, _ problem: String) throws {
    let snapshot = try record(how)
    let frame = try stack(ofSize: 50001, in: snapshot).first
    #expect(frame?.function == nil && frame?.module == nil && frame?.address != 0)
    #expect(snapshot.header["jit.map_problem"] == problem)
    #expect(!snapshot.modules.contains { $0.path == "[jit]" })
  }

  @Test(.enabled("needs node (nodejs)") { Workshop.find("node") != nil })
  func `a function in JavaScript that leaks is named, and the way to it from main`() throws {
    let script = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/leak.js")
    let box = try DumpBox()
    let guest = try Guest(
      [
        // It may leave a file where it is started.
        "/usr/bin/env", "-C", box.directory.path,
        Workshop.find("node")!, "--perf-basic-prof", "--interpreted-frames-native-stack",
        script.path,
      ], environment: box.environment("record", ["HEAPTAP_DEPTH": "128"]))
    defer { unlink("/tmp/perf-\(guest.pid).map") }
    try guest.wait(forOutput: "leaked")
    let dump = try Obedient.armed(guest.pid, guest).snapshot(timeout: patience)
    // On another machine, after the process's end: nothing but the dump is at hand.
    kill(guest.pid, SIGKILL)
    _ = guest.finish()
    unlink("/tmp/perf-\(guest.pid).map")

    let snapshot = try box.snapshot()
    #expect(snapshot.header.integer("broken_stacks") == 0)
    let leaks = snapshot.samples(ofSize: 7001)
    #expect(leaks.sum(\.liveBlocks) >= 5000, "\(snapshot.header)")
    var named = 0
    for sample in leaks {
      let stack = snapshot.stack(of: sample)
      #expect(sample.missingFrames == 0)
      // The program's start is C again, whatever generated code the walk came through.
      let root = stack.last.flatMap { snapshot.module(of: $0) }
      #expect(root?.name.hasPrefix("node") == true)
      let isNamed = stack.contains { $0.function?.contains("leakBuffers") == true }
      named += isNamed ? sample.liveBlocks : 0
    }
    // Once it is compiled, it may be inlined into its caller.
    #expect(named > 1000)

    let shown = try run([
      Workshop.command, "show", "--by", "function", "--cumulative", "--no-symbols", "-n", "0", dump,
    ])
    #expect(shown.output.contains("leakBuffers"), "\(shown.errors)")
  }

  @Test func `a library that takes the place of generated code is found by its own table`() throws {
    let box = try DumpBox()
    let program = try Programs.build("generated.c", ["-O1", "-g"])
    let options = ["-O2", "-g", "-shared", "-fPIC", "-fomit-frame-pointer"]
    let library = try Programs.build("generated-library.c", options)
    let result = try run([program, "replaced", library], environment: box.environment("record"))
    #expect(result.output == "same place\n", "\(result.errors)")
    let snapshot = try box.snapshot().named()
    let left = try stack(ofSize: 60002, in: snapshot)
    #expect(left.map(\.function).prefix(2) == ["library_allocate", "replaced"])
    #expect(left.first.flatMap { snapshot.module(of: $0) }?.path == library)
    let generated = try stack(ofSize: 60001, in: snapshot)
    #expect(generated.first?.module == nil)
  }
}
