// SPDX-License-Identifier: Apache-2.0
// The compilers' own account of how to unwind: .eh_frame, evaluated for one program counter.

import CTracerPlatform

/// How one register of the caller is found. Numbers are DWARF's for x86-64: 3 rbx, 6 rbp, 7 rsp,
/// 12…15 r12…r15, 16 the return address. (System V ABI, AMD64 supplement, figure 3.36.)
package struct RegisterRule {
  package enum Kind: UInt8 {
    case same, atOffset, undefined, atExpression, offset, expression, register
  }
  /// Both in one word, the kind in its low three bits: rules are put by and taken back with all registers,
  /// at each epilogue in a function's middle.
  private let bits: Int

  init(kind: Kind, value: Int) { bits = value &<< 3 | Int(kind.rawValue) }

  package var kind: Kind {
    // No other bits were ever made.
    Kind(rawValue: UInt8(truncatingIfNeeded: bits & 7)).unsafelyUnwrapped
  }
  /// The offset from the CFA, the register's number, or the address of the expression's block.
  package var value: Int { bits &>> 3 }
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
/// What a table says is not believed: protectors and broken linkers write tables that lead anywhere. A
/// read past the end gives 0 and stays there, so that every loop up to the end ends.
struct TableReader {
  private(set) var position: UnsafeRawPointer
  private(set) var end: UnsafeRawPointer
  /// Whether nothing was asked for that lies past the end.
  private(set) var isSound = true

  init(_ position: UnsafeRawPointer, end: UnsafeRawPointer) {
    self.position = position
    self.end = end
  }

  var isAtEnd: Bool { position >= end }

  @inline(__always)
  mutating func read<T: BitwiseCopyable & ExpressibleByIntegerLiteral>(_ type: T.Type) -> T {
    guard end - position >= MemoryLayout<T>.size else {
      passEnd()
      return 0
    }
    let value = position.loadUnaligned(as: type)
    position += MemoryLayout<T>.size
    return value
  }

  mutating func skip(_ byteCount: UInt64) {
    guard byteCount <= UInt64(truncatingIfNeeded: end - position) else { return passEnd() }
    position += Int(truncatingIfNeeded: byteCount)
  }

  /// The part that comes next, of which this reader goes on behind.
  mutating func part(_ byteCount: UInt64) -> TableReader {
    let start = position
    skip(byteCount)
    return TableReader(start, end: position)
  }

  private mutating func passEnd() {
    position = end
    isSound = false
  }

  @inline(__always)
  mutating func readUnsigned() -> UInt64 {
    if position < end {
      let byte = position.load(as: UInt8.self)
      if byte < 0x80 {
        position += 1
        return UInt64(byte)
      }
    }
    return readGroups().value
  }

  mutating func readSigned() -> Int {
    let (value, bitCount) = readGroups()
    guard bitCount < 64 else { return Int(truncatingIfNeeded: value) }
    let isNegative = value >> (bitCount &- 1) & 1 != 0
    return Int(truncatingIfNeeded: isNegative ? value | UInt64.max &<< bitCount : value)
  }

  /// An integer in groups of seven bits, lowest first (LEB128), and how many bits it was given in.
  @inline(never)
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
  var instructions: TableReader

  init?(_ entry: TableReader) {
    var reader = entry
    instructions = entry
    _ = reader.read(UInt32.self)
    let version = reader.read(UInt8.self)
    var augmentation = reader
    while reader.read(UInt8.self) != 0 {}
    if version >= 4 { _ = reader.read(UInt16.self) }
    codeAlignment = reader.readUnsigned()
    dataAlignment = reader.readSigned()
    let returnRegister = version == 1 ? UInt64(reader.read(UInt8.self)) : reader.readUnsigned()
    guard returnRegister == 16 else { return nil }
    let kind = augmentation.read(UInt8.self)
    if kind == 0x7a {  // z
      hasAugmentation = true
      var data = reader.part(reader.readUnsigned())
      readAugmentation(&augmentation, &data)
      guard data.isSound else { return nil }
    } else if kind != 0 {
      return nil
    }
    guard reader.isSound else { return nil }
    instructions = reader
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

extension TableReader {
  /// The inside of an expression's block, which was found to be readable when the rules were made.
  init?(block: UInt) {
    guard let start = UnsafeRawPointer(bitPattern: block) else { return nil }
    // An integer is at most ten bytes; it ends where it says so.
    var length = TableReader(start, end: start + 10)
    let byteCount = length.readUnsigned()
    self.init(length.position, end: length.position + Int(truncatingIfNeeded: byteCount))
  }
}

/// Finds the rules that hold at a program counter.
package enum CallFrameInformation {
  /// The rules at a program counter, by the module's sorted table; `nil` where no function claims it.
  ///
  /// Cold: microseconds, about 2 KiB of stack.
  ///
  /// - Parameter tables: What can be read: the segment that the tables lie in.
  package static func rules(
    at counter: UInt, ehFrameHeader: UInt, in tables: Range<UInt>, into rules: inout UnwindRules
  ) -> Bool {
    guard let place = frameEntry(at: counter, ehFrameHeader, tables),
      var reader = entry(at: place, tables)
    else { return false }
    let commonPlace = UInt(bitPattern: reader.position)
    let back = UInt(bitPattern: Int(reader.read(Int32.self)))
    guard let commonReader = entry(at: commonPlace &- back, tables),
      let common = CommonEntry(commonReader)
    else { return false }
    let start = reader.readPointer(common.pointerEncoding)
    let byteCount = reader.readPointer(common.pointerEncoding & 0x0f)
    guard counter &- start < byteCount else { return false }
    if common.hasAugmentation { reader.skip(reader.readUnsigned()) }
    guard reader.isSound else { return false }
    rules = UnwindRules()
    rules.isSignalFrame = common.isSignalFrame
    var machine = RuleMachine(common, start: start)
    // The common entry's instructions hold everywhere.
    guard machine.run(common.instructions, &rules, upTo: .max) else { return false }
    machine.initial = rules.registers
    return machine.run(reader, &rules, upTo: counter)
  }

  /// A reader for what can be read from an address on; `nil` where nothing can.
  private static func reader(at place: UInt, _ tables: Range<UInt>) -> TableReader? {
    guard tables.contains(place), let start = UnsafeRawPointer(bitPattern: place),
      let end = UnsafeRawPointer(bitPattern: tables.upperBound)
    else { return nil }
    return TableReader(start, end: end)
  }

  /// The inside of an entry of .eh_frame.
  private static func entry(at place: UInt, _ tables: Range<UInt>) -> TableReader? {
    guard var reader = reader(at: place, tables) else { return nil }
    let length = reader.read(UInt32.self)
    guard length != 0, length != 0xffff_ffff else { return nil }
    let inside = reader.part(UInt64(length))
    return reader.isSound ? inside : nil
  }

  /// Where the entry for a counter is, by a binary search of .eh_frame_hdr. (LSB Core, 10.6.2.)
  private static func frameEntry(
    at counter: UInt, _ ehFrameHeader: UInt, _ tables: Range<UInt>
  ) -> UInt? {
    guard var reader = reader(at: ehFrameHeader, tables), reader.read(UInt8.self) == 1 else {
      return nil
    }
    let frameEncoding = reader.read(UInt8.self)
    let countEncoding = reader.read(UInt8.self)
    // Every linker writes the table as pairs of 32-bit offsets from the header.
    guard reader.read(UInt8.self) == 0x3b else { return nil }
    _ = reader.readPointer(frameEncoding, dataBase: ehFrameHeader)
    let count = Int(truncatingIfNeeded: reader.readPointer(countEncoding, dataBase: ehFrameHeader))
    let table = reader.position
    let wanted = Int(bitPattern: counter &- ehFrameHeader)
    guard count > 0, count <= (reader.end - table) / 8,
      Int(table.loadUnaligned(as: Int32.self)) <= wanted
    else { return nil }
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
    let offset = Int(table.loadUnaligned(fromByteOffset: low &* 8 &+ 4, as: Int32.self))
    return ehFrameHeader &+ UInt(bitPattern: offset)
  }
}

/// Runs call frame instructions up to a program counter. (DWARF 5, 6.4.2.)
private struct RuleMachine {
  let codeAlignment: UInt64
  let dataAlignment: Int
  let pointerEncoding: UInt8
  var location: UInt
  var initial: InlineArray<17, RegisterRule>
  /// What DW_CFA_remember_state has put by; compilers nest it once, glibc's assembly twice.
  var remembered: InlineArray<3, UnwindRules>
  var rememberedCount = 0

  init(_ common: CommonEntry, start: UInt) {
    codeAlignment = common.codeAlignment
    dataAlignment = common.dataAlignment
    pointerEncoding = common.pointerEncoding
    location = start
    initial = InlineArray(repeating: RegisterRule(kind: .same, value: 0))
    remembered = InlineArray(repeating: UnwindRules())
  }

  /// Runs instructions as far as a program counter.
  mutating func run(
    _ instructions: TableReader, _ rules: inout UnwindRules, upTo counter: UInt
  ) -> Bool {
    var reader = instructions
    while !reader.isAtEnd, location <= counter {
      runPlainly(&reader, &rules, upTo: counter)
      guard !reader.isAtEnd, location <= counter else { break }
      guard runOne(&reader, &rules) else { return false }
    }
    // Blocks of expressions that are kept lie within the entry, so that they can be read later.
    return reader.isSound
  }

  /// Runs those that compilers write for every push, as far as there are no others: of a long function there
  /// are hundreds before a call.
  private mutating func runPlainly(
    _ reader: inout TableReader, _ rules: inout UnwindRules, upTo counter: UInt
  ) {
    var position = reader.position
    let last = reader.end - 1
    var location = location
    var offset = rules.cfaOffset
    while position < last, location <= counter {
      let opcode = position.load(as: UInt8.self)
      let operand = position.load(fromByteOffset: 1, as: UInt8.self)
      if opcode & 0xc0 == 0x40 {  // advance_loc
        location = location &+ UInt(opcode & 0x3f) &* UInt(truncatingIfNeeded: codeAlignment)
        position += 1
      } else if opcode == 0x0e, operand < 0x80 {  // def_cfa_offset
        offset = Int(operand)
        position += 2
      } else if opcode == 0x02 {  // advance_loc1
        location = location &+ UInt(operand) &* UInt(truncatingIfNeeded: codeAlignment)
        position += 2
      } else {
        break
      }
    }
    self.location = location
    rules.cfaOffset = offset
    reader = TableReader(position, end: reader.end)
  }

  private mutating func runOne(_ reader: inout TableReader, _ rules: inout UnwindRules) -> Bool {
    let opcode = reader.read(UInt8.self)
    let low = Int(opcode & 0x3f)
    switch opcode & 0xc0 {
    case 0x40: advance(UInt64(low))
    case 0x80:
      let offset = scaled(reader.readUnsigned())
      set(&rules, low, .atOffset, offset)
    case 0xc0: restore(&rules, low)
    default: return runExtended(opcode, &reader, &rules)
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
    reader.skip(reader.readUnsigned())
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
