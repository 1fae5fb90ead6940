// SPDX-License-Identifier: Apache-2.0
// Zeroed memory for the core's structures, whose first state it is.

/// A value that begins as all zero bits, at an address that stays.
final class Zeroed<Value: ~Copyable> {
  let pointer: UnsafeMutablePointer<Value>

  init(_ type: Value.Type = Value.self) {
    let bytes = UnsafeMutableRawPointer.allocate(
      byteCount: MemoryLayout<Value>.size, alignment: 64)
    bytes.initializeMemory(as: UInt8.self, repeating: 0, count: MemoryLayout<Value>.size)
    pointer = bytes.assumingMemoryBound(to: Value.self)
  }

  /// The value's answer. `#expect` cannot look inside a call on a value that is not copied.
  func callAsFunction<Answer>(_ body: (UnsafeMutablePointer<Value>) throws -> Answer) rethrows
    -> Answer
  {
    try body(pointer)
  }

  deinit {
    UnsafeMutableRawPointer(pointer).deallocate()
  }
}
