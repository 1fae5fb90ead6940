// SPDX-License-Identifier: Apache-2.0
// Questions that tests ask of a guest's snapshot.

import HeapModel
import Symbolication
import Testing

extension Snapshot {
  /// The samples whose live blocks are all of one size, as far as sums can tell.
  func samples(ofSize byteCount: Int) -> [Sample] {
    samples.filter { $0.liveBlocks > 0 && $0.liveBytes == $0.liveBlocks * byteCount }
  }

  /// The snapshot with functions and lines.
  func named() -> Snapshot {
    let outcome = Symbolicator(worker: .inProcess).symbolicate(distinctFrames, modules: modules)
    var calls: [Frame: [Frame]] = [:]
    for (frame, found) in zip(distinctFrames, outcome.frames) { calls[frame] = found }
    return replacingFrames { calls[$0] ?? [] }
  }

  /// The names of a sample's functions, innermost first.
  func functions(of sample: Sample) -> [String] {
    stack(of: sample).map { $0.function ?? "?" }
  }

  /// The samples whose stack leads through a function; a name of C is the whole name.
  func samples(through function: String) -> [Sample] {
    samples.filter { sample in
      functions(of: sample).contains { $0 == function || $0.hasPrefix(function + "(") }
    }
  }

  /// Nothing was lost, the counters agree with the samples, and every stack was walked to its root.
  ///
  /// - Parameter isQuiet: Whether nobody allocated or freed while the dump was made: counters are read first.
  func expectSound(
    truncated: Bool = false, isQuiet: Bool = true, sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(header.isComplete, sourceLocation: sourceLocation)
    #expect(warnings.isEmpty, sourceLocation: sourceLocation)
    for loss in header.losses where !(truncated && loss.key == "truncated_stacks") {
      #expect(loss.count == 0, "\(loss.key)", sourceLocation: sourceLocation)
    }
    #expect(liveBlocks == header.scannedBlocks, sourceLocation: sourceLocation)
    #expect(liveBytes == header.scannedBytes, sourceLocation: sourceLocation)
    guard isQuiet else { return }
    #expect(liveBlocks == header.liveBlocks, sourceLocation: sourceLocation)
    #expect(liveBytes == header.liveBytes, sourceLocation: sourceLocation)
    #expect(totalBlocks == header.totalBlocks, sourceLocation: sourceLocation)
    #expect(totalBytes == header.totalBytes, sourceLocation: sourceLocation)
    let freed = (blocks: header.freedBlocks ?? -1, bytes: header.freedBytes ?? -1)
    #expect(totalBlocks - freed.blocks == liveBlocks, sourceLocation: sourceLocation)
    #expect(totalBytes - freed.bytes == liveBytes, sourceLocation: sourceLocation)
    #expect((header.peakBytes ?? -1) >= liveBytes, sourceLocation: sourceLocation)
  }
}

/// What a guest printed of the blocks that it leaves: `SIZE FUNCTION` on a line each.
struct Left {
  var size: Int
  var function: String

  static func read(_ output: String) -> [Left] {
    output.split(separator: "\n").compactMap { line in
      let parts = line.split(separator: " ")
      guard parts.count == 2, let size = Int(parts[0]) else { return nil }
      return Left(size: size, function: String(parts[1]))
    }
  }
}

extension [Snapshot.Sample] {
  func sum(_ figure: KeyPath<Snapshot.Sample, Int>) -> Int {
    reduce(0) { $0 + $1[keyPath: figure] }
  }
}
