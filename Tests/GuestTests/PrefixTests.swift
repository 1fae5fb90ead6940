// SPDX-License-Identifier: Apache-2.0
// A dump is read from the front: whatever is cut off its end is all that is lost.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite struct PrefixTests {
  private func dump() throws -> [UInt8] {
    let box = try DumpBox()
    let program = try Programs.build("depths.c", ["-O1", "-g"])
    try run([program], environment: box.environment("record"))
    let file = try #require(box.dumps.first)
    return [UInt8](try Data(contentsOf: file))
  }

  @Test func `every prefix of a dump is read with a warning, or refused as cut short`() throws {
    let whole = try dump()
    let snapshot = try Snapshot(profile: whole)
    #expect(snapshot.warnings.isEmpty)
    var (read, live) = (0, 0)
    for count in 0..<whole.count {
      switch Result(catching: { () throws(ProfileError) in try Snapshot(profile: Array(whole[..<count])) })
      {
      case .success(let part):
        read += 1
        // Not whole, and says so, be it by the file's end or by the mark that is missing.
        #expect(!part.header.isComplete, "\(count)")
        #expect(!part.warnings.isEmpty, "\(count)")
        #expect(part.samples == Array(snapshot.samples.prefix(part.samples.count)), "\(count)")
        #expect(part.liveBytes >= live)
        live = part.liveBytes
      case .failure(let error):
        // In front of the sample types, nothing says that it is a profile of a heap.
        let allowed: [ProfileError.Code] = read == 0 ? [.truncated, .empty, .notHeapProfile] : []
        #expect(allowed.contains(error.code), "\(count): \(error)")
      }
    }
    #expect(read > whole.count / 2)
    #expect(live == snapshot.liveBytes)
  }

  @Test func `the stacks with the most live bytes come first`() throws {
    let box = try DumpBox()
    let program = try Programs.build("family.c", ["-O2", "-g", "-fno-builtin"])
    try run([program], environment: box.environment("record"), input: "a line\n")
    let snapshot = try box.snapshot()
    let sizes = snapshot.samples.map(\.liveBytes)
    #expect(sizes.count > 16)
    #expect(sizes == sizes.sorted(by: >))
  }
}
