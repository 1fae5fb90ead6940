// SPDX-License-Identifier: Apache-2.0
// Near a real limit: there is a dump before the kernel's kill, and none for nothing.

import Foundation
import HeapModel
import Pprof
import Symbolication
import Testing

@Suite(.enabled(MemoryCgroup.whyNot) { MemoryCgroup.isThere }) struct LimitTests {
  private static let mebibyte = 1 << 20

  /// A guest that does as it is told, in a cgroup.
  private static func guest(
    _ mode: String, in cgroup: MemoryCgroup, _ settings: [String: String] = [:],
    box: DumpBox? = nil
  ) throws -> Obedient {
    // The shell on the way into the cgroup is not traced.
    try Obedient(
      mode, settings.merging(["LD_PRELOAD": ""]) { $1 }, box: box,
      prefix: cgroup.command(["/usr/bin/env", "LD_PRELOAD=\(Workshop.library)"]))
  }

  private static func leak(
    _ arguments: [String], in cgroup: MemoryCgroup, _ settings: [String: String] = [:]
  ) throws -> (finished: Finished, box: DumpBox) {
    let box = try DumpBox()
    let environment = box.environment(
      "record", settings.merging(["LD_PRELOAD": "", "HEAPTAP_EXIT": ""]) { $1 })
    let program = try Programs.build("leak.c")
    let finished = try run(
      cgroup.command(["/usr/bin/env", "LD_PRELOAD=\(Workshop.library)", program] + arguments),
      environment: environment)
    return (finished, box)
  }

  /// The line that has the most alive.
  private static func firstLine(_ snapshot: Snapshot) throws -> Statistic.Key {
    let names = Symbolicator(worker: .inProcess)
      .symbolicate(snapshot.distinctFrames, modules: snapshot.modules).frames
    let byFrame = Dictionary(
      zip(snapshot.distinctFrames, names), uniquingKeysWith: { first, _ in first })
    let named = snapshot.replacingFrames { byFrame[$0] ?? [] }.folded()
    return try #require(named.statistics(groupedBy: .line).first).key
  }

  private static let leakingLine: Int? = {
    let path = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/leak.c").path
    let lines = (try? String(contentsOfFile: path, encoding: .utf8))?
      .split(separator: "\n", omittingEmptySubsequences: false)
    return lines?.firstIndex { $0.hasSuffix("/* LEAK */") }.map { $0 + 1 }
  }()

  // MARK: In time

  @Test func `in 50 of 50 runs a whole dump is there before the kill, and names the line`() throws {
    let source = Workshop.package.appendingPathComponent("Tests/GuestTests/Programs/leak.c").path
    let line = try #require(Self.leakingLine)
    for run in 1...50 {
      let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
      let (finished, box) = try Self.leak(["200", "\(Self.mebibyte)"], in: cgroup)
      #expect(finished.signal == SIGKILL, "run \(run): \(finished.errors)")
      #expect(cgroup.killCount == 1, "run \(run)")
      let snapshot = try box.snapshot()
      #expect(snapshot.header.isComplete, "run \(run)")
      #expect(snapshot.header.trigger == "limit")
      #expect(snapshot.header.leftOutSites == nil)
      #expect(try Self.firstLine(snapshot) == .line(file: source, line: line), "run \(run)")
      let header = snapshot.header
      #expect(header.limitBytes == 64 * Self.mebibyte)
      #expect(header.limitSource == cgroup.limitFile)
      #expect(header.limitMark == "80%")
      #expect((header.limitUsageBytes ?? 0) >= 64 * Self.mebibyte / 10 * 8)
    }
  }

  @Test(arguments: ["malloc", "mmap"])
  func `500 MB a second into 256 MiB leave a whole dump`(how: String) throws {
    for _ in 1...3 {
      let cgroup = try MemoryCgroup(limit: 256 * Self.mebibyte)
      let (finished, box) = try Self.leak(["500", "1048576", "0", how], in: cgroup)
      #expect(finished.signal == SIGKILL, "\(finished.errors)")
      let header = try box.snapshot().header
      #expect(header.isComplete && header.trigger == "limit")
      #expect((header.limitRateBytes ?? 0) > 100_000_000)
    }
  }

  @Test func `more threads than processors, with the smallest blocks, leave a whole dump`() throws {
    for _ in 1...3 {
      let cgroup = try MemoryCgroup(limit: 256 * Self.mebibyte)
      let (finished, box) = try Self.leak(["500", "16", "0", "9"], in: cgroup)
      #expect(finished.signal == SIGKILL, "\(finished.errors)")
      let header = try box.snapshot().header
      #expect(header.isComplete && header.trigger == "limit")
    }
  }

  @Test func `a dormant daemon that crosses says how full it is, and what to do`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let guest = try Self.guest("1", in: cgroup)
    try guest.tell("allocate 53 1048576")
    try guest.wait(forMessage: "nothing is being recorded")
    let message = guest.messages(with: "nothing is being recorded")[0]
    #expect(message.contains("% of 64 MiB is used (\(cgroup.limitFile))"))
    #expect(message.contains("resident: ") && message.contains("largest mappings: "))
    #expect(message.contains("'heaptap start \(guest.pid)'"))
    #expect(guest.box.names.isEmpty)
    // Who starts now must not end without a dump: halfway to the limit there is another mark.
    try guest.start()
    try guest.tell("allocate 7 1048576")
    let header = try guest.wait(forDumps: 1)[0].header
    #expect(header.trigger == "limit")
    #expect(header.liveBytes.map { $0 <= 7 * Self.mebibyte } == true)
  }

  @Test func `HEAPTAP_START begins to record by itself, and the later dump holds what grew since`()
    throws
  {
    let cgroup = try MemoryCgroup(limit: 128 * Self.mebibyte)
    let guest = try Self.guest("1", in: cgroup, ["HEAPTAP_START": "50%"])
    try guest.tell("allocate 66 1048576")
    try guest.wait(forMessage: "recording started")
    #expect(guest.messages(with: "HEAPTAP_START=50%").count == 1)
    try guest.tell("allocate 40 1048576")
    let snapshot = try guest.wait(forDumps: 1)[0]
    #expect(snapshot.header.trigger == "limit")
    // The dump is taken on the way, of what was allocated until then.
    #expect(snapshot.liveBytes <= 40 * Self.mebibyte && snapshot.liveBytes > 20 * Self.mebibyte)
  }

  @Test func `where one step has led past every mark and HEAPTAP_START, there is a mark ahead`()
    throws
  {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let guest = try Self.guest("1", in: cgroup, ["HEAPTAP_START": "60%"])
    try guest.wait(forMessage: "armed")
    try guest.tell("allocate 54 1048576")
    try guest.wait(forMessage: "recording has only begun")
    #expect(guest.messages(with: "recording started by HEAPTAP_START=60%").count == 1)
    #expect(guest.box.names.isEmpty)
    try guest.tell("allocate 7 1048576")
    let snapshot = try guest.wait(forDumps: 1)[0]
    #expect(snapshot.header.trigger == "limit" && snapshot.liveBytes > 0)
  }

  @Test func `page cache does not begin a recording, however low the mark is`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let file = try Workshop.makeDirectory().appendingPathComponent("large")
    let guest = try Self.guest("1", in: cgroup, ["HEAPTAP_START": "30%"])
    let filled = try run(
      cgroup.command(["/bin/dd", "if=/dev/zero", "of=\(file.path)", "bs=1M", "count=28"]))
    #expect(filled.status == 0, "\(filled.errors)")
    usleep(2_200_000)
    #expect(guest.messages(with: "recording started").isEmpty)
    try guest.tell("allocate 20 1048576")
    try guest.wait(forMessage: "recording started by HEAPTAP_START=30%")
  }

  @Test func `every mark of a list has its dump`() throws {
    let cgroup = try MemoryCgroup(limit: 100 * Self.mebibyte)
    let guest = try Self.guest("record", in: cgroup, ["HEAPTAP_LIMIT": "40%,60%,30M"])
    try guest.tell("allocate 20 1048576")
    try guest.tell("allocate 12 1048576")
    try guest.wait(forDumps: 1)
    try guest.tell("allocate 8 1048576")
    try guest.wait(forDumps: 2)
    try guest.tell("allocate 21 1048576")
    let marks = try guest.wait(forDumps: 3).map { $0.header.limitMark }
    #expect(marks == ["30M", "40%", "60%"])
  }

  // MARK: Which limit

  @Test func `limits that are raised and lowered are noticed`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let guest = try Self.guest("record", in: cgroup)
    try guest.tell("allocate 40 1048576")
    try cgroup.setLimit(512 * Self.mebibyte)
    // A look at the raised limit, a second at most.
    usleep(1_200_000)
    try guest.tell("allocate 40 1048576")
    usleep(1_200_000)
    #expect(guest.box.names.isEmpty)
    try cgroup.setLimit(96 * Self.mebibyte)
    let header = try guest.wait(forDumps: 1)[0].header
    #expect(header.limitBytes == 96 * Self.mebibyte)
  }

  @Test func `a lower limit further up counts, with what is used there`() throws {
    let cgroup = try MemoryCgroup(
      limit: 512 * Self.mebibyte, parentLimit: 64 * Self.mebibyte)
    let guest = try Self.guest("record", in: cgroup)
    try guest.tell("allocate 53 1048576")
    let header = try guest.wait(forDumps: 1)[0].header
    #expect(header.limitBytes == 64 * Self.mebibyte)
    #expect(header.limitSource == cgroup.limitFile.replacing("/leaf/", with: "/"))
  }

  @Test func `page cache at the limit is no reason for a dump`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let file = try Workshop.makeDirectory().appendingPathComponent("large")
    let guest = try Self.guest("record", in: cgroup)
    try guest.tell("allocate 10 1048576")
    let filled = try run(
      cgroup.command(["/bin/dd", "if=/dev/zero", "of=\(file.path)", "bs=1M", "count=128"]))
    #expect(filled.status == 0, "\(filled.errors)")
    try FileManager.default.removeItem(at: file)
    let again = try run(
      cgroup.command(["/bin/dd", "if=/dev/zero", "of=\(file.path)", "bs=1M", "count=55"]))
    #expect(again.status == 0, "\(again.errors)")
    usleep(2_500_000)
    #expect(guest.box.names.isEmpty)
    try guest.tell("allocate 44 1048576")
    #expect(try guest.wait(forDumps: 1)[0].header.trigger == "limit")
  }

  @Test func `two daemons in one cgroup both dump, and neither removes the other's`() throws {
    let cgroup = try MemoryCgroup(limit: 96 * Self.mebibyte)
    let box = try DumpBox()
    let one = try Self.guest("record", in: cgroup, ["HEAPTAP_KEEP": "1"], box: box)
    let other = try Self.guest("record", in: cgroup, ["HEAPTAP_KEEP": "1"], box: box)
    try one.tell("allocate 40 1048576")
    try other.tell("allocate 40 1048576")
    try one.wait(forDumps: 1)
    try other.wait(forDumps: 1)
    #expect(box.dumps.count == 2)
    for snapshot in try box.snapshots() { #expect(snapshot.header.isComplete) }
  }

  @Test func `a size is of the process's own memory, and needs no limit`() throws {
    let guest = try Obedient("record", ["HEAPTAP_LIMIT": "24M", "HEAPTAP_EXIT": ""])
    try guest.tell("allocate 12 1048576")
    usleep(300_000)
    #expect(guest.box.names.isEmpty)
    try guest.tell("allocate 14 1048576")
    #expect(try guest.wait(forDumps: 1)[0].header.limitMark == "24M")
  }

  @Test func `a limit on the address space is one`() throws {
    let guest = try Obedient(
      "1", ["LD_PRELOAD": ""],
      prefix: [
        "/usr/bin/prlimit", "--as=1073741824", "/usr/bin/env", "LD_PRELOAD=\(Workshop.library)",
      ])
    try guest.start()
    for _ in 0..<12 where guest.box.dumps.isEmpty {
      try guest.tell("allocate 1 67108864")
      usleep(100_000)
    }
    let header = try guest.wait(forDumps: 1)[0].header
    #expect(header.limitSource == "RLIMIT_AS")
    #expect(header.limitBytes == 1 << 30)
  }

  @Test func `switched off, nothing is watched`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let guest = try Self.guest("record", in: cgroup, ["HEAPTAP_LIMIT": "off"])
    try guest.tell("allocate 56 1048576")
    usleep(2_200_000)
    #expect(guest.box.names.isEmpty)
  }

  // MARK: No room

  @Test func `a full disk keeps the largest sites and says how much it left out`() throws {
    let cgroup = try MemoryCgroup(limit: 256 * Self.mebibyte)
    let box = try DumpBox()
    // The disk is a file system of its own in the guest's mount namespace.
    let mount =
      "mount -t tmpfs -o size=64k,mode=700 tmpfs '\(box.directory.path)' && exec \"$@\""
    let guest = try Obedient(
      "record", ["LD_PRELOAD": "", "HEAPTAP_EXIT": ""], box: box,
      prefix: cgroup.command(
        ["/usr/bin/unshare", "-m", "/bin/sh", "-c", mount, "sh"]
          + ["/usr/bin/env", "LD_PRELOAD=\(Workshop.library)"]))
    try guest.tell("plant 3000 1")
    try guest.tell("allocate 205 1048576")
    try guest.wait(forMessage: "written to")
    let seen = URL(fileURLWithPath: "/proc/\(guest.pid)/root\(box.directory.path)")
    let names = try FileManager.default.contentsOfDirectory(atPath: seen.path)
    try #require(names.count == 1 && names[0].hasSuffix(".pb"), "\(names)")
    let bytes = [UInt8](try Data(contentsOf: seen.appendingPathComponent(names[0])))
    let snapshot = try Snapshot(profile: bytes)
    let header = snapshot.header
    #expect(header.isComplete)
    let leftOut = try #require(header.leftOutSites)
    #expect(leftOut > 0 && leftOut < 3000)
    let scanned = try #require(header.scannedBytes)
    #expect(snapshot.liveBytes + (header.leftOutBytes ?? 0) == scanned)
    #expect(snapshot.statistics(groupedBy: .stack)[0].liveBytes > 200 * Self.mebibyte)
  }

  @Test func `where half of what is left is too little, the largest sites are in the dump`() throws
  {
    let cgroup = try MemoryCgroup(limit: 12 * Self.mebibyte)
    let guest = try Self.guest(
      "record", in: cgroup, ["HEAPTAP_LIMIT": "94%", "HEAPTAP_EXIT": ""])
    try guest.tell("plant 16384 1")
    // Slowly: the last step must not go past the limit.
    for _ in 0..<400 where guest.box.dumps.isEmpty {
      try guest.tell("allocate 1 131072")
      usleep(10_000)
    }
    let snapshot = try guest.wait(forDumps: 1)[0]
    #expect(snapshot.header.isComplete)
    #expect((snapshot.header.leftOutSites ?? 0) > 0)
    #expect(
      snapshot.liveBytes + (snapshot.header.leftOutBytes ?? 0) == snapshot.header.scannedBytes)
  }

  @Test func `a directory that is gone costs the dump and not the daemon`() throws {
    let cgroup = try MemoryCgroup(limit: 64 * Self.mebibyte)
    let guest = try Self.guest("record", in: cgroup, ["HEAPTAP_EXIT": ""])
    try FileManager.default.removeItem(at: guest.box.directory)
    try guest.tell("allocate 53 1048576")
    try guest.wait(forMessage: "no such file or directory")
    // What would have been in it is told all the same.
    try guest.wait(forMessage: "grew most:")
    #expect(guest.messages(with: "MiB traced in ").count == 1)
    #expect(try guest.tell("allocate 1 1") == "kept 54")
  }

  // MARK: What is kept

  @Test func `the oldest automatic dumps of this program go, and no others`() throws {
    let cgroup = try MemoryCgroup(limit: 200 * Self.mebibyte)
    let guest = try Self.guest(
      "record", in: cgroup,
      ["HEAPTAP_LIMIT": "10%,20%,30%,40%", "HEAPTAP_KEEP": "2", "HEAPTAP_EXIT": ""])
    let directory = guest.box.directory
    // One that was asked for, older than all; another program's; a file that only looks like one.
    guest.signal(SIGUSR2)
    try guest.wait(forDumps: 1)
    let asked = guest.box.dumps[0]
    let program = try #require(asked.lastPathComponent.split(separator: "Z-").last)
      .split(separator: "-").dropLast(2).joined(separator: "-")
    let old = "20200101T000000.000000Z-\(program)-1-1.pb"
    // A sibling's, of this minute: it may be the one that leaks.
    let recent = "\(asked.lastPathComponent.prefix(24))\(program)-1-1.pb"
    let others = [
      recent,
      "20200101T000000.000000Z-other-\(program)-1-1.pb",
      "20200101T000000.000000Z-\(program)-more-1-1.pb",
      "20200101T000000.000000Z-\(program)-1-1.pb.partial",
      "\(program)-1-1.pb",
    ]
    for name in others + [old] {
      try Data("2\rtrigger=limit".utf8).write(to: directory.appendingPathComponent(name))
    }
    for step in 1...4 {
      try guest.tell("allocate 21 1048576")
      try guest.guest.wait(for: "dump \(step)") {
        guest.messages(with: "written to").count == step + 1
      }
    }
    let names = Set(guest.box.names)
    #expect(names.isSuperset(of: others))
    #expect(names.contains(asked.lastPathComponent))
    #expect(!names.contains(old))
    let automatic = try guest.snapshots().filter { $0.header.trigger == "limit" }
    #expect(automatic.map { $0.header.limitMark } == ["40%"])
  }
}
