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
    let other = Task { (0..<100).map { [UInt8](repeating: 1, count: 90_000 + $0) } }
    let tell = { (it: HeapTraceReport) in print(it.label, it.scope, it.addedBytes / 100_000) }
    let count = await withHeapTrace("later", report: tell) {
      index.add(200)
      _ = await other.value
      return index.words.count
    }
    print(count, await other.value.count)
    do {
      try HeapTracer.start()
      try HeapTracer.track(address: 0x1000, byteCount: 4096, domain: 7)
      print(try await HeapTracer.takeSnapshot().filtered(.domain(7)).liveBytes)
    } catch { print(error) }
  }
}
