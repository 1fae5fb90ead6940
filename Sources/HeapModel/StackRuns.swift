// SPDX-License-Identifier: Apache-2.0
// Stacks as runs of numbers in one array, each kept once.

/// Every stack's frame numbers, one after another in one array.
///
/// An array for each stack would cost 100,000 allocations and a header for each.
struct StackRuns: Sendable {
  private(set) var frames: [UInt32] = []
  private var ends: [Int] = []

  var count: Int { ends.count }

  subscript(stack: Int) -> ArraySlice<UInt32> {
    frames[(stack == 0 ? 0 : ends[stack - 1])..<ends[stack]]
  }

  mutating func append(_ run: some Collection<UInt32>) {
    frames.append(contentsOf: run)
    ends.append(frames.count)
  }

  mutating func reserve(stacks: Int, frames: Int) {
    ends.reserveCapacity(stacks)
    self.frames.reserveCapacity(frames)
  }
}

/// Gives equal runs of numbers the same index.
///
/// Open addressing over the runs themselves: a dictionary would hold every stack twice.
struct StackInterner {
  var runs = StackRuns()
  /// One more than a run's index; 0 where free.
  private var slots = [UInt32](repeating: 0, count: 64)

  mutating func index(of run: ArraySlice<UInt32>) -> Int {
    if 2 * runs.count >= slots.count { growSlots() }
    let slot = slot(for: run)
    if slots[slot] != 0 { return Int(slots[slot] - 1) }
    runs.append(run)
    slots[slot] = UInt32(runs.count)
    return runs.count - 1
  }

  private func slot(for run: ArraySlice<UInt32>) -> Int {
    // The seeded hash, since stacks may come from a file that was made to collide.
    var hasher = Hasher()
    unsafe run.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    var slot = hasher.finalize() & (slots.count - 1)
    while slots[slot] != 0 {
      if runs[Int(slots[slot] - 1)] == run { break }
      slot = (slot + 1) & (slots.count - 1)
    }
    return slot
  }

  private mutating func growSlots() {
    slots = [UInt32](repeating: 0, count: 4 * slots.count)
    for stack in 0..<runs.count { slots[slot(for: runs[stack])] = UInt32(stack + 1) }
  }
}
