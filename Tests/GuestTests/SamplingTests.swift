// SPDX-License-Identifier: Apache-2.0
// Sampling: estimates are right within their errors, and the program notices nothing.

import Foundation
import HeapModel
import ProcessControl
import Testing

@Suite struct SamplingTests {
  private static let meanBytes = 8192

  private func build() throws -> String {
    try Programs.sampled()
  }

  private func environment(_ box: DumpBox, _ more: [String: String] = [:]) -> [String: String] {
    box.environment("record", ["HEAPTAP_SAMPLE": "8K"].merging(more) { $1 })
  }

  /// What is known of the blocks of one function.
  private struct Books {
    var bytes = 0
    var blocks = 0
    /// Of an estimate of the bytes, and of one of the blocks.
    var variance = (bytes: 0.0, blocks: 0.0)

    init(_ blocks: Int, of size: Int) {
      bytes = blocks * size
      self.blocks = blocks
      let probability = 1 - exp(-Double(size) / Double(meanBytes))
      let ofOne = Double(blocks) * (1 - probability) / probability
      variance = (ofOne * Double(size) * Double(size), ofOne)
    }

    static func + (a: Books, b: Books) -> Books {
      var sum = a
      sum.bytes += b.bytes
      sum.blocks += b.blocks
      sum.variance = (a.variance.bytes + b.variance.bytes, a.variance.blocks + b.variance.blocks)
      return sum
    }

    /// Thousands of samples, so that eight standard errors are missed once in 10^15 times, or say once in
    /// 10^12; and what rounding adds.
    func agree(_ bytes: Int, _ blocks: Int) -> Bool {
      abs(Double(bytes - self.bytes)) <= 8 * variance.bytes.squareRoot() + 1 + 1e-5
        * Double(self.bytes)
        && abs(Double(blocks - self.blocks)) <= 8 * variance.blocks.squareRoot() + 1
          + 1e-4 * Double(self.blocks)
    }
  }

  @Test func `what each function leaves is estimated within its error, by all entries and threads`()
    throws
  {
    let box = try DumpBox()
    let result = try run([build(), "books"], environment: environment(box))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    let header = snapshot.header
    #expect(header.isComplete && header.losses.allSatisfy { $0.count == 0 }, "\(header.losses)")
    #expect(header.sampleBytes == Self.meanBytes)
    let named = snapshot.named()
    let live: [(String, Books)] = [
      ("small", Books(400_000, of: 48)), ("middling", Books(4000, of: 8192)),
      ("large", Books(3, of: 20 << 20)), ("grown", Books(40_000, of: 700)),
      ("aligned", Books(40_000, of: 512)), ("threaded", Books(200_000, of: 100)),
    ]
    var sum = Books(0, of: 1)
    for (function, books) in live {
      let samples = named.samples(through: function)
      let (bytes, blocks) = (samples.sum(\.liveBytes), samples.sum(\.liveBlocks))
      #expect(
        books.agree(bytes, blocks),
        "\(function): \(bytes) of \(books.bytes) in \(blocks) of \(books.blocks)")
      // The error that the dump tells is the one that it must have.
      let told = samples.reduce(0) { $0 + pow(Double($1.liveErrorBytes), 2) }.squareRoot()
      let expected = books.variance.bytes.squareRoot()
      if function != "large" { #expect(told > expected * 0.8 && told < expected * 1.2) }
      sum = sum + books
    }
    #expect(sum.agree(snapshot.liveBytes, snapshot.liveBlocks))
    var total = sum + Books(40_000, of: 10)
    for (function, books) in [
      ("churned", Books(500_000, of: 100)), ("given_back", Books(40_000, of: 600)),
    ] {
      let samples = named.samples(through: function)
      #expect(books.agree(samples.sum(\.totalBytes), samples.sum(\.totalBlocks)), "\(function)")
      let told = samples.reduce(0) { $0 + pow(Double($1.totalErrorBytes), 2) }.squareRoot()
      let expected = books.variance.bytes.squareRoot()
      #expect(told > expected * 0.8 && told < expected * 1.2, "\(function)")
      // But for what its thread is made of.
      #expect(samples.sum(\.liveBlocks) < 10)
      total = total + books
    }
    #expect(total.agree(header.totalBytes ?? 0, header.totalBlocks ?? 0))
    // All that is said of the same is the same.
    #expect(
      snapshot.liveBytes == header.scannedBytes && snapshot.liveBlocks == header.scannedBlocks)
    #expect(abs(snapshot.liveBytes - (header.liveBytes ?? 0)) <= 1)
    #expect(abs(snapshot.liveErrorBytes - (header.liveErrorBytes ?? 0)) < 100)
    #expect(abs(snapshot.totalErrorBytes - (header.totalErrorBytes ?? 0)) < 100)
    #expect(snapshot.samples.reduce(0) { $0 + $1.sampledBlocks } == header.sampledBlocks)
    #expect((header.peakBytes ?? 0) >= snapshot.liveBytes - 1 && header.peakErrorBytes == nil)
    let rows = header.histogram
    #expect(abs(rows.reduce(0) { $0 + $1.bytes } - snapshot.liveBytes) <= rows.count)
    #expect(snapshot.samples.allSatisfy { $0.liveBlocks <= $0.totalBlocks || $0.totalBlocks == 0 })
  }

  @Test(arguments: ["sizes", "family"])
  func `usable sizes, contents and answers are those of the bare program`(what: String) throws {
    let bare = try run([build(), what])
    let box = try DumpBox()
    // Nearly every block of these is one.
    let sampled = try run([build(), what], environment: environment(box, ["HEAPTAP_SAMPLE": "1K"]))
    #expect(bare.status == 0 && sampled.status == 0, "\(bare.errors) \(sampled.errors)")
    #expect(bare.output == sampled.output)
    let snapshot = try box.snapshot()
    #expect((snapshot.header.sampledBlocks ?? 0) > 100)
    #expect(snapshot.header.losses.allSatisfy { $0.count == 0 }, "\(snapshot.header.losses)")
  }

  @Test(arguments: AllocatorTests.Allocator.all)
  func `other allocators, their operators and their sized deletes are sampled too`(
    _ allocator: AllocatorTests.Allocator
  ) throws {
    let program = try Programs.build(
      "allocators.cpp", ["-O1", "-g", "-std=c++17", "-w", "-fno-builtin"])
    let bare = try run(
      [program, "record"],
      environment: allocator.path.isEmpty ? [:] : ["LD_PRELOAD": allocator.path])
    let box = try DumpBox()
    let result = try run(
      [program, "record"],
      environment: environment(box, allocator.environment.merging(["HEAPTAP_SAMPLE": "1K"]) { $1 }))
    #expect(bare.status == 0 && result.status == 0, "\(result.output) \(result.errors)")
    let snapshot = try box.snapshot().named()
    let made = snapshot.samples(through: "(anonymous namespace)::allocate")
    // 328,000 bytes: 320 samples, of which eight standard errors are less than a half.
    let truth = 400 * (1...40).reduce(0, +)
    #expect(abs(made.sum(\.liveBytes) - truth) < truth / 2, "\(made.sum(\.liveBytes))")
    let error = made.reduce(0) { $0 + pow(Double($1.liveErrorBytes), 2) }.squareRoot()
    #expect(error > Double(truth) / 50 && error < Double(truth) / 8)
  }

  @Test func `a block that realloc moves, keeps or refuses to enlarge stays one block of its size`()
    throws
  {
    let box = try DumpBox()
    let result = try run([build(), "reallocated"], environment: environment(box))
    #expect(result.status == 0, "\(result.output) \(result.errors)")
    let named = try box.snapshot().named()
    for (function, books) in [
      ("enlarged", Books(20_000, of: 3000)), ("lessened", Books(20_000, of: 200)),
      ("refused", Books(20_000, of: 1500)),
    ] {
      let samples = named.samples(through: function)
      let (bytes, blocks) = (samples.sum(\.liveBytes), samples.sum(\.liveBlocks))
      #expect(
        books.agree(bytes, blocks),
        "\(function): \(bytes) of \(books.bytes) in \(blocks) of \(books.blocks)")
    }
    #expect(named.samples(through: "emptied").sum(\.liveBlocks) == 0)
  }

  @Test func `blocks of an unloaded plug-in keep its name, whatever took its place`() throws {
    let plugins = try (1...3).map { salt in
      try Programs.build(
        "plugin.cpp", ["-O1", "-g", "-w", "-shared", "-fPIC", "-DSALT=\(salt)", "-DMANY"])
    }
    let host = try Programs.build("host.c", ["-O1", "-g"])
    let box = try DumpBox()
    let result = try run(
      [host] + plugins + plugins, environment: environment(box, ["HEAPTAP_SAMPLE": "1K"]))
    #expect(result.output.hasSuffix("done\n"), "\(result.output) \(result.errors)")
    #expect(Set(result.output.split(separator: "\n")).count < 7, "some were loaded at one place")
    let named = try box.snapshot().named()
    #expect(named.header.losses.allSatisfy { $0.count == 0 }, "\(named.header.losses)")
    var left: [String: (large: Int, small: Int)] = [:]
    for sample in named.samples(through: "plugin_run") {
      let functions = named.functions(of: sample)
      guard
        let place = functions.firstIndex(where: { $0 == "plugin_many" || $0 == "plugin_allocate" })
      else { continue }
      let path = named.module(of: named.stack(of: sample)[place])?.path ?? "?"
      if functions[place] == "plugin_many" {
        left[path, default: (0, 0)].small += sample.liveBytes
      } else if sample.liveBytes > 20_000 {
        left[path, default: (0, 0)].large += sample.liveBytes
      }
    }
    #expect(Set(left.keys) == Set(plugins))
    for (number, plugin) in plugins.enumerated() {
      // 30 times the distance of the samples: each of these is one, and stands for itself.
      #expect(left[plugin]?.large == 30_001 + number + 30_004 + number)
      // Loaded twice: 1,500 samples of 1.6 MB, of which eight standard errors are a fifth.
      #expect(abs((left[plugin]?.small ?? 0) - 1_600_000) < 320_000, "\(left)")
    }
  }

  @Test(
    arguments: zip(AllocatorTests.Allocator.all, ["__libc_free", "sdallocx", "tc_free", "mi_free"]))
  func `samples that are given back unseen are counted as lost once their place is sampled again`(
    _ allocator: AllocatorTests.Allocator, _ function: String
  ) throws {
    let box = try DumpBox()
    let result = try run(
      [Programs.build("unseen.c", ["-O1", "-g"]), function],
      environment: environment(box, allocator.environment.merging(["HEAPTAP_SAMPLE": "1K"]) { $1 }))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    let made = snapshot.named().samples(through: "make")
    // 100,000 bytes, of which 97 are samples.
    #expect(abs(made.sum(\.totalBytes) - 100_777) < 90_000)
    let unseen = try #require(snapshot.header.losses.first { $0.key == "lost.frees" }).count
    let alive = made.reduce(0) { $0 + $1.sampledBlocks }
    // glibc and jemalloc hand the same place out again at once, the others go through a page before.
    if ["glibc", "jemalloc"].contains(allocator.name) {
      #expect(unseen > 20 && alive <= 2, "\(unseen) unseen, \(alive) alive")
    }
    #expect(snapshot.totalBlocks >= snapshot.liveBlocks)
  }

  @Test func `a child of a fork goes on with its parent's estimates, by samples of its own`() throws
  {
    let box = try DumpBox()
    let result = try run([build(), "fork"], environment: environment(box))
    #expect(result.status == 0, "\(result.errors)")
    let all = try box.snapshots().map { $0.named() }
    #expect(all.count == 4)
    let children = all.filter { !$0.samples(through: "in_child").isEmpty }
    #expect(children.count == 3)
    for child in children {
      let (own, parents) = (child.samples(through: "in_child"), child.samples(through: "small"))
      #expect(Books(20_000, of: 1000).agree(own.sum(\.liveBytes), own.sum(\.liveBlocks)))
      #expect(Books(50_000, of: 48).agree(parents.sum(\.liveBytes), parents.sum(\.liveBlocks)))
    }
    // Thousands of samples each: that two have the same ones by chance is out of the question.
    #expect(Set(children.map { $0.samples(through: "in_child").sum(\.liveBytes) }).count > 1)
  }

  @Test func `signals start, write snapshots and stop, and the next recording begins anew`() throws
  {
    let guest = try Obedient("1", ["HEAPTAP_SAMPLE": "4K"])
    for _ in 0..<2 {
      try guest.start()
      try guest.tell("allocate 1000 2000")
      _ = try guest.snapshot()
      try guest.tell("allocate 1000 2000")
      _ = try guest.snapshot()
      try guest.tell("free 2000")
      try guest.stop()
    }
    let all = try guest.snapshots()
    #expect(all.map(\.header.trigger) == ["signal", "signal", "stop", "signal", "signal", "stop"])
    #expect(all.map(\.header.openedGeneration) == [2, 3, 4, 2, 3, 4])
    #expect(all.allSatisfy { $0.header.sampleBytes == 4096 })
    for recording in [all[..<3], all[3...]] {
      let live = recording.map(\.liveBytes)
      // 488 samples of 2 MB: eight standard errors are a third.
      #expect(abs(live[0] - 2_000_000) < 800_000, "\(live)")
      #expect(abs(live[1] - 4_000_000) < 1_300_000, "\(live)")
      #expect(live[2] < 100_000, "\(live)")
      let young = recording[recording.startIndex + 1].samples.filter { $0.generation == 2 }
      #expect(abs(young.sum(\.liveBytes) - 2_000_000) < 800_000)
    }
    // What was before the recording and is gone since is not known, and not made up.
    let header = all[0].header
    #expect(header.beforeFreedBytes == nil && header.beforeRemainingBytes == nil)
    #expect(header.beforeHeapBytes != nil)
    let parts = try #require(header.reconciliation?.parts.map(\.name))
    #expect(parts.contains("before_and_slack") && !parts.contains("before"))
    #expect(header.reconciliation?.unexplainedBytes == 0)
    #expect(guest.messages().contains { $0.contains("frames a stack, one sample in 4096 B") })
  }

  @Test func `a start that would sample at another distance than the program has is told why`()
    throws
  {
    let guest = try Obedient("1", ["HEAPTAP_SAMPLE": "64K"])
    #expect(try guest.tell("sample 4096") == "sampled 0")
    let reason =
      "did not start: the program has sampled one in 4096 B before, HEAPTAP_SAMPLE asks for one in 64 KiB"
    guest.signal(SIGUSR1)
    try guest.wait(forMessage: reason)
    let asked = try run([Workshop.command, "start", "\(guest.pid)"])
    #expect(asked.status == 2 && asked.errors.contains(reason), "\(asked.errors)")
    // What the program asks for and does not get it is told itself, and nobody else.
    #expect(try guest.tell("sample 8192") == "sampled \(EBUSY)")
    #expect(guest.messages(with: "did not start").count == 2)
  }

  @Test func `of samples nobody says that none of them is lost`() throws {
    let guest = try Obedient("1", ["HEAPTAP_LEAKS": "1"])
    #expect(try guest.tell("sample 4096 1") == "sampled 0")
    try guest.tell("allocate 1000 1000")
    #expect(guest.end("exit").status == 0)
    let snapshot = try guest.box.snapshot()
    #expect(snapshot.liveBlocks > 0 && !snapshot.header.hasReach)
    #expect(snapshot.header["reach.problem"]?.contains("few blocks were recorded") == true)
    #expect(guest.messages(with: "leaks were not looked for: few blocks were recorded").count == 1)
  }

  @Test func `the picture of the peak is one of estimates, and temporary blocks are not known`()
    throws
  {
    let box = try DumpBox()
    let result = try run([build(), "books"], environment: environment(box, ["HEAPTAP_PEAK": "1"]))
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    #expect(snapshot.header.temporaryBlocks == nil)
    #expect(throws: Snapshot.GroupingError(.sampledTemporaries)) {
      try snapshot.checkTemporaries(groupedBy: .function)
    }
    // 200 MB are alive at the end, and 24 MB more were for a moment before.
    let peak = try snapshot.atPeak()
    #expect(peak.liveBytes >= snapshot.liveBytes / 10 * 9, "\(peak.liveBytes)")
    #expect(peak.liveBytes <= snapshot.header.peakBytes ?? 0)
    #expect(peak.liveErrorBytes == 0)
    let small = peak.named().samples(through: "small")
    #expect(Books(400_000, of: 48).agree(small.sum(\.liveBytes), small.sum(\.liveBlocks)))
  }

  @Test func `a program starts recordings of samples and of every block, one after the other`()
    throws
  {
    let box = try DumpBox()
    let result = try run([build(), "api"], environment: box.environment("1"))
    #expect(result.status == 0, "\(result.output) \(result.errors)")
  }

  @Test(arguments: [
    (
      ["HEAPTAP_SAMPLE": "100"],
      "HEAPTAP_SAMPLE takes a size from 1K to 1G, such as 512K, or off, not '100'"
    ),
    (["HEAPTAP_SAMPLE": "2T"], "not '2T'"), (["HEAPTAP_SAMPLE": "512KB"], "not '512KB'"),
    (
      ["HEAPTAP_SAMPLE": "512K", "HEAPTAP_LEAKS": "1"],
      "HEAPTAP_LEAKS takes 0 where HEAPTAP_SAMPLE is set, not '1'"
    ),
  ])
  func `what cannot be sampled is refused in one sentence, and the program runs`(
    _ variables: [String: String], _ sentence: String
  ) throws {
    let box = try DumpBox()
    let result = try run(["/bin/true"], environment: box.environment("record", variables))
    #expect(result.status == 0 && box.dumps.isEmpty)
    #expect(result.errors.contains(sentence), "\(result.errors)")
    #expect(result.errors.contains("Heaptap stays off"))
  }

  @Test(arguments: ["off", "0", ""])
  func `to sample nothing is to record everything`(_ value: String) throws {
    let box = try DumpBox()
    let result = try run(
      ["/bin/true"], environment: box.environment("record", ["HEAPTAP_SAMPLE": value]))
    #expect(result.status == 0)
    let snapshot = try box.snapshot()
    #expect(snapshot.header.sampleBytes == nil && snapshot.header.beforeFreedBlocks != nil)
    #expect(snapshot.samples.allSatisfy { $0.liveErrorBytes == 0 && $0.sampledBlocks == 0 })
    #expect(snapshot.samples.allSatisfy { $0.totalErrorBytes == 0 })
  }
}

extension Programs {
  fileprivate static func sampled() throws -> String {
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    return try build("sampled.c", ["-O1", "-g", "-w", "-fno-builtin", "-I\(headers)"])
  }
}

/// The commands, and another tool, on estimates.
@Suite struct SamplingCommandTests {
  private func sampled() throws -> (box: DumpBox, path: String) {
    let box = try DumpBox()
    let program = try Programs.sampled()
    let result = try run(
      [
        Workshop.command, "run", "--sample", "64K", "-o", box.directory.path, "--", program,
        "books",
      ],
      environment: ["HEAPTAP_LIBRARY": Workshop.library, "HEAPTAP_LOG": "off"])
    #expect(result.status == 0, "\(result.errors)")
    return (box, try #require(box.dumps.first).path)
  }

  private func heaptap(_ arguments: String...) throws -> Finished {
    try run([Workshop.command] + arguments)
  }

  @Test func `show, diff, check and JSON say that figures are estimates, and how good they are`()
    throws
  {
    let (box, path) = try sampled()
    defer { withExtendedLifetime(box) {} }
    let other = try sampled()
    let shown = try heaptap("show", "--by", "function", path)
    #expect(shown.output.contains("estimates: by one sample in 64.0 KiB; ± is the standard error"))
    let row = shown.output.split(separator: "\n").first { $0.hasPrefix("small ") }
    #expect(row?.contains(" (±") == true, "\(shown.output) \(shown.errors)")
    let totals = try heaptap("show", "--by", "function", "--sort", "total", path)
    let churned = totals.output.split(separator: "\n").first { $0.hasPrefix("churned ") }
    #expect(churned?.contains(" MiB (±") == true, "\(totals.output)")
    let difference = try heaptap("diff", "--by", "function", path, other.path)
    #expect(difference.output.contains("estimates: by one sample in 64.0 KiB"))
    #expect(difference.output.contains(" ±"), "\(difference.output)")
    let json = try heaptap("show", "--json", path)
    let object = try #require(
      JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
    #expect((object["total"] as? [String: Any])?["live_error_bytes"] as? Int ?? 0 > 0)
    #expect((object["header"] as? [String: Any])?["sample_bytes"] as? String == "65536")
    // 141 MB by 1,200 samples of 64 KiB: the same program twice differs by some 4 MB, and 8 MB may be
    // chance; that it be 24 MB is not.
    let tight = try heaptap("check", path, other.path, "--max-growth", "24M", "--by", "function")
    #expect(tight.status == 0, "\(tight.output)")
    #expect(tight.output.contains("(±"))
    let broken = try heaptap("check", path, "--max-live", "1M")
    #expect(broken.status == 1)
  }

  @Test(.enabled(if: Workshop.find("go") != nil, "go is not installed (golang-go)"))
  func `pprof knows the distance of the samples`() throws {
    let (box, path) = try sampled()
    defer { withExtendedLifetime(box) {} }
    let result = try run(
      [Workshop.find("go")!, "tool", "pprof", "-raw", path],
      environment: ["HOME": Workshop.makeDirectory().path])
    #expect(result.output.contains("PeriodType: space bytes\nPeriod: 65536"), "\(result.errors)")
    // And what symbols are put into keeps it.
    let named = box.directory.appendingPathComponent("named.pb").path
    let symbolized = try heaptap("symbolize", path, "-o", named)
    #expect(symbolized.status == 0, "\(symbolized.errors)")
    let again = try heaptap("show", "--header", named)
    #expect(again.output.contains("sample_bytes=65536"))
  }

  @Test func `a process that samples is listed as one`() throws {
    let guest = try Obedient("1", ["HEAPTAP_SAMPLE": "512K"])
    try guest.start()
    let process = try #require(ProcessTable().armedProcesses().first { $0.pid == guest.pid })
    process.refresh()
    #expect(process.state == .recording && process.counters?.sampleBytes == 512 << 10)
    let listed = try heaptap("list")
    let line = listed.output.split(separator: "\n").first {
      $0.split(separator: " ").first == "\(guest.pid)"
    }
    #expect(line?.contains(" sampling ") == true, "\(listed.output)")
  }

  @Test func `leaks are not looked for among samples`() throws {
    let result = try heaptap("run", "--sample", "512K", "--leaks", "--", "/bin/true")
    #expect(result.status == 64)
    #expect(result.errors.contains("--leaks does not go with --sample"))
    let wrong = try heaptap("run", "--sample", "12", "--", "/bin/true")
    #expect(wrong.status == 64)
    #expect(
      wrong.errors.contains("--sample takes a size from 1K to 1G, such as 512K, or off, not '12'"))
  }
}
