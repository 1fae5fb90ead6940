// SPDX-License-Identifier: Apache-2.0
// Who awaits a Swift async function: its callers, which are on no stack.

// An async function is compiled to parts, each a function of its own that an executor calls and that
// ends by a jump. What it keeps between them is in its context, on the task's heap, which begins with
//
//     0   the context of who awaits it; 0 in the function that a task begins with
//     8   the part of that caller that goes on once this one is done
//
// (include/swift/ABI/Task.h in Swift's sources: AsyncContext. The layout is stable since Swift 5.5.)
//
// A part that has a frame keeps its context at rbp - 8. That it does so is read from its code: the
// prologue below stores it, and LLVM writes that prologue for nothing else. No symbol is needed, so
// that a stripped program has the same stacks, and nothing has to be known before it is met.
//
// Optimised without frame pointers, which the package manager never does, most parts have no such
// frame. Theirs is the one that the executor has called, and the context is in r14 then, where most
// leave it. The executor knows the task, and a context is believed that leads to it.

import CTracerPlatform

/// Memory that the words of tasks are read from.
package protocol TaskMemory {
  /// Whether an aligned word can be read.
  mutating func canRead(_ address: UInt) -> Bool
}

extension ReadablePages: TaskMemory {}

/// A walk from a context to those who await it.
package struct AsyncChain {
  /// `push %rbp; push %r14; lea 8(%rsp),%rbp`: r14 is the context.
  private static var prologue: UInt64 { 0x0824_6c8d_4856_4155 }

  /// A caller, as the context of who it awaits has it.
  package struct Caller {
    /// The first instruction of a function, and no return address.
    package var resume: UInt
    /// The caller's own context; 0 for the function that a task begins with.
    package var own: UInt
  }

  /// Whether a function keeps an async context at rbp - 8 where these rules hold.
  ///
  /// Code that may be executed and not read is taken for no part of anything.
  static func isPart(_ rules: UnwindRules, _ readable: borrowing ReadableCode) -> Bool {
    guard rules.cfaRegister == 6, rules.cfaExpression == 0,
      let last = code(rules, before: 0, readable)
    else { return false }
    if last == prologue { return true }
    // `sub $8,%rsp` belongs to it where registers are pushed below the context.
    return last >> 32 == 0x08ec_8348 && code(rules, before: 4, readable) == prologue
  }

  /// The eight bytes that end so far before the frame pointer is the frame's.
  private static func code(
    _ rules: UnwindRules, before byteCount: UInt, _ readable: borrowing ReadableCode
  ) -> UInt64? {
    let start = rules.framePointerSince &- byteCount &- 8
    guard readable.canRead(start) else { return nil }
    return UnsafeRawPointer(bitPattern: start)?.loadUnaligned(as: UInt64.self)
  }

  /// The register that has the task, where a return address is that of an executor's call of one: DWARF's
  /// number, or `nil`. (Job::ResumeTask is at 56 of a task, and its argument at 64.)
  static func executorRegister(at counter: UInt, _ readable: borrowing ReadableCode) -> Int? {
    guard readable.canRead(counter &- 8),
      let place = UnsafeRawPointer(bitPattern: counter &- 8)
    else { return nil }
    let code = place.loadUnaligned(as: UInt64.self)
    // `mov 64(%rbx),%r14; call *56(%rbx)`
    if code >> 8 == 0x38_53ff_4073_8b4c { return 3 }
    // `mov 64(%r15),%r14; call *56(%r15)`, or another of those that are a caller's: r13, r14, r15.
    let register = code >> 16 & 7
    guard register >= 5, code == 0x3850_ff41_4070_8b4d | register << 16 | register << 48 else {
      return nil
    }
    return Int(truncatingIfNeeded: register &+ 8)
  }

  private var context: UInt
  /// A context that was met: the chain has come round where it is met again.
  private var landmark: UInt = 0
  private var steps: UInt32 = 0
  /// Whether the chain was left where it could not be read, and not at the task's beginning.
  package private(set) var isBroken = false

  /// - Parameter context: What the frame of an async function has at rbp - 8.
  package init(context: UInt) { self.context = context }

  /// The last context that was read: when the chain has ended, the one that a task begins with.
  package private(set) var root: UInt = 0

  /// The next caller; `nil` at the end.
  @inline(__always)
  package mutating func next<Memory: TaskMemory>(_ readable: inout Memory) -> Caller? {
    let context = context
    guard context != 0 else { return nil }
    guard context != landmark, context & 15 == 0, readable.canRead(context),
      readable.canRead(context &+ 8)
    else {
      isBroken = true
      return nil
    }
    let resume = stackWord(context &+ 8)
    guard resume >= 4096, resume < LiveMap.addressLimit else {
      isBroken = true
      return nil
    }
    // Of a ring, one landmark at a power of two is in it, and is met again. (Brent, 1980.)
    if steps & (steps &- 1) == 0 { landmark = context }
    steps &+= 1
    root = context
    self.context = stackWord(context)
    return Caller(resume: resume, own: self.context)
  }
}
