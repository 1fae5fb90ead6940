// SPDX-License-Identifier: Apache-2.0
// From the registers at a call to the rows of its stack, innermost first.

import CTracerPlatform
import Synchronization

/// How a walk ended.
package enum WalkEnd: UInt8 {
  /// The outermost frame was reached.
  case outermost
  /// A frame could not be left: what is above it is not known.
  case broken
  /// There was no room to remember a new frame.
  case noRoom
}

/// What came of a step from one frame to its caller.
enum StepOutcome: Equatable {
  case stepped
  case ended(WalkEnd)
  /// The frame needs all registers.
  case complex
  /// The frame is an async function's, whose context this is.
  case awaited(context: UInt)
}

/// Where a walk is: one frame's registers, as far as the fast step follows them.
struct FramePlace {
  /// The key of the frame's row.
  var counter: UInt64
  /// The stack pointer; of a function that awaits, the address of its context.
  var stackPointer: UInt
  var framePointer: UInt

  init(_ registers: UnsafePointer<tracer_registers>) {
    counter = registers.pointee.return_address
    stackPointer = UInt(bitPattern: registers + 1)
    framePointer = UInt(registers.pointee.rbp)
  }

  init(counter: UInt64, stackPointer: UInt, framePointer: UInt) {
    self.counter = counter
    self.stackPointer = stackPointer
    self.framePointer = framePointer
  }

  /// Steps out of a frame.
  @inline(__always)
  mutating func step(
    _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
  ) -> StepOutcome {
    // The plain row: the CFA from one of two registers, the return address below it.
    if row.pointee.flags.rawValue & Row.Flags.special == 0 { return stepPlainly(row, &range) }
    // Copies, so that of plain rows all stays in registers.
    var (place, readable) = (self, range)
    let outcome = place.stepSpecially(row, &readable)
    (self, range) = (place, readable)
    return outcome
  }

  /// Whether a step out of a frame will lead to another page by a frame pointer alone.
  ///
  /// What has no table is taken to keep a frame pointer, which may lead to another stack: one that is
  /// gone the next time, or is already, while the word that leads there is still the same. Such pages
  /// are asked for in each walk, and what was read there is not remembered.
  @inline(__always)
  func guessLeavesPage(_ row: UnsafeMutablePointer<Row>) -> Bool {
    row.pointee.flags.contains(.guess) && framePointer != 0
      && (framePointer &+ 16) >> 12 != stackPointer >> 12
  }

  @inline(__always)
  fileprivate mutating func stepPlainly(
    _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
  ) -> StepOutcome {
    let base = row.pointee.cfaRule == .stackPointer ? stackPointer : framePointer
    let frame = base &+ UInt(bitPattern: Int(row.pointee.cfaOffset))
    let flags = row.pointee.flags
    return leave(to: frame, row, savedFrom: flags.contains(.savesRBP) ? frame : nil, &range)
  }

  /// Steps to the caller of a frame that ends at an address, with the rbp that was saved, if it was, at
  /// the row's offset from another.
  @inline(__always)
  private mutating func leave(
    to frame: UInt, _ row: UnsafeMutablePointer<Row>, savedFrom base: UInt?,
    _ range: inout ReadableRange
  ) -> StepOutcome {
    guard frame &- stackPointer &- 1 < StackWalk.frameByteLimit, range.canRead(frame &- 8) else {
      return .ended(.broken)
    }
    if let base {
      let saved = base &+ UInt(bitPattern: Int(row.pointee.rbpOffset))
      guard range.canRead(saved) else { return .ended(.broken) }
      framePointer = stackWord(saved)
    }
    counter = UInt64(stackWord(frame &- 8))
    stackPointer = frame
    return .stepped
  }

  /// Steps out of any other frame, or says why not.
  @inline(never)
  private mutating func stepSpecially(
    _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
  ) -> StepOutcome {
    let flags = row.pointee.flags
    if flags.contains(.end) { return .ended(.outermost) }
    if flags.contains(.async) {
      guard range.canRead(framePointer &- 8) else { return .ended(.broken) }
      return .awaited(context: stackWord(framePointer &- 8))
    }
    if flags.contains(.complex) { return .complex }
    if flags.contains(.guess) {
      // The loader's first code has no table; there rbp is still what the kernel set it to.
      // (System V ABI, AMD64 supplement, 3.4.1: zero marks the deepest frame.)
      if framePointer == 0 { return .ended(.outermost) }
      guard framePointer >= stackPointer else { return .ended(.broken) }
    }
    guard row.pointee.cfaRule == .wordAtFramePointer || flags.contains(.savesRBPAtRBP) else {
      return stepPlainly(row, &range)
    }
    return stepRealigned(row, &range)
  }

  /// Steps out of a function that realigned its stack, and keeps both by rbp.
  private mutating func stepRealigned(
    _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
  ) -> StepOutcome {
    let start = row.pointee.cfaRule == .stackPointer ? stackPointer : framePointer
    var frame = start &+ UInt(bitPattern: Int(row.pointee.cfaOffset))
    if row.pointee.cfaRule == .wordAtFramePointer {
      guard range.canRead(frame) else { return .ended(.broken) }
      frame = stackWord(frame)
    }
    let flags = row.pointee.flags
    let base =
      flags.contains(.savesRBP) ? frame : flags.contains(.savesRBPAtRBP) ? framePointer : nil
    return leave(to: frame, row, savedFrom: base, &range)
  }
}

/// A whole walk up a stack, which remembers nothing and is reminded of nothing.
package struct StackWalk {
  /// The end of the room for row numbers: the innermost frame's is the last word before it.
  let framesEnd: UnsafeMutablePointer<UInt32>
  let limit: UInt32
  /// The tracer's own code.
  let own: Range<UInt64>
  /// Frames met, whether kept or not; the tracer's own do not count.
  package private(set) var total: UInt32 = 0
  package private(set) var end: WalkEnd = .outermost
  /// Where the stack is a task's, the context that the task begins with; else 0. See `TaskOrigin`.
  package private(set) var root: UInt = 0

  package init(endingAt framesEnd: UnsafeMutablePointer<UInt32>, limit: UInt32, own: Range<UInt64>)
  {
    self.framesEnd = framesEnd
    self.limit = limit
    self.own = own
  }

  /// A frame is never larger: what looks so is a smashed stack, or another one.
  static var frameByteLimit: UInt { 64 << 20 }
  /// A bound on steps. A stack that is deeper counts as this deep.
  package static var stepLimit: Int { 2048 }

  /// Frames kept, the innermost ones.
  package var count: UInt32 { min(total, limit) }
  /// Their rows, the outermost kept one first.
  package var rows: UnsafePointer<UInt32> { UnsafePointer(framesEnd - Int(count)) }

  /// Walks by cached rows: exact where rbp is the only register that frames are found by, and
  /// started again with all registers where it is not.
  ///
  /// Cost: about 40 instructions a frame.
  @inline(never)
  package mutating func walk(
    from registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable,
    readable: inout ReadableRange, contexts: inout ReadablePages
  ) {
    let reader = rows.reader
    readable.begin(at: UInt(bitPattern: registers))
    var range = readable
    var isGuessed = false
    var place = FramePlace(registers)
    var steps = Self.stepLimit
    var outcome = StepOutcome.stepped
    repeat {
      var number: UInt32 = 0
      outcome = rows.find(place.counter, reader, own: own, &number)
      guard outcome == .stepped else { break }
      let row = reader.rows + Int(number)
      keep(number, row)
      if !isGuessed, place.guessLeavesPage(row) {
        isGuessed = true
        // From here on nothing is known of any page.
        range = ReadableRange()
      }
      outcome = place.step(row, &range)
      if !isGuessed { readable = range }
      steps &-= 1
    } while outcome == .stepped && steps > 0
    switch outcome {
    case .ended(let end): self.end = end
    case .stepped: finishAtStepLimit()
    case .complex:
      if !walkToExecutor(from: registers, rows: rows, contexts: &contexts) {
        walkFully(from: registers, rows: rows, contexts: &contexts)
      }
    case .awaited(let context): follow(context, rows, &contexts)
    }
  }

  /// Goes on with those who await an async function, and not with the executor that has called it.
  @inline(never)
  package mutating func follow(
    _ context: UInt, _ rows: borrowing RowTable, _ contexts: inout ReadablePages
  ) {
    root = 0
    var chain = AsyncChain(context: context)
    var steps = Self.stepLimit
    while steps > 0, let caller = chain.next(&contexts) {
      steps &-= 1
      let number = rows.number(UInt64(caller.resume) | Row.exactFlag, own: own)
      guard number != 0 else { return finish(.noRoom) }
      keep(number, rows.row(number))
    }
    if chain.isBroken { return finish(.broken) }
    root = chain.root
    finish(.outermost)
  }

  /// The same of a context that was searched for. One that leads nowhere was the wrong one, which is no fault
  /// of the stack's: that ends where it did before.
  mutating func followFound(
    _ context: UInt, _ rows: borrowing RowTable, _ contexts: inout ReadablePages
  ) {
    let before = total
    follow(context, rows, &contexts)
    guard end == .broken else { return }
    total = before
    finish(.outermost)
  }

  /// Goes on with a stack that is known: the one that made the task.
  package mutating func append(_ site: borrowing Site, _ rows: UnsafePointer<UInt32>) {
    let own = total
    for position in 0..<min(Int(site.frameCount), Int(limit &- min(own, limit))) {
      (framesEnd - Int(own) - position - 1).pointee = rows[position]
    }
    total = Self.total(own, behind: site.totalFrameCount, limit: limit)
    if site.isBroken { end = .broken }
  }

  /// The frames of a stack with those of the stack that made its task. What does not fit counts as one:
  /// of tasks that make each other for ever, each would be a stack of its own for its length.
  static func total(_ own: UInt32, behind origin: UInt32, limit: UInt32) -> UInt32 {
    let sum = own &+ origin
    return sum <= limit || origin == 0 ? sum : max(own, limit) &+ 1
  }

  private mutating func finishAtStepLimit() {
    // Without a frame beyond the limit it is a stack that goes round.
    end = total > limit ? .outermost : .broken
  }

  @inline(__always)
  private mutating func keep(_ number: UInt32, _ row: UnsafeMutablePointer<Row>) {
    if row.pointee.flags.contains(.own) { return }
    total &+= 1
    if total <= limit { (framesEnd - Int(total)).pointee = number }
  }

  // MARK: With more registers

  /// Walks by cached rows, with the registers that tell what an executor has called; `false` where a row
  /// does not tell enough for that.
  ///
  /// Cost: about 100 instructions a frame.
  @inline(never)
  private mutating func walkToExecutor(
    from registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable,
    contexts: inout ReadablePages
  ) -> Bool {
    total = 0
    let reader = rows.reader
    // As in a full walk: it may leave the thread's stack.
    var readable = ReadableRange()
    var place = FramePlace(registers)
    var registers = KeptRegisters(registers)
    var inner = registers
    var steps = Self.stepLimit
    while steps > 0 {
      steps &-= 1
      var number: UInt32 = 0
      if case .ended(let end) = rows.find(place.counter, reader, own: own, &number) {
        finish(end)
        return true
      }
      let row = reader.rows + Int(number)
      let executor = Int(row.pointee.executor)
      if executor != 0, let context = inner.context(of: registers[executor &- 1]) {
        follow(context, rows, &contexts)
        return true
      }
      guard row.pointee.kept.isFit, executor != 0 || !row.pointee.flags.contains(.complex) else {
        return false
      }
      inner = registers
      keep(number, row)
      switch executor == 0 ? place.step(row, &readable) : place.stepPlainly(row, &readable) {
      case .stepped: break
      case .ended(let end):
        finish(end)
        return true
      case .awaited(let context):
        follow(context, rows, &contexts)
        return true
      case .complex: return false
      }
      guard registers.step(row.pointee.kept, from: place.stackPointer, &readable) else {
        return false
      }
    }
    finishAtStepLimit()
    return true
  }

  /// Walks by the full rules of each frame: signal frames, PLT entries, hand-written code.
  ///
  /// Cold: a microsecond or two a frame, 3 KiB of stack.
  @inline(never)
  private mutating func walkFully(
    from registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable,
    contexts: inout ReadablePages
  ) {
    total = 0
    // It may leave the thread's stack, for one that is gone the next time.
    var readable = ReadableRange()
    var state = RegisterState(registers.pointee, stackPointer: UInt(bitPattern: registers + 1))
    var inner = state
    var rules = UnwindRules()
    var steps = 0
    while steps < Self.stepLimit {
      steps &+= 1
      let key = UInt64(state.counter) | (state.isExact ? Row.exactFlag : 0)
      let number = rows.number(key, own: own)
      guard number != 0 else { return finish(.noRoom) }
      let row = rows.row(number)
      if row.pointee.flags.contains(.complex),
        let context = inner.context(calledFrom: state, rows.code)
      {
        return follow(context, rows, &contexts)
      }
      inner = state
      keep(number, row)
      if row.pointee.flags.contains(.end) { return finish(.outermost) }
      if row.pointee.flags.contains(.async) {
        guard let base = state.framePointer, readable.canRead(base &- 8) else {
          return finish(.broken)
        }
        return follow(stackWord(base &- 8), rows, &contexts)
      }
      if row.pointee.flags.contains(.guess) {
        if state.isOutermostByFramePointer { return finish(.outermost) }
        guard state.stepByFramePointer(&readable) else { return finish(.broken) }
      } else {
        guard rows.findRules(for: key, module: UInt32(row.pointee.module), into: &rules),
          state.step(by: rules, &readable)
        else { return finish(.broken) }
      }
      if state.counter == 0 { return finish(.outermost) }
    }
    finishAtStepLimit()
  }

  private mutating func finish(_ end: WalkEnd) { self.end = end }
}
