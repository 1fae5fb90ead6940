// SPDX-License-Identifier: Apache-2.0
// Names for the frames of snapshots, each found once in the life of the process.

import HeapModel
import Synchronization

#if os(Linux)
  import Symbolication
#endif

extension Snapshot {
  /// The snapshot with functions, files and lines in the place of addresses, and without the frames
  /// of allocators and runtimes at the inner end of its stacks, so that its lines are somebody's.
  ///
  /// Reads the debug information of the files that this process has mapped, which for a large program
  /// takes seconds the first time, on a thread of its own. Each address is looked up once in the life
  /// of the process: a second snapshot costs what is new in it. What is not known stays an address.
  ///
  /// - Parameter keepingAllFrames: Whether frames of allocators and runtimes stay.
  public func symbolicated(keepingAllFrames: Bool = false) async -> Snapshot {
    let snapshot = self
    return await Background.run { FrameNames.shared.symbolicated(snapshot, keepingAllFrames) }
  }

  /// The same for who may wait: it blocks the calling thread.
  public func symbolicatedBlocking(keepingAllFrames: Bool = false) -> Snapshot {
    FrameNames.shared.symbolicated(self, keepingAllFrames)
  }
}

/// What is known of the places in files that snapshots have named so far.
private final class FrameNames: Sendable {
  static let shared = FrameNames()

  /// A place in a file, in whatever process and wherever the file lay.
  private struct Place: Hashable {
    var path: String
    var buildID: String
    var offset: UInt64
  }

  /// The calls at each place, innermost first; of those that nothing is known of, none.
  private let known = Mutex<[Place: [Frame]]>([:])

  func symbolicated(_ snapshot: Snapshot, _ keepingAllFrames: Bool) -> Snapshot {
    // Held while files are read: whoever comes second would ask the same.
    let named = known.withLock { known in
      lookUp(snapshot, in: &known)
      return snapshot.replacingFrames { frame in
        guard let place = place(of: frame, in: snapshot) else { return [] }
        return (known[place] ?? []).map { call in
          var call = call
          call.address = frame.address
          call.module = frame.module
          return call
        }
      }
    }
    return keepingAllFrames ? named : named.folded()
  }

  private func place(of frame: Frame, in snapshot: Snapshot) -> Place? {
    guard frame.function == nil, let module = snapshot.module(of: frame) else { return nil }
    return Place(
      path: module.path, buildID: module.buildID, offset: module.fileOffset(of: frame.address))
  }

  private func lookUp(_ snapshot: Snapshot, in known: inout [Place: [Frame]]) {
    #if os(Linux)
      var places: [Place] = []
      var frames: [Frame] = []
      for frame in snapshot.distinctFrames {
        guard let place = place(of: frame, in: snapshot), known[place] == nil else { continue }
        places.append(place)
        frames.append(frame)
      }
      guard !frames.isEmpty else { return }
      // Here and now: these are the files that this very process runs.
      let outcome = Symbolicator(worker: .inProcess).symbolicate(frames, modules: snapshot.modules)
      for (place, calls) in zip(places, outcome.frames) {
        known[place] = calls.contains { $0.function != nil || $0.file != nil } ? calls : []
      }
    #endif
  }
}
