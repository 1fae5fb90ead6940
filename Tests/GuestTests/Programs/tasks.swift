// SPDX-License-Identifier: Apache-2.0
// Tasks of every kind that allocate on many threads, again and again, under contexts that come back.

import Foundation

actor Shelf {
  private var kept: [[UInt8]] = []

  func keep(_ byteCount: Int) async {
    kept.append([UInt8](repeating: 1, count: byteCount))
    if kept.count > 100 { kept.removeAll() }
  }
}

let shelf = Shelf()

func leaf(_ number: Int) async -> Int {
  await Task.yield()
  let numbers = [Int](repeating: number, count: 50 + number % 3)
  await shelf.keep(20 + number % 50)
  return numbers.reduce(0, +)
}

func several(_ number: Int) async throws -> Int {
  var sum = 0
  for step in 0..<3 { sum += await leaf(number + step) }
  return sum
}

func request(_ number: Int) async -> Int {
  async let first = several(number)
  async let second = leaf(number)
  let sum = await withTaskGroup(of: Int.self) { group in
    for child in 0..<4 { group.addTask { (try? await several(child)) ?? 0 } }
    return await group.reduce(0, +)
  }
  return await sum + ((try? first) ?? 0) + second
}

@main struct Main {
  static func main() async {
    var sum = 0
    for number in 0..<60 {
      sum += await request(number)
      sum += await Task { await request(number) }.value
      _ = try? await Task.detached { try await several(number) }.value
      sum += await withCheckedContinuation { continuation in
        DispatchQueue.global().async {
          continuation.resume(returning: [Int](repeating: 1, count: 50).count)
        }
      }
    }
    let numbers = AsyncStream { continuation in
      for number in 0..<100 { continuation.yield(number) }
      continuation.finish()
    }
    for await number in numbers { sum += await leaf(number) }
    print(sum)
  }
}
