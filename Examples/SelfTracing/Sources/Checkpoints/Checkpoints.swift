// SPDX-License-Identifier: Apache-2.0
// A memory report with named checkpoints: what is alive, the peak since the last one, and what of it
// was born in between.

import Heaptap

func checkpoint(_ name: String) throws {
  let figures = try HeapTracer.figures()
  let snapshot = try HeapTracer.takeSnapshot()
  let born = snapshot.filtered(.generation(figures.generation)).liveBytes
  print("\(name): \(figures.liveBytes) alive, peak \(figures.peakBytes), \(born) new")
  try HeapTracer.resetPeak()
}

@main struct Checkpoints {
  static func main() throws {
    print("begin")
    try HeapTracer.start()
    let table = [UInt8](repeating: 1, count: 3_000_000)
    try checkpoint("loaded")
    var sum = 0
    for size in 1...5 { sum += [UInt8](repeating: 1, count: size * 1_000_000).count }
    try checkpoint("worked")
    let result = [UInt8](repeating: 1, count: 500_000)
    try checkpoint("kept")
    print(sum, withExtendedLifetime((table, result)) { table.count + result.count })
    try HeapTracer.clear()
    try checkpoint("cleared")
    try HeapTracer.stop()
  }
}
