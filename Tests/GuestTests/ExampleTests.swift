// SPDX-License-Identifier: Apache-2.0
// The examples keep the promises at their heads, and their scripts run.

import Foundation
import HeapModel
import Pprof
import Symbolication
import Testing

@Suite(.serialized) struct ExampleTests {
  @Test func `of the C daemon's lines only the one that leaks grows, by a block for each client`()
    throws
  {
    let program = try Workshop.makeDirectory().appendingPathComponent("leaky-daemon").path
    let source = Example.path("LeakyDaemon/leaky-daemon.c")
    try succeed(["/usr/bin/env", "gcc", "-O2", "-g", source, "-o", program])
    let daemon = try Example(program)
    try daemon.hit(clients: 1...100)
    try daemon.startRecording()
    try daemon.hit(clients: 51...200)
    let before = try daemon.snapshot()
    try daemon.hit(clients: 151...400)
    let after = try daemon.snapshot()

    let rows = after.compared(to: before, groupedBy: .line)
    let first = try #require(rows.first)
    #expect(first.key == .line(file: source, line: try lineOfLeak(in: source)))
    #expect(first.function == "client_named")
    #expect((first.addedBlocks, first.addedBytes) == (200, 200 * 1024))
    #expect((first.liveBlocks, first.liveBytes) == (300, 300 * 1024))
    for row in rows.dropFirst() { #expect(row.addedBytes == 0, "\(row)") }
  }

  @Test(arguments: [(".build", []), (".build/static", ["--static-swift-stdlib"])])
  func `the Swift server's comparison begins with the line that leaks, a page a request`(
    _ place: String, _ library: [String]
  ) throws {
    let package = Example.path("LeakyServer")
    try succeed(
      [
        "/usr/bin/env", "swift", "build", "--package-path", package, "-c", "release",
        "-Xswiftc", "-g", "--product", "LeakyServer", "--scratch-path", "\(package)/\(place)",
      ] + library)
    let server = try Example("\(package)/\(place)/release/LeakyServer")
    try server.get(pages: 1...100)
    try server.startRecording()
    try server.get(pages: 1...200)
    let before = try server.snapshot()
    try server.get(pages: 1...300)
    let after = try server.snapshot()

    let source = "\(package)/Sources/LeakyServer/Sessions.swift"
    let first = try #require(after.compared(to: before, groupedBy: .line).first)
    #expect(first.key == .line(file: source, line: try lineOfLeak(in: source)))
    #expect(first.function == "Sessions.visit(by:showing:)")
    #expect((first.addedBlocks, first.addedBytes) == (300, 300 * 16_416))
    #expect((first.liveBlocks, first.liveBytes) == (500, 500 * 16_416))

    // Who asked for the page is in the same stack, behind an actor: the request's handler, and the
    // server that has called it, as far as tasks go that are younger than the recording.
    let diff = try run(
      [
        Workshop.command, "diff", "--by", "stack", "-n", "1",
      ] + (try server.dumps(last: 2)))
    #expect(diff.status == 0, "\(diff.errors)")
    let stack = diff.output.split(separator: "\n").map { $0.trimmingCharacters(in: .whitespaces) }
    let main = "\(package)/Sources/LeakyServer/main.swift"
    let handler = try line(in: main) { $0.contains("sessions.visit(") }
    #expect(stack[1].hasPrefix("\(source):\(try lineOfLeak(in: source)) in "), "\(diff.output)")
    #expect(stack[2].hasPrefix("\(main):\(handler) in "), "\(diff.output)")
    for caller in [
      "RoutedHTTPHandler.handleRequest(", "HTTPServer.handleRequest(",
      "HTTPServer.handleConnection(", "HTTPServer.listenForConnections",
    ] {
      #expect(stack.contains { $0.contains(caller) }, "\(caller): \(diff.output)")
    }
    #expect(!diff.output.contains("swift_job_run") && !diff.output.contains("_dispatch_"))

    let files = after.compared(to: before, groupedBy: .file)
    let catalog = try #require(files.first { "\($0.key)".hasSuffix("/Catalog.swift") })
    #expect(catalog.liveBytes > 0)
    #expect(catalog.addedBytes == 0)
  }

  @Test func `the demonstration names the line`() throws {
    let result = try run(
      [Example.path("demo.sh")],
      environment: ["HEAPTAP_COMMAND": Workshop.command, "HEAPTAP_LIBRARY": Workshop.library])
    #expect(result.status == 0, "\(result.output)\(result.errors)")
    #expect(result.output.contains("\nThe first row is the line that leaks: Examples/"))
  }

  @Test func `the step for CI passes the tests' status on and leaves a dump to compare with`()
    throws
  {
    let box = try DumpBox()
    func step(
      _ command: String..., baseline: String = "", growth: String = ""
    ) throws -> Finished {
      try run(
        [Example.path("ci.sh"), box.directory.path] + command,
        environment: [
          "HEAPTAP_COMMAND": Workshop.command, "BASELINE": baseline, "MAX_GROWTH": growth,
          "GITHUB_STEP_SUMMARY": "",
        ])
    }
    let failing = try step("/bin/sh", "-c", "exit 3")
    #expect(failing.status == 3, "\(failing.errors)")
    let baseline = try #require(box.dumps.first).path
    #expect(!failing.output.contains("compared with"))
    let passing = try step("/bin/ls", "/", baseline: baseline)
    #expect(passing.status == 0, "\(passing.errors)")
    #expect(box.dumps.count == 2)
    #expect(passing.output.contains("compared with '\(baseline)':\n"))
    #expect(!passing.output.contains("### Heap"))

    // It keeps a table of 293 KiB.
    let grown = try Programs.build("courses.c", ["-O1", "-g", SelfTests.header])
    let bounded = try step(grown, "1", "0", baseline: baseline, growth: "1M")
    #expect(bounded.status == 0 && bounded.output.contains("\n### Heap: within bounds\n"))
    let excessive = try step(grown, "1", "0", baseline: baseline, growth: "100K")
    #expect(excessive.status == 1 && excessive.output.contains("\n### Heap: out of bounds\n"))
  }

  /// The package of programs that trace themselves, built as users would.
  private func selfTracing(_ options: [String]) throws -> String {
    let package = Example.path("SelfTracing")
    try succeed(["/usr/bin/env", "swift", "build", "--package-path", package] + options)
    return "\(package)/.build/\(options.contains("release") ? "release" : "debug")"
  }

  @Test(arguments: [[], ["-c", "release", "--static-swift-stdlib", "-Xswiftc", "-g"]])
  func `programs of another package trace themselves without LD_PRELOAD`(_ options: [String])
    throws
  {
    let products = try selfTracing(options)
    func output(_ program: String) throws -> [String] {
      let result = try run(["/usr/bin/timeout", "120", "\(products)/\(program)"])
      #expect(result.status == 0, "\(program): \(result.errors)")
      return result.output.split(separator: "\n").map(String.init)
    }
    let hunt = try output("LeakHunt")
    #expect(hunt.filter { $0.hasPrefix("round") } == ["round 1", "round 2", "round 3"])
    let leak = hunt.filter { $0.contains("LeakHunt.swift:11: ") }
    #expect(leak.count == 3)
    #expect(leak.allSatisfy { $0.contains("count=") }, "\(hunt)")

    let report = try output("Checkpoints")
    let figures = report.filter { $0.contains("alive") }.map { line in
      line.split { !$0.isNumber }.compactMap { Int($0) }
    }
    try #require(figures.map(\.count) == [3, 3, 3, 3], "\(report)")
    #expect((3_000_000..<3_050_000).contains(figures[0][0]), "loaded")
    #expect((8_000_000..<8_050_000).contains(figures[1][1]), "the largest of what was freed again")
    #expect(figures[1][2] < 50_000, "nothing of it is left")
    #expect((500_000..<550_000).contains(figures[2][2]), "kept")
    #expect(figures[3][0] < 50_000, "cleared")

    let call = try output("TracedCall")
    #expect(call.first?.hasPrefix("build: +508 KiB in 50") == true, "\(call)")
    #expect(call.dropFirst().first?.contains("TracedCall.swift:10: size=5") == true, "\(call)")
    #expect(call.suffix(3) == ["later work 2", "700 100", "4096"], "\(call)")

    let estimates = try output("Sampled")
    try #require(estimates.count >= 5, "\(estimates)")
    let numbers = estimates.map { line in line.split { !$0.isNumber }.compactMap { Int($0) } }
    // 2,170 samples of 10,000 arrays with their heads: the standard error is 1.9 %.
    let truth = 10_000 * 16_032
    for figures in [numbers[0].prefix(2), numbers[1].suffix(2)] {
      let (bytes, error) = (figures.first!, figures.last!)
      #expect((truth / 66...truth / 42).contains(error), "\(estimates)")
      #expect(abs(bytes - truth) < 8 * error + truth / 50, "\(estimates)")
    }
    #expect(numbers[0].last == 65536)
    #expect(estimates[1].contains("Sampled.swift:9: "), "\(estimates)")
    let refused = "the recording samples, and this counts every block"
    #expect(estimates.contains { $0.contains(refused) }, "\(estimates)")
    #expect(estimates.contains { $0.contains("sampled at another distance") }, "\(estimates)")
    #expect((1_000_000..<1_050_000).contains(numbers.last!.last!), "\(estimates)")
  }

  @Test func `a trace that cannot tell its work from others' is about the process, and says so`()
    throws
  {
    let products = try selfTracing([])
    let result = try run(
      ["\(products)/TracedCall"],
      environment: ["HEAPTAP": "record", "HEAPTAP_DEPTH": "3", "HEAPTAP_LOG": "off"])
    #expect(result.output.contains("(of the whole process)\n"), "\(result.output)")
    #expect(!result.output.contains("later work"), "\(result.output)")
  }

  @Test func `a service logs its growth and ends when it is asked, with a tracer and without`()
    throws
  {
    let package = Example.path("TracedService")
    try succeed(["/usr/bin/env", "swift", "test", "--package-path", package])
    let program = "\(package)/.build/debug/TracedService"
    func output(_ words: [String] = [], _ end: String, _ environment: [String: String] = [:]) throws
      -> (status: Int32, text: String)
    {
      let guest = try Guest([program] + words, environment: environment)
      try guest.wait(forErrors: end)
      guest.send(SIGTERM)
      let finished = guest.finish()
      return (finished.status, finished.errors)
    }
    let traced = try output([], "heap grew by")
    #expect(traced.status == 0)
    #expect(traced.text.contains("heap: "))
    #expect(traced.text.contains("TracedService.swift:12: size="), "\(traced.text)")

    let off = ["HEAPTAP": "0"]
    let why = "the heap tracer of this process is off for good"
    let untraced = try output([], "the heap is not reported, \(why)", off)
    #expect(untraced.status == 0, "the cache has gone on until it was asked to end")
    #expect(try output(["--required"], why, off).status != 0)
  }

  @Test func `who does not ask for the service gets none of the packages that it needs`() throws {
    func dependencies(_ package: String) throws -> String {
      let result = try run([
        "/usr/bin/env", "swift", "package", "--package-path", Example.path(package),
        "show-dependencies", "--format", "flatlist",
      ])
      #expect(result.status == 0, "\(result.errors)")
      return result.output
    }
    #expect(try dependencies("TracedService").contains("swift-log"))
    let others = try dependencies("SelfTracing")
    #expect(others.contains("swift-argument-parser"))
    for name in ["swift-log", "swift-metrics", "swift-service-lifecycle", "swift-async"] {
      #expect(!others.contains(name), "\(others)")
    }
  }

  @Test func `a program whose tracer is off works, and says why it has no figures`() throws {
    let products = try selfTracing([])
    let result = try run(["\(products)/TracedCall"], environment: ["HEAPTAP": "0"])
    let why = "the heap tracer of this process is off for good: HEAPTAP is 0 or has a value"
    #expect(result.output.hasPrefix("build: not traced, \(why)"), "\(result.output)")
    #expect(result.output.contains("\n700 100\n\(why)"), "the work was done all the same")
    #expect(result.status == 0, "\(result.errors)")
  }

  @Test func `tests fail on growth, name its line and are not blamed for each other`() throws {
    let test = [
      "/usr/bin/env", "swift", "test", "--package-path", Example.path("SelfTracing"),
    ]
    let clean = try run(test)
    #expect(clean.status == 0, "\(clean.output)\(clean.errors)")
    let leaking = try run(
      test + ["--skip-build", "--filter", "XCGrowthTests|import"], environment: ["LEAK": "1"])
    #expect(leaking.status != 0)
    let text = leaking.output + leaking.errors
    for failure in [
      "the heap grew: +20.0 MiB in 1", "the heap grew in 10 runs: +", "GrowthTests.swift:14: size=",
      "testAnImportLeavesNothing : failed - the heap grew in 10 runs",
      "testAnImportAllocatesOnce : failed - allocated ", "blocks, of which 0 are allowed",
    ] {
      #expect(text.contains(failure), "'\(failure)' in \(text)")
    }
  }

  private func succeed(_ command: [String]) throws {
    let result = try run(command)
    guard result.status == 0 else {
      throw GuestError("'\(command.joined(separator: " "))': \(result.output)\(result.errors)")
    }
  }

  /// The only line of a source that is wanted.
  private func line(in path: String, where isWanted: (Substring) -> Bool) throws -> Int {
    let lines = try String(contentsOfFile: path, encoding: .utf8)
      .split(separator: "\n", omittingEmptySubsequences: false)
    let wanted = lines.indices.filter { isWanted(lines[$0]) }
    return try #require(wanted.count == 1 ? wanted[0] + 1 : nil)
  }

  /// The line that a source marks, so that its header's promise follows it around.
  private func lineOfLeak(in path: String) throws -> Int {
    try line(in: path) { $0.hasSuffix("// LEAK") || $0.hasSuffix("/* LEAK */") }
  }
}

/// An example that listens, armed and asleep until it is asked.
private final class Example {
  private let box: DumpBox
  private let guest: Guest
  private let port: in_port_t

  static func path(_ name: String) -> String {
    Workshop.package.appendingPathComponent("Examples/\(name)").path
  }

  init(_ program: String) throws {
    guard FileManager.default.fileExists(atPath: Workshop.library) else {
      throw GuestError("there is no '\(Workshop.library)'; 'make build' makes it")
    }
    box = try DumpBox()
    guest = try Guest([program, "0"], environment: box.environment("1"))
    try guest.wait(forOutput: "\n")
    port = try #require(
      in_port_t(guest.outputSoFar.dropFirst("listening on ".count).dropLast()))
  }

  deinit {
    guest.send(SIGTERM)
    _ = guest.finish()
  }

  func startRecording() throws {
    guest.send(SIGUSR1)
    try guest.wait(forErrors: "recording started")
  }

  /// The next snapshot as `heaptap diff` compares it: with names, and folded.
  func snapshot() throws -> Snapshot {
    let known = box.dumps.count
    guest.send(SIGUSR2)
    try guest.wait(for: "a dump") { box.dumps.count > known }
    let snapshot = try #require(try box.snapshots().last)
    #expect(snapshot.header.isComplete)
    let frames = snapshot.distinctFrames
    let names = Symbolicator(worker: .inProcess)
      .symbolicate(frames, modules: snapshot.modules).frames
    let namesByFrame = Dictionary(zip(frames, names), uniquingKeysWith: { first, _ in first })
    return snapshot.replacingFrames { namesByFrame[$0] ?? [] }.folded()
  }

  /// The paths of the newest dumps, oldest first.
  func dumps(last count: Int) throws -> [String] {
    try #require(box.dumps.count >= count)
    return box.dumps.suffix(count).map(\.path)
  }

  /// Says one line for each client to the daemon.
  func hit(clients: ClosedRange<Int>) throws {
    let answers = try ask(clients.map { "hit client-\($0)\n" }.joined(), isWhole: true)
    try #require(answers.split(separator: "\n").count == clients.count)
  }

  /// Gets one page after the other from the server.
  func get(pages: ClosedRange<Int>) throws {
    for page in pages {
      let answer = try ask(
        "GET /products/\(page)?session=anna HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        isWhole: false)
      try #require(answer.hasPrefix("HTTP/1.1 200 "))
    }
  }

  /// Sends a text over a connection of its own, and reads until the other end closes it.
  ///
  /// - Parameter isWhole: Whether the other end is told that no more will come.
  private func ask(_ text: String, isWhole: Bool) throws -> String {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = in_addr_t(0x7f00_0001).bigEndian
    let status = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard status == 0 else { throw GuestError("cannot connect to port \(port): errno \(errno)") }
    let connection = FileHandle(fileDescriptor: descriptor, closeOnDealloc: false)
    try connection.write(contentsOf: Data(text.utf8))
    if isWhole { shutdown(descriptor, Int32(SHUT_WR)) }
    return String(decoding: try connection.readToEnd() ?? Data(), as: UTF8.self)
  }
}
