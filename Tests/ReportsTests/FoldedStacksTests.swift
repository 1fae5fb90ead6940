// SPDX-License-Identifier: Apache-2.0
// Stacks as tools that draw flame graphs read them.

import HeapModel
import Reports
import Testing

@Suite struct FoldedStacksTests {
  @Test
  func `a line is a stack from its root, and stacks that are not whole have one of their own`() {
    let libz = Module(
      start: 0x7000, limit: 0x9000, fileOffset: 0x1000, path: "/usr/lib/libz.so.1", buildID: "")
    var builder = Snapshot.Builder(header: Header(), modules: [libz])
    let main = Frame(function: "main", file: "m.c", line: 9)
    let open = Frame(function: "Session.open(;)\u{1b}", file: "s.swift", line: 1)
    builder.add(bytes: 10, blocks: 2, stack: [open, main])
    // Another line of the same function is the same stack here.
    builder.add(bytes: 5, stack: [Frame(function: "Session.open(;)\u{1b}", line: 7), main])
    builder.add(bytes: 40, stack: [open], missingFrames: 136)
    builder.add(bytes: 30, stack: [Frame(address: 0x7f30, module: 0), open], isBroken: true)
    builder.add(bytes: 20, stack: [open], missingFrames: 2, isBroken: true)
    builder.add(bytes: 1, stack: [.lostStack])
    builder.add(bytes: 0, blocks: 0, stack: [main])
    let snapshot = builder.finish()
    #expect(
      FoldedStacks(of: snapshot, counting: \.liveBytes).lines == [
        "[truncated];Session.open(,)? 60", "[broken];Session.open(,)?;libz.so.1+0x1f30 30",
        "main;Session.open(,)? 15", "(stack lost) 1",
      ])
    #expect(
      FoldedStacks(of: snapshot, counting: \.liveBlocks).lines.first == "main;Session.open(,)? 3")
  }
}
