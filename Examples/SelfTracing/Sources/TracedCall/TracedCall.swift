// SPDX-License-Identifier: Apache-2.0
// A trace around one call: what it leaves, what it took, and its lines. Memory of its own is told of.

import Heaptap

final class Index {
  private(set) var words: [[UInt8]] = []

  func add(_ count: Int) {
    for _ in 0..<count { words.append([UInt8](repeating: 0, count: 1000)) }
  }
}

func build(_ index: Index) {
  withHeapTrace("build", report: { print($0) }) {
    index.add(500)
    _ = [UInt8](repeating: 0, count: 2_000_000).count
  }
}

@main struct TracedCall {
  static func main() async {
    let index = Index()
    build(index)
    let others = Task { (0..<100).map { [UInt8](repeating: 1, count: 100_000 + $0) } }
    let count = await withHeapTrace(
      "later", report: { print($0.label, $0.scope, (200_000..<300_000).contains($0.addedBytes)) }
    ) {
      index.add(200)
      _ = await others.value
      return index.words.count
    }
    do {
      try HeapTracer.start()
      try HeapTracer.track(address: 0x1000, byteCount: 4096, domain: 7)
      let mapped = try await HeapTracer.takeSnapshot().filtered(.domain(7))
      print(count, mapped.liveBytes, await others.value.count)
    } catch {
      print(count, error)
    }
  }
}
