// SPDX-License-Identifier: Apache-2.0
// Which stack a Swift task was made by: what called the functions that the task runs.

// A task is a block of the heap like any other, and the live map knows which stack made it. In the
// block, behind what the runtime keeps of the task, is the context that the task begins with; that is
// where a chain of awaiting callers ends. From there the layout leads back to the block's beginning
// (include/swift/ABI/Task.h and amountToAllocateForHeaderAndTask in Swift's sources):
//
//     task      heap object, job (flags at 32), resume context, private storage: 208 bytes
//               16 more for a child, 8 for a child of a group
//               24 and the result, where there is one: of every task but a few of the runtime's own
//               the result's address, entry, closure and error: 32 bytes; without a result 24
//     context   aligned to 16
//
// Only the private storage's size is the runtime's own affair. With another one nothing fits: no live
// block begins where the task should, or what is there has other flags. A stack then ends where its
// task does, as it does for a task that is older than the recording.
//
// The task of an `async let` is no block: it lies in the context of the function that declares it,
// whose beginning nobody has noted. But that function awaits the task before it returns. So its
// context is the nearest one before the task from which a chain leads to the task's parent. It begins
// where the parent has allocated memory (StackAllocator.h: the allocation before and the slab precede
// it); what looks like a context in the function's own is one that it hands to the runtime.

import CTracerPlatform

package enum TaskOrigin {
  /// What the fragments of a child, and of a child of a group, add to a task.
  private static func headerByteCount(_ flags: UInt) -> UInt {
    208 &+ (flags & childFlag != 0 ? 16 : 0) &+ (flags & groupChildFlag != 0 ? 8 : 0)
  }

  /// Where a task with these flags begins, if a context is the one that it begins with: up to four
  /// places, of which at most one is right.
  @inline(__always)
  private static func place(_ number: Int, _ root: UInt, _ result: UInt, _ flags: UInt) -> UInt {
    let end = headerByteCount(flags) &+ 24
    switch number {
    // With a result: its address is noted, behind the fragments, and aligned to 8 or 16.
    case 0: return result &- end
    case 1: return result &- ((end &+ 15) & ~15)
    // With an empty one that nobody has noted, or with none.
    case 2: return root &- ((end &+ 32 &+ 15) & ~15)
    default: return root &- ((end &+ 15) & ~15)
    }
  }

  /// The site that made the task which begins with a context, if that was during this recording.
  ///
  /// - Parameters:
  ///   - root: A context that awaits for nobody, which the caller has read.
  ///   - places: Where to look, in this order: 0 is the place of the hint, the others are all that there are.
  ///   - hint: Which place was right last; becomes the one that is. At most one is: two blocks that are
  ///     alive have no byte in common.
  ///   - trace: Gets every word that the answer depends on.
  /// Cost: two loads of the live map for each of at most twelve places.
  package static func find<Memory: TaskMemory>(
    root: UInt, map: borrowing LiveMap, epoch: UInt32, places: Range<UInt32> = 0..<13,
    hint: inout UInt32, readable: inout Memory, trace: inout ReadTrace
  ) -> UInt32? {
    guard readable.canRead(root &- 32) else { return nil }
    let before = trace.count
    let result = trace.read(root &- 32)
    let first = hint
    for attempt in places {
      let number = attempt == 0 ? first : attempt &- 1
      let kind = number >> 2
      let flags: UInt = kind == 0 ? 0 : kind == 1 ? childFlag : childFlag | groupChildFlag
      let task = place(Int(number & 3), root, result, flags)
      guard task < root, task & 15 == 0, let cell = map.cell(task) else { continue }
      let word = BlockWord(bits: UInt64(trace.read(cell)))
      guard word.isBlock(at: task, epoch: epoch), !word.isLarge,
        root &- task &+ 16 <= word.smallByteCount, readable.canRead(task &+ 32)
      else { continue }
      let taskWord = trace.read(task &+ 32)
      guard taskWord & flagMask == flags | (number & 3 < 3 ? futureFlag : 0) else { continue }
      // What the other places have is of no importance as long as this is the block that it is.
      trace.forget(from: before)
      trace.note(root &- 32, result)
      trace.note(cell, UInt(word.bits))
      trace.note(task &+ 32, taskWord)
      hint = number
      return word.site
    }
    return nil
  }

  /// The flags of a job. (include/swift/ABI/MetadataValues.h: JobFlags; kind 0 is a task.)
  private static var kindMask: UInt { 0xff }
  private static var childFlag: UInt { 1 << 24 }
  private static var futureFlag: UInt { 1 << 25 }
  private static var groupChildFlag: UInt { 1 << 26 }
  private static var asyncLetFlag: UInt { 1 << 28 }

  private static var flagMask: UInt {
    kindMask | childFlag | futureFlag | groupChildFlag | asyncLetFlag
  }

  /// Words that `find` reads at most.
  static var readLimit: Int { 27 }

  // MARK: async let

  /// How far the context of a function may begin before the task of its `async let`: 25 of them.
  private static var letByteLimit: UInt { 16384 }

  /// The context of the function whose `async let` begins with a context; `nil` where there is none.
  ///
  /// Cost: a few loads for each 16 bytes that the function keeps before the task, a few hundred as a
  /// rule.
  package static func declaring(_ root: UInt) -> UInt? {
    // Guesses, which may lead to what was unmapped since.
    var readable = ReadablePages()
    var trace = ReadTrace()
    guard let task = letTask(root, &readable, &trace) else { return nil }
    return declaring(task: task, &readable, &trace)
  }

  /// The same of the task.
  ///
  /// - Parameter trace: Gets what tells that it is still the same parent's. What tells that it is the same
  ///   task, and so in the same context, `letTask` has noted.
  static func declaring<Memory: TaskMemory>(
    task: UInt, _ readable: inout Memory, _ trace: inout ReadTrace
  ) -> UInt? {
    guard readable.canRead(task &+ 208) else { return nil }
    return nearest(before: task, of: trace.read(task &+ 208), &readable)
  }

  /// What was found to declare an `async let`.
  ///
  /// The function does not return before the task has ended, so that it is the same one for as long as it is
  /// the same task. That is told by the task's own number, which the runtime gives to each one anew, in the
  /// word that has its flags.
  struct Declaration {
    /// 0 where there is none.
    var task: UInt
    var number: UInt
    var context: UInt

    static var count: Int { 16 }

    /// Whether it is that of a task that can be read.
    func isOf(_ task: UInt) -> Bool { self.task == task && number == stackWord(task &+ 32) }

    init(of task: UInt, by context: UInt) {
      self.task = task
      number = stackWord(task &+ 32)
      self.context = context
    }
  }

  /// The task of an `async let` that begins with a context, if that is what does.
  static func letTask<Memory: TaskMemory>(
    _ root: UInt, _ readable: inout Memory, _ trace: inout ReadTrace
  ) -> UInt? {
    guard readable.canRead(root &- 32) else { return nil }
    let flags = childFlag | futureFlag | asyncLetFlag
    let result = trace.read(root &- 32)
    for place in 0..<3 {
      let task = TaskOrigin.place(place, root, result, childFlag)
      guard task < root, task & 15 == 0, root &- task < letByteLimit,
        readable.canRead(task &+ 32), trace.read(task &+ 32) & flagMask == flags
      else { continue }
      return task
    }
    return nil
  }

  /// The nearest context before an address that is a part of a task.
  private static func nearest<Memory: TaskMemory>(
    before address: UInt, of task: UInt, _ readable: inout Memory
  ) -> UInt? {
    var context = address &- 16
    while address &- context < letByteLimit {
      guard readable.canRead(context), readable.canRead(context &+ 8) else { return nil }
      if mayBeContext(stackWord(context), stackWord(context &+ 8)),
        stackWord(context) == 0 || isAllocation(context, &readable),
        chainLength(from: context, to: task, &readable) != nil
      {
        return context
      }
      context &-= 16
    }
    return nil
  }

  private static func isAllocation<Memory: TaskMemory>(_ address: UInt, _ readable: inout Memory)
    -> Bool
  {
    guard readable.canRead(address &- 16), readable.canRead(address &- 8) else { return false }
    let previous = stackWord(address &- 16)
    let slab = stackWord(address &- 8)
    guard isSlab(slab, holding: address) else { return false }
    // The first is behind the slab's own words and its own.
    if previous == 0 { return address &- slab == 48 }
    return readable.canRead(previous &+ 8)
      && isSlab(stackWord(previous &+ 8), holding: previous)
  }

  private static func isSlab(_ slab: UInt, holding address: UInt) -> Bool {
    slab & 15 == 0 && slab < address && address &- slab < 1 << 20
  }

  private static func mayBeContext(_ parent: UInt, _ resume: UInt) -> Bool {
    parent & 15 == 0 && parent < LiveMap.addressLimit && (parent == 0 || parent >= 4096)
      && resume >= 4096 && resume < LiveMap.addressLimit
  }

  /// The context that an async function without a frame of its own kind has in a register.
  ///
  /// Checked by the task. Where r14 is something else by now, another register may have the context;
  /// others may have those of callers.
  ///
  /// - Parameter register: The values in `KeptRegisters`, 0 where one is not known.
  @inline(__always)
  static func context(of task: UInt, in register: (Int) -> UInt) -> UInt? {
    // Fresh: a register may have what was unmapped since.
    var readable = ReadablePages()
    var found: UInt?
    var longest: UInt32 = 0
    for position in 0..<5 {
      let context = register(position)
      guard let length = chainLength(from: context, to: task, &readable), length > longest else {
        continue
      }
      if position == 0 { return context }
      longest = length
      found = context
    }
    return found
  }

  /// How many contexts lead from one to where a task begins, by the task's own flags; `nil` where it is
  /// no part of the task.
  static func chainLength<Memory: TaskMemory>(
    from context: UInt, to task: UInt, _ readable: inout Memory
  ) -> UInt32? {
    var chain = AsyncChain(context: context)
    var length: UInt32 = 0
    while length < 4096, chain.next(&readable) != nil { length &+= 1 }
    guard length > 0, length < 4096, !chain.isBroken else { return nil }
    var trace = ReadTrace()
    return begins(task, with: chain.root, &readable, &trace) ? length : nil
  }

  /// Whether a task begins with a context, by the task's own flags.
  static func begins<Memory: TaskMemory>(
    _ task: UInt, with root: UInt, _ readable: inout Memory, _ trace: inout ReadTrace
  ) -> Bool {
    guard readable.canRead(root &- 32), readable.canRead(task &+ 32) else { return false }
    let (result, flags) = (trace.read(root &- 32), trace.read(task &+ 32))
    for place in 0..<4 where TaskOrigin.place(place, root, result, flags) == task { return true }
    return false
  }
}
