// SPDX-License-Identifier: Apache-2.0
// Chains of async contexts are followed to their end, and not where there is none.

import Testing
import TracerCore

@Suite struct AsyncChainTests {
  /// Contexts that follow each other as their parents' numbers say; `nil` for a task's first.
  private func withContexts<Result>(
    _ parents: [Int?], _ body: (_ contexts: [UInt]) -> Result
  ) -> Result {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: parents.count * 64, alignment: 64)
    defer { memory.deallocate() }
    let contexts = parents.indices.map { UInt(bitPattern: memory) + UInt($0) * 64 }
    for (number, parent) in parents.enumerated() {
      let words = (memory + number * 64).assumingMemoryBound(to: UInt.self)
      words[0] = parent.map { contexts[$0] } ?? 0
      words[1] = 0x40_0000 + UInt(number)
    }
    return body(contexts)
  }

  /// The places that a chain leads to, up to a bound of the test's own, and how it ended.
  private func follow(_ start: UInt) -> (places: [UInt], root: UInt, isBroken: Bool) {
    var chain = AsyncChain(context: start)
    var readable = ReadablePages()
    var places: [UInt] = []
    while places.count < 100, let caller = chain.next(&readable) { places.append(caller.resume) }
    return (places, chain.root, chain.isBroken)
  }

  @Test func `a chain leads from caller to caller, and ends where its task begins`() {
    withContexts([1, 2, nil]) { contexts in
      let chain = follow(contexts[0])
      #expect(chain.places == [0x40_0000, 0x40_0001, 0x40_0002])
      #expect(chain.root == contexts[2])
      #expect(!chain.isBroken)
    }
  }

  @Test(arguments: [[0], [1, 0], [1, 2, 3, 4, 2], [1, 2, 3, 1], [1, 2, 3, 4, 5, 6, 7, 3]])
  func `a chain that comes round is left`(_ parents: [Int]) {
    withContexts(parents) { contexts in
      let chain = follow(contexts[0])
      #expect(chain.isBroken)
      #expect(chain.places.count < 3 * parents.count)
    }
  }

  @Test func `a context that cannot be read, or is none, ends a chain as broken`() {
    for start: UInt in [8, 16, 0x28, 4096, 0x7000_0000_0000, .max & ~15, 0x1234_5678] {
      let chain = follow(start)
      #expect(chain.isBroken && chain.places.isEmpty, "\(start)")
    }
    withContexts([nil]) { contexts in
      #expect(follow(contexts[0] + 8).isBroken)
      // No code begins in the first page.
      UnsafeMutablePointer<UInt>(bitPattern: contexts[0])![1] = 17
      #expect(follow(contexts[0]).isBroken)
    }
    #expect(!follow(0).isBroken)
  }
}
