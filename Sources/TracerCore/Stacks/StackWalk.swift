// SPDX-License-Identifier: Apache-2.0
// From the registers at a call to the rows of its stack, innermost first.

import CTracerPlatform
import Synchronization

/// One walk up a stack.
package struct StackWalk {
  package enum End: UInt8 {
    /// The outermost frame was reached.
    case outermost
    /// The depth limit was reached first.
    case truncated
    /// A frame could not be left: what is above it is not known.
    case broken
    /// There was no room to remember a new frame.
    case noRoom
  }

  /// Where row numbers are written; room for `limit`.
  let frames: UnsafeMutablePointer<UInt32>
  let limit: UInt32
  /// The tracer's own code.
  let own: Range<UInt64>
  package private(set) var count: UInt32 = 0
  package private(set) var end: End = .outermost
  /// Where the stack is a task's, the context that the task begins with; else 0. See `TaskOrigin`.
  package private(set) var root: UInt = 0

  package init(into frames: UnsafeMutablePointer<UInt32>, limit: UInt32, own: Range<UInt64>) {
    self.frames = frames
    self.limit = limit
    self.own = own
  }

  /// A frame is never larger: what looks so is a smashed stack, or another one.
  static var frameByteLimit: UInt { 64 << 20 }
  /// A bound on steps, for stacks that go round: the depth limit does not count the tracer's frames.
  static var stepLimit: Int { 4096 }

  /// Walks by cached rows: exact where rbp is the only register that frames are found by, and
  /// started again with all registers where it is not.
  ///
  /// Cost: about 40 instructions a frame.
  package mutating func walk(
    from registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable,
    readable: inout ReadableRange, contexts: inout ReadablePages
  ) {
    let reader = rows.reader
    var range = readable
    range.begin(at: UInt(bitPattern: registers))
    var place = Place(
      counter: registers.pointee.return_address,
      stackPointer: UInt(bitPattern: registers + 1), framePointer: UInt(registers.pointee.rbp))
    var kept: UInt32 = 0
    var steps = Self.stepLimit
    var outcome = Outcome.stepped
    repeat {
      var number = reader.find(place.counter)
      if number == 0 {
        outcome = findUnmet(place.counter, rows, &number)
        guard outcome == .stepped else { break }
      }
      let row = reader.rows + Int(number)
      if !row.pointee.flags.contains(.own) {
        guard kept < limit else {
          outcome = .ended(.truncated)
          break
        }
        frames[Int(kept)] = number
        kept &+= 1
      }
      // The plain row: the CFA from one of two registers, the return address below it.
      if row.pointee.flags.rawValue & Row.Flags.special == 0 {
        outcome = place.step(row, &range)
      } else {
        outcome = place.stepSpecially(row, &range)
      }
      steps &-= 1
    } while outcome == .stepped && steps > 0
    readable = range
    count = kept
    switch outcome {
    case .ended(let end): finish(end)
    case .stepped: finish(.broken)
    case .complex:
      walkFully(from: registers, rows: rows, readable: &readable, contexts: &contexts)
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
    while let caller = chain.next(&contexts) {
      let number = rows.number(UInt64(caller.resume) | Row.exactFlag, own: own)
      guard number != 0 else { return finish(.noRoom) }
      guard keep(number, rows.row(number)) else { return }
    }
    if chain.isBroken { return finish(.broken) }
    root = chain.root
    finish(.outermost)
  }

  /// Goes on with the stack that made the task.
  @inline(never)
  package mutating func append(
    _ rows: UnsafePointer<UInt32>, count added: UInt32, isTruncated: Bool
  ) {
    let kept = min(added, limit &- count)
    for position in 0..<Int(kept) { frames[Int(count) &+ position] = rows[position] }
    count &+= kept
    end = kept < added || isTruncated ? .truncated : .outermost
  }

  /// A counter without a row at the first place to look: new, or further away, or no counter at all.
  @inline(never)
  private func findUnmet(
    _ counter: UInt64, _ rows: borrowing RowTable, _ number: inout UInt32
  ) -> Outcome {
    guard counter != 0 else { return .ended(.outermost) }
    number = rows.number(counter, own: own)
    return number == 0 ? .ended(.noRoom) : .stepped
  }

  /// What came of a step.
  private enum Outcome: Equatable {
    case stepped
    case ended(End)
    /// The frame needs all registers.
    case complex
    /// The frame is an async function's, whose context this is.
    case awaited(context: UInt)
  }

  /// Where a walk is: one frame's registers, as far as the fast step follows them.
  private struct Place {
    var counter: UInt64
    var stackPointer: UInt
    var framePointer: UInt

    /// Steps out of a frame whose row is plain.
    @inline(__always)
    mutating func step(
      _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
    ) -> Outcome {
      let base = row.pointee.cfaRule == .stackPointer ? stackPointer : framePointer
      let frame = base &+ UInt(bitPattern: Int(row.pointee.cfaOffset))
      guard frame &- stackPointer &- 1 < StackWalk.frameByteLimit, range.canRead(frame &- 8) else {
        return .ended(.broken)
      }
      if row.pointee.flags.contains(.savesRBP) {
        let saved = frame &+ UInt(bitPattern: Int(row.pointee.rbpOffset))
        guard range.canRead(saved) else { return .ended(.broken) }
        framePointer = stackWord(saved)
      }
      counter = UInt64(stackWord(frame &- 8))
      stackPointer = frame
      return .stepped
    }

    /// Steps out of any other frame, or says why not.
    @inline(never)
    mutating func stepSpecially(
      _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
    ) -> Outcome {
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
        return step(row, &range)
      }
      return stepRealigned(row, &range)
    }

    /// Steps out of a function that realigned its stack, and keeps both by rbp.
    private mutating func stepRealigned(
      _ row: UnsafeMutablePointer<Row>, _ range: inout ReadableRange
    ) -> Outcome {
      let base = row.pointee.cfaRule == .stackPointer ? stackPointer : framePointer
      var frame = base &+ UInt(bitPattern: Int(row.pointee.cfaOffset))
      if row.pointee.cfaRule == .wordAtFramePointer {
        guard range.canRead(frame) else { return .ended(.broken) }
        frame = stackWord(frame)
      }
      guard frame &- stackPointer &- 1 < StackWalk.frameByteLimit, range.canRead(frame &- 8) else {
        return .ended(.broken)
      }
      if row.pointee.flags.contains(.savesRBPAtRBP) || row.pointee.flags.contains(.savesRBP) {
        let from = row.pointee.flags.contains(.savesRBP) ? frame : framePointer
        let saved = from &+ UInt(bitPattern: Int(row.pointee.rbpOffset))
        guard range.canRead(saved) else { return .ended(.broken) }
        framePointer = stackWord(saved)
      }
      counter = UInt64(stackWord(frame &- 8))
      stackPointer = frame
      return .stepped
    }
  }

  private mutating func finish(_ end: End) { self.end = end }

  /// Notes a frame; `false` once the walk is over.
  @inline(__always)
  private mutating func keep(_ number: UInt32, _ row: UnsafeMutablePointer<Row>) -> Bool {
    if row.pointee.flags.contains(.own) { return true }
    guard count < limit else {
      end = .truncated
      return false
    }
    frames[Int(count)] = number
    count &+= 1
    return true
  }

  // MARK: With all registers

  /// Walks by the full rules of each frame: signal frames, PLT entries, hand-written code.
  ///
  /// Cold: a microsecond or two a frame, 3 KiB of stack.
  @inline(never)
  private mutating func walkFully(
    from registers: UnsafePointer<tracer_registers>, rows: borrowing RowTable,
    readable: inout ReadableRange, contexts: inout ReadablePages
  ) {
    count = 0
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
        let context = inner.context(calledFrom: state)
      {
        return follow(context, rows, &contexts)
      }
      inner = state
      guard keep(number, row) else { return }
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
    finish(.broken)
  }
}

/// All registers that a frame can restore, and which of them are known.
struct RegisterState {
  private var values: InlineArray<17, UInt>
  private var known: UInt32
  /// Whether the counter is an interrupted instruction's and not a return address.
  private(set) var isExact = false

  var counter: UInt { values[16] }

  init(_ registers: tracer_registers, stackPointer: UInt) {
    values = InlineArray(repeating: 0)
    known = 0
    set(3, UInt(registers.rbx))
    set(6, UInt(registers.rbp))
    set(7, stackPointer)
    set(12, UInt(registers.r12))
    set(13, UInt(registers.r13))
    set(14, UInt(registers.r14))
    set(15, UInt(registers.r15))
    set(16, UInt(registers.return_address))
  }

  private mutating func set(_ register: Int, _ value: UInt) {
    values[register] = value
    known |= 1 << UInt32(register)
  }

  private func value(_ register: Int) -> UInt? {
    register >= 0 && register < 17 && known & 1 << UInt32(register) != 0 ? values[register] : nil
  }

  var framePointer: UInt? { value(6) }

  /// The context of an async function without a frame of its own kind, if an executor's call of a task
  /// has led to it.
  ///
  /// Checked by the task. Where r14 is something else by now, another register may have the context;
  /// others may have those of callers.
  func context(calledFrom executor: RegisterState) -> UInt? {
    guard !executor.isExact,
      let register = AsyncChain.executorRegister(at: executor.counter),
      let task = executor.value(register)
    else { return nil }
    // Fresh: a register may have what was unmapped since.
    var readable = ReadablePages()
    let registers: InlineArray<5, Int> = [14, 3, 12, 13, 15]
    var found: UInt?
    var longest: UInt32 = 0
    for position in 0..<5 {
      guard let context = value(registers[position]),
        let length = TaskOrigin.chainLength(from: context, to: task, &readable),
        length > longest
      else { continue }
      if position == 0 { return context }
      longest = length
      found = context
    }
    return found
  }

  var isOutermostByFramePointer: Bool { value(6) == 0 }

  mutating func stepByFramePointer(_ readable: inout ReadableRange) -> Bool {
    guard let base = value(6), let stackPointer = value(7), base >= stackPointer,
      base &- stackPointer < StackWalk.frameByteLimit, readable.canRead(base),
      readable.canRead(base &+ 8)
    else { return false }
    set(16, stackWord(base &+ 8))
    set(7, base &+ 16)
    set(6, stackWord(base))
    isExact = false
    return true
  }

  mutating func step(by rules: UnwindRules, _ readable: inout ReadableRange) -> Bool {
    guard let frame = frameAddress(rules, &readable) else { return false }
    var next = self
    next.known &= ~(1 << 16)
    // The stack pointer of the caller is the CFA, unless a rule says otherwise.
    next.set(7, frame)
    for register in 0..<17 {
      let rule = rules.registers[register]
      switch rule.kind {
      case .same: break
      case .undefined: next.known &= ~(1 << UInt32(register))
      default:
        guard let found = restored(rule, frame, &readable) else {
          next.known &= ~(1 << UInt32(register))
          continue
        }
        next.set(register, found)
      }
    }
    guard next.value(16) != nil, let stackPointer = next.value(7) else { return false }
    // A signal frame may lead to another stack; any other frame leads up this one.
    guard rules.isSignalFrame || stackPointer > values[7] else { return false }
    next.isExact = rules.isSignalFrame
    self = next
    return true
  }

  private func frameAddress(_ rules: UnwindRules, _ readable: inout ReadableRange) -> UInt? {
    if rules.cfaExpression != 0 { return evaluate(rules.cfaExpression, pushing: nil, &readable) }
    guard let base = value(rules.cfaRegister) else { return nil }
    return base &+ UInt(bitPattern: rules.cfaOffset)
  }

  private func restored(
    _ rule: RegisterRule, _ frame: UInt, _ readable: inout ReadableRange
  ) -> UInt? {
    let offset = UInt(bitPattern: rule.value)
    switch rule.kind {
    case .atOffset: return read(frame &+ offset, &readable)
    case .offset: return frame &+ offset
    case .register: return value(rule.value)
    case .atExpression:
      guard let address = evaluate(offset, pushing: frame, &readable) else { return nil }
      return read(address, &readable)
    case .expression: return evaluate(offset, pushing: frame, &readable)
    case .same, .undefined: return nil
    }
  }

  private func read(_ address: UInt, _ readable: inout ReadableRange) -> UInt? {
    readable.canRead(address) ? stackWord(address) : nil
  }

  /// The value of a DWARF expression; `nil` where it needs what is not known. (DWARF 5, 2.5.)
  private func evaluate(
    _ block: UInt, pushing first: UInt?, _ readable: inout ReadableRange
  ) -> UInt? {
    guard let start = UnsafeRawPointer(bitPattern: block) else { return nil }
    var reader = TableReader(start)
    let length = Int(truncatingIfNeeded: reader.readUnsigned())
    let end = reader.position + length
    var stack = ExpressionStack()
    if let first { stack.push(first) }
    while reader.position < end {
      let opcode = reader.read(UInt8.self)
      switch opcode {
      case 0x30...0x4f: stack.push(UInt(opcode - 0x30))  // lit0…31
      case 0x70...0x8f:  // breg0…31
        guard let base = value(Int(opcode) - 0x70) else { return nil }
        stack.push(base &+ UInt(bitPattern: reader.readSigned()))
      case 0x06:  // deref
        guard let value = read(stack.pop(), &readable) else { return nil }
        stack.push(value)
      default:
        guard stack.run(opcode, &reader) else { return nil }
      }
      guard stack.isSound else { return nil }
    }
    let result = stack.pop()
    return stack.isSound ? result : nil
  }
}

/// The operands of a DWARF expression.
private struct ExpressionStack {
  private var values = InlineArray<16, UInt>(repeating: 0)
  private var count = 0
  private(set) var isSound = true

  mutating func push(_ value: UInt) {
    guard count < 16 else {
      isSound = false
      return
    }
    values[count] = value
    count &+= 1
  }

  mutating func pop() -> UInt {
    guard count > 0 else {
      isSound = false
      return 0
    }
    count &-= 1
    return values[count]
  }

  /// The operations that need nothing but the operands. (DWARF 5, 7.7.1.)
  mutating func run(_ opcode: UInt8, _ reader: inout TableReader) -> Bool {
    switch opcode {
    case 0x03: push(reader.read(UInt.self))
    case 0x08: push(UInt(reader.read(UInt8.self)))
    case 0x09: push(UInt(bitPattern: Int(reader.read(Int8.self))))
    case 0x0a: push(UInt(reader.read(UInt16.self)))
    case 0x0b: push(UInt(bitPattern: Int(reader.read(Int16.self))))
    case 0x0c: push(UInt(reader.read(UInt32.self)))
    case 0x0d: push(UInt(bitPattern: Int(reader.read(Int32.self))))
    case 0x0e: push(reader.read(UInt.self))
    case 0x10: push(UInt(truncatingIfNeeded: reader.readUnsigned()))
    case 0x11: push(UInt(bitPattern: reader.readSigned()))
    case 0x12:
      let top = pop()
      push(top)
      push(top)
    case 0x13: _ = pop()
    case 0x16:
      let (top, below) = (pop(), pop())
      push(top)
      push(below)
    case 0x23: push(pop() &+ UInt(truncatingIfNeeded: reader.readUnsigned()))
    case 0x96: break  // nop
    default: return runBinary(opcode)
    }
    return true
  }

  private mutating func runBinary(_ opcode: UInt8) -> Bool {
    let (right, left) = (pop(), pop())
    let (signedLeft, signedRight) = (Int(bitPattern: left), Int(bitPattern: right))
    switch opcode {
    case 0x1a: push(left & right)
    case 0x1c: push(left &- right)
    case 0x1e: push(left &* right)
    case 0x21: push(left | right)
    case 0x22: push(left &+ right)
    case 0x24: push(left &<< right)
    case 0x25: push(left &>> right)
    case 0x26: push(UInt(bitPattern: signedLeft &>> signedRight))
    case 0x27: push(left ^ right)
    case 0x29: push(left == right ? 1 : 0)
    case 0x2a: push(signedLeft >= signedRight ? 1 : 0)
    case 0x2b: push(signedLeft > signedRight ? 1 : 0)
    case 0x2c: push(signedLeft <= signedRight ? 1 : 0)
    case 0x2d: push(signedLeft < signedRight ? 1 : 0)
    case 0x2e: push(left != right ? 1 : 0)
    default: return false
    }
    return true
  }
}
