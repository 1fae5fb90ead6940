// SPDX-License-Identifier: Apache-2.0
// What was alive when the heap was largest, in dumps of later.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite struct PeakTests {
  /// A program that asks the tracer by itself, in a box of dumps: at its top, after it, and after a peak begun anew.
  private func record(_ settings: [String: String] = ["HEAPTAP_PEAK": "1"]) throws -> DumpBox {
    let box = try DumpBox()
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    let program = try Programs.build("peak.c", ["-O1", "-g", "-fno-builtin", "-I\(headers)"])
    let result = try run([program], environment: box.environment("1", settings))
    #expect(result.output == "done\n", "\(result.status) \(result.errors)")
    return box
  }

  private func expectPicture(
    _ snapshot: Snapshot, bytes: Int, blocks: Int, sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let picture = try #require(snapshot.header.peakPicture, sourceLocation: sourceLocation)
    #expect(picture.bytes == bytes && picture.blocks == blocks, sourceLocation: sourceLocation)
    #expect(snapshot.samples.sum(\.peakBytes) == bytes, sourceLocation: sourceLocation)
    #expect(snapshot.samples.sum(\.peakBlocks) == blocks, sourceLocation: sourceLocation)
    let peak = try snapshot.atPeak()
    #expect(peak.liveBytes == bytes && peak.liveBlocks == blocks, sourceLocation: sourceLocation)
    #expect(peak.header.scannedBytes == bytes, sourceLocation: sourceLocation)
  }

  @Test func `a dump at the top is the picture, and those after it have it too`() throws {
    let snapshots = try record().snapshots().map { $0.named() }
    let (top, base, again) = (snapshots[0], snapshots[1], snapshots[2])
    try expectPicture(top, bytes: top.liveBytes, blocks: top.liveBlocks)
    #expect(top.samples(through: "top").sum(\.peakBlocks) == 1000)
    try expectPicture(base, bytes: top.liveBytes, blocks: top.liveBlocks)
    #expect(base.samples(through: "top").sum(\.peakBytes) == 1_000_000)
    #expect(base.samples(through: "top").sum(\.liveBytes) == 0)
    #expect(base.samples(through: "base").sum(\.peakBytes) == 0)
    // Begun anew, it is what was alive when it was, or what came then.
    let picture = try #require(again.header.peakPicture)
    #expect(picture.bytes < 1_000_000 && again.samples(through: "top").sum(\.peakBlocks) == 20)
    #expect(again.header.peakBytes ?? 0 >= picture.bytes)
  }

  @Test func `the tracer's thread takes the picture while nobody asks`() throws {
    let guest = try Obedient("1", ["HEAPTAP_PEAK": "1"])
    try guest.start()
    try guest.tell("allocate 100 50")
    // On a busy machine the thread may come late: longer each time.
    var hold: UInt32 = 1000
    var last: Snapshot?
    try guest.guest.wait(for: "a picture of the top") {
      try guest.tell("allocate 5000 1000")
      usleep(hold)
      try guest.tell("free 5000")
      hold = min(2 * hold, 2_000_000)
      last = try guest.snapshot()
      return last!.header.peakPicture!.bytes > 4_000_000
    }
    let snapshot = try #require(last).named()
    let (picture, peak) = try (
      #require(snapshot.header.peakPicture), #require(snapshot.header.peakBytes)
    )
    #expect(peak == 5_005_000)
    #expect(picture.bytes <= peak)
    #expect(snapshot.liveBytes == 5000)
    #expect(snapshot.samples.sum(\.peakBytes) == picture.bytes)
    #expect(snapshot.samples.sum(\.peakBlocks) == picture.blocks)
    try expectPicture(snapshot, bytes: picture.bytes, blocks: picture.blocks)
    #expect(picture.monotonicNanoseconds >= snapshot.header.startMonotonicNanoseconds ?? .max)

    // A child has its parent's past, and goes on from there.
    let child = try guest.fork()
    try expectPicture(try child.snapshot(), bytes: picture.bytes, blocks: picture.blocks)
    try child.tell("allocate 20000 1000")
    let grown = try child.snapshot()
    try expectPicture(grown, bytes: grown.liveBytes, blocks: grown.liveBlocks)

    // A recording that begins knows nothing of the one before.
    try guest.stop()
    try guest.start()
    try guest.tell("allocate 10 100")
    let fresh = try guest.snapshot()
    try expectPicture(fresh, bytes: fresh.liveBytes, blocks: fresh.liveBlocks)
    #expect(fresh.liveBytes < 5000)
  }

  @Test func `blocks that a program tracks by itself are not in the picture`() throws {
    let box = try DumpBox()
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    let program = try Programs.build("interface.c", ["-O1", "-g", "-I\(headers)"])
    let result = try run([program], environment: box.environment("1", ["HEAPTAP_PEAK": "1"]))
    #expect(result.status == 0, "\(result.errors)")
    let snapshots = try box.snapshots()
    #expect(!snapshots.isEmpty)
    for snapshot in snapshots {
      #expect(snapshot.header.peakPicture?.bytes ?? .max <= snapshot.header.peakBytes ?? 0)
      #expect(snapshot.samples.sum(\.peakBytes) == snapshot.header.peakPicture?.bytes)
    }
  }

  @Test func `unasked, dumps have four values and no picture`() throws {
    let box = try record([:])
    let dump = try #require(box.dumps.first).path
    let snapshot = try #require(box.snapshots().first)
    #expect(
      snapshot.header.peakPicture == nil && snapshot.header.entries(withPrefix: "peak.").isEmpty)
    let shown = try heaptap(["show", "--peak", dump])
    #expect(shown.status == 2 && shown.output.isEmpty)
    #expect(
      shown.errors
        == "heaptap: the dump does not say what was alive at the peak, record with HEAPTAP_PEAK=1 or "
        + "'heaptap run --peak'\n")
  }

  @Test func `show and diff --peak, and pprof, have the top`() throws {
    let box = try record()
    let (first, second, last) = (box.dumps[0].path, box.dumps[1].path, box.dumps[2].path)
    let shown = try heaptap(["show", "--peak", "--by", "function", second])
    #expect(
      shown.output.hasPrefix("top (")
        && shown.output.contains("): size=977 KiB, count=1000, average=1000 B\n"), "\(shown.output)"
    )
    #expect(shown.output.contains("are known by stack ("), "\(shown.output)")

    let json = try heaptap(["show", "--peak", "--json", "--by", "function", second])
    let report = try #require(
      JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
    #expect(report["moment"] as? String == "peak")
    let rows = try #require(report["rows"] as? [[String: Any]])
    #expect(rows.first?["live_blocks"] as? Int == 1000)

    let same = try heaptap(["diff", "--peak", "--by", "function", first, second])
    #expect(same.output.contains("): size=977 KiB (+0 B), count=1000 (+0)"), "\(same.output)")
    let less = try heaptap(["diff", "--peak", "--by", "function", first, last])
    #expect(less.output.contains("): size=19.5 KiB (-957 KiB), count=20 (-980)"), "\(less.output)")

    let folded = try heaptap(["show", "--peak", "--format", "folded", second])
    #expect(folded.output.contains(";main;top 1000000\n"), "\(folded.output)")

    let divided = try heaptap(["show", "--peak", "--by", "type", second])
    #expect(divided.status == 2 && divided.errors.contains("counted by stack, not by type"))
    for other in [["--temporary"], ["--reach", "lost"]] {
      #expect(try heaptap(["show", "--peak", second] + other).status == 64)
    }

    for command in ["symbolize", "strip"] {
      let copy = box.directory.appendingPathComponent("\(command).pb").path
      #expect(try heaptap([command, "-o", copy, second]).status == 0)
      let read = try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: copy))))
      #expect(read.samples.sum(\.peakBlocks) == read.header.peakPicture?.blocks)
    }

    if let go = Workshop.find("go") {
      let home = try Workshop.makeDirectory().path
      let pprof = try run(
        [go, "tool", "pprof", "-top", "-sample_index=peak_objects", second],
        environment: ["HOME": home])
      #expect(pprof.output.contains("Type: peak_objects"), "\(pprof.errors)")
      let row = pprof.output.split(separator: "\n").first { $0.hasSuffix(" top") }
      #expect(row?.split(separator: " ").first == "1000", "\(pprof.output)")
      let usual = try run([go, "tool", "pprof", "-top", second], environment: ["HOME": home])
      #expect(usual.output.contains("Type: inuse_space"))
    }
  }

  @Test func `run --peak keeps it`() throws {
    let box = try DumpBox()
    let result = try heaptap([
      "run", "--peak", "-o", box.directory.path, "--", "sh", "-c", "exit 3",
    ])
    #expect(result.status == 3)
    #expect(try box.snapshot().header.peakPicture != nil)
  }

  @Test func `a setting that is neither 0 nor 1 is told, and leaves the tracer off`() throws {
    let box = try DumpBox()
    let result = try run(
      ["/bin/true"], environment: box.environment("record", ["HEAPTAP_PEAK": "yes"]))
    #expect(result.errors.contains("HEAPTAP_PEAK") && result.errors.contains("0 or 1"))
    #expect(box.dumps.isEmpty)
  }

  @Test func `the peak's error is what the most threads at once may hold back`() throws {
    let box = try DumpBox()
    let program = try Programs.build("threads.c", ["-O2", "-g", "-fno-builtin"])
    #expect(try run([program, "cross"], environment: box.environment("record")).status == 0)
    let header = try box.snapshot().header
    // The program's own thread and 64 others, which have ended: 2048 + 1024 + 682 + … down to 256.
    #expect(header.peakErrorBytes == 5564 + 57 * 256)
    let alone = try DumpBox()
    #expect(try run([program, "none"], environment: alone.environment("record")).status == 2)
    #expect(try alone.snapshot().header.peakErrorBytes == 0)
  }
}
