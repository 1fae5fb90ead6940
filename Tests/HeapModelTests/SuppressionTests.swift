// SPDX-License-Identifier: Apache-2.0
// LeakSanitizer's suppressions: as it reads them and matches them.

import HeapModel
import Testing

/// Whether a pattern fits a function's name.
private func fits(_ pattern: String, _ name: String) throws -> Bool {
  var builder = Snapshot.Builder()
  builder.add(bytes: 1, stack: [Frame(function: name)])
  let rules = try Suppressions(list: "leak:\(pattern)")
  return builder.finish().suppressed(by: rules).rest.samples.isEmpty
}

@Suite struct SuppressionTests {
  @Test(arguments: [
    ("foo", "foo", true), ("foo", "xfoox", true), ("foo", "fo", false), ("foo", "FOO", false),
    ("^foo", "foobar", true), ("^foo", "xfoo", false), ("foo$", "xfoo", true),
    ("foo$", "foox", false), ("^foo$", "foo", true), ("^foo$", "foof", false),
    ("f*o", "xfaaaox", true), ("f*o", "of", false), ("^f*o$", "faao", true), ("*", "x", true),
    ("*foo*", "foo", true), ("^*foo", "xfoo", true), ("a*b*c", "xaxbxcx", true),
    ("a*b*c", "acb", false), ("foo*$", "foobar", true), ("foo.bar", "fooxbar", false),
    ("^", "x", true), ("std::vector<int>::", "std::vector<int>::push_back(int&&)", true),
    // As the original does: what was found first is not given back.
    ("a$", "aba", false), ("a$b", "a", true), ("^a*ba$", "aababa", false),
    // In bytes.
    ("ä", "xäx", true),
  ])
  func `patterns fit as compiler-rt has them`(pattern: String, name: String, isFit: Bool) throws {
    #expect(try fits(pattern, name) == isFit)
  }

  @Test func `a list has remarks, blanks and line ends of any sort`() throws {
    let list = try Suppressions(
      list: "# A remark\r\n\n  leak:foo bar \t\r\n\tleak:libz.so\n#leak:no")
    #expect(list.rules.map(\.pattern) == ["foo bar", "libz.so"])
    #expect(list.rules.map(\.line) == [3, 4])
    #expect(try Suppressions(list: "").rules.isEmpty)
  }

  @Test(arguments: [
    ("leak:a\nrace:b", 2, "'race:b' is no suppression of leaks; those are written 'leak:pattern'"),
    ("foo", 1, "'foo' is no suppression of leaks; those are written 'leak:pattern'"),
    ("\nleak:  ", 2, "there is no pattern; 'leak:*' would leave out everything"),
  ])
  func `a line that is none is refused by its number`(
    list: String, line: Int, sentence: String
  ) throws {
    let error = #expect(throws: Suppressions.ListError.self) { try Suppressions(list: list) }
    #expect(error?.line == line && error?.description == sentence)
  }

  private static let modules = [
    Module(start: 0, limit: 100, fileOffset: 0, path: "/usr/lib/libcache.so.1", buildID: "")
  ]

  @Test(arguments: ["Store::insert", "store.cc", "libcache", "^/usr/lib/", "main$"])
  func `module, function and file of any frame are looked at`(pattern: String) throws {
    var builder = Snapshot.Builder(header: Header(), modules: Self.modules)
    builder.add(
      bytes: 5,
      stack: [
        Frame(function: "malloc"),
        Frame(address: 7, module: 0, function: "Store::insert", file: "/src/store.cc", line: 4),
        Frame(function: "main"),
      ])
    builder.add(bytes: 6, stack: [Frame(function: "other")])
    let outcome = builder.finish().suppressed(by: try Suppressions(list: "leak:\(pattern)"))
    #expect(outcome.rest.liveBytes == 6)
    #expect(outcome.taken == [.init(bytes: 5, blocks: 1)])
  }

  @Test func `names that are put in are looked at, whatever the report shows`() throws {
    var builder = Snapshot.Builder(header: Header(), modules: Self.modules)
    builder.add(bytes: 5, stack: [Frame(address: 7, module: 0)])
    let rules = try Suppressions(list: "leak:push_back(int)\nleak:inlined")
    let outcome = builder.finish().suppressed(by: rules) { frame in
      frame.address == 7 ? [Frame(function: "vector<int>::push_back(int)")] : []
    }
    #expect(outcome.taken == [.init(bytes: 5, blocks: 1), nil])
  }

  @Test func `of several the first of the innermost frame counts`() throws {
    var builder = Snapshot.Builder()
    builder.add(bytes: 5, stack: [Frame(function: "inner"), Frame(function: "outer")])
    builder.add(bytes: 3, blocks: 2, stack: [Frame(function: "inner")])
    let rules = try Suppressions(list: "leak:outer\nleak:inner\nleak:inn\nleak:nobody")
    #expect(
      builder.finish().suppressed(by: rules).taken == [nil, .init(bytes: 8, blocks: 3), nil, nil])
  }
}
