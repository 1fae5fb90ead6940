// SPDX-License-Identifier: Apache-2.0
// The pairs of a header that have a meaning here, as properties.

extension Header {
  /// The version of the dump format; `nil` where no Heaptap wrote the profile.
  public var formatVersion: Int? { integer("heaptap") }
  /// Whether Heaptap wrote the profile, in whatever version.
  public var isHeaptap: Bool { self["heaptap"] != nil }
  /// Whether the tracer wrote the dump to its end.
  public var isComplete: Bool { self["complete"] == "1" }

  // Whose dump.

  /// The version of the tracer that wrote the dump.
  public var tracerVersion: String? { self["tracer"] }
  /// The process's name, as `ps` shows it.
  public var program: String? { self["program"] }
  /// The path of the process's executable file.
  public var executable: String? { self["executable"] }
  /// The process, by its number in its own namespace.
  public var pid: Int? { integer("pid") }
  /// The name of the host, or of the container.
  public var host: String? { self["host"] }
  /// The systemd unit of the process.
  public var unit: String? { self["unit"] }
  /// The boot that monotonic times belong to.
  public var bootID: String? { self["boot_id"] }

  // When and why.

  /// Why the dump was written: `signal`, `control`, `stop`, `exit`, `terminated`, `api` or `limit`.
  public var trigger: String? { self["trigger"] }
  /// Which dump of the process this is.
  public var sequence: Int? { integer("sequence") }
  /// How many frames of a stack were kept: tracemalloc's traceback limit.
  public var depthLimit: Int? { integer("depth") }
  /// When recording began, in nanoseconds since 1970.
  public var startWallNanoseconds: Int? { integer("start_wall_ns") }
  /// When recording began, in nanoseconds since the boot.
  public var startMonotonicNanoseconds: Int? { integer("start_monotonic_ns") }
  /// When the dump was begun, in nanoseconds since 1970.
  public var dumpWallNanoseconds: Int? { integer("dump_wall_ns") }
  /// When the dump was begun, in nanoseconds since the boot.
  public var dumpMonotonicNanoseconds: Int? { integer("dump_monotonic_ns") }
  /// For how long had been recorded, by a clock that nobody sets.
  public var durationNanoseconds: Int? {
    guard let start = startMonotonicNanoseconds, let dump = dumpMonotonicNanoseconds,
      case (let duration, false) = dump.subtractingReportingOverflow(start), duration >= 0
    else { return nil }
    return duration
  }

  /// The generation that the dump opened. No block of it is in the dump.
  public var openedGeneration: Int? { integer("generation") }
  /// When each generation began, the oldest first; those that cannot be read are left out.
  public var generationStarts: [GenerationStart] {
    entries(withPrefix: "generation.").compactMap { entry in
      let times = entry.value.split(separator: ",", omittingEmptySubsequences: false)
      guard let number = Int(entry.key), times.count == 2, let wall = Int(times[0]),
        let monotonic = Int(times[1])
      else { return nil }
      return GenerationStart(
        number: number, wallNanoseconds: wall, monotonicNanoseconds: monotonic)
    }
  }

  /// When an interval between snapshots began.
  public struct GenerationStart: Hashable, Sendable {
    /// Which generation, from 1.
    public let number: Int
    /// In nanoseconds since 1970.
    public let wallNanoseconds: Int
    /// In nanoseconds since the boot.
    public let monotonicNanoseconds: Int
  }

  /// What was kept of the peak, for a dump that tells what was alive then.
  public struct PeakPicture: Hashable, Sendable {
    /// What was alive when it was taken: at most `peakBytes`, give or take `peakErrorBytes`.
    public let bytes: Int
    /// The blocks that `bytes` is the size of.
    public let blocks: Int
    /// When it was taken, in nanoseconds since 1970.
    public let wallNanoseconds: Int
    /// When it was taken, in nanoseconds since the boot.
    public let monotonicNanoseconds: Int
    /// How often the heap had grown by a tenth and was smaller again when the tracer's thread came. While this
    /// is 0 the picture is less than a tenth below the peak, but for what came while it was being taken.
    public let missed: Int
  }

  /// The picture that `Snapshot.atPeak()` is made of; `nil` where none was asked for.
  public var peakPicture: PeakPicture? {
    guard let bytes = integer("peak.picture_bytes"), let blocks = integer("peak.picture_blocks")
    else {
      return nil
    }
    return PeakPicture(
      bytes: bytes, blocks: blocks, wallNanoseconds: integer("peak.picture_wall_ns") ?? 0,
      monotonicNanoseconds: integer("peak.picture_monotonic_ns") ?? 0,
      missed: integer("peak.missed") ?? 0)
  }

  // How much, by the tracer's own counters.

  /// Bytes asked for by the blocks that were alive.
  public var liveBytes: Int? { integer("live_bytes") }
  /// How many blocks were alive.
  public var liveBlocks: Int? { integer("live_blocks") }
  /// By the scan that the samples come from: it differs from the counters by what was allocated
  /// and freed meanwhile, since a dump stops nobody.
  public var scannedBytes: Int? { integer("scanned_bytes") }
  /// The blocks that `scannedBytes` is the size of.
  public var scannedBlocks: Int? { integer("scanned_blocks") }
  /// What the program tracks by itself, beside the heap: see `heaptap_track`.
  public var trackedBytes: Int? { integer("tracked_bytes") }
  /// The blocks that `trackedBytes` is the size of.
  public var trackedBlocks: Int? { integer("tracked_blocks") }
  /// The most that was alive at once, exact to `peakErrorBytes`.
  public var peakBytes: Int? { integer("peak_bytes") }
  /// By how much `peakBytes` may be wrong: 0 where there was never more than one thread.
  public var peakErrorBytes: Int? { integer("peak_error_bytes") }
  /// Bytes for each sample, on average; `nil` where every block was recorded. All figures of blocks are
  /// estimates then, but for those of tracked ones.
  public var sampleBytes: Int? { integer("sample_bytes").flatMap { $0 > 0 ? $0 : nil } }
  /// How many live blocks were sampled.
  public var sampledBlocks: Int? { integer("sampled_blocks") }
  /// The standard error of `scannedBytes`.
  public var liveErrorBytes: Int? { integer("live_error_bytes") }
  /// The standard error of `totalBytes`.
  public var totalErrorBytes: Int? { integer("total_error_bytes") }
  /// Bytes asked for since recording began, freed or not.
  public var totalBytes: Int? { integer("total_bytes") }
  /// How many blocks were allocated since recording began.
  public var totalBlocks: Int? { integer("total_blocks") }
  /// Of `totalBytes`, what has been freed.
  public var freedBytes: Int? { integer("freed_bytes") }
  /// Of `totalBlocks`, what has been freed.
  public var freedBlocks: Int? { integer("freed_blocks") }
  /// Of `totalBlocks`, those that were freed before the same thread's next allocation: what a buffer outside
  /// of the loop, or on the stack, would spare. `nil` where that was not counted.
  public var temporaryBlocks: Int? { integer("temporary_blocks") }
  /// How many distinct stacks had allocated.
  public var siteCount: Int? { integer("sites") }

  /// Memory that was allocated before recording began, as far as the allocator tells.
  public var beforeHeapBytes: Int? { integer("before_heap_bytes") }
  /// How much of the process was in memory when recording began.
  public var beforeResidentBytes: Int? { integer("before_rss_bytes") }
  /// What was freed of that, by usable size.
  public var beforeFreedBytes: Int? { integer("before_freed_bytes") }
  /// How many blocks were freed that recording had not seen allocated.
  public var beforeFreedBlocks: Int? { integer("before_freed_blocks") }
  /// At most this much from before recording is still allocated.
  public var beforeRemainingBytes: Int? { integer("before_remaining_bytes") }

  /// Resident memory of the tracer itself.
  public var tracerBytes: Int? { integer("tracer_bytes") }

  // What is known of blocks beside their stacks.

  /// Whether what the blocks are was looked for.
  public var hasTypes: Bool { self["typed_blocks"] != nil }
  /// Blocks of which it is known what they are: the objects of Swift.
  public var typedBlocks: Int? { integer("typed_blocks") }
  /// What those blocks asked for.
  public var typedBytes: Int? { integer("typed_bytes") }
  /// Why what the blocks are was not looked for; `nil` where it was, or the tracer was an older one.
  public var typesProblem: String? { self["types_problem"] }
  /// Whether it was recorded which thread allocated a block.
  public var hasThreads: Bool { self["threads"] != nil }

  /// Whether what is lost was looked for.
  public var hasReach: Bool { self["reach"] != nil }
  /// Why what is lost was not looked for, though it was asked for; `nil` where it was not or was found.
  public var reachProblem: String? { self["reach.problem"] }
  /// Whether blocks were being reallocated that could not be waited for: what only these led to may
  /// pass for lost.
  public var hasMovingBlocks: Bool { self["reach.moving"] != nil }
  /// Whether the allocator is not glibc's: its tables lead to blocks that are lost.
  public var hasForeignAllocator: Bool { self["reach.allocator"] != nil }

  // How near a limit.

  /// The limit that the process was nearest to; of a dump at a mark, the one whose mark was crossed.
  public var limitBytes: Int? { integer("limit_bytes") }
  /// Where the limit comes from: a cgroup's file, `RLIMIT_AS`, `/proc/meminfo`…
  public var limitSource: String? { self["limit_source"] }
  /// What counts against the limit and the kernel cannot take back.
  public var limitUsageBytes: Int? { integer("limit_usage_bytes") }
  /// What was left up to the limit.
  public var limitHeadroomBytes: Int? { integer("limit_headroom_bytes") }
  /// How fast usage was growing, in bytes a second.
  public var limitRateBytes: Int? { integer("limit_rate_bytes") }
  /// The mark of HEAPTAP_LIMIT that was crossed; only in a dump at a limit.
  public var limitMark: String? { self["limit_mark"] }

  /// The smallest sites that the dump had no room for; `nil` where it has all.
  public var leftOutSites: Int? { integer("left_out_sites") }
  /// What they had alive.
  public var leftOutBytes: Int? { integer("left_out_bytes") }
}

extension Header {
  /// One row of the histogram: live blocks of up to a size, and above the row before.
  public struct SizeClass: Hashable, Sendable {
    /// The largest request counted here; `nil` in the last row, which has no end.
    public let limitBytes: Int?
    /// How many blocks are in the row.
    public let blocks: Int
    /// What they had asked for in all.
    public let bytes: Int

    /// One row of a histogram.
    public init(limitBytes: Int?, blocks: Int, bytes: Int) {
      self.limitBytes = limitBytes
      self.blocks = blocks
      self.bytes = bytes
    }
  }

  /// Live blocks by requested size; empty where absent. Rows that cannot be read are left out.
  public var histogram: [SizeClass] {
    (self["histogram"] ?? "").split(separator: ",").compactMap { row in
      let parts = row.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 3, let blocks = Int(parts[1]), let bytes = Int(parts[2]) else {
        return nil
      }
      if parts[0] == "more" { return SizeClass(limitBytes: nil, blocks: blocks, bytes: bytes) }
      return Int(parts[0]).map { SizeClass(limitBytes: $0, blocks: blocks, bytes: bytes) }
    }
  }

  /// Where the memory is that the kernel charges the process for.
  public struct Reconciliation: Hashable, Sendable {
    /// One part of the whole.
    public struct Part: Hashable, Sendable {
      /// As in the dump: `traced`, `before`, `mmap`, `slack`, `tracer`, `other`; `before_and_slack`
      /// where what is left of before recording is not known.
      public let name: String
      /// May be negative for `other`: what is left after the parts that are known.
      public let bytes: Int

      /// One part of the whole.
      public init(name: String, bytes: Int) {
        self.name = name
        self.bytes = bytes
      }
    }

    /// What the kernel charges the process for.
    public let usageBytes: Int
    /// Which of the kernel's files says so.
    public let source: String?
    /// What it consists of, in the dump's order.
    public let parts: [Part]

    /// A usage and what it consists of.
    public init(usageBytes: Int, source: String?, parts: [Part]) {
      self.usageBytes = usageBytes
      self.source = source
      self.parts = parts
    }

    /// What the parts do not explain; 0 in a dump that is right.
    public var unexplainedBytes: Int {
      parts.reduce(usageBytes) { $0.addingSaturated(0 &- $1.bytes) }
    }
  }

  /// The usage that the kernel reports, by parts; `nil` in dumps without it.
  public var reconciliation: Reconciliation? {
    guard let usage = integer("usage_bytes") else { return nil }
    let parts = entries(withPrefix: "reconcile.").compactMap { entry in
      Int(entry.value).flatMap { bytes in
        entry.key.hasSuffix("_bytes")
          ? Reconciliation.Part(name: String(entry.key.dropLast("_bytes".count)), bytes: bytes)
          : nil
      }
    }
    return Reconciliation(usageBytes: usage, source: self["usage_source"], parts: parts)
  }

  /// A counter of what could not be recorded as it should.
  public struct Loss: Hashable, Sendable {
    /// The pair's key: `lost.sites`, `truncated_stacks`…
    public let key: String
    /// How often it happened; bytes where the key says so.
    public let count: Int

    /// A counter by its key.
    public init(key: String, count: Int) {
      self.key = key
      self.count = count
    }
  }

  /// Every counter of losses in the dump, those at 0 as well; unknown ones too if they are called
  /// `lost.` something.
  public var losses: [Loss] {
    entries.compactMap { entry in
      guard entry.key.hasPrefix("lost.") || Self.lossKeys.contains(entry.key) else { return nil }
      return Int(entry.value).map { Loss(key: entry.key, count: $0) }
    }
  }

  private static let lossKeys: Set = [
    "truncated_stacks", "broken_stacks", "differing_stacks", "sites_omitted", "omitted_bytes",
    "left_out_sites",
    "left_out_bytes",
  ]
}
