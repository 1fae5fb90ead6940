// SPDX-License-Identifier: Apache-2.0
// When a heap has grown enough to be looked at, and what has grown.

#if Service
  import Heaptap

  /// Compares the heap with what it was when it was last looked at closely.
  struct HeapWatch {
    /// What has grown since then.
    struct Growth {
      var addedBytes: Int
      /// The largest first, none that shrank.
      var lines: [StatisticDifference]
    }

    private let growthByteCount: Int?
    private var base: (snapshot: Snapshot, bytes: Int)?
    private var lastGeneration = 0
    /// Whether recording was seen to have been stopped, or begun anew.
    private(set) var wasInterrupted = false

    init(growthByteCount: Int?) { self.growthByteCount = growthByteCount }

    /// What has grown, if it has grown enough; takes a snapshot then, and the first time.
    mutating func look(at figures: HeapFigures) async throws(HeapTracerError) -> Growth? {
      if !figures.isRecording || figures.generation < lastGeneration {
        wasInterrupted = true
        base = nil
      }
      lastGeneration = figures.generation
      guard figures.isRecording, let growthByteCount else { return nil }
      guard let before = base else {
        base = (try await snapshot(), figures.liveBytes)
        return nil
      }
      let addedBytes = figures.liveBytes - before.bytes
      // What has shrunk as much is compared with anew: or growth up to there would pass unseen.
      guard addedBytes.magnitude >= growthByteCount else { return nil }
      let now = try await snapshot()
      base = (now, figures.liveBytes)
      guard addedBytes > 0 else { return nil }
      return Growth(
        addedBytes: addedBytes,
        lines: now.compared(to: before.snapshot, groupedBy: .line).filter { $0.addedBytes > 0 })
    }

    /// Takes a snapshot with names, and without what snapshots themselves take.
    private mutating func snapshot() async throws(HeapTracerError) -> Snapshot {
      let taken = try await HeapTracer.takeSnapshot()
      // It has begun a generation, unless all are used up.
      lastGeneration = try HeapTracer.figures().generation
      let named = await taken.symbolicated(keepingAllFrames: true)
      return named.withoutMeasuring().folded()
    }
  }
#endif
