// SPDX-License-Identifier: Apache-2.0
// Filters, with the truth tables of tracemalloc's own tests.

import HeapModel
import Testing

@Suite struct FixtureFilterTests {
  let snapshot = FixtureA.earlier

  private func sizes(_ snapshot: Snapshot) -> [Int] { snapshot.samples.map(\.liveBytes) }

  @Test func `an exclusive filter looks at the newest frame only`() {
    let filtered = snapshot.filtered(!.file("b.py"))
    #expect(sizes(filtered) == [10, 10, 10, 2, 7])
    #expect(sizes(snapshot) == [10, 10, 10, 2, 66, 7])
  }

  @Test func `one inclusive filter of several is enough`() {
    let filtered = snapshot.filtered(.file("a.py", line: 2), .file("a.py", line: 5))
    #expect(sizes(filtered) == [10, 10, 10, 2])
  }

  @Test func `no filters, no change`() {
    #expect(snapshot.filtered(by: []) == snapshot)
    #expect(snapshot.filtered() == snapshot)
  }

  @Test func `every exclusive filter counts, also against inclusive ones`() {
    #expect(sizes(snapshot.filtered(.file("a.py"), !.file("a.py", line: 5))) == [10, 10, 10])
    #expect(sizes(snapshot.filtered(!.file("a.py"), !.file("b.py"))) == [7])
  }

  @Test func `an exclusive filter with a domain leaves other domains alone`() {
    #expect(sizes(snapshot.filtered(!.file("a.py", domain: 1))) == [10, 10, 10, 66, 7])
  }

  @Test func `domains are kept or left out`() {
    #expect(sizes(snapshot.filtered(.domain(3))) == [7])
    #expect(sizes(snapshot.filtered(!.domain(3))) == [10, 10, 10, 2, 66])
    #expect(sizes(snapshot.filtered(.domain(0))) == [10, 10, 10])
  }

  @Test func `filters have the defaults of tracemalloc`() {
    let filter = Filter.file("abc")
    #expect(filter.line == nil)
    #expect(filter.domain == nil)
    #expect(filter.scope == .allocatingFrame)
    #expect(filter.isInclusive)
    #expect(!(!filter).isInclusive)
    #expect(!(!filter) == filter)
  }

  @Test func `any frame: one that matches is enough, also for leaving out`() {
    #expect(sizes(snapshot.filtered(.file("b.py", in: .anyFrame))) == [10, 10, 10, 2, 66])
    #expect(sizes(snapshot.filtered(.file("b.py", line: 4, in: .anyFrame))) == [10, 10, 10, 2])
    #expect(sizes(snapshot.filtered(!.file("b.py", in: .anyFrame))) == [7])
    #expect(sizes(snapshot.filtered(!.file("b.py", line: 4, in: .anyFrame))) == [66, 7])
  }

  @Test func `the unknown file can be matched`() {
    #expect(sizes(snapshot.filtered(.file("<unknown>"))) == [7])
    #expect(sizes(snapshot.filtered(!.file("<unknown>"))) == [10, 10, 10, 2, 66])
    #expect(sizes(snapshot.filtered(.file("<unknown>", in: .anyFrame))) == [7])
    #expect(sizes(snapshot.filtered(.file("*", line: 0))) == [7])
  }
}

@Suite struct FilterTests {
  /// tracemalloc's truth table: which of `abc:0`, `abc:5`, `abc:10`, `12356:5` are kept.
  @Test(arguments: [
    (Filter.file("abc"), [true, true, true, false]),
    (!Filter.file("abc"), [false, false, false, true]),
    (Filter.file("abc", line: 5), [false, true, false, false]),
    (!Filter.file("abc", line: 5), [true, false, true, true]),
    (Filter.file("abc", line: 0), [true, false, false, false]),
    (!Filter.file("abc", line: 0), [false, true, true, true]),
  ])
  func `line 0 is a line, no line is any`(filter: Filter, kept: [Bool]) {
    let places = [("abc", 0), ("abc", 5), ("abc", 10), ("12356", 5)]
    let answers = places.map { file, line in
      var builder = Snapshot.Builder()
      builder.add(bytes: 1, stack: [Frame(file: file, line: line)])
      return !builder.finish().filtered(filter).samples.isEmpty
    }
    #expect(answers == kept)
  }

  @Test func `a pattern without a slash may match the last component`() {
    let frame = Frame(file: "/src/app/Arena.swift", line: 1)
    #expect(Filter.file("Arena.swift").matches(frame, in: nil))
    #expect(Filter.file("A*.swift").matches(frame, in: nil))
    #expect(Filter.file("/src/*").matches(frame, in: nil))
    #expect(!Filter.file("app/Arena.swift").matches(frame, in: nil))
    #expect(!Filter.file("").matches(frame, in: nil))
  }

  @Test func `functions are matched by pattern or by their very name`() {
    let frame = Frame(function: "operator new[](unsigned long)")
    #expect(Filter.function("operator new[](unsigned long)").matches(frame, in: nil))
    #expect(Filter.function("operator*").matches(frame, in: nil))
    #expect(!Filter.function("operator").matches(frame, in: nil))
    #expect(!Filter.function("*").matches(Frame(), in: nil))
  }

  @Test func `modules are matched by path or name`() {
    let libc = Module(
      start: 0, limit: 1, fileOffset: 0, path: "/usr/lib/libc.so.6", buildID: "")
    #expect(Filter.module("libc.so*").matches(Frame(module: 0), in: libc))
    #expect(Filter.module("/usr/lib/*").matches(Frame(module: 0), in: libc))
    #expect(!Filter.module("libz*").matches(Frame(module: 0), in: libc))
    #expect(Filter.module("<unknown>").matches(Frame(), in: nil))
  }

  @Test func `a generation is kept or left out`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: FixtureA.b1, generation: 1)
    builder.add(bytes: 2, stack: FixtureA.b1, generation: 2)
    builder.add(bytes: 3, stack: FixtureA.b1)
    let snapshot = builder.finish()
    #expect(snapshot.filtered(.generation(2)).samples.map(\.liveBytes) == [2])
    #expect(snapshot.filtered(!.generation(2)).samples.map(\.liveBytes) == [1, 3])
  }

  @Test func `a stack without frames matches as unknown, within its domain`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: [], domain: 2)
    let snapshot = builder.finish()
    #expect(snapshot.filtered(.file("<unknown>")).samples.count == 1)
    #expect(snapshot.filtered(.domain(2)).samples.count == 1)
    #expect(snapshot.filtered(.domain(3)).samples.isEmpty)
  }
}

@Suite struct GlobTests {
  @Test(arguments: [
    // tracemalloc's test_match_filename and test_match_filename_joker.
    ("abc", "abc"), ("", ""), ("*", ""), ("*", "abc"), ("**", "abc"), ("*abc", "abc"),
    ("a*", "abc"), ("a*c", "abc"), ("a**c", "abc"), ("a*c", "abdc"), ("a*c", "abcddc"),
    ("a*c*e", "abcde"), ("a*c*e", "abcdddde"), ("a*c*e", "acxxe"), ("a*bd*eg", "abcbdefeg"),
    ("abc*", "abc"), ("a*b*c*", "abc"), ("a*/b", "a/x/b"),
    // fnmatch beyond it.
    ("a?c", "aéc"), ("[abc]x", "bx"), ("[a-c]x", "cx"), ("[!a-c]x", "dx"), ("[]]", "]"),
    ("[!]]", "x"), ("[]-]", "-"), ("[a-]", "-"), ("[", "["), ("a[b", "a[b"), ("[*]", "*"),
    ("[?]", "?"), ("[[]", "["),
  ])
  func `matches`(pattern: String, text: String) {
    #expect(Glob(pattern).matches(text))
  }

  @Test(arguments: [
    ("abc", "abcd"), ("abc", "ABC"), ("ABC", "abc"), ("", "abc"), ("abc", ""), ("a*", "bca"),
    ("a*c", "acd"), ("a*c*e", "abcdf"), ("a*bd*eg", "abcbdefef"), ("a/b", "a\\b"),
    ("a\\b", "a/b"), ("a?c", "ac"), ("?", ""), ("[a-c]x", "dx"), ("[!a-c]x", "bx"),
    ("[!a-c]", ""), ("[c-a]", "b"), ("[A-Z]", "a"),
  ])
  func `does not match`(pattern: String, text: String) {
    #expect(!Glob(pattern).matches(text))
  }

  @Test func `a pattern of many stars does not take for ever`() {
    // Naive backtracking would try about 30 to the power of 20 ways.
    let stars = String(repeating: "a*", count: 20)
    #expect(!Glob(stars + "b").matches(String(repeating: "a", count: 3000)))
    #expect(Glob(stars).matches(String(repeating: "a", count: 3000)))
  }
}
