// SPDX-License-Identifier: Apache-2.0
// Children: by fork, vfork, spawn and exec, each with books of its own.

import Foundation
import HeapModel
import Pprof
import ProcessControl
import Testing

@Suite struct ForkTests {
  @Test func `a child of a fork has its parent's blocks and its own, and dumps by itself`() throws {
    let parent = try Obedient("1")
    try parent.start()
    try parent.tell("allocate 20 100")
    _ = try parent.snapshot()
    let child = try parent.fork()
    #expect(child.pid != parent.pid)
    _ = try child.armed()
    try child.tell("allocate 5 1000")
    try child.tell("free 6")
    try parent.tell("allocate 1 7")

    let ofChild = try child.snapshot()
    #expect(ofChild.header.pid == Int(child.pid))
    #expect(ofChild.header.sequence == 1)
    #expect(ofChild.liveBlocks == 19 && ofChild.liveBytes == 1900)
    #expect(ofChild.header.totalBlocks == 25 && ofChild.header.freedBlocks == 6)
    let ofParent = try parent.snapshot()
    #expect(ofParent.header.pid == Int(parent.pid))
    #expect(ofParent.header.sequence == 2)
    #expect(ofParent.liveBlocks == 21 && ofParent.liveBytes == 2007)

    // Stopping the one is no affair of the other.
    try child.stop()
    #expect(try parent.armed().state == .recording)
    #expect(try child.armed().state == .dormant)
    #expect(try (parent.snapshots() + child.snapshots()).areSound)
  }

  @Test func `a child of a dormant process is dormant, and answers`() throws {
    let parent = try Obedient("1")
    let child = try parent.fork()
    let armed = try child.armed()
    #expect(armed.state == .dormant)
    try child.start()
    try child.tell("allocate 2 8")
    #expect(try child.snapshot().liveBytes == 16)
    #expect(try parent.armed().state == .dormant)
    #expect(child.facts.threads.filter { $0 == "heaptap" }.count == 1)
  }

  @Test func `hundreds of forks under load and signals end as they should`() throws {
    let guest = try Obedient("1")
    try guest.start()
    try guest.tell("churn 3")
    guest.send("forks 500")
    let pid = guest.pid
    let isOver = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      var round = 0
      while isOver.wait(timeout: .now() + 0.002) == .timedOut {
        kill(pid, round % 50 == 49 ? SIGUSR1 : SIGUSR2)
        round += 1
      }
    }
    #expect(try guest.nextAnswer() == "failures 0")
    isOver.signal()
    try guest.tell("calm")
    let armed = try guest.armed()
    if case .recording = armed.state { _ = try armed.stop(timeout: patience) }
    let all = try guest.box.snapshots()
    #expect(!all.isEmpty)
    #expect(all.areSound)
    #expect(guest.box.names.allSatisfy { $0.hasSuffix(".pb") })
  }

  @Test func `a child that is terminated before it has begun is terminated`() throws {
    let guest = try Obedient("record")
    #expect(try guest.ask("terminate-forks 200") == 0)
  }

  @Test func `a vfork child that allocates leaves its parent's books equal`() throws {
    let guest = try Obedient("record", ["HEAPTAP_EXIT": ""])
    try guest.tell("allocate 3 30")
    let before = try guest.snapshot()
    for _ in 0..<20 { #expect(try guest.tell("vfork /bin/true 500") == "ended 0") }
    let after = try guest.snapshot()
    #expect(after.liveBlocks == before.liveBlocks)
    #expect(after.liveBytes == before.liveBytes)
    #expect([after].areSound)
  }

  @Test func `a vfork child that finds nothing to execute writes no dump`() throws {
    let guest = try Obedient("record")
    #expect(try guest.tell("vfork /nowhere 10") == "ended 127")
    #expect(guest.box.names.isEmpty)
    #expect(guest.end("exit").status == 0)
    #expect(try guest.box.snapshot().header.pid == Int(guest.pid))
  }

  @Test func `a spawned program is traced like its parent, and has its own dump`() throws {
    let guest = try Obedient("record")
    #expect(try guest.tell("spawn exec /bin/true") == "ended 0")
    let child = try guest.box.snapshot()
    #expect(child.header.program == "true")
    #expect(child.header.pid != Int(guest.pid))
    #expect(child.header.isComplete)
  }

  @Test func `a program that replaces another records under the same process number`() throws {
    let guest = try Obedient("record")
    let first = try guest.snapshot()
    let fifo = try Obedient.makeFIFO()
    guest.send("execute \(fifo.path)")
    #expect(try guest.nextAnswer() == "ready \(guest.pid)")
    kill(guest.pid, SIGTERM)
    #expect(guest.guest.finish().signal == SIGTERM)
    let all = try guest.box.snapshots()
    #expect(all.count == 2)
    #expect(all.map(\.header.pid) == [Int(guest.pid), Int(guest.pid)])
    #expect(all.map(\.header.sequence) == [1, 1])
    #expect(
      (all.last?.header.startWallNanoseconds ?? 0) > (first.header.dumpWallNanoseconds ?? .max))
  }

  // MARK: Whose children are traced

  @Test func `children that are not to be traced find the other libraries only`() throws {
    let other = try Programs.build("early_handler.c", ["-O2", "-shared", "-fPIC"])
    for list in [
      "\(Workshop.library):\(other)", "\(other):\(Workshop.library)",
      "\(other) \(Workshop.library)", "\(Workshop.library)",
    ] {
      let guest = try Obedient("1", ["HEAPTAP_CHILDREN": "0", "LD_PRELOAD": list])
      _ = try guest.armed()
      let left = list.contains(other) ? other : ""
      let seen = try guest.tell("environment LD_PRELOAD").trimmingCharacters(in: .whitespaces)
      #expect(seen == "LD_PRELOAD=\(left)")
      let child = try guest.fork()
      #expect(child.facts.threads.count == 1)
      #expect(!child.facts.catches(SIGUSR2))
      let count = try guest.tell(
        "spawn test \"$HEAPTAP\" = 1 && ! grep -q libheaptap /proc/$$/maps")
      #expect(count == "ended 0")
    }
  }

  @Test func `of a command that is run alone, what it becomes is traced and what it starts is not`()
    throws
  {
    let box = try DumpBox()
    let settings = box.environment(
      "record", ["HEAPTAP_CHILDREN": "0", "HEAPTAP_RUN": "\(getpid())"])
    // A shell that starts a program, and then becomes another.
    let result = try run(
      ["/bin/sh", "-c", "/bin/echo child; exec /bin/echo successor"], environment: settings)
    #expect(result.output == "child\nsuccessor\n")
    let all = try box.snapshots()
    #expect(all.map(\.header.program) == ["echo"])
    #expect(all.areSound)
  }

  // MARK: Daemons, and more than one tracer

  @Test func `a daemon that let go of everything still answers`() throws {
    let launcher = try Obedient("1")
    let daemon = try launcher.daemon()
    let armed = try daemon.armed()
    #expect(daemon.facts.threads.filter { $0 == "heaptap" }.count == 1)
    daemon.signal(SIGUSR1)
    try daemon.guest.wait(for: "recording") {
      armed.refresh()
      return armed.state == .recording
    }
    try daemon.tell("allocate 9 90")
    daemon.signal(SIGUSR2)
    let snapshot = try daemon.wait(forDumps: 1)[0]
    #expect(snapshot.liveBytes == 810)
    #expect(snapshot.header.isComplete)
  }

  @Test(.enabled("needs root") { geteuid() == 0 })
  func `a daemon that changes its root and its user dumps where it sees its directory`() throws {
    let root = try Workshop.makeDirectory()
    let guest = try Obedient("1")
    let inside = root.appendingPathComponent(guest.box.directory.path)
    try FileManager.default.createDirectory(at: inside, withIntermediateDirectories: true)
    chmod(root.path, 0o755)
    chown(inside.path, 65534, 65534)
    chmod(inside.path, 0o700)
    _ = try guest.armed()
    try guest.tell("root \(root.path)")
    try guest.tell("user 65534")
    try guest.start()
    try guest.tell("allocate 9 90")
    guest.signal(SIGUSR2)
    func dumps() throws -> [String] {
      try FileManager.default.contentsOfDirectory(atPath: inside.path)
        .filter { $0.hasSuffix(".pb") }
    }
    try guest.guest.wait(for: "a dump below the new root") { try !dumps().isEmpty }
    let file = inside.appendingPathComponent(try dumps()[0])
    let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: file)))
    #expect(snapshot.liveBytes == 810)
    #expect(guest.box.names.isEmpty)
  }

  @Test func `linked and preloaded, there is one tracer`() throws {
    let directory = Workshop.products.path
    let linked = try Programs.build(
      "obedient.c",
      ["-O2", "-g", "-Wl,--no-as-needed", Workshop.library, "-Wl,-rpath,\(directory)"])
    let alone = try Obedient("1", ["LD_PRELOAD": ""], program: linked)
    let both = try Obedient("1", program: linked)
    let copy = try Workshop.makeDirectory().appendingPathComponent("libcopy.so").path
    try FileManager.default.copyItem(atPath: Workshop.library, toPath: copy)
    let renamed = try Obedient("1", ["LD_PRELOAD": "\(Workshop.library) \(copy)"])
    for guest in [alone, both, renamed] {
      _ = try guest.armed()
      #expect(guest.facts.threads.filter { $0 == "heaptap" }.count == 1)
      try guest.start()
      try guest.tell("allocate 10 100")
      try guest.tell("free 4")
      let snapshot = try guest.snapshot()
      #expect(snapshot.liveBlocks == 6 && snapshot.header.totalBlocks == 10)
      try guest.stop()
    }
  }
}
