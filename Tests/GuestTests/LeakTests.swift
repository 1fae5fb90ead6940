// SPDX-License-Identifier: Apache-2.0
// What is lost at the end of a process: told exactly, as LeakSanitizer would, and harming nobody.

import Foundation
import HeapModel
import Testing

@Suite struct LeakTests {
  /// Blocks by their size.
  typealias Blocks = [Int: Int]

  /// What each way of `lost.c` leaves lost, held by lost blocks only, and reachable.
  private static let ways: [String: (lost: Blocks, indirect: Blocks, held: Blocks)] = [
    "some": ([104: 10], [:], [:]), "last": ([24: 3], [:], [:]),
    "list": ([200: 1], [200: 19], [:]), "circle": ([304: 1], [304: 2, 312: 1], [:]),
    "freed": ([904: 4], [:], [:]), "hidden": ([1000: 1], [:], [:]),
    "held": ([:], [:], [400: 1, 408: 1, 416: 1]), "apart": ([:], [:], [504: 1, 512: 1]),
    "holes": ([:], [:], [520: 1, 528: 1, 12288: 1]), "large": ([:], [:], [536: 1, 1 << 31: 1]),
    "thread": ([808: 7], [:], [:]), "sleeping": ([:], [:], [600: 1, 608: 1, 616: 1, 624: 1]),
    "moving": ([:], [:], [704: 64]),
  ]

  private func blocks(_ snapshot: Snapshot, _ reach: Snapshot.Reach) -> Blocks {
    var blocks: Blocks = [:]
    for sample in snapshot.samples where sample.reach == reach && sample.liveBlocks > 0 {
      blocks[sample.liveBytes / sample.liveBlocks, default: 0] += sample.liveBlocks
    }
    return blocks
  }

  /// What several ways leave together.
  private func sum(
    _ ways: [String], _ part: (_ way: (lost: Blocks, indirect: Blocks, held: Blocks)) -> Blocks
  ) -> Blocks {
    ways.reduce(into: [:]) { sum, way in
      sum.merge(part(Self.ways[way]!)) { $0 + $1 }
    }
  }

  private func leaks(
    _ manner: String, _ ways: [String], _ environment: [String: String] = [:],
    below prefix: [String] = []
  ) throws -> (result: Finished, snapshot: Snapshot) {
    let program = try Programs.build("lost.c", ["-O1", "-g"])
    let box = try DumpBox()
    let result = try run(
      prefix + [program, manner] + ways,
      environment: box.environment("record", ["HEAPTAP_LEAKS": "1"].merging(environment) { $1 }))
    return (result, try box.snapshot())
  }

  private func expect(
    _ snapshot: Snapshot, _ ways: [String], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(snapshot.header.hasReach, sourceLocation: sourceLocation)
    #expect(snapshot.header.reachProblem == nil, sourceLocation: sourceLocation)
    #expect(!snapshot.header.hasMovingBlocks, sourceLocation: sourceLocation)
    #expect(blocks(snapshot, .lost) == sum(ways, \.lost), sourceLocation: sourceLocation)
    #expect(blocks(snapshot, .indirect) == sum(ways, \.indirect), sourceLocation: sourceLocation)
    // The C library has some of its own.
    let held = blocks(snapshot, .held)
    for (size, count) in sum(ways, \.held) {
      #expect(held[size, default: 0] >= count, "\(size)", sourceLocation: sourceLocation)
    }
  }

  @Test(arguments: ways.keys.sorted())
  func `each way to lose or to hold a block is told for what it is`(way: String) throws {
    let (result, snapshot) = try leaks("return", [way])
    #expect(result.status == 3 && result.signal == nil)
    expect(snapshot, [way])
  }

  @Test(arguments: ["return", "exit", "_exit", "quick_exit", "SIGTERM"])
  func `they are told together, with threads that run, however the process ends`(
    manner: String
  ) throws {
    let ways =
      Self.ways.keys.filter { $0 != "held" }.sorted() + ["sleeping", "moving", "moving", "moving"]
    let (result, snapshot) = try leaks(manner, ways)
    #expect(manner == "SIGTERM" ? result.signal == SIGTERM : result.status == 3)
    expect(snapshot, ways)
    #expect(snapshot.header.trigger == (manner == "SIGTERM" ? "terminated" : "exit"))
  }

  @Test func `a large block that was hardly written to is hardly read`() throws {
    let (_, snapshot) = try leaks("exit", ["large"])
    // Two GiB, of which two pages are there.
    let stopped = try #require(snapshot.header.integer("reach.stopped_ns"))
    let roots = try #require(snapshot.header.integer("reach.root_bytes"))
    #expect(stopped > 0 && roots > 0 && roots < 64 << 20)
    #expect((snapshot.header.reconciliation?.usageBytes ?? .max) < 256 << 20)
  }

  // MARK: Oracle

  @Test(arguments: [["some"], ["list"], ["circle"], ["freed"], ["held"], ["thread"], ["sleeping"]])
  func `LeakSanitizer finds the same`(ways: [String]) throws {
    let sanitized = try Programs.build("lost.c", ["-O1", "-g", "-fsanitize=leak"])
    let result = try run(
      [sanitized, "exit"] + ways, environment: ["LSAN_OPTIONS": "exitcode=0"])
    #expect(result.status == 3)
    var found: [Snapshot.Reach: (bytes: Int, blocks: Int)] = [:]
    for match in result.errors.matches(
      of: /(Direct|Indirect) leak of (\d+) byte\(s\) in (\d+) object/)
    {
      let reach: Snapshot.Reach = match.1 == "Direct" ? .lost : .indirect
      found[reach, default: (0, 0)].bytes += Int(match.2)!
      found[reach, default: (0, 0)].blocks += Int(match.3)!
    }
    let (_, snapshot) = try leaks("exit", ways)
    func figures(_ reach: Snapshot.Reach) -> (bytes: Int, blocks: Int) {
      let samples = snapshot.samples.filter { $0.reach == reach }
      return (samples.sum(\.liveBytes), samples.sum(\.liveBlocks))
    }
    let (lost, indirect) = (figures(.lost), figures(.indirect))
    #expect(
      lost.bytes + indirect.bytes == found.values.reduce(0) { $0 + $1.bytes }, "\(result.errors)")
    #expect(lost.blocks + indirect.blocks == found.values.reduce(0) { $0 + $1.blocks })
    // Of a circle it calls all indirect, and none lost.
    if ways != ["circle"] { #expect(lost == found[.lost] ?? (0, 0)) }
  }

  // MARK: Swift

  @Test(arguments: ["-O", "-Onone"])
  func `Swift's retain cycles are lost, and what it keeps under tags is not`(
    optimisation: String
  ) throws {
    let program = try Programs.build("cycles.swift", [optimisation, "-g"])
    let box = try DumpBox()
    let result = try run([program], environment: box.environment("record", ["HEAPTAP_LEAKS": "1"]))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot().named()
    #expect(snapshot.header.hasReach)
    // Of each pair one object stands for the circle; the other, its name and its count of weak
    // references are held by it.
    for (reach, count) in [(Snapshot.Reach.lost, 10), (.indirect, 30)] {
      let samples = snapshot.samples.filter { $0.reach == reach }
      #expect(samples.sum(\.liveBlocks) == count)
      #expect(
        samples.allSatisfy { sample in
          snapshot.functions(of: sample).contains { $0.contains("leak") }
        })
    }
  }

  // MARK: Where it cannot be

  @Test func `without ptrace, the leaks of one thread are found, and those of several are not`()
    throws
  {
    let filtered = try Programs.build("filtered.c")
    let alone = try leaks("exit", ["some", "list"], below: [filtered])
    #expect(alone.result.status == 3, "\(alone.result)")
    expect(alone.snapshot, ["some", "list"])
    let several = try leaks("exit", ["some", "sleeping"], below: [filtered])
    #expect(several.result.status == 3, "\(several.result)")
    #expect(!several.snapshot.header.hasReach && several.snapshot.header.isComplete)
    #expect(several.snapshot.header.reachProblem?.contains("seccomp") == true)
    #expect(several.result.errors.contains("leaks were not looked for: a seccomp filter may kill"))
    #expect(several.snapshot.samples.allSatisfy { $0.reach == .held })
  }

  @Test func `with a debugger in the way, a dump says so and is whole`() throws {
    let strace = try #require(Workshop.find("strace"))
    let program = try Programs.build("lost.c", ["-O1", "-g"])
    let box = try DumpBox()
    // Of the guest, and not of strace.
    let environment = box.environment("record", ["HEAPTAP_LEAKS": "1"]).flatMap {
      ["-E", "\($0)=\($1)"]
    }
    let result = try run(
      [strace, "-f", "-qq", "-o", "/dev/null"] + environment
        + [program, "exit", "some", "sleeping"])
    let snapshot = try box.snapshot()
    #expect(result.status == 3)
    #expect(snapshot.header.isComplete)
    #expect(snapshot.header.reachProblem?.contains("ptrace") == true)
  }

  @Test(.enabled("needs root and PID namespaces") { LeakTests.canNameProcesses() })
  func `with /proc of another PID namespace, a dump says so and is whole`() throws {
    let program = try Programs.build("lost.c", ["-O1", "-g"])
    let box = try DumpBox()
    // Of the guest's number there is another process, of one thread, in the namespace that /proc is of.
    let other = Process()
    other.executableURL = URL(fileURLWithPath: "/bin/sleep")
    other.arguments = ["600"]
    // Whoever waits for the end of the tests' output does not wait for this one's.
    other.standardOutput = FileHandle.nullDevice
    other.standardError = FileHandle.nullDevice
    try other.run()
    // SIGTERM may be blocked in it, as in the thread that started it.
    defer { kill(other.processIdentifier, SIGKILL) }
    let script = "echo $(($0 - 1)) > /proc/sys/kernel/ns_last_pid && env \"$@\"; exit $?"
    let result = try run(
      ["/usr/bin/unshare", "--pid", "--fork", "/bin/sh", "-c", script]
        + ["\(other.processIdentifier)"]
        + box.environment("record", ["HEAPTAP_LEAKS": "1"]).map { "\($0.key)=\($0.value)" }
        + [program, "exit", "some", "sleeping"])
    #expect(result.status == 3, "\(result)")
    let snapshot = try box.snapshot()
    #expect(snapshot.header.pid == Int(other.processIdentifier))
    #expect(!snapshot.header.hasReach && snapshot.header.isComplete)
    #expect(snapshot.header.reachProblem == "/proc is that of another PID namespace")
  }

  private static func canNameProcesses() -> Bool {
    geteuid() == 0
      && (try? run(["/usr/bin/unshare", "--pid", "--fork", "/bin/true"]).status) == 0
  }

  @Test func `without room for another process, a dump says so and is whole`() throws {
    let setpriv = try #require(Workshop.find("setpriv"))
    let prlimit = try #require(Workshop.find("prlimit"))
    let box = try DumpBox()
    let program = try openCopy(of: try Programs.build("lost.c", ["-O1", "-g"]))
    #expect(chown(box.directory.path, 54321, 54321) == 0)
    // A user of its own, who may have three threads: the first, the tracer's, and one more.
    let result = try run(
      [setpriv, "--reuid=54321", "--clear-groups", prlimit, "--nproc=3", "/usr/bin/env"]
        + box.environment("record", ["HEAPTAP_LEAKS": "1"]).map { "\($0)=\($1)" }
        + [program, "exit", "some", "sleeping"])
    #expect(result.status == 3, "\(result)")
    let snapshot = try box.snapshot()
    #expect(snapshot.header.isComplete)
    #expect(snapshot.header.reachProblem?.contains("RLIMIT_NPROC") == true)
  }

  /// A program where everybody can run it.
  private func openCopy(of program: String) throws -> String {
    let directory = try Workshop.makeDirectory()
    #expect(chmod(directory.path, 0o755) == 0)
    let copy = directory.appendingPathComponent("lost").path
    // A link: what this process has open for writing while another test forks cannot be executed.
    try FileManager.default.linkItem(atPath: program, toPath: copy)
    return copy
  }

  @Test func `only the end is searched, and only where that is asked for`() throws {
    let guest = try Obedient("record", ["HEAPTAP_LEAKS": "1"])
    try guest.tell("allocate 8 80")
    guest.signal(SIGUSR2)
    try guest.guest.wait(for: "a dump") { guest.box.dumps.count == 1 }
    _ = guest.end("exit")
    let snapshots = try guest.box.snapshots()
    #expect(snapshots.map(\.header.hasReach) == [false, true])
    #expect(snapshots.allSatisfy { $0.header.reachProblem == nil })
    let plain = try Obedient("record")
    try plain.tell("allocate 8 80")
    _ = plain.end("exit")
    #expect(try !plain.box.snapshot().header.hasReach)
  }

  // MARK: Guests

  @Test(arguments: [
    ["python3", "-c", "import json; print(json.dumps({'a': [1, 2, 3]}))"], ["git", "--version"],
    ["sqlite3", ":memory:", "create table t(a); insert into t values(1); select * from t;"],
    ["node", "-e", "console.log([1, 2, 3].map(x => x * x))"],
  ])
  func `a program of Debian runs to its end with the same output`(command: [String]) throws {
    let program = try #require(Workshop.find(command[0]))
    let plain = try run([program] + command.dropFirst())
    let box = try DumpBox()
    let result = try run(
      [program] + command.dropFirst(),
      environment: box.environment(
        "record", ["HEAPTAP_LEAKS": "1", "HEAPTAP_LOG": "off"]))
    #expect(result.status == plain.status && result.output == plain.output)
    #expect(result.errors == plain.errors)
    // Its own, and those of what it starts, or is started by.
    let snapshots = try box.snapshots()
    #expect(!snapshots.isEmpty && snapshots.allSatisfy(\.header.hasReach))
  }
}

extension CommandTests {
  @Suite struct Leaks {
    private let box: DumpBox
    private let program: String

    init() throws {
      box = try DumpBox()
      program = try Programs.build("lost.c", ["-O1", "-g"])
    }

    private func traced(_ options: [String], _ command: [String]) throws -> Finished {
      try heaptap(
        ["run", "-o", box.directory.path, "--leaks"] + options + ["--"] + command,
        environment: ["HEAPTAP_LOG": "off"])
    }

    @Test func `run tells where the lost blocks were allocated, and keeps the status`() throws {
      let result = try traced([], [program, "exit", "list", "held"])
      #expect(result.status == 3)
      #expect(
        result.errors.contains(
          "lost 200 B in 1 block, held by these only 3800 B in 19 blocks, still reachable"))
      let lost = try #require(result.errors.firstRange(of: "\nlost:\nsize=200 B, count=1"))
      let indirect = try #require(
        result.errors.firstRange(of: "\nheld by lost blocks only:\nsize=3800 B, count=19"))
      #expect(lost.upperBound < indirect.lowerBound)
      #expect(result.errors.contains("lost.c:"))
      #expect(result.errors.contains(" in lose_list\n"))
      #expect(!result.errors.contains("hold"))
      // The command's own line, and nothing else.
      #expect(result.output.split(separator: "\n").count == 1)
    }

    @Test func `a command that loses nothing is told so`() throws {
      let result = try traced(["--leaks-exit-code", "23"], ["git", "--version"])
      #expect(result.status == 0)
      #expect(result.errors.contains("no leaks: still reachable"))
    }

    @Test func `a status of its own tells leaks where the command has succeeded`() throws {
      let leaking = ["sh", "-c", "\(program) exit some; true"]
      #expect(try traced(["--leaks-exit-code", "23", "--children"], leaking).status == 23)
      let failing = try traced(["--leaks-exit-code", "23"], [program, "exit", "some"])
      #expect(failing.status == 3)
    }

    @Test func `leaks that are suppressed are counted apart and fail nothing`() throws {
      let file = box.directory.appendingPathComponent("known.supp")
      try "# known\nleak:lose_list\n".write(to: file, atomically: true, encoding: .utf8)
      let options = ["--leaks-exit-code", "23", "--suppressions", file.path]
      let known = try traced(options + ["--children"], ["sh", "-c", "\(program) exit list; true"])
      #expect(known.errors.contains("suppressed 4000 B in 20 blocks"), "\(known.errors)")
      let news = try traced(
        options + ["--children"], ["sh", "-c", "\(program) exit list some; true"])
      #expect(news.status == 23 && news.errors.contains("suppressed 4000 B in 20 blocks"))
      #expect(!news.errors.contains("lose_list"))
      let missing = try heaptap(["run", "--leaks", "--suppressions", "/none", "--", "true"])
      #expect(missing.status == 2 && missing.errors.contains("cannot read '/none'"))
    }

    @Test func `a status that would be good is not where leaks could not be looked for`() throws {
      let filtered = try Programs.build("filtered.c")
      let result = try heaptap(
        [
          "run", "-o", box.directory.path, "--leaks", "--leaks-exit-code", "23", "--", filtered,
          "/usr/bin/python3", "-c",
          "import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        ], environment: ["HEAPTAP_LOG": "off"])
      #expect(result.status == 2)
      #expect(result.errors.contains("leaks were not looked for: a seccomp filter"))
    }

    @Test(arguments: [
      (["--leaks-exit-code", "23"], "--leaks-exit-code needs --leaks"),
      (["--suppressions", "known"], "--suppressions needs --leaks"),
      (["--leaks", "--leaks-exit-code", "256"], "--leaks-exit-code takes a number from 1 to 255"),
    ])
    func `a status that cannot be is refused`(options: [String], sentence: String) throws {
      let result = try heaptap(["run"] + options + ["--", "true"])
      #expect(result.status == 64 && result.errors.contains(sentence))
    }

    @Test func `show keeps what was lost, and sets it apart`() throws {
      _ = try traced([], [program, "exit", "list", "held"])
      let dump = box.dumps[0].path
      let lost = try heaptap(["show", "--by", "stack", "--reach", "lost", dump])
      #expect(lost.output.contains("size=200 B, count=1") && !lost.output.contains("hold"))
      let leaked = try heaptap(["show", "--reach", "leaked", "--format", "folded", dump])
      let weights = leaked.output.split(separator: "\n").compactMap {
        $0.split(separator: " ").last.flatMap { Int($0) }
      }
      #expect(weights.reduce(0, +) == 4000)
      let held = try heaptap(["show", "--by", "stack", "--reach", "held", dump])
      #expect(held.output.contains("hold") && !held.output.contains("lose_list"))
      let apart = try heaptap(["show", "--by", "reach", dump])
      #expect(apart.output.contains("held by lost blocks only: size=3800 B, count=19"))
      #expect(apart.output.contains("lost: size=200 B, count=1"))
      #expect(apart.output.contains("leaks: lost 200 B in 1 block"))
      let json = try heaptap(["show", "--by", "reach", "--json", dump])
      #expect(json.output.contains(#""reach":"indirect","live_bytes":3800,"live_blocks":19"#))
      let unknown = try heaptap(["show", "--reach", "gone", dump])
      #expect(unknown.status == 64)
      #expect(unknown.errors.contains("--reach takes lost, indirect, leaked or held, not 'gone'"))
    }

    @Test func `a dump that does not say what was lost is not shown as if nothing were`() throws {
      _ = try heaptap(["run", "-o", box.directory.path, "--", program, "exit", "list"])
      for options in [["--reach", "lost"], ["--by", "reach"]] {
        let result = try heaptap(["show"] + options + [box.dumps[0].path])
        #expect(result.status == 2 && result.output.isEmpty)
        #expect(result.errors.contains("does not say what is lost"))
      }
    }
  }
}
