// SPDX-License-Identifier: Apache-2.0
// Puts things in order without memory of its own.

/// Sorts in place, without memory, and never quadratic. Equal items come in any order.
enum HeapSort {
  @inline(__always)
  static func sort<Item>(
    _ items: UnsafeMutablePointer<Item>, _ count: Int, by isBefore: (Item, Item) -> Bool
  ) {
    var root = count / 2
    while root > 0 {
      root &-= 1
      sift(items, root, count, isBefore)
    }
    var end = count
    while end > 1 {
      end &-= 1
      (items[0], items[end]) = (items[end], items[0])
      sift(items, 0, end, isBefore)
    }
  }

  @inline(__always)
  private static func sift<Item>(
    _ items: UnsafeMutablePointer<Item>, _ start: Int, _ count: Int,
    _ isBefore: (Item, Item) -> Bool
  ) {
    var root = start
    while 2 &* root &+ 1 < count {
      var child = 2 &* root &+ 1
      if child &+ 1 < count, isBefore(items[child], items[child &+ 1]) { child &+= 1 }
      guard isBefore(items[root], items[child]) else { return }
      (items[root], items[child]) = (items[child], items[root])
      root = child
    }
  }
}
