// SPDX-License-Identifier: Apache-2.0
// What a hook asks first, in one word.

import Synchronization

/// Which recording goes on, and which modules it knows: one comparison tells a thread whether all that it
/// remembers of stacks still holds. All zero until the first recording; opened before any thread can have a state.
package struct Gate: ~Copyable {
  /// The open epoch in the low half; in the high one the modules' generation, which wraps without a carry.
  private let word: Atomic<UInt64>

  /// No thread's epoch: one that has not begun to record has 0.
  private static var noEpoch: UInt32 { .max }

  package static func word(_ epoch: UInt32, _ moduleGeneration: UInt32) -> UInt64 {
    UInt64(moduleGeneration) << 32 | UInt64(epoch)
  }

  @inline(__always)
  package var current: UInt64 { word.load(ordering: .acquiring) }

  /// The epoch while it is recorded, else that of no thread.
  @inline(__always)
  package var openEpoch: UInt32 { UInt32(truncatingIfNeeded: current) }

  /// Bumped when a module is unloaded: what lay at its addresses may be other code from then on.
  @inline(__always)
  package var moduleGeneration: UInt32 {
    UInt32(truncatingIfNeeded: word.load(ordering: .relaxed) >> 32)
  }

  package func bumpModules() { _ = word.wrappingAdd(1 << 32, ordering: .acquiringAndReleasing) }

  /// Keeps the modules' generation, which other threads may bump meanwhile.
  package func open(_ epoch: UInt32) {
    var known = word.load(ordering: .relaxed)
    while true {
      let (exchanged, original) = word.weakCompareExchange(
        expected: known, desired: Self.word(epoch, UInt32(truncatingIfNeeded: known >> 32)),
        successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if exchanged { return }
      known = original
    }
  }

  package func close() { open(Self.noEpoch) }
}
