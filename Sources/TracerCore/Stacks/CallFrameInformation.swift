// SPDX-License-Identifier: Apache-2.0
// The compilers' own account of how to unwind: .eh_frame, evaluated for one program counter.

import CTracerPlatform

/// How one register of the caller is found. Numbers are DWARF's for x86-64: 3 rbx, 6 rbp, 7 rsp,
/// 12…15 r12…r15, 16 the return address. (System V ABI, AMD64 supplement, figure 3.36.)
package struct RegisterRule {
  package enum Kind: UInt8 {
    case same, atOffset, undefined, atExpression, offset, expression, register
  }
  package var kind: Kind
  /// The offset from the CFA, the register's number, or the address of the expression's block.
  package var value: Int
}

/// One row of a function's unwind table.
package struct UnwindRules {
  package static var registerCount: Int { 17 }
  package static var returnAddress: Int { 16 }

  package var registers: InlineArray<17, RegisterRule>
  package var cfaRegister: Int
  package var cfaOffset: Int
  /// The address of the block that computes the CFA; 0 where a register and an offset do.
  package var cfaExpression: UInt
  package var isSignalFrame: Bool
  /// The first instruction of the function for which the CFA is told from rbp; 0 where there is none
  /// up to the counter.
  package var framePointerSince: UInt

  init() {
    registers = InlineArray(repeating: RegisterRule(kind: .same, value: 0))
    cfaRegister = 7
    cfaOffset = 0
    cfaExpression = 0
    isSignalFrame = false
    framePointerSince = 0
  }
}

/// A position in a table of the loaded program, which is read as DWARF says.
///
/// The table is part of a module that was linked and loaded: it is trusted to be readable between
/// its own ends, and every loop over it has one.
struct TableReader {
  var position: UnsafeRawPointer

  init(_ position: UnsafeRawPointer) { self.position = position }

  @inline(__always)
  mutating func read<T: BitwiseCopyable>(_ type: T.Type) -> T {
    let value = position.loadUnaligned(as: type)
    position += MemoryLayout<T>.size
    return value
  }

  mutating func readUnsigned() -> UInt64 { readGroups().value }

  mutating func readSigned() -> Int {
    let (value, bitCount) = readGroups()
    guard bitCount < 64 else { return Int(truncatingIfNeeded: value) }
    let isNegative = value >> (bitCount &- 1) & 1 != 0
    return Int(truncatingIfNeeded: isNegative ? value | UInt64.max &<< bitCount : value)
  }

  /// An integer in groups of seven bits, lowest first (LEB128), and how many bits it was given in.
  private mutating func readGroups() -> (value: UInt64, bitCount: UInt64) {
    var value: UInt64 = 0
    var bitCount: UInt64 = 0
    while bitCount < 70 {
      let byte = read(UInt8.self)
      if bitCount < 64 { value |= UInt64(byte & 0x7f) &<< bitCount }
      bitCount &+= 7
      if byte < 0x80 { break }
    }
    return (value, bitCount)
  }

  /// A pointer in the encoding that the table names. (LSB Core, 10.6.1: DW_EH_PE.)
  mutating func readPointer(_ encoding: UInt8, dataBase: UInt = 0) -> UInt {
    guard encoding != 0xff else { return 0 }
    let place = UInt(bitPattern: position)
    var value: UInt
    switch encoding & 0x0f {
    case 0x01: value = UInt(truncatingIfNeeded: readUnsigned())
    case 0x02: value = UInt(read(UInt16.self))
    case 0x03: value = UInt(read(UInt32.self))
    case 0x09: value = UInt(bitPattern: readSigned())
    case 0x0a: value = UInt(bitPattern: Int(read(Int16.self)))
    case 0x0b: value = UInt(bitPattern: Int(read(Int32.self)))
    default: value = UInt(truncatingIfNeeded: read(UInt64.self))
    }
    switch encoding & 0x70 {
    case 0x10: value = value &+ place
    case 0x30: value = value &+ dataBase
    default: break
    }
    return value
  }
}

/// A common information entry: what the functions of one object file share.
private struct CommonEntry {
  var codeAlignment: UInt64 = 1
  var dataAlignment = 1
  var pointerEncoding: UInt8 = 0
  var hasAugmentation = false
  var isSignalFrame = false
  var instructions: UnsafeRawPointer
  var end: UnsafeRawPointer

  init?(at entry: UnsafeRawPointer) {
    var reader = TableReader(entry)
    let length = reader.read(UInt32.self)
    guard length != 0, length != 0xffff_ffff else { return nil }
    end = reader.position + Int(length)
    instructions = end
    _ = reader.read(UInt32.self)
    let version = reader.read(UInt8.self)
    var augmentation = TableReader(reader.position)
    while reader.read(UInt8.self) != 0 {}
    if version >= 4 { _ = reader.read(UInt16.self) }
    codeAlignment = reader.readUnsigned()
    dataAlignment = reader.readSigned()
    let returnRegister = version == 1 ? UInt64(reader.read(UInt8.self)) : reader.readUnsigned()
    guard returnRegister == 16 else { return nil }
    let kind = augmentation.read(UInt8.self)
    if kind == 0x7a {  // z
      hasAugmentation = true
      let size = reader.readUnsigned()
      let data = reader.position
      readAugmentation(&augmentation, &reader)
      reader.position = data + Int(truncatingIfNeeded: size)
    } else if kind != 0 {
      return nil
    }
    instructions = reader.position
  }

  private mutating func readAugmentation(_ letters: inout TableReader, _ data: inout TableReader) {
    while true {
      switch letters.read(UInt8.self) {
      case 0x52: pointerEncoding = data.read(UInt8.self)  // R
      case 0x53: isSignalFrame = true  // S
      case 0x4c: _ = data.read(UInt8.self)  // L
      case 0x50:  // P
        let encoding = data.read(UInt8.self)
        _ = data.readPointer(encoding)
      default: return
      }
    }
  }
}

/// Finds the rules that hold at a program counter.
package enum CallFrameInformation {
  /// The rules at a program counter, by the module's sorted table; `nil` where no function claims it.
  ///
  /// Cold: microseconds, about 2 KiB of stack.
  package static func rules(
    at counter: UInt, ehFrameHeader: UInt, into rules: inout UnwindRules
  ) -> Bool {
    guard let entry = frameEntry(at: counter, ehFrameHeader: ehFrameHeader) else { return false }
    var reader = TableReader(entry)
    let length = reader.read(UInt32.self)
    guard length != 0, length != 0xffff_ffff else { return false }
    let end = reader.position + Int(length)
    let commonOffset = reader.position
    let back = Int(reader.read(Int32.self))
    guard let common = CommonEntry(at: commonOffset - back) else { return false }
    let start = reader.readPointer(common.pointerEncoding)
    let byteCount = reader.readPointer(common.pointerEncoding & 0x0f)
    guard counter &- start < byteCount else { return false }
    if common.hasAugmentation {
      let size = reader.readUnsigned()
      reader.position += Int(truncatingIfNeeded: size)
    }
    rules = UnwindRules()
    rules.isSignalFrame = common.isSignalFrame
    var machine = RuleMachine(common, start: start, counter: counter)
    // The common entry's instructions hold everywhere.
    guard machine.run(common.instructions, common.end, &rules, everywhere: true) else {
      return false
    }
    machine.initial = rules.registers
    return machine.run(reader.position, end, &rules, everywhere: false)
  }

  /// A binary search of .eh_frame_hdr. (LSB Core, 10.6.2.)
  private static func frameEntry(at counter: UInt, ehFrameHeader: UInt) -> UnsafeRawPointer? {
    guard let header = UnsafeRawPointer(bitPattern: ehFrameHeader),
      header.load(as: UInt8.self) == 1
    else { return nil }
    let frameEncoding = header.load(fromByteOffset: 1, as: UInt8.self)
    let countEncoding = header.load(fromByteOffset: 2, as: UInt8.self)
    // Every linker writes the table as pairs of 32-bit offsets from the header.
    guard header.load(fromByteOffset: 3, as: UInt8.self) == 0x3b else { return nil }
    var reader = TableReader(header + 4)
    _ = reader.readPointer(frameEncoding, dataBase: ehFrameHeader)
    let count = Int(reader.readPointer(countEncoding, dataBase: ehFrameHeader))
    let table = reader.position
    let wanted = Int(bitPattern: counter &- ehFrameHeader)
    guard count > 0, Int(table.loadUnaligned(as: Int32.self)) <= wanted else { return nil }
    var low = 0
    var high = count
    while high &- low > 1 {
      let middle = (low &+ high) / 2
      if Int(table.loadUnaligned(fromByteOffset: middle &* 8, as: Int32.self)) <= wanted {
        low = middle
      } else {
        high = middle
      }
    }
    return header + Int(table.loadUnaligned(fromByteOffset: low &* 8 &+ 4, as: Int32.self))
  }
}

/// Runs call frame instructions up to a program counter. (DWARF 5, 6.4.2.)
private struct RuleMachine {
  let codeAlignment: UInt64
  let dataAlignment: Int
  let pointerEncoding: UInt8
  let counter: UInt
  var location: UInt
  var initial: InlineArray<17, RegisterRule>
  /// What DW_CFA_remember_state has put by; compilers nest it once, glibc's assembly twice.
  var remembered: InlineArray<3, UnwindRules>
  var rememberedCount = 0

  init(_ common: CommonEntry, start: UInt, counter: UInt) {
    codeAlignment = common.codeAlignment
    dataAlignment = common.dataAlignment
    pointerEncoding = common.pointerEncoding
    self.counter = counter
    location = start
    initial = InlineArray(repeating: RegisterRule(kind: .same, value: 0))
    remembered = InlineArray(repeating: UnwindRules())
  }

  mutating func run(
    _ start: UnsafeRawPointer, _ end: UnsafeRawPointer, _ rules: inout UnwindRules,
    everywhere: Bool
  ) -> Bool {
    var reader = TableReader(start)
    while reader.position < end {
      if !everywhere, location > counter { break }
      let opcode = reader.read(UInt8.self)
      let low = Int(opcode & 0x3f)
      switch opcode & 0xc0 {
      case 0x40: advance(UInt64(low))
      case 0x80:
        let offset = scaled(reader.readUnsigned())
        set(&rules, low, .atOffset, offset)
      case 0xc0: restore(&rules, low)
      default:
        guard runExtended(opcode, &reader, &rules) else { return false }
      }
    }
    return true
  }

  private mutating func advance(_ delta: UInt64) {
    location = location &+ UInt(truncatingIfNeeded: delta &* codeAlignment)
  }

  private func scaled(_ factor: UInt64) -> Int {
    Int(truncatingIfNeeded: factor) &* dataAlignment
  }

  private func set(
    _ rules: inout UnwindRules, _ register: Int, _ kind: RegisterRule.Kind, _ value: Int
  ) {
    guard register < UnwindRules.registerCount else { return }
    rules.registers[register] = RegisterRule(kind: kind, value: value)
  }

  private func restore(_ rules: inout UnwindRules, _ register: Int) {
    guard register < UnwindRules.registerCount else { return }
    rules.registers[register] = initial[register]
  }

  private func setCFARegister(_ rules: inout UnwindRules, _ register: Int) {
    rules.cfaRegister = register
    rules.cfaExpression = 0
    // The first: behind an epilogue in a function's middle rbp is named again.
    if register == 6, rules.framePointerSince == 0 { rules.framePointerSince = location }
  }

  private func readRegister(_ reader: inout TableReader) -> Int {
    Int(truncatingIfNeeded: min(reader.readUnsigned(), 255))
  }

  private mutating func runExtended(
    _ opcode: UInt8, _ reader: inout TableReader, _ rules: inout UnwindRules
  ) -> Bool {
    switch opcode {
    case 0x00: break  // nop
    case 0x01: location = reader.readPointer(pointerEncoding)  // set_loc
    case 0x02: advance(UInt64(reader.read(UInt8.self)))
    case 0x03: advance(UInt64(reader.read(UInt16.self)))
    case 0x04: advance(UInt64(reader.read(UInt32.self)))
    case 0x0a:  // remember_state
      guard rememberedCount < 3 else { return false }
      remembered[rememberedCount] = rules
      rememberedCount &+= 1
    case 0x0b:  // restore_state
      guard rememberedCount > 0 else { return false }
      rememberedCount &-= 1
      rules = remembered[rememberedCount]
    case 0x0c:  // def_cfa
      setCFARegister(&rules, readRegister(&reader))
      rules.cfaOffset = Int(truncatingIfNeeded: reader.readUnsigned())
    case 0x0d:  // def_cfa_register
      setCFARegister(&rules, readRegister(&reader))
    case 0x0e: rules.cfaOffset = Int(truncatingIfNeeded: reader.readUnsigned())
    case 0x0f:  // def_cfa_expression
      rules.cfaExpression = UInt(bitPattern: reader.position)
      skipBlock(&reader)
    case 0x12:  // def_cfa_sf
      setCFARegister(&rules, readRegister(&reader))
      rules.cfaOffset = reader.readSigned() &* dataAlignment
    case 0x13: rules.cfaOffset = reader.readSigned() &* dataAlignment
    case 0x2e: _ = reader.readUnsigned()  // GNU_args_size
    default: return runRegister(opcode, &reader, &rules)
    }
    return true
  }

  private func skipBlock(_ reader: inout TableReader) {
    let length = reader.readUnsigned()
    reader.position += Int(truncatingIfNeeded: length)
  }

  private func runRegister(
    _ opcode: UInt8, _ reader: inout TableReader, _ rules: inout UnwindRules
  ) -> Bool {
    let register = readRegister(&reader)
    switch opcode {
    case 0x05: set(&rules, register, .atOffset, scaled(reader.readUnsigned()))
    case 0x06: restore(&rules, register)
    case 0x07: set(&rules, register, .undefined, 0)
    case 0x08: set(&rules, register, .same, 0)
    case 0x09: set(&rules, register, .register, readRegister(&reader))
    case 0x10, 0x16:  // expression, val_expression
      let block = Int(bitPattern: reader.position)
      set(&rules, register, opcode == 0x10 ? .atExpression : .expression, block)
      skipBlock(&reader)
    case 0x11: set(&rules, register, .atOffset, reader.readSigned() &* dataAlignment)
    case 0x14: set(&rules, register, .offset, scaled(reader.readUnsigned()))
    case 0x15: set(&rules, register, .offset, reader.readSigned() &* dataAlignment)
    case 0x2f:  // GNU_negative_offset_extended
      set(&rules, register, .atOffset, 0 &- scaled(reader.readUnsigned()))
    default: return false
    }
    return true
  }
}
