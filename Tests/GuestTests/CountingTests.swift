// SPDX-License-Identifier: Apache-2.0
// Exact counts: what valgrind says of a program, Heaptap says too.

import HeapModel
import Testing

@Suite struct CountingTests {
  @Test func `a program that only returns is traced from its first allocation to its end`() throws {
    let box = try DumpBox()
    let result = try run(["/bin/true"], environment: box.environment("record"))
    #expect(result.status == 0)
    let snapshot = try box.snapshot()
    #expect(snapshot.header.isComplete)
  }
}
