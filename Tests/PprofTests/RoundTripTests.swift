// SPDX-License-Identifier: Apache-2.0
// What was written is read again, whole or cut anywhere.

import HeapModel
import Pprof
import Testing

@Suite struct RoundTripTests {
  @Test func `everything comes back`() throws {
    let snapshot = everything()
    let again = try Snapshot(profile: snapshot.profileBytes())
    #expect(again == snapshot)
    #expect(again.warnings.isEmpty)
    #expect(again.header == snapshot.header)
    #expect(again.modules == snapshot.modules)
    for (ours, theirs) in zip(again.samples, snapshot.samples) {
      #expect(Array(again.stack(of: ours)) == Array(snapshot.stack(of: theirs)))
      #expect(again.stack(of: ours).totalFrameCount == snapshot.stack(of: theirs).totalFrameCount)
    }
  }

  @Test func `tracemalloc's fixture comes back, with domains and whole depths`() throws {
    for snapshot in [FixtureA.earlier, FixtureA.later] {
      let again = try Snapshot(profile: snapshot.profileBytes())
      #expect(again == snapshot)
      #expect(again.header.depthLimit == 2)
      #expect(again.stack(of: again.samples[0]).totalFrameCount == 3)
      #expect(again.samples.map(\.domain) == snapshot.samples.map(\.domain))
    }
  }

  @Test func `what happens to the snapshot afterwards is not in the file`() throws {
    var snapshot = FixtureA.earlier
    let bytes = snapshot.profileBytes()
    snapshot.samples.removeAll()
    #expect(try Snapshot(profile: bytes).samples.count == 6)
  }

  @Test func `notes of one's own come back`() throws {
    var snapshot = FixtureA.earlier
    snapshot.header["note"] = "before the deploy, λ=3"
    let again = try Snapshot(profile: snapshot.profileBytes())
    #expect(again.header["note"] == "before the deploy, λ=3")
  }

  @Test func `writing what was read gives the same bytes`() throws {
    let bytes = everything().profileBytes()
    #expect(try Snapshot(profile: bytes).profileBytes() == bytes)
  }

  @Test func `a filtered snapshot takes only its own frames along`() throws {
    let filtered = FixtureA.earlier.filtered(.file("b.py"))
    let again = try Snapshot(profile: filtered.profileBytes())
    #expect(again == filtered)
    #expect(again.distinctFrames == FixtureA.b1)
  }

  @Test func `an empty heap is a profile`() throws {
    var snapshot = Snapshot()
    snapshot.header = ["heaptap": "1", "complete": "1"]
    let again = try Snapshot(profile: snapshot.profileBytes())
    #expect(again == snapshot)
    #expect(again.warnings.isEmpty)
  }

  @Test func `the root of a stack that is not whole is a frame to other tools only`() throws {
    let bytes = everything().profileBytes()
    // What a tool sees that does not know whose profile it is.
    var stranger = try Snapshot(profile: bytes)
    #expect(!stranger.distinctFrames.contains { $0.function?.hasPrefix("[") == true })
    var text = bytes
    let comment = try #require(text.firstRange(of: Array("heaptap=1".utf8)))
    text.replaceSubrange(comment, with: Array("someone=1".utf8))
    stranger = try Snapshot(profile: text)
    let roots = zip(everything().samples, stranger.samples).map { ours, theirs in
      (ours, stranger.stack(of: theirs).last?.function)
    }
    for (sample, root) in roots {
      switch (sample.missingFrames > 0, sample.isBroken) {
      case (true, _): #expect(root == "[truncated]")
      case (false, true): #expect(root == "[broken]")
      case (false, false): #expect(root?.hasPrefix("[") != true)
      }
    }
    #expect(Set(roots.compactMap(\.1)).isSuperset(of: ["[truncated]", "[broken]"]))
  }

  @Test func `a dump cut at any byte is salvaged with a warning, or refused`() throws {
    let whole = everything()
    let bytes = whole.profileBytes()
    var salvagedCounts: [Int] = []
    for end in 0..<bytes.count {
      do {
        let salvaged = try Snapshot(profile: Array(bytes[..<end]))
        #expect(salvaged.warnings.count == 1, "cut at \(end)")
        #expect(salvaged.samples.count <= whole.samples.count)
        for (ours, theirs) in zip(salvaged.samples, whole.samples) {
          #expect(salvaged.stack(of: ours) == whole.stack(of: theirs), "cut at \(end)")
        }
        salvagedCounts.append(salvaged.samples.count)
      } catch {
        #expect([.empty, .truncated, .notHeapProfile].contains(error.code), "cut at \(end)")
      }
    }
    // What is kept only grows, up to everything.
    #expect(salvagedCounts == salvagedCounts.sorted())
    #expect(Set(salvagedCounts) == Set(0...whole.samples.count))
  }

  @Test func `the warning says how much there was`() throws {
    let bytes = everything().profileBytes()
    // The last comment is `complete=1`: two bytes, after its string of 12.
    let inside = try Snapshot(profile: Array(bytes.dropLast()))
    #expect(
      inside.warnings == [
        "profile ends inside a field (byte \(bytes.count - 1)): the largest 10 sites were kept"
      ])
    let between = try Snapshot(profile: Array(bytes.dropLast(2)))
    #expect(
      between.warnings == [
        """
        profile ends before its last field (byte \(bytes.count - 2)): \
        the largest 10 sites were kept
        """
      ])
  }

  @Test func `a copy of a salvaged dump is still not complete`() throws {
    let bytes = everything().profileBytes()
    let salvaged = try Snapshot(profile: Array(bytes.dropLast(40)))
    let copy = try Snapshot(profile: salvaged.profileBytes())
    #expect(copy == salvaged)
    #expect(copy.warnings.count == 1)
  }

  @Test func `a newer format is read with a warning`() throws {
    var snapshot = everything()
    snapshot.header["heaptap"] = "2"
    let again = try Snapshot(profile: snapshot.profileBytes())
    #expect(again.samples.count == snapshot.samples.count)
    #expect(again.warnings.count == 1)
  }

  @Test func `damage anywhere is read or refused, never worse`() {
    let bytes = everything().profileBytes()
    var generator = SplitMix(state: 20_261_121)
    var refused = 0
    for _ in 0..<4000 {
      var damaged = bytes
      for _ in 0...Int.random(in: 0..<4, using: &generator) {
        let place = Int.random(in: 0..<damaged.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: damaged[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: damaged.remove(at: place)
        default: damaged.insert(UInt8.random(in: 0...255, using: &generator), at: place)
        }
      }
      do {
        let snapshot = try Snapshot(profile: damaged)
        _ = snapshot.folded().statistics(groupedBy: .stack)
        _ = snapshot.profileBytes()
      } catch {
        refused += 1
      }
    }
    // Most damage is noticed, some is in numbers and names: neither count may be nothing.
    #expect(refused > 400)
    #expect(refused < 4000)
  }
}

/// The same numbers in every run.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
