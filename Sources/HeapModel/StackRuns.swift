// SPDX-License-Identifier: Apache-2.0
// Stacks as runs of numbers in one array, each kept once.

/// Every stack's frame numbers, one after another in one array.
///
/// An array for each stack would cost 100,000 allocations and a header for each.
package struct StackRuns: Sendable {
  private(set) var frames: [UInt32] = []
  private var ends: [Int] = []

  package var count: Int { ends.count }

  package subscript(stack: Int) -> ArraySlice<UInt32> { frames[range(of: stack)] }

  /// Where a stack's numbers are in `frames`.
  func range(of stack: Int) -> Range<Int> { (stack == 0 ? 0 : ends[stack - 1])..<ends[stack] }

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
package struct StackInterner {
  package internal(set) var runs = StackRuns()

  private var slots = [Slot](repeating: Slot(), count: 64)

  /// A run's place in the table. With a half of its hash, so that neither looking for another run
  /// nor growing reads the run itself.
  private struct Slot {
    var hash: UInt32 = 0
    /// One more than the run's index; 0 where free.
    var number: UInt32 = 0
  }

  mutating func reserve(stacks: Int, frames: Int) {
    runs.reserve(stacks: stacks, frames: frames)
    while 2 * stacks >= slots.count { growSlots() }
  }

  package init() {}

  package mutating func index(of run: ArraySlice<UInt32>) -> Int {
    if 2 * runs.count >= slots.count { growSlots() }
    let hash = Self.hash(of: run)
    let mask = slots.count - 1
    var place = Int(hash) & mask
    while slots[place].number != 0 {
      let index = Int(slots[place].number) - 1
      if slots[place].hash == hash, Self.areEqual(runs[index], run) { return index }
      place = (place + 1) & mask
    }
    runs.append(run)
    slots[place] = Slot(hash: hash, number: UInt32(runs.count))
    return runs.count - 1
  }

  private mutating func growSlots() {
    let old = slots
    slots = [Slot](repeating: Slot(), count: 4 * old.count)
    let mask = slots.count - 1
    for slot in old where slot.number != 0 {
      var place = Int(slot.hash) & mask
      while slots[place].number != 0 { place = (place + 1) & mask }
      slots[place] = slot
    }
  }

  private static func areEqual(_ a: ArraySlice<UInt32>, _ b: ArraySlice<UInt32>) -> Bool {
    // Pointers, since slices are compared by iterators that check each step.
    unsafe a.withUnsafeBufferPointer { a in
      unsafe b.withUnsafeBufferPointer { b in unsafe a.elementsEqual(b) }
    }
  }

  // MARK: Hashing

  /// Another one in each process, since stacks may come from a file that was made to collide.
  private static let seed = (UInt64.random(in: .min ... .max), UInt64.random(in: .min ... .max) | 1)

  /// Folds the halves of 128-bit products with a secret number, two frames at a time: several times as
  /// fast as `Hasher`, which was a tenth of a comparison.
  private static func hash(of run: ArraySlice<UInt32>) -> UInt32 {
    let (start, factor) = seed
    func folded(_ value: UInt64) -> UInt64 {
      let product = value.multipliedFullWidth(by: factor)
      return product.high ^ product.low
    }
    return unsafe run.withUnsafeBufferPointer { run in
      var state = start ^ UInt64(run.count)
      var position = 0
      while position + 1 < run.count {
        state = folded(
          state ^ (UInt64(unsafe run[position]) | UInt64(unsafe run[position + 1]) << 32))
        position += 2
      }
      if position < run.count { state = folded(state ^ UInt64(unsafe run[position])) }
      state = folded(state ^ start)
      return UInt32(truncatingIfNeeded: state ^ state >> 32)
    }
  }
}
