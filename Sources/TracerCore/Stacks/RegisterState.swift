// SPDX-License-Identifier: Apache-2.0
// A frame's registers, restored by the full rules of its unwind table.

import CTracerPlatform

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
  func context(
    calledFrom executor: RegisterState, _ readable: borrowing ReadableCode
  ) -> UInt? {
    guard !executor.isExact,
      let register = AsyncChain.executorRegister(at: executor.counter, readable),
      let task = executor.value(register)
    else { return nil }
    return TaskOrigin.context(of: task) { value(KeptRegisters.numbers[$0]) ?? 0 }
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
    guard var reader = TableReader(block: block) else { return nil }
    var stack = ExpressionStack()
    if let first { stack.push(first) }
    while !reader.isAtEnd {
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
      guard stack.isSound, reader.isSound else { return nil }
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
