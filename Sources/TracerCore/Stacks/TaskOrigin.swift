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
// task does, as it does for a task that is older than the recording, and for an `async let`, whose
// task lies in the context of whoever made it.

import CTracerPlatform

package struct TaskOrigin {
  /// The task's address, which has a word in the live map for as long as the task lives.
  package var task: UInt
  /// The stack that made it.
  package var site: UInt32

  /// The task that begins with a context, if it was made during this recording.
  ///
  /// - Parameters:
  ///   - root: A context that awaits for nobody, which the caller has read.
  ///   - trace: Gets every word that the answer depends on.
  /// Cost: two loads of the live map for each of at most twelve places.
  package static func find(
    root: UInt, map: borrowing LiveMap, epoch: UInt32, readable: inout ReadablePages,
    trace: inout ReadTrace
  ) -> TaskOrigin? {
    guard readable.canRead(root &- 32) else { return nil }
    let result = trace.read(root &- 32)
    for kind in 0..<3 {
      let flags: UInt = kind == 0 ? 0 : kind == 1 ? childFlag : childFlag | groupChildFlag
      let header: UInt = kind == 0 ? 208 : kind == 1 ? 224 : 232
      // With a result: the place says where it begins, behind 24 bytes, and aligned to 8 or 16.
      let withResult = (header &+ 24, (header &+ 24 &+ 15) & ~15)
      // With none, or an empty one whose place nobody has noted.
      let withEmpty = (header &+ 24 &+ 32 &+ 15) & ~15
      let without = (header &+ 24 &+ 15) & ~15
      if let site = site(
        result &- withResult.0, flags | futureFlag, root, map, epoch, &readable, &trace)
        ?? site(result &- withResult.1, flags | futureFlag, root, map, epoch, &readable, &trace)
        ?? site(root &- withEmpty, flags | futureFlag, root, map, epoch, &readable, &trace)
        ?? site(root &- without, flags, root, map, epoch, &readable, &trace)
      {
        return site
      }
    }
    return nil
  }

  /// Words that `find` reads at most.
  static var readLimit: Int { 25 }

  /// The flags of a job. (include/swift/ABI/MetadataValues.h: JobFlags; kind 0 is a task.)
  private static var kindMask: UInt { 0xff }
  private static var childFlag: UInt { 1 << 24 }
  private static var futureFlag: UInt { 1 << 25 }
  private static var groupChildFlag: UInt { 1 << 26 }
  private static var asyncLetFlag: UInt { 1 << 28 }

  /// The origin of the task at an address, if there is one with these flags that holds the context.
  private static func site(
    _ task: UInt, _ flags: UInt, _ root: UInt, _ map: borrowing LiveMap, _ epoch: UInt32,
    _ readable: inout ReadablePages, _ trace: inout ReadTrace
  ) -> TaskOrigin? {
    guard task < root, task & 15 == 0, let cell = map.cell(task) else { return nil }
    let word = BlockWord(bits: UInt64(trace.read(cell)))
    guard word.isBlock(at: task, epoch: epoch), !word.isLarge,
      root &- task &+ 16 <= word.smallByteCount, readable.canRead(task &+ 32)
    else { return nil }
    let mask = kindMask | childFlag | futureFlag | groupChildFlag | asyncLetFlag
    return trace.read(task &+ 32) & mask == flags ? TaskOrigin(task: task, site: word.site) : nil
  }
}
