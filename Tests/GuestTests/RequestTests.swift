// SPDX-License-Identifier: Apache-2.0
// What a daemon notices of the tracer, and what it is asked for by signals and by the control page.

import Foundation
import HeapModel
import ProcessControl
import Testing

@Suite struct RequestTests {
  // MARK: Dormant

  @Test func `an armed process has one more thread, and otherwise what it had`() throws {
    let plain = try Obedient("0")
    let armed = try Obedient("1")
    _ = try armed.armed()
    #expect(plain.facts.threads.count == 1)
    #expect(armed.facts.threads.filter { $0 == "heaptap" }.count == 1)
    #expect(armed.facts.threads.count == 2)
    #expect(armed.facts.descriptors.keys.sorted() == plain.facts.descriptors.keys.sorted())
    #expect(!armed.facts.descriptors.values.contains { $0.contains("heaptap-control") })
    #expect(armed.facts.catches(SIGUSR1) && armed.facts.catches(SIGUSR2))
    #expect(!armed.facts.catches(SIGTERM))
    #expect(armed.box.names.isEmpty)
  }

  @Test(arguments: [nil, "0", ""])
  func `what is not asked for takes nothing but its library`(mode: String?) throws {
    let plain = try Obedient(nil, ["LD_PRELOAD": ""])
    let idle = try Obedient(mode)
    #expect(idle.facts.threads == plain.facts.threads)
    #expect(idle.facts.caughtSignals == plain.facts.caughtSignals)
    #expect(idle.facts.descriptors.keys.sorted() == plain.facts.descriptors.keys.sorted())
    #expect(
      idle.facts.mappedFiles.subtracting(plain.facts.mappedFiles).allSatisfy {
        // A program that never allocates has no heap, until the loader is asked for a name.
        $0.hasSuffix("/libheaptap.so") || $0 == "[heap]"
      })
    #expect(idle.facts.tracerResidentBytes == 0)
    // The library's own zeroed memory, and nothing that was mapped at run time.
    #expect(idle.facts.anonymousMappingCount <= plain.facts.anonymousMappingCount + 1)
    #expect(idle.messages().isEmpty)
    #expect(try idle.tell("loader-error") == "none")
  }

  @Test func `a snapshot of a process that does not record writes nothing, and says so`() throws {
    let guest = try Obedient("1")
    guest.signal(SIGUSR2)
    try guest.wait(forMessage: "no snapshot was written: nothing is being recorded")
    #expect(try guest.tell("allocate 1 10") == "kept 1")
    #expect(guest.box.names.isEmpty)
  }

  // MARK: Signals

  @Test func `signals start, write snapshots one after another, and stop`() throws {
    let guest = try Obedient("1")
    try guest.tell("allocate 7 50")
    try guest.start()
    try guest.tell("allocate 10 100")
    let first = try guest.snapshot()
    try guest.tell("allocate 5 1000")
    try guest.tell("free 2")
    let second = try guest.snapshot()
    try guest.stop()
    let all = try guest.snapshots()

    #expect(all.areSound)
    #expect(all.map(\.header.trigger) == ["signal", "signal", "stop"])
    #expect(all.map(\.header.sequence) == [1, 2, 3])
    #expect(all.map(\.header.openedGeneration) == [2, 3, 4])
    #expect(all.map(\.liveBlocks) == [10, 13, 13])
    #expect(first.liveBytes == 1000)
    #expect(second.liveBytes == 4000)
    #expect(first.samples.allSatisfy { $0.generation == 1 })
    let young = second.samples.filter { $0.generation == 2 }
    #expect(young.map(\.liveBytes).reduce(0, +) == 3000)
    #expect(all[2].header.totalBlocks == 15 && all[2].header.freedBlocks == 2)
    // Of one line, in two generations: allocated once all the same.
    #expect(all.map(\.totalBlocks) == [10, 15, 15])
    #expect(all.map(\.totalBytes) == [1000, 6000, 6000])
    // Only what the heap held before recording, which is known by its sum alone.
    #expect((all[0].header.beforeHeapBytes ?? 0) >= 350)
    #expect(all.allSatisfy { $0.header.pid == Int(guest.pid) })
  }

  @Test func `stopping gives the memory back, and the next start begins anew`() throws {
    let guest = try Obedient("1")
    try guest.start()
    try guest.tell("allocate 50000 200")
    let whileRecording = guest.facts.tracerResidentBytes
    try guest.stop()
    let afterwards = guest.facts.tracerResidentBytes
    #expect(whileRecording > 2 << 20, "the ruler measures nothing")
    #expect(afterwards < 256 << 10)

    try guest.start()
    try guest.tell("allocate 3 40")
    try guest.tell("free 1003")
    let again = try guest.snapshot()
    #expect(again.liveBlocks == 0)
    #expect(again.header.totalBlocks == 3)
    #expect(again.header.freedBlocks == 3)
    #expect(again.header.beforeFreedBlocks == 1000)
    #expect((again.header.beforeFreedBytes ?? 0) >= 200_000)
    #expect(again.header.sequence == 2)
    #expect([again].areSound)
  }

  @Test func `a thread that outlives a recording leaves nothing in the next`() throws {
    let guest = try Obedient("1")
    try guest.start()
    try guest.tell("visitor 1000 77")
    try guest.stop()
    // Ends the visitor, with what it had not yet added to its sites.
    try guest.tell("churn 0")
    usleep(100_000)
    try guest.tell("calm")
    try guest.start()
    try guest.tell("allocate 5 10")
    let snapshot = try guest.snapshot()
    #expect(snapshot.totalBlocks == 5)
    #expect(snapshot.totalBytes == 50)
    #expect([snapshot].areSound)
  }

  @Test func `a burst of requests ends in a dump begun after the last of them`() throws {
    let guest = try Obedient("1")
    try guest.start()
    for _ in 0..<300 { guest.signal(SIGUSR2) }
    try guest.tell("allocate 1 4321")
    var now = timespec()
    clock_gettime(CLOCK_REALTIME, &now)
    guest.signal(SIGUSR2)
    let last = Int(now.tv_sec) * 1_000_000_000 + now.tv_nsec
    var dumps: [Snapshot] = []
    try guest.guest.wait(for: "a dump after the last request") {
      dumps = try guest.snapshots()
      return (dumps.last?.header.dumpWallNanoseconds ?? 0) >= last
    }
    #expect(dumps.last?.liveBytes == 4321)
    try guest.stop()
    #expect(try guest.snapshots().areSound)
    #expect(guest.box.names.allSatisfy { $0.hasSuffix(".pb") })
  }

  @Test func `starts and snapshots in any order under load leave whole dumps and right answers`()
    throws
  {
    let guest = try Obedient("1")
    try guest.tell("churn 4")
    for round in 0..<400 {
      guest.signal(round % 3 == 0 ? SIGUSR1 : SIGUSR2)
      if round % 7 == 0 { usleep(3000) }
    }
    #expect(try guest.ask("forks 100") == 0)
    try guest.tell("calm")
    // Whatever state the storm left: start, and count from there.
    let armed = try guest.armed()
    if case .recording = armed.state { _ = try armed.stop(timeout: patience) }
    _ = try armed.start(timeout: patience)
    try guest.tell("allocate 11 22")
    _ = try armed.snapshot(timeout: patience)
    let all = try guest.snapshots()
    #expect(all.areSound)
    #expect(all.last?.liveBlocks == 11 && all.last?.liveBytes == 242)
    #expect(guest.box.names.allSatisfy { $0.hasSuffix(".pb") })
  }

  @Test func `a message that nobody reads keeps no request waiting`() throws {
    let box = try DumpBox()
    let fifo = try Obedient.makeFIFO()
    // A pipe that is full from the start, as standard error.
    var ends: [Int32] = [0, 0]
    #expect(pipe(&ends) == 0)
    _ = fcntl(ends[1], F_SETFL, O_NONBLOCK)
    let filling = [UInt8](repeating: 0x20, count: 65536)
    while write(ends[1], filling, filling.count) > 0 {}
    while write(ends[1], filling, 1) > 0 {}
    _ = fcntl(ends[1], F_SETFL, 0)
    let idle = open("/dev/null", O_RDWR | O_CLOEXEC)
    let pid = try Guest.spawn(
      [try Programs.build("obedient.c"), fifo.path],
      box.environment("record").map { "\($0)=\($1)" }, [idle, idle, ends[1]])
    defer {
      kill(pid, SIGKILL)
      waitpid(pid, nil, 0)
    }
    let end = Date().addingTimeInterval(20)
    var armed: ArmedProcess?
    while armed?.counters == nil, Date() < end {
      usleep(10_000)
      armed = try? ProcessTable().processes(.pid(pid)).first
    }
    // The handlers are there before the page is.
    while box.dumps.isEmpty, Date() < end {
      kill(pid, SIGUSR2)
      usleep(100_000)
    }
    #expect(!box.dumps.isEmpty)
    close(ends[0])
    close(ends[1])
  }

  // MARK: The control page

  @Test func `the page starts, snapshots and stops, any number of times`() throws {
    let guest = try Obedient("1")
    let armed = try guest.armed()
    #expect(armed.state == .dormant)
    #expect(armed.counters?.signals == "USR1,USR2")
    #expect(armed.counters?.depthLimit == 64)
    #expect(throws: ProcessControlError.self) { try armed.snapshot(timeout: patience) }

    guard case .started = try armed.start(timeout: patience),
      case .wasRecording = try armed.start(timeout: patience)
    else { throw GuestError("two starts are not a start and nothing") }
    #expect(armed.state == .recording)
    try guest.tell("allocate 100 30")
    armed.refresh(timeout: patience)
    #expect(armed.counters?.liveBlocks == 100)
    #expect(armed.counters?.liveBytes == 3000)
    #expect((armed.counters?.peakBytes ?? 0) >= 3000)
    #expect((armed.counters?.tracerBytes ?? 0) > 0)

    let first = try armed.snapshot(timeout: patience)
    #expect(FileManager.default.fileExists(atPath: first))
    let second = try armed.snapshot(timeout: patience)
    #expect(first != second)
    guard case .stopped(let dump?, nil) = try armed.stop(timeout: patience) else {
      throw GuestError("stopped without a dump")
    }
    #expect(dump != second)
    #expect(try armed.stop(timeout: patience) == .wasDormant)
    #expect(armed.state == .dormant)
    #expect(armed.counters?.snapshotCount == 3)
    let all = try guest.snapshots()
    #expect(all.areSound)
    #expect(all.map(\.header.trigger) == ["control", "control", "stop"])
  }

  @Test func `the page interrupts nothing, where a signal interrupts every wait`() throws {
    let guest = try Obedient("1")
    let armed = try guest.armed()
    try guest.tell("nap")
    for _ in 0..<10 {
      _ = try armed.start(timeout: patience)
      _ = try armed.snapshot(timeout: patience)
      _ = try armed.stop(timeout: patience)
    }
    #expect(try guest.ask("naps") == 0)
    // The counter can count.
    try guest.guest.wait(for: "an interruption by signal") {
      try guest.tell("signal-napper \(SIGUSR2)")
      return try guest.ask("naps") > 0
    }
  }

  @Test func `a daemon that closes every descriptor closes none of the tracer's`() throws {
    let guest = try Obedient("1")
    let armed = try guest.armed()
    try guest.start()
    try guest.tell("close-all")
    try guest.tell("allocate 4 4")
    let path = try armed.snapshot(timeout: patience)
    #expect(FileManager.default.fileExists(atPath: path))
    #expect(try guest.snapshot().liveBlocks == 4)
    #expect(try guest.ask("descriptors") == 4)
  }

  @Test func `a process that gives up its rights still answers`() throws {
    let box = try DumpBox()
    chmod(box.directory.path, 0o1733)
    try #require(getuid() == 0, "only root can give rights up")
    let guest = try Obedient("1", box: box).daemon(user: 65534)
    // Its parent's descriptors are gone, and its messages with them: the dump says enough.
    let armed = try guest.armed()
    _ = try armed.start(timeout: patience)
    try guest.tell("allocate 6 60")
    let path = try armed.snapshot(timeout: patience)
    #expect(path.hasPrefix(box.directory.path + "/65534/"))
    let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: path))))
    #expect(snapshot.liveBlocks == 6)
    #expect(snapshot.header.integer("uid") == 65534)
    #expect(snapshot.header.pid == Int(guest.pid))
    guest.signal(SIGUSR2)
    try guest.guest.wait(for: "a dump by signal") {
      armed.refresh()
      return armed.counters?.snapshotCount == 2
    }
  }

  // MARK: Settings

  @Test(arguments: [
    ("HEAPTAP_DEPTH", "0"), ("HEAPTAP_DEPTH", "-1"), ("HEAPTAP_DEPTH", "1073741824"),
    ("HEAPTAP_DEPTH", "abc"), ("HEAPTAP_DEPTH", "18446744073709551617"),
    ("HEAPTAP_SIGNALS", "USR1,USR1"), ("HEAPTAP_SIGNALS", "USR1"), ("HEAPTAP_SIGNALS", "KILL,USR2"),
    ("HEAPTAP_SIGNALS", "RTMIN+99,USR2"), ("HEAPTAP_DIR", "relative/path"),
    ("HEAPTAP_DIR", "/" + String(repeating: "x", count: 2000)), ("HEAPTAP_LOG", "x"),
    ("HEAPTAP", "2"), ("HEAPTAP_EXIT", "x"), ("HEAPTAP_CHILDREN", "2"), ("HEAPTAP_RUN", "me"),
  ])
  func `a setting that says nothing sensible is told once, and changes nothing`(
    name: String, value: String
  ) throws {
    let box = try DumpBox()
    let plain = try run(["/bin/sh", "-c", "echo out; exit 3"])
    let result = try run(
      ["/bin/sh", "-c", "echo out; exit 3"], environment: box.environment("record", [name: value]))
    #expect(result.status == plain.status)
    #expect(result.output == plain.output)
    let lines = result.errors.split(separator: "\n")
    #expect(lines.count == 1)
    #expect(lines.first?.contains("\(name) takes ") == true)
    #expect(lines.first?.hasSuffix("Heaptap stays off") == true)
    #expect(box.names.isEmpty)

    let guest = try Obedient("1", [name: value])
    #expect(guest.facts.threads.count == 1)
    #expect(!guest.facts.catches(SIGUSR1))
  }

  @Test(arguments: ["1", "record"])
  func `a bad setting is told where the log goes, in whatever order they come`(mode: String)
    throws
  {
    // env(1) keeps the order in which it is given the variables.
    let bad = try run([
      "/usr/bin/env", "-i", "LD_PRELOAD=\(Workshop.library)", "HEAPTAP=\(mode)", "HEAPTAP_DEPTH=x",
      "HEAPTAP_LOG=off", "/bin/true",
    ])
    #expect(bad.status == 0)
    #expect(bad.errors == "")
  }

  @Test func `a program with raised rights takes no settings from its user`() throws {
    try #require(getuid() == 0, "only root can make a setuid program")
    let directory = try Workshop.makeDirectory()
    chmod(directory.path, 0o755)
    let library = directory.appendingPathComponent("libheaptap.so").path
    try FileManager.default.copyItem(atPath: Workshop.library, toPath: library)
    let program = try Programs.build(
      "obedient.c", ["-O2", "-g", "-Wl,--no-as-needed", library, "-Wl,-rpath,\(directory.path)"])
    let raised = directory.appendingPathComponent("raised").path
    // By another process: a child that one of ours makes meanwhile would have the file open for writing.
    #expect(try run(["/usr/bin/install", "-m", "755", program, raised]).status == 0)
    chmod(library, 0o755)
    let nobody = ["/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    let settings = ["HEAPTAP": "1", "HEAPTAP_LOG": "stderr", "LD_PRELOAD": ""]

    let plain = try Obedient("1", settings, program: raised, prefix: nobody)
    try plain.wait(forMessage: "armed, dormant")
    chmod(raised, 0o4755)
    let silent = try Obedient("1", settings, program: raised, prefix: nobody)
    #expect(silent.facts.threads.count == 1)
    #expect(!silent.facts.catches(SIGUSR1))
    #expect(silent.guest.errorsSoFar == "")
  }
}
