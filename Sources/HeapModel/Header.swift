// SPDX-License-Identifier: Apache-2.0
// What a dump says of itself, as ordered pairs of key and value.

/// What a dump says of itself, as ordered pairs of key and value.
///
/// Every pair is kept, known or not, in the order of the dump: an older reader passes on what a
/// newer tracer wrote. The typed properties read the pairs that `docs/dump-format.md` describes,
/// and are `nil` where a pair is absent or not of its form.
public struct Header: Hashable, Sendable {
  /// One pair, or a remark without a key.
  public struct Entry: Hashable, Sendable {
    /// Empty for a remark: a comment of some other tool, without an equals sign.
    public var key: String
    /// What the pair says of its key; the whole remark where there is none.
    public var value: String

    /// A pair, or with an empty key a remark.
    public init(key: String, value: String) {
      self.key = key
      self.value = value
    }

    /// Reads a comment, `key=value`.
    public init(comment: String) {
      if let equals = comment.firstIndex(of: "="), equals > comment.startIndex {
        self.init(
          key: String(comment[..<equals]), value: String(comment[comment.index(after: equals)...]))
      } else {
        self.init(key: "", value: comment)
      }
    }

    /// The pair as a dump's comment.
    public var comment: String { key.isEmpty ? value : "\(key)=\(value)" }
  }

  /// All pairs and remarks, in the dump's order.
  public private(set) var entries: [Entry]

  /// A header of these pairs.
  public init(_ entries: [Entry] = []) {
    self.entries = entries
  }

  /// Adds a pair at the end, also where there is one of its key.
  public mutating func append(_ entry: Entry) {
    entries.append(entry)
  }

  /// The value of a key; of the last pair, should there be several.
  ///
  /// Setting keeps the pair's place, a new one goes to the end, and `nil` removes.
  public subscript(key: String) -> String? {
    get { entries.last { $0.key == key }?.value }
    set {
      guard let newValue else { return entries.removeAll { $0.key == key } }
      if let place = entries.lastIndex(where: { $0.key == key }) {
        entries[place].value = newValue
      } else {
        entries.append(Entry(key: key, value: newValue))
      }
    }
  }

  /// The value of a key as a number.
  public func integer(_ key: String) -> Int? { self[key].flatMap { Int($0) } }

  /// The pairs whose key begins with a prefix, with the rest of the key, in the dump's order.
  public func entries(withPrefix prefix: String) -> [Entry] {
    entries.compactMap { entry in
      entry.key.hasPrefix(prefix)
        ? Entry(key: String(entry.key.dropFirst(prefix.count)), value: entry.value) : nil
    }
  }
}

extension Header: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral pairs: (String, String)...) {
    self.init(pairs.map { Entry(key: $0.0, value: $0.1) })
  }
}
