// SPDX-License-Identifier: Apache-2.0
// Limits: found in every layout of cgroups, by trees that were captured from running kernels.

import CTracerPlatform
import Foundation
import Testing

@testable import TracerCore

/// A tree of the kernel's files: one of `Trees/`, with changes, in a directory of its own.
private final class Tree {
  let root: URL

  init(_ name: String? = nil) throws {
    root = FileManager.default.temporaryDirectory.appendingPathComponent("heaptap-\(UUID())")
    if let name {
      let source = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Trees/\(name)")
      try FileManager.default.copyItem(at: source, to: root)
    }
  }

  deinit { try? FileManager.default.removeItem(at: root) }

  subscript(path: String) -> String {
    get { (try? String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)) ?? "" }
    set {
      let url = root.appendingPathComponent(path)
      try? FileManager.default.createDirectory(
        at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
      try? Data(newValue.utf8).write(to: url)
    }
  }

  func remove(_ path: String) {
    try? FileManager.default.removeItem(at: root.appendingPathComponent(path))
  }

  func withFiles<Result>(_ body: (KernelFiles) -> Result) -> Result {
    var buffer = [UInt8](repeating: 0, count: 8192)
    return buffer.withUnsafeMutableBytes { buffer in
      let path = Array(root.path.utf8)
      return path.withUnsafeBytes { path in
        body(KernelFiles(root: path, buffer: buffer.baseAddress!, capacity: buffer.count))
      }
    }
  }

  /// The own directory and those above it, as they are found.
  var levels: (version: CgroupVersion, directories: [String]) {
    withFiles { files in
      let place = CgroupPlace.find(files)
      var directories: [String] = []
      place.forEachLevel { directory, isOwn in
        #expect(isOwn == directories.isEmpty)
        directories.append(String(decoding: directory, as: UTF8.self))
      }
      return (place.version, directories)
    }
  }

  var look: LimitLook { withFiles { LimitLook.all($0, CgroupPlace.find($0)) } }
}

private func text(_ capacity: Int = 2048, _ body: (inout TextBuffer) -> Void) -> String {
  var bytes = [UInt8](repeating: 0, count: capacity)
  return bytes.withUnsafeMutableBytes {
    var text = TextBuffer($0.baseAddress!, capacity: capacity)
    body(&text)
    return String(decoding: text.bytes, as: UTF8.self)
  }
}

private func describe(_ source: LimitSource) -> String { text { source.append(to: &$0) } }

@Suite struct CgroupTests {
  @Test func `version 2 counts memory.high of a slice further up, where it is less`() throws {
    let tree = try Tree("v2")
    let service = "/sys/fs/cgroup/heavy.slice/snap.service"
    #expect(tree.levels.version == .two)
    #expect(
      tree.levels.directories == [service, "/sys/fs/cgroup/heavy.slice", "/sys/fs/cgroup"])
    #expect(describe(tree.look.nearestSource) == service + "/memory.max")
    #expect(tree.look.nearest.limit == 64 << 20)
    tree["\(service)/memory.max"] = "max\n"
    // Another's limit now, in which this small process has no part worth speaking of.
    #expect(describe(tree.look.nearestSource) != "/sys/fs/cgroup/heavy.slice/memory.high")
    tree["proc/self/status"] = "RssAnon:\t  40960 kB\nRssShmem:\t   0 kB\n"
    #expect(describe(tree.look.nearestSource) == "/sys/fs/cgroup/heavy.slice/memory.high")
    #expect(tree.look.nearest.limit == 300 << 20)
  }

  @Test func `a hybrid host's memory is in version 1, with a lower limit above`() throws {
    let tree = try Tree("hybrid")
    let own = "/sys/fs/cgroup/memory/hosted/7f3a/web.slice/web.service"
    #expect(tree.levels.version == .one)
    #expect(tree.levels.directories.first == own)
    #expect(tree.levels.directories.count == 5)
    #expect(tree.levels.directories.last == "/sys/fs/cgroup/memory")
    #expect(tree.look.nearest.limit == 64 << 20)
    tree["proc/self/status"] = "RssAnon:\t  40960 kB\n"
    #expect(tree.look.nearest.limit == 48 << 20)
    #expect(
      describe(tree.look.nearestSource)
        == "/sys/fs/cgroup/memory/hosted/7f3a/web.slice/memory.limit_in_bytes")
  }

  @Test func `a container's mount upon its host's shows its own directory`() throws {
    let tree = try Tree("container")
    #expect(tree.levels.directories == ["/sys/fs/cgroup/memory"])
    #expect(tree.look.nearest.limit == 64 << 20)
  }

  @Test func `in a cgroup namespace with mounts of outside no file is one's own`() throws {
    let tree = try Tree("namespace")
    #expect(tree.levels.version == .none)
    #expect(tree.levels.directories.isEmpty)
  }

  @Test func `in a cgroup namespace with mounts of its own the root is one's own`() throws {
    let tree = try Tree()
    tree["proc/self/cgroup"] = "0::/\n"
    tree["proc/self/mountinfo"] =
      "5 4 0:29 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n"
    tree["sys/fs/cgroup/memory.max"] = "67108864\n"
    tree["sys/fs/cgroup/memory.high"] = "max\n"
    tree["sys/fs/cgroup/memory.current"] = "1048576\n"
    #expect(tree.look.nearest.limit == 64 << 20)
    #expect(tree.look.nearest.usage == 1 << 20)
  }

  @Test func `controllers that are mounted together, and names with blanks, are understood`() throws
  {
    let tree = try Tree()
    tree["proc/self/cgroup"] = "12:cpu,cpuacct:/x\n7:hugetlb,memory:/a b\n0::/y\n"
    tree["proc/self/mountinfo"] =
      "5 4 0:9 / /m/cpu rw - cgroup cgroup rw,cpu\n"
      + "6 4 0:9 / /m/my\\040mem rw shared:4 master:1 - cgroup cgroup rw,hugetlb,memory\n"
    tree["m/my mem/a b/memory.limit_in_bytes"] = "1048576\n"
    #expect(tree.levels.directories == ["/m/my mem/a b", "/m/my mem"])
  }

  @Test(arguments: ["max", "9223372036854771712", "9223372036854775807", ""])
  func `no limit is none`(spelling: String) throws {
    let tree = try Tree("v2")
    tree["sys/fs/cgroup/heavy.slice/snap.service/memory.max"] = "\(spelling)\n"
    tree["sys/fs/cgroup/heavy.slice/memory.high"] = "\(spelling)\n"
    tree.remove("proc/meminfo")
    let source = describe(tree.look.nearestSource)
    #expect(!source.hasPrefix("/sys"), "\(source)")
  }

  @Test func `files that are missing or make no sense leave no limit, and no crash`() throws {
    let tree = try Tree()
    #expect(tree.levels.version == .none)
    tree["proc/self/cgroup"] = "nonsense\n::\n4:memory\n0::\n:::::\n\n"
    tree["proc/self/mountinfo"] = "\n- - -\n1 2 3\n36 25 0:32 / - cgroup2 cgroup2 rw\n"
    tree["proc/self/status"] = "VmSize: kB\nRssAnon:\nVmSwap: 99999999999999999999999 kB\n"
    tree["proc/meminfo"] = "MemTotal: 0 kB\nMemAvailable: 12 kB\n"
    _ = tree.levels
    _ = tree.look
  }

  // MARK: Usage

  private func usage(
    _ version: CgroupVersion, _ files: [String: String], limit: UInt64,
    exactFrom: UInt64 = CgroupUsage.exactFrom
  ) throws -> UInt64? {
    let tree = try Tree()
    for (name, contents) in files { tree["g/\(name)"] = contents }
    return tree.withFiles { files in
      Array("/g".utf8).withUnsafeBytes {
        CgroupUsage.read(files, version, $0, limit, exactFrom: exactFrom)
      }
    }
  }

  @Test func `what the kernel can take back does not count`() throws {
    let one = [
      "memory.usage_in_bytes": "1000000\n",
      "memory.stat":
        "cache 5\ninactive_file 7\ntotal_cache 600000\ntotal_inactive_file 300000\ntotal_active_file 200000\n",
    ]
    #expect(try usage(.one, one, limit: 1_200_000) == 500_000)
    let two = [
      "memory.current": "1000000\n",
      "memory.stat":
        "anon 1\nfile 600000\ninactive_file 300000\nactive_file 200000\nslab_reclaimable 50000\nslab_unreclaimable 60000\n",
    ]
    #expect(try usage(.two, two, limit: 1_200_000) == 450_000)
    // Far from the limit the cheaper file is enough.
    #expect(try usage(.two, two, limit: 4_000_000) == 1_000_000)
    // But not where a mark is that low.
    #expect(try usage(.two, two, limit: 4_000_000, exactFrom: 20) == 450_000)
    #expect(try usage(.two, [:], limit: 1) == nil)
    // More to take back than there is: two files of two moments.
    let odd = ["memory.current": "1000\n", "memory.stat": "active_file 5000\n"]
    #expect(try usage(.two, odd, limit: 1000) == 0)
  }

  @Test func `a process whose main thread has ended has its memory all the same`() throws {
    let tree = try Tree()
    // As proc shows a zombie, and a thread that goes on.
    tree["proc/self/status"] = "Name: p\nState: Z (zombie)\n"
    tree["proc/thread-self/status"] = "State: R (running)\nVmSize: 9 kB\nRssAnon: 3 kB\n"
    let own = tree.withFiles { OwnMemory.read($0) }
    #expect(own.addressSpace == 9 << 10 && own.unreclaimable == 3 << 10)
  }

  @Test func `the host counts for a process that is a large part of it`() throws {
    let tree = try Tree()
    tree["proc/meminfo"] = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 100 kB\n"
    tree["proc/self/status"] = "RssAnon: 200 kB\n"
    #expect(describe(tree.look.nearestSource) != "/proc/meminfo")
    tree["proc/self/status"] = "RssAnon: 200 kB\nVmSwap: 60 kB\n"
    #expect(describe(tree.look.nearestSource) == "/proc/meminfo")
    #expect(tree.look.nearest.thousandths == 900)
  }
}

@Suite struct CrossingTests {
  private static let second: UInt64 = 1_000_000_000

  private func marks(_ list: String) throws -> LimitMarks {
    try #require(list.withCString { LimitMarks.read($0) })
  }

  private func level(_ percent: UInt64, own: UInt64 = 0) -> Crossings.Level {
    Crossings.Level(thousandths: percent * 10, ownBytes: own)
  }

  @Test func `a mark counts once, and again when usage has fallen ten points below it`() throws {
    let marks = try marks("80%")
    var crossings = Crossings()
    var now = Self.second
    func note(_ percent: UInt64) -> UInt32? {
      now += 100 * Self.second
      return crossings.note(level(percent), marks, now: now)?.percent
    }
    #expect(note(79) == nil)
    #expect(note(80) == 80)
    #expect(note(95) == nil)
    #expect(note(71) == nil)
    #expect(note(81) == nil)
    #expect(note(69) == nil)
    #expect(note(81) == 80)
  }

  @Test func `a mark counts once a minute`() throws {
    let marks = try marks("80%")
    var crossings = Crossings()
    #expect(crossings.note(level(85), marks, now: 100 * Self.second) != nil)
    #expect(crossings.note(level(10), marks, now: 110 * Self.second) == nil)
    #expect(crossings.note(level(85), marks, now: 120 * Self.second) == nil)
    // Still there when the minute is over: it is not forgotten.
    #expect(crossings.note(level(85), marks, now: 160 * Self.second) != nil)
  }

  @Test func `of marks that are crossed at once the highest is told, and each but once`() throws {
    let marks = try marks("70%,90%,80%")
    var crossings = Crossings()
    #expect(crossings.note(level(85), marks, now: Self.second)?.percent == 80)
    #expect(crossings.note(level(89), marks, now: 2 * Self.second) == nil)
    #expect(crossings.isWaiting(marks))
    #expect(crossings.note(level(90), marks, now: 3 * Self.second)?.percent == 90)
    #expect(!crossings.isWaiting(marks))
  }

  @Test func `of sizes that are crossed at once the largest is told`() throws {
    let marks = try marks("1M,3M,2M")
    var crossings = Crossings()
    #expect(crossings.note(level(5, own: 1 << 30), marks, now: Self.second)?.bytes == 3 << 20)
  }

  @Test func `the lowest share among all marks is known, and 100 where none is one`() throws {
    var start = LimitMark()
    #expect(try marks("80%,40%,1M").lowestPercent(and: start) == 40)
    #expect(try marks("1M").lowestPercent(and: start) == 100)
    start.percent = 30
    #expect(try marks("80%,40%,1M").lowestPercent(and: start) == 30)
  }

  @Test func `a size is the process's own`() throws {
    let marks = try marks("1G")
    var crossings = Crossings()
    #expect(crossings.note(level(99, own: 1 << 29), marks, now: Self.second) == nil)
    #expect(crossings.note(level(5, own: 1 << 30), marks, now: Self.second)?.bytes == 1 << 30)
    #expect(crossings.note(level(5, own: 1 << 30), marks, now: 99 * Self.second) == nil)
  }

  @Test func `recording that begins above all marks has one more, halfway to the limit`() throws {
    let marks = try marks("80%")
    var crossings = Crossings()
    #expect(crossings.note(level(84), marks, now: Self.second) != nil)
    #expect(!crossings.isWaiting(marks))
    crossings.recordingBegan(at: 840, marks)
    #expect(crossings.isWaiting(marks))
    #expect(crossings.note(level(91), marks, now: 2 * Self.second) == nil)
    #expect(crossings.note(level(92), marks, now: 3 * Self.second)?.percent == 92)
    #expect(crossings.note(level(93), marks, now: 4 * Self.second) == nil)
    #expect(!crossings.isWaiting(marks))
  }

  @Test func `the mark to start at is apart from the others`() throws {
    let marks = try marks("80%")
    var start = LimitMark()
    start.percent = 60
    var crossings = Crossings()
    let crossed = [59, 60, 61].map { crossings.noteStart(level($0), start, now: Self.second) }
    #expect(crossed == [false, true, false])
    #expect(crossings.isWaiting(marks))
    let unset = crossings.noteStart(level(99), LimitMark(), now: Self.second)
    #expect(!unset)
  }

  @Test(arguments: ["80%", "1%", "100%", "512M", "3G", "7K", "2T"])
  func `a mark is told as it was given`(text spelling: String) throws {
    let marks = try marks(spelling)
    let told = text { marks[0].describe(into: &$0) }
    #expect(told == spelling)
  }

  // MARK: Pace

  @Test func `the nearer the limit and the faster the growth, the shorter the sleep`() {
    var pace = GrowthPace()
    // 1 GB/s is reckoned with before anything was seen: half of the headroom at twice of that.
    #expect(pace.sleepNanoseconds(headroom: 200_000_000) == 100_000_000)
    #expect(pace.sleepNanoseconds(headroom: 1 << 40) == 1_000_000_000)
    #expect(pace.sleepNanoseconds(headroom: 0) == 1_000_000)
    pace.note(1_000_000_000, usage: 0)
    pace.note(1_010_000_000, usage: 50_000_000)  // 5 GB/s
    #expect(pace.sleepNanoseconds(headroom: 200_000_000) == 20_000_000)
    pace.reset()
    #expect(pace.sleepNanoseconds(headroom: 200_000_000) == 100_000_000)
  }

  @Test func `the rate follows the growth of the last moments`() {
    var pace = GrowthPace()
    var now: UInt64 = 1_000_000_000
    for step in 0..<50 {
      pace.note(now, usage: UInt64(step) * 1_000_000)
      now += 10_000_000
    }
    #expect((95_000_000...105_000_000).contains(pace.rate))
    pace.note(now + 1_000_000_000, usage: 10)
    #expect(pace.rate < 5_000_000)
  }

  @Test func `another limit's usage is no growth`() {
    var pace = GrowthPace()
    pace.note(1_000_000_000, usage: 1_000_000_000, limitNumber: 1)
    // Of the host, and back: each is nearest for a moment.
    pace.note(1_010_000_000, usage: 60_000_000_000, limitNumber: 2)
    pace.note(1_020_000_000, usage: 1_010_000_000, limitNumber: 1)
    pace.note(1_030_000_000, usage: 1_020_000_000, limitNumber: 1)
    #expect(pace.rate < 1_000_000_000)
    #expect(pace.sleepNanoseconds(headroom: 200_000_000) == 100_000_000)
  }

  @Test func `threads do not wake the worker again for what was given back`() {
    let step = GrowthPace.wakeStep(headroom: 64 << 20)
    let first = GrowthPace.wakeMark(last: 0, published: 5 << 20, headroom: 64 << 20)
    #expect(first == 5 << 20 + step)
    // Woken, and more than that is there: the next mark is further on.
    #expect(
      GrowthPace.wakeMark(last: first, published: 7 << 20, headroom: 64 << 20) == 7 << 20 + step)
    // Woken, and it is gone already: not before the worker has slept.
    #expect(GrowthPace.wakeMark(last: first, published: 5 << 20, headroom: 64 << 20) == 0)
  }

  @Test func `a limit's name is written so that it forges no line`() {
    var source = LimitSource()
    source.set { $0.append("/mnt\n/memory.max") }
    let told = text { source.append(to: &$0) }
    #expect(told == "/mnt?/memory.max")
  }

  @Test func `figures of any size are arithmetic, and no trap`() {
    var pace = GrowthPace()
    for (now, usage) in [(0, 0), (1, UInt64.max), (UInt64.max, 0), (5, UInt64.max)] {
      pace.note(now, usage: usage)
    }
    _ = pace.sleepNanoseconds(headroom: UInt64.max)
    #expect(GrowthPace.wakeStep(headroom: UInt64.max) == 1 << 40)
    #expect(GrowthPace.wakeStep(headroom: 0) == 65536)
    var reading = LimitReading()
    reading.limit = 1
    reading.usage = UInt64.max
    #expect(reading.thousandths == 10_000 && reading.headroom == 0)
  }
}
