// SPDX-License-Identifier: Apache-2.0
// Modules come and go, and what they allocated stays theirs.

import HeapModel
import Testing

@Suite struct PluginTests {
  private static let builds = [
    [], ["-Wl,--build-id=none"], ["-static-libstdc++", "-static-libgcc"],
    ["-static-libstdc++", "-static-libgcc", "-Wl,-Bsymbolic"],
  ]

  /// Plug-ins that differ in nothing but a constant, so that they fit where another was.
  private func plugins(_ options: [String]) throws -> [String] {
    try (1...3).map { salt in
      try Programs.build(
        "plugin.cpp", ["-O1", "-g", "-w", "-shared", "-fPIC", "-DSALT=\(salt)"] + options)
    }
  }

  @Test(arguments: builds)
  func `blocks of an unloaded plug-in keep its name, whatever took its place`(
    _ options: [String]
  ) throws {
    let plugins = try plugins(options)
    let host = try Programs.build("host.c", ["-O1", "-g"])
    let order = [plugins[0], plugins[1], plugins[0], plugins[2]]
    let box = try DumpBox()
    let result = try run([host] + order, environment: box.environment("record"))
    #expect(result.output.hasSuffix("done\n"), "\(result.output) \(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let named = snapshot.named()
    // Which plug-in was in the stacks of its blocks. What is small is thread-local storage of C++'s
    // runtime, made when it threw.
    var left: [String: [Int]] = [:]
    for sample in named.samples(through: "plugin_allocate") where sample.liveBytes > 1000 {
      let frame = named.stack(of: sample).first { $0.function == "plugin_allocate" }
      let module = frame.flatMap { named.module(of: $0) }
      left[module?.path ?? "?", default: []].append(sample.liveBytes)
    }
    // The first was loaded twice, maybe at another address, and left a block each time.
    #expect(left[plugins[0]]?.reduce(0, +) == 30001 + 30003)
    #expect(left[plugins[1]] == [30002])
    #expect(left[plugins[2]] == [30004])
    #expect(left.count == 3)
  }

  @Test func `each dump in between names what was unloaded before it`() throws {
    let plugins = try plugins([])
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    let host = try Programs.build("host.c", ["-O1", "-g", "-DSNAPSHOTS", "-I\(headers)"])
    let box = try DumpBox()
    let result = try run([host] + plugins, environment: box.environment("record"))
    let places = result.output.split(separator: "\n").dropLast()
    #expect(Set(places).count == 1, "all at one place: \(result.output) \(result.errors)")
    let dumps = try box.snapshots()
    #expect(dumps.count == plugins.count + 1)
    for (number, dump) in dumps.enumerated() {
      let named = dump.named()
      let modules = named.samples(through: "plugin_allocate").filter { $0.liveBytes > 1000 }
        .compactMap { sample in
          named.stack(of: sample).first { $0.function == "plugin_allocate" }
            .flatMap { named.module(of: $0)?.path }
        }
      #expect(Set(modules) == Set(plugins.prefix(number + 1)), "dump \(number + 1)")
    }
  }

  @Test(arguments: builds, ["0", "1"])
  func `a plug-in in C++ works in a host in C that is not recorded`(
    _ options: [String], _ mode: String
  ) throws {
    let host = try Programs.build("host.c", ["-O1", "-g"])
    let box = try DumpBox()
    let result = try run([host] + plugins(options), environment: box.environment(mode))
    #expect(result.output.hasSuffix("done\n"), "\(result.output) \(result.errors)")
    #expect(box.names.isEmpty)
  }

  @Test func `a program with gaps between its segments is known by its own headers`() throws {
    // The loader then tells the segment of an address only, and the headers lie in another.
    let options = ["-O1", "-g", "-no-pie", "-Wl,-z,max-page-size=0x200000"]
    let program = try Programs.build("depths.c", options)
    let box = try DumpBox()
    _ = try run([program, "5"], environment: box.environment("record"))
    let snapshot = try box.snapshot().named()
    snapshot.expectSound()
    let module = try #require(snapshot.modules.first { $0.path == program })
    #expect(!module.buildID.isEmpty && module.fileOffset > 0)
    let deep = try #require(snapshot.samples(ofSize: 4001).first)
    let expected = Array(repeating: "descend", count: 6) + ["main"]
    #expect(Array(snapshot.functions(of: deep).prefix(7)) == expected)
  }

  @Test func `a library that is mapped to be read is not called`() throws {
    let box = try DumpBox()
    let program = try Programs.build("reading.cpp", ["-O1", "-g", "-rdynamic"])
    let guest = try Guest([program], environment: box.environment("record", ["HEAPTAP_EXIT": ""]))
    try guest.wait(forErrors: "written to")
    // By the demangler of the one that is loaded.
    try guest.wait(forErrors: "leak < main")
    #expect(guest.isRunning)
  }
}
