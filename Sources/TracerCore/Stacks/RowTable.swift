// SPDX-License-Identifier: Apache-2.0
// How to leave each return address that was ever met: the unwind table, boiled down and cached.

import CTracerPlatform
import Synchronization

/// What it takes to step from one frame to its caller, for one program counter.
package struct Row: ~Copyable {
  package enum CFARule: UInt8 {
    /// The stack pointer plus the offset.
    case stackPointer = 0
    /// rbp plus the offset.
    case framePointer = 1
    /// The word at rbp plus the offset: a function that realigned its stack.
    case wordAtFramePointer = 2
  }

  package struct Flags: BitSet {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// rbp was saved at the CFA plus `rbpOffset`.
    package static var savesRBP: Self { Self(rawValue: 1) }
    /// rbp was saved at rbp plus `rbpOffset`.
    package static var savesRBPAtRBP: Self { Self(rawValue: 2) }
    /// The outermost frame: there is no caller.
    package static var end: Self { Self(rawValue: 4) }
    /// Only the full evaluator can step it.
    package static var complex: Self { Self(rawValue: 8) }
    /// No unwind table covers it: taken to keep a frame pointer, and checked as it is stepped.
    package static var guess: Self { Self(rawValue: 16) }
    /// The tracer's own code, which no stack shows.
    package static var own: Self { Self(rawValue: 32) }

    /// The CFA is the word at rbp plus the offset.
    package static var realigned: Self { Self(rawValue: 64) }
    /// A part of a Swift async function: its callers are those who await it. See `AsyncChain`.
    package static var async: Self { Self(rawValue: 128) }

    /// What reads rbp, whatever the CFA is found by.
    static var usesRBP: UInt8 { savesRBPAtRBP.rawValue | guess.rawValue }
    /// What the plain step cannot do.
    static var special: UInt8 {
      end.rawValue | complex.rawValue | guess.rawValue | savesRBPAtRBP.rawValue
        | realigned.rawValue | async.rawValue
    }
  }

  /// The program counter; bit 63 where it is the address of an instruction and not of a return.
  package var key: UInt64
  package var cfaOffset: Int32
  package var rbpOffset: Int32
  /// Where the frame has the other registers of its caller.
  var kept: KeptRegisters.Places
  package var module: UInt16
  package var cfaRule: CFARule
  package var flags: Flags
  /// Where this is an executor's call of a task, the place in `KeptRegisters` of the one that has the task,
  /// from 1; else 0.
  var executor: UInt8
  /// The generation that this row is known to hold in; 0 while it is being made.
  package let generation: Atomic<UInt32>

  /// The address as it is found on the stack.
  package var address: UInt64 { key & ~Row.exactFlag }
  package static var exactFlag: UInt64 { 1 << 63 }
  /// An address of the call itself: what a return address belongs to is the byte before it.
  package var callAddress: UInt64 { key & Row.exactFlag != 0 ? address : address &- 1 }
}

/// The rows as one walk sees them: what stays the same from frame to frame, loaded once.
package struct RowReader {
  let rows: UnsafeMutablePointer<Row>
  private let slots: UnsafeMutablePointer<Atomic<UInt32>>
  private let mask: UInt64
  private let generation: UInt32

  init(
    _ rows: UnsafeMutablePointer<Row>, _ index: borrowing InternIndex, generation: UInt32
  ) {
    self.rows = rows
    (slots, mask) = index.view
    self.generation = generation
  }

  /// The number of a row that is where it is looked for first; 0 where more is to be done.
  @inline(__always)
  func find(_ key: UInt64) -> UInt32 {
    var position = RowTable.hash(key) & mask
    for _ in 0..<3 {
      // Acquiring: pairs with the exchange in `InternIndex`, behind which the row is written.
      let slot = slots[Int(truncatingIfNeeded: position)].load(ordering: .acquiring)
      let number = slot & (RowTable.limit &- 1)
      let row = rows + Int(number)
      if row.pointee.key == key {
        return row.pointee.generation.load(ordering: .relaxed) == generation ? number : 0
      }
      position = (position &+ 1) & mask
    }
    return 0
  }
}

/// The rows, named by numbers from 1. All zero is a valid, closed table.
package struct RowTable: ~Copyable {
  static var limit: UInt32 { 1 << 18 }
  private static var byteCount: Int { Int(limit) * MemoryLayout<Row>.stride }

  private let base: Atomic<UInt>
  private let count: Atomic<UInt32>
  private let index: InternIndex
  package let modules: ModuleTable
  let code: ReadableCode
  /// The modules' half is this table's, by which rows hold; the other one is the recorder's.
  package let gate: Gate
  /// 1 once there is a row of code that lies in no module.
  private let hasGeneratedCode: Atomic<UInt32>

  package func open() -> Bool {
    base.map(Self.byteCount) && index.open(maximumBits: 19, below: Self.limit)
      && modules.open()
  }

  package func discard() {
    guard let rows = base.mapped else { return }
    index.discard()
    System.discard(rows, Self.byteCount)
    count.store(0, ordering: .releasing)
    hasGeneratedCode.store(0, ordering: .relaxed)
    modules.discard()
  }

  package var rowCount: UInt32 { min(count.load(ordering: .relaxed), Self.limit &- 1) }

  package var usedByteCount: Int {
    Int(rowCount) * MemoryLayout<Row>.stride + index.usedByteCount + modules.usedByteCount
  }

  @inline(__always)
  package func row(_ number: UInt32) -> UnsafeMutablePointer<Row> {
    UnsafeMutablePointer<Row>(
      bitPattern: base.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(number)
  }

  /// Calls the body with the address of each call that lies in no module.
  func forEachGeneratedAddress(_ body: (UInt64) -> Void) {
    guard base.load(ordering: .acquiring) != 0 else { return }
    var number: UInt32 = 1
    while number <= rowCount {
      let row = row(number)
      // A row that is being made at this moment is in no dump yet.
      if row.pointee.generation.load(ordering: .acquiring) != 0, row.pointee.module == 0,
        !row.pointee.flags.contains(.own)
      {
        body(row.pointee.callAddress)
      }
      number &+= 1
    }
  }

  @inline(__always)
  static func hash(_ key: UInt64) -> UInt64 { (key &* 0x9E37_79B9_7F4A_7C15) >> 20 }

  /// The generation that rows hold in now: from 1.
  @inline(__always)
  private var generation: UInt32 { gate.moduleGeneration &+ 1 }

  /// What one walk needs of the table, which is open.
  @inline(__always)
  package var reader: RowReader {
    RowReader(row(0), index, generation: generation)
  }

  /// The number of the row for a key, by a reader of this table; not `.stepped` where there is none.
  @inline(__always)
  func find(
    _ key: UInt64, _ reader: RowReader, own: @autoclosure () -> Range<UInt64>,
    _ number: inout UInt32
  ) -> StepOutcome {
    number = reader.find(key)
    if number != 0 { return .stepped }
    // A variable of its own, so that the number of any other row stays in a register.
    var unmet: UInt32 = 0
    let outcome = findUnmet(key, own: own(), &unmet)
    number = unmet
    return outcome
  }

  /// A counter without a row at the first places to look: new, or further away, or no counter at all.
  @inline(never)
  private func findUnmet(
    _ key: UInt64, own: Range<UInt64>, _ number: inout UInt32
  ) -> StepOutcome {
    guard key & ~Row.exactFlag != 0 else { return .ended(.outermost) }
    number = self.number(key, own: own)
    return number == 0 ? .ended(.noRoom) : .stepped
  }

  /// The number of the row for a key, made where it is new; 0 where there is no room for it.
  @inline(never)
  package func number(_ key: UInt64, own: Range<UInt64>) -> UInt32 {
    let generation = generation
    return index.intern(hash: Self.hash(key)) { number in
      let row = row(number)
      guard row.pointee.key == key else { return false }
      // Relaxed: the frame that is being unwound keeps its module loaded, so that a bump which this
      // thread has not seen is about other code.
      if row.pointee.generation.load(ordering: .relaxed) == generation { return true }
      return isStillTrue(number, generation)
    } make: {
      make(key, generation, own)
    }
  }

  /// To be called around the unloading of a module.
  package func didUnload() {
    gate.bumpModules()
    code.forget()
  }

  /// To be called before a module is loaded: it may come to lie where generated code was until now.
  /// Only then is there anything to be forgotten. What libc loads for itself is not told.
  package func willLoad() {
    if hasGeneratedCode.load(ordering: .relaxed) != 0 { didUnload() }
  }

  /// Whether the module of an old row is still the one at its address.
  @inline(never)
  private func isStillTrue(_ number: UInt32, _ generation: UInt32) -> Bool {
    let row = row(number)
    guard modules.number(holding: row.pointee.address) == UInt32(row.pointee.module) else {
      return false
    }
    row.pointee.generation.store(generation, ordering: .relaxed)
    return true
  }

  @inline(never)
  private func make(_ key: UInt64, _ generation: UInt32, _ own: Range<UInt64>) -> UInt32 {
    // Looked at first: a full table is asked for every unknown frame, for as long as it is full.
    guard count.load(ordering: .relaxed) < Self.limit else { return 0 }
    let number = count.wrappingAdd(1, ordering: .relaxed).newValue
    guard number < Self.limit else { return 0 }
    let row = row(number)
    // Releasing: pairs with the load in `forEachGeneratedAddress`, which comes by no index.
    defer { row.pointee.generation.store(generation, ordering: .releasing) }
    row.pointee.key = key
    let module = modules.number(holding: key & ~Row.exactFlag)
    row.pointee.module = UInt16(truncatingIfNeeded: module)
    if module == 0 { hasGeneratedCode.store(1, ordering: .relaxed) }
    if own.contains(key & ~Row.exactFlag) { row.pointee.flags.insert(.own) }
    var rules = UnwindRules()
    if findRules(for: key, module: module, into: &rules) {
      Self.boilDown(rules, into: row)
      if AsyncChain.isPart(rules, code) { row.pointee.flags.insert(.async) }
      row.pointee.kept = KeptRegisters.Places(rules)
      // Where a walk comes this far, what the executor has called may tell more by all registers.
      if let register = AsyncChain.executorRegister(at: UInt(key), code) {
        if row.pointee.flags.rawValue & Row.Flags.special == 0,
          let place = KeptRegisters.place(of: register)
        {
          row.pointee.executor = place &+ 1
        }
        row.pointee.flags.insert(.complex)
      }
    } else if findRules(for: key | Row.exactFlag, module: module, into: &rules) {
      // The first byte of a function: no call put this address on the stack, and whoever did, such
      // as makecontext, has begun a stack with it.
      row.pointee.flags.insert(.end)
    } else {
      row.pointee.flags.insert(.guess)
      row.pointee.flags.insert(.savesRBP)
      row.pointee.cfaRule = .framePointer
      row.pointee.cfaOffset = 16
      row.pointee.rbpOffset = -16
    }
    return number
  }

  /// The full rules at a key, from the module's own table.
  package func findRules(
    for key: UInt64, module: UInt32, into rules: inout UnwindRules
  ) -> Bool {
    guard module != 0 else { return false }
    // A return address may be the first byte of the next function: the call is before it.
    let counter = key & Row.exactFlag != 0 ? key & ~Row.exactFlag : key &- 1
    let known = modules.module(module)
    return CallFrameInformation.rules(
      at: UInt(counter), ehFrameHeader: known.pointee.ehFrameHeader,
      in: UInt(known.pointee.tableStart)..<UInt(known.pointee.tableLimit), into: &rules)
  }

  /// Keeps of the rules what the fast step can do, or marks the row complex.
  private static func boilDown(_ rules: UnwindRules, into row: UnsafeMutablePointer<Row>) {
    let returnRule = rules.registers[UnwindRules.returnAddress]
    if returnRule.kind == .undefined {
      row.pointee.flags.insert(.end)
      return
    }
    guard !rules.isSignalFrame, returnRule.kind == .atOffset, returnRule.value == -8,
      rules.registers[7].kind == .same, boilDownCFA(rules, into: row),
      boilDownRBP(rules.registers[6], into: row)
    else {
      row.pointee.flags.insert(.complex)
      return
    }
  }

  private static func boilDownCFA(
    _ rules: UnwindRules, into row: UnsafeMutablePointer<Row>
  ) -> Bool {
    if rules.cfaExpression != 0 {
      guard let offset = wordAtRBP(rules.cfaExpression, dereferenced: true) else { return false }
      row.pointee.cfaRule = .wordAtFramePointer
      row.pointee.flags.insert(.realigned)
      row.pointee.cfaOffset = offset
      return true
    }
    guard rules.cfaRegister == 7 || rules.cfaRegister == 6,
      let offset = Int32(exactly: rules.cfaOffset)
    else { return false }
    row.pointee.cfaRule = rules.cfaRegister == 7 ? .stackPointer : .framePointer
    row.pointee.cfaOffset = offset
    return true
  }

  private static func boilDownRBP(
    _ rule: RegisterRule, into row: UnsafeMutablePointer<Row>
  ) -> Bool {
    switch rule.kind {
    case .same, .undefined: return true
    case .atOffset:
      guard let offset = Int32(exactly: rule.value) else { return false }
      row.pointee.flags.insert(.savesRBP)
      row.pointee.rbpOffset = offset
      return true
    case .atExpression:
      guard let offset = wordAtRBP(UInt(bitPattern: rule.value), dereferenced: false) else {
        return false
      }
      row.pointee.flags.insert(.savesRBPAtRBP)
      row.pointee.rbpOffset = offset
      return true
    case .offset, .expression, .register: return false
    }
  }

  /// The offset in an expression that is just DW_OP_breg6 (rbp) offset, and then, or not,
  /// DW_OP_deref: what compilers write for a function that realigns its stack.
  private static func wordAtRBP(_ block: UInt, dereferenced: Bool) -> Int32? {
    guard var reader = TableReader(block: block), reader.read(UInt8.self) == 0x76 else {
      return nil
    }
    let offset = reader.readSigned()
    guard !dereferenced || reader.read(UInt8.self) == 0x06, reader.isSound, reader.isAtEnd else {
      return nil
    }
    return Int32(exactly: offset)
  }
}
