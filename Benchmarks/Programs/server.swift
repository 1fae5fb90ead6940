// SPDX-License-Identifier: Apache-2.0
// What a server in Swift does all day, without the network: requests are decoded from JSON, looked up in
// dictionaries of classes, handled by closures, kept by an actor, and answered by tasks in groups. Prints a
// sum of the answers.
//
//   server BATCHES

import Foundation

struct Request: Codable {
  struct Item: Codable {
    var article: String
    var count: Int
    var options: [String]
  }
  var customer: String
  var items: [Item]
  var notes: [String: String]
}

struct Answer: Codable {
  var customer: String
  var total: Int
  var lines: [String]
}

final class Article {
  let name: String
  let price: Int
  var sold = 0
  init(name: String, price: Int) {
    self.name = name
    self.price = price
  }
}

final class Account {
  let name: String
  var orders: [Order] = []
  init(name: String) { self.name = name }
}

final class Order {
  let lines: [String]
  let total: Int
  unowned let account: Account
  init(lines: [String], total: Int, account: Account) {
    self.lines = lines
    self.total = total
    self.account = account
  }
}

actor Store {
  private var articles: [String: Article] = [:]
  private var accounts: [String: Account] = [:]
  private var listeners: [(Order) -> Int] = []

  init() {
    for number in 0..<500 {
      let article = Article(name: "article-\(number)", price: number % 97 + 1)
      articles[article.name] = article
    }
    for number in 0..<4 {
      listeners.append { $0.total % (number + 2) + $0.account.name.utf8.count }
    }
  }

  func handle(_ request: Request) -> Answer {
    let account = accounts[request.customer] ?? Account(name: request.customer)
    accounts[request.customer] = account
    let found = request.items.compactMap { item in articles[item.article].map { ($0, item) } }
    let total = found.reduce(0) { $0 + $1.0.price * $1.1.count }
    let lines = found.sorted { ($0.0.price, $0.0.name) < ($1.0.price, $1.0.name) }.map {
      article, item in
      article.sold += item.count
      return "\(item.count) x \(article.name) (\(item.options.joined(separator: ", ")))"
    }
    let order = Order(lines: lines, total: total, account: account)
    account.orders.append(order)
    if account.orders.count > 20 { account.orders.removeFirst(10) }
    let bonus = listeners.reduce(0) { $0 + $1(order) }
    return Answer(customer: account.name, total: total + bonus, lines: lines)
  }
}

/// Numbers that are the same in each run.
struct Numbers {
  var state: UInt32 = 1
  mutating func next(below limit: Int) -> Int {
    state = state &* 1_664_525 &+ 1_013_904_223
    return Int(state >> 8) % limit
  }
}

func makeRequests(_ count: Int) throws -> [Data] {
  var numbers = Numbers()
  return try (0..<count).map { number in
    let items = (0...numbers.next(below: 6)).map { _ in
      Request.Item(
        article: "article-\(numbers.next(below: 500))", count: 1 + numbers.next(below: 5),
        options: ["as a gift, with a card", "by express"].prefix(1 + numbers.next(below: 2)).map {
          $0
        })
    }
    let request = Request(
      customer: "a customer of the number \(numbers.next(below: 300))", items: items,
      notes: ["language": "en", "a key of some length": "the value of request number \(number)"])
    let encoder = JSONEncoder()
    encoder.outputFormatting = .sortedKeys
    return try encoder.encode(request)
  }
}

func answer(_ bytes: Data, by store: Store) async throws -> Int {
  let request = try JSONDecoder().decode(Request.self, from: bytes)
  let reply = await store.handle(request)
  return try JSONEncoder().encode(reply).count + reply.total
}

/// Answers every request in each batch.
func serve(batches: Int) async throws -> Int {
  let store = Store()
  let requests = try makeRequests(400)
  var sum = 0
  for batch in 0..<batches {
    sum += try await withThrowingTaskGroup(of: Int.self) { group in
      for start in stride(from: 0, to: requests.count, by: 25) {
        group.addTask {
          var sum = 0
          for bytes in requests[start..<start + 25] { sum += try await answer(bytes, by: store) }
          return sum
        }
      }
      var all = batch
      for try await part in group { all += part }
      return all
    }
  }
  return sum
}

// No asynchronous main: that one ends the first thread, at which valgrind 3.19 gives up.
@main
enum Server {
  static func main() {
    let batches = CommandLine.arguments.count > 1 ? Int(CommandLine.arguments[1])! : 10
    let done = DispatchSemaphore(value: 0)
    Task.detached {
      print(try await serve(batches: batches))
      done.signal()
    }
    done.wait()
  }
}
