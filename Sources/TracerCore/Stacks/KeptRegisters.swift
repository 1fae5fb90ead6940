// SPDX-License-Identifier: Apache-2.0
// The registers that functions keep for their callers, beside rbp: what a task's executor has in them.

import CTracerPlatform

/// Where the values lie that rbx and r12 to r15 have in a frame.
///
/// A walk finds its way without them. Only where an executor has called a task do they tell more: which
/// context an async function has that was compiled without a frame of its own kind.
struct KeptRegisters {
  /// DWARF's numbers, in the order in which they are asked for a context: most functions leave it in r14.
  static var numbers: InlineArray<5, Int> { [14, 3, 12, 13, 15] }

  /// The place of one of them; `nil` of any other.
  static func place(of number: Int) -> UInt8? {
    for place in 0..<5 where numbers[place] == number { return UInt8(truncatingIfNeeded: place) }
    return nil
  }

  /// Those that no frame further in has saved are among the registers of the call.
  private(set) var addresses: InlineArray<5, UInt>

  init(_ registers: UnsafePointer<tracer_registers>) {
    // In the order in which the entries push them: rbx, rbp, r12, r13, r14, r15.
    let start = UInt(bitPattern: registers)
    addresses = [start &+ 32, start, start &+ 16, start &+ 24, start &+ 40]
  }

  /// The value of one of them.
  subscript(position: Int) -> UInt { stackWord(addresses[position]) }

  /// What they are in the caller of a frame that ends at an address; `false` where that can't be read.
  mutating func step(_ places: Places, from frame: UInt, _ readable: inout ReadableRange) -> Bool {
    for position in 0..<5 {
      let slot = places.slot(position)
      guard slot != 0 else { continue }
      let address = frame &- slot &* 8
      guard readable.canRead(address) else { return false }
      addresses[position] = address
    }
    return true
  }

  /// The context that one of them has, in the frame that an executor has called for a task.
  func context(of task: UInt) -> UInt? { TaskOrigin.context(of: task) { self[$0] } }

  /// Where a frame keeps them: for each one four bits, how many words below the frame's end it lies, and
  /// 0 where it was left alone.
  struct Places {
    private let bits: UInt32

    /// What no four bits can tell: another place, or none.
    private static var unfit: UInt32 { .max }

    init(_ rules: UnwindRules) {
      var bits: UInt32 = 0
      for position in 0..<5 {
        let rule = rules.registers[KeptRegisters.numbers[position]]
        if rule.kind == .same { continue }
        guard rule.kind == .atOffset, rule.value & 7 == 0, -14 &* 8 <= rule.value, rule.value < 0
        else {
          self.bits = Self.unfit
          return
        }
        bits |= UInt32(truncatingIfNeeded: 0 &- rule.value / 8) << UInt32(4 &* position)
      }
      self.bits = bits
    }

    var isFit: Bool { bits != Self.unfit }

    func slot(_ position: Int) -> UInt { UInt(bits >> UInt32(4 &* position) & 15) }
  }
}
