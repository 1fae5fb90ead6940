// SPDX-License-Identifier: Apache-2.0
// The word that a hook asks first.

import Foundation
import Testing
import TracerCore

struct GateTests {
  /// One that nobody else looks at, as it is when a process begins.
  private static func withGate(_ body: (UnsafeMutablePointer<Gate>) throws -> Void) rethrows {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
    defer { memory.deallocate() }
    memory.initializeMemory(as: UInt8.self, repeating: 0, count: 64)
    try body(memory.assumingMemoryBound(to: Gate.self))
  }

  @Test func `a recording is open until it is closed, whatever is unloaded meanwhile`() {
    Self.withGate { gate in
      #expect(gate.pointee.current == 0)
      gate.pointee.open(5)
      let known = gate.pointee.current
      #expect(known == Gate.word(5, 0))
      gate.pointee.bumpModules()
      #expect(gate.pointee.openEpoch == 5)
      #expect(gate.pointee.moduleGeneration == 1)
      #expect(gate.pointee.current != known)
      gate.pointee.close()
      #expect(gate.pointee.openEpoch != 5)
      #expect(gate.pointee.moduleGeneration == 1)
      gate.pointee.open(6)
      #expect(gate.pointee.current == Gate.word(6, 1))
    }
  }

  @Test func `no unloading is lost to a start or a stop at the same time`() {
    Self.withGate { gate in
      nonisolated(unsafe) let gate = gate
      DispatchQueue.concurrentPerform(iterations: 3) { thread in
        for round in 0..<UInt32(30000) {
          if thread > 0 {
            gate.pointee.bumpModules()
          } else if round & 1 == 0 {
            gate.pointee.open(round)
          } else {
            gate.pointee.close()
          }
        }
      }
      #expect(gate.pointee.moduleGeneration == 60000)
    }
  }
}
