// SPDX-License-Identifier: Apache-2.0
// The heap at its largest, as a snapshot of its own.

extension Snapshot {
  /// What was alive when the tracer took the picture of the peak that the dump carries.
  ///
  /// The answer is a snapshot like any other: it can be filtered, grouped and compared, and its live figures are
  /// those of the picture. What was kept of blocks by more than their stack and thread, such as generations and
  /// types, was not kept for the peak; figures since recording began stay those of the dump. `peakBytes` of the
  /// header says what the most was, and `Header.peakPicture` how much of it is here.
  ///
  /// Throws where the picture was not asked for when recording began, by `HEAPTAP_PEAK=1`.
  public func atPeak() throws(GroupingError) -> Snapshot {
    guard let picture = header.peakPicture else { throw GroupingError(.noPeak) }
    var result = self
    result.samples = samples.compactMap { sample in
      guard sample.peakBlocks != 0 || sample.peakBytes != 0 || sample.totalBlocks != 0 else {
        return nil
      }
      var peak = sample
      peak.liveBytes = sample.peakBytes
      peak.liveBlocks = sample.peakBlocks
      peak.domain = 0
      peak.generation = nil
      peak.type = nil
      peak.reach = .held
      // Those of what was alive at the dump.
      peak.sampledBlocks = 0
      peak.liveErrorBytes = 0
      return peak
    }
    result.header = header.atPeak(picture)
    return result
  }

  /// As `atPeak()`, for rows of some kind: throws as well where a stack's blocks would have to be divided.
  public func atPeak(groupedBy grouping: Grouping) throws(GroupingError) -> Snapshot {
    try grouping.checkIsKeptByStack()
    return try atPeak()
  }
}

extension Header {
  /// Without what is about the moment of the dump.
  fileprivate func atPeak(_ picture: PeakPicture) -> Header {
    var kept = Header(
      entries.filter { entry in
        !Self.keysOfTheMoment.contains { entry.key.hasPrefix($0) }
      })
    for (key, figure) in [("bytes", picture.bytes), ("blocks", picture.blocks)] {
      kept["live_\(key)"] = "\(figure)"
      kept["scanned_\(key)"] = "\(figure)"
    }
    return kept
  }

  private static let keysOfTheMoment = [
    "tracked_", "typed_", "types_problem", "histogram", "usage_", "reconcile.", "limit_", "reach",
    "before_remaining_", "sampled_", "live_error_",
  ]
}
