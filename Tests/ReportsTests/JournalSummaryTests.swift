// SPDX-License-Identifier: Apache-2.0
// Dumps in the few lines that the journal gets.

import HeapModel
import Testing

@testable import Reports

/// A snapshot of sites by their function's name.
private func snapshot(
  _ sites: [(name: String, bytes: Int, blocks: Int)], header: Header = [:]
) -> Snapshot {
  var builder = Snapshot.Builder(
    header: header,
    modules: [Module(start: 0x1000, limit: 0x9000, fileOffset: 0, path: "/lib/a.so", buildID: "")])
  for site in sites {
    let inner = Frame(
      address: 0x1100, module: 0, function: site.name, file: "\(site.name).c", line: 7)
    let outer = Frame(address: 0x1200, module: 0, function: "main")
    builder.add(bytes: site.bytes, blocks: site.blocks, stack: [inner, outer])
  }
  return builder.finish()
}

@Suite struct `A dump as the journal gets it` {
  private let later: Header = [
    "generation": "3", "complete": "1", "limit_bytes": "\(64 << 20)",
    "limit_usage_bytes": "\(53 << 20)", "limit_source": "/sys/fs/cgroup/memory.max",
  ]

  @Test func `the first line has how much, how much more, and of what limit; then come sites`() {
    let before = snapshot([("steady", 4 << 20, 4), ("leak", 1 << 20, 1)], header: later)
    let now = snapshot([("steady", 4 << 20, 4), ("leak", 3 << 20, 3)], header: later)
    let summary = JournalSummary(of: now, comparedTo: before)
    #expect(
      summary.message == """
        7168 KiB traced in 7 blocks, +2048 KiB since the snapshot before, 83 % of 64.0 MiB \
        (/sys/fs/cgroup/memory.max)
        grew most:
          +2048 KiB in 2 blocks: leak leak.c:7 < main
        largest:
          4096 KiB in 4 blocks: steady steady.c:7 < main
          3072 KiB in 3 blocks: leak leak.c:7 < main
        """)
    #expect(summary.growthBytes == 2 << 20)
    #expect(
      summary.sites == [
        "+2097152 bytes in 2 blocks, 3145728 bytes in 3 blocks live: leak leak.c:7 < main",
        "+0 bytes in 0 blocks, 4194304 bytes in 4 blocks live: steady steady.c:7 < main",
      ])
  }

  @Test func `five that grew most and five that are largest, each told once to programs`() {
    let before = snapshot((0..<9).map { ("s\($0)", 1000 * $0, 1) }, header: later)
    let now = snapshot((0..<9).map { ("s\($0)", 1000 * $0 + 900 - 100 * $0, 2) }, header: later)
    let sites = JournalSummary(of: now, comparedTo: before).sites
    // s0 … s4 grew most, s4 … s8 are largest.
    #expect(sites.count == 9)
    #expect(sites.prefix(5).map { $0.contains("live: s") } == Array(repeating: true, count: 5))
    #expect(sites[0].hasPrefix("+900 bytes in 1 blocks, 900 bytes in 2 blocks live: s0 "))
    #expect(sites[5].contains("live: s8 "))
  }

  @Test func `the first dump of a recording grew from nothing, and its message does not say so`() {
    var header = later
    header["generation"] = "2"
    let summary = JournalSummary(of: snapshot([("a", 500, 1)], header: header), comparedTo: nil)
    #expect(summary.growthBytes == 500)
    #expect(summary.message.hasPrefix("500 B traced in 1 blocks, 83 % of 64.0 MiB "))
    #expect(summary.sites == ["+500 bytes in 1 blocks, 500 bytes in 1 blocks live: a a.c:7 < main"])
  }

  @Test func `without the dump before nothing is said of growth`() {
    let summary = JournalSummary(of: snapshot([("a", 500, 1)], header: later), comparedTo: nil)
    #expect(summary.growthBytes == nil)
    #expect(!summary.message.contains("grew most") && !summary.message.contains("since"))
    #expect(summary.sites == ["500 bytes in 1 blocks live: a a.c:7 < main"])
  }

  @Test func `what is not named is a module's offset, and only told sites are named`() {
    var builder = Snapshot.Builder(
      header: later,
      modules: [Module(start: 0x1000, limit: 0x9000, fileOffset: 0, path: "/a.so", buildID: "")])
    for number in 0..<100 {
      builder.add(
        bytes: 100 - number, stack: [Frame(address: UInt64(0x1100 + number), module: 0)])
    }
    var asked = 0
    let summary = JournalSummary(of: builder.finish(), comparedTo: nil) { few in
      asked = few.distinctFrames.count
      return few
    }
    #expect(asked == 5)
    #expect(summary.sites[0].hasSuffix("live: a.so+0x100"), "\(summary.sites[0])")
  }

  @Test func `deep stacks, lost ones and hostile names fit on a line`() {
    var builder = Snapshot.Builder(header: later, modules: [])
    builder.add(bytes: 3, stack: (0..<20).map { Frame(function: "f\($0)") })
    builder.add(bytes: 2, stack: [Frame.lostStack])
    builder.add(bytes: 1, stack: [Frame(function: "a\nHEAPTAP_PID=1\u{1b}[2J")])
    let sites = JournalSummary(of: builder.finish(), comparedTo: nil).sites
    #expect(sites[0].hasSuffix("live: f0 < f1 < f2 < f3 < f4 < f5 < f6 < f7 < …"))
    #expect(sites[1].hasSuffix("live: (stack lost)"))
    #expect(sites[2].hasSuffix("live: a?HEAPTAP_PID=1?[2J"))
  }
}
