// SPDX-License-Identifier: Apache-2.0
// What the shop sells. Honest memory: the cache here has a bound, and what is made for one request
// goes with it, so nothing in this file may grow between two snapshots once the cache is full.

struct Product: Codable, Sendable {
  var id: Int
  var name: String
  var cents: Int
  var details: [String]
}

struct Item: Codable, Sendable {
  var product: Int
  var count: Int
}

struct Bill: Codable, Sendable {
  var lines: [String] = []
  var cents = 0
}

actor Catalog {
  private static let cachedProductLimit = 64

  private let productCount: Int
  private var cached: [Int: Product] = [:]
  /// The cached products, the oldest first.
  private var order: [Int] = []

  init(productCount: Int) {
    self.productCount = productCount
  }

  /// A product, from the cache if it was asked for lately.
  func product(_ id: Int) -> Product? {
    guard (1...productCount).contains(id) else { return nil }
    if let product = cached[id] { return product }
    let product = load(id)
    if order.count == Self.cachedProductLimit {
      cached[order.removeFirst()] = nil
    }
    cached[id] = product
    order.append(id)
    return product
  }

  func bill(for items: [Item]) -> Bill {
    var bill = Bill()
    for item in items {
      guard let product = product(item.product) else { continue }
      bill.lines.append("\(item.count) × \(product.name)")
      bill.cents += item.count * product.cents
    }
    return bill
  }

  /// Stands for a database.
  private func load(_ id: Int) -> Product {
    Product(
      id: id, name: "Household article number \(id)", cents: 199 + id % 100 * 50,
      details: (1...8).map { "Detail \($0) of product \(id), which nobody reads to its end" })
  }
}
