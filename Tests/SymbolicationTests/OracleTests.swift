// SPDX-License-Identifier: Apache-2.0
// Every instruction of whole programs, compared with what llvm-symbolizer says.

import HeapModel
import Symbolication
import Testing

@Suite(.enabled(if: Tool.symbolizer.isInstalled, "no llvm-symbolizer")) struct OracleTests {
  /// Compares every third byte of a program's code: instructions are about as long.
  private func compare(
    _ program: String, in scratch: Scratch, atLeast count: Int = 50,
    sourceLocation: SourceLocation = #_sourceLocation
  ) throws {
    let file = try MappedFile(path: scratch.file(program))
    let addresses = file.textAddresses(every: 3)
    let ours = Symbolicator(worker: .inProcess)
      .symbolicate(addresses.map { file.frame(at: $0) }, modules: [file.module]).frames
    let theirs = try SymbolizerOracle.frames(of: file, at: addresses, scratch: scratch)
    #expect(ours.count == theirs.count, sourceLocation: sourceLocation)
    // Where there is no debug information, llvm-symbolizer gives the source file that the symbol
    // table mentions, without its directory. That is the start-up code of the C library.
    func hasPath(_ frames: [Frame]) -> Bool {
      frames.contains { ["/", "<"].contains($0.file?.first) }
    }
    let compared = zip(ours, theirs).compactMap { ours, theirs in theirs.map { (ours, $0) } }
      .filter { hasPath($0) || hasPath($1) }
    let differences = compared.filter { $0 != $1 }.map { ours, theirs in
      "0x\(String(ours[0].address - MappedFile.base - 1, radix: 16)): \(ours.map(\.summary)) "
        + "in \(ours.map { $0.file ?? "?" }), not \(theirs.map(\.summary)) "
        + "in \(theirs.map { $0.file ?? "?" })"
    }
    #expect(compared.count > count, sourceLocation: sourceLocation)
    if !differences.isEmpty {
      Issue.record(
        """
        \(differences.count) of \(compared.count) differ:
        \(differences.prefix(5).joined(separator: "\n"))
        """, sourceLocation: sourceLocation)
    }
  }

  private static let options = [
    ["-O0", "-gdwarf-5"], ["-O2", "-gdwarf-5"], ["-O2", "-gdwarf-4"], ["-O3", "-gdwarf-5"],
    ["-Os", "-gdwarf-4", "-ffunction-sections", "-Wl,--gc-sections"], ["-O2", "-g1"],
    ["-O2", "-gdwarf-5", "-flto"],
  ]

  @Test(arguments: [Tool.gcc, .clang], options)
  func `a C program's every address is named as llvm-symbolizer does`(
    compiler: Tool, options: [String]
  ) throws {
    // clang's needs a plug-in for the linker, which its toolchains often lack.
    guard compiler.isInstalled, !(options.contains("-flto") && compiler.isClang) else { return }
    let scratch = try Scratch()
    try scratch.write("sub/list.c", Self.list)
    try scratch.write("table.c", Self.table)
    try scratch.run(
      compiler.path, options + ["-Wl,--build-id", "table.c", "sub/list.c", "-o", "program"])
    try compare("program", in: scratch)
  }

  /// Dumps are read where developers are, which may be on another kind of machine than the daemon's.
  @Test(
    .enabled(if: Tool.clang.isInstalled, "no clang"),
    arguments: ["aarch64-linux-gnu", "riscv64-linux-gnu"])
  func `another architecture's every address is named as llvm-symbolizer does`(
    target: String
  ) throws {
    let scratch = try Scratch()
    // Without that machine's C library: what there is of the program's own is enough.
    try scratch.write("nested.c", Self.nested)
    try scratch.run(
      .clang, "--target=\(target)", "-O2", "-g", "-ffreestanding", "-nostdlib", "-shared", "-fPIC",
      "-fuse-ld=lld", "-Wl,--build-id", "nested.c", "-o", "library")
    try compare("library", in: scratch, atLeast: 5)
  }

  @Test(arguments: [Tool.gxx, .clangxx], options)
  func `a C++ program's every address is named as llvm-symbolizer does`(
    compiler: Tool, options: [String]
  ) throws {
    // clang's needs a plug-in for the linker, which its toolchains often lack.
    guard compiler.isInstalled, !(options.contains("-flto") && compiler.isClang) else { return }
    let scratch = try Scratch()
    try scratch.write("cache.cpp", Self.cache)
    try scratch.run(compiler.path, options + ["-Wl,--build-id", "cache.cpp", "-o", "program"])
    try compare("program", in: scratch)
  }

  @Test(
    .enabled(if: Tool.swiftc.isInstalled, "no swiftc"),
    arguments: [["-Onone"], ["-O"], ["-Osize"], ["-O", "-wmo", "-dwarf-version=5"]])
  func `a Swift program's every address is named as llvm-symbolizer does`(
    options: [String]
  ) throws {
    let scratch = try Scratch()
    try scratch.write("main.swift", Self.sessions)
    try scratch.run(
      Tool.swiftc.path,
      options + ["-g", "-Xlinker", "--build-id", "main.swift", "-o", "program"])
    try compare("program", in: scratch)
  }

  // MARK: Programs

  private static let nested = """
    struct list { struct list *next; long values[16]; };
    static inline __attribute__((always_inline)) long sum(const struct list *list) {
      long total = 0;
      for (int i = 0; i < 16; i++)
        total += list->values[i] * (i + 3) / (total + 2);
      return total;
    }
    static inline __attribute__((always_inline)) long all(const struct list *list) {
      long total = 0;
      for (; list; list = list->next)
        total += sum(list) ^ sum(list->next);
      return total;
    }
    long outer(const struct list *list, long (*keep)(long)) {
      return keep(all(list)) + keep(all(list->next)) + all(list->next->next);
    }

    """

  private static let list = """
    #include <stdlib.h>
    struct node { struct node *next; long value; };
    static inline struct node *make(long value) {
      struct node *node = malloc(sizeof *node);
      if (!node) abort();
      node->value = value;
      return node;
    }
    struct node *push(struct node *head, long value) {
      struct node *node = make(value);
      node->next = head;
      return node;
    }
    long sum(const struct node *head) {
      long total = 0;
      for (; head; head = head->next) total += head->value;
      return total;
    }
    void unused_function(void) { abort(); }
    """

  private static let table = """
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    struct node;
    struct node *push(struct node *head, long value);
    long sum(const struct node *head);
    #define BUCKETS 16
    static struct node *buckets[BUCKETS];
    static inline unsigned hash(const char *text) {
      unsigned hash = 5381;
      while (*text) hash = hash * 33 + (unsigned char)*text++;
      return hash;
    }
    static inline void check(int argc) {
      if (__builtin_expect(argc > 100, 0)) {
        fprintf(stderr, "too many\\n");
        exit(2);
      }
    }
    static void insert(const char *text) {
      unsigned bucket = hash(text) % BUCKETS;
      buckets[bucket] = push(buckets[bucket], (long)strlen(text));
    }
    int main(int argc, char **argv) {
      check(argc);
      for (int i = 0; i < argc; i++) insert(argv[i]);
      long total = 0;
      for (int i = 0; i < BUCKETS; i++) total += sum(buckets[i]);
      printf("%ld\\n", total);
      return 0;
    }
    """

  private static let cache = """
    #include <algorithm>
    #include <iostream>
    #include <map>
    #include <memory>
    #include <string>
    #include <vector>
    namespace store {
    template <typename Key, typename Value> class Cache {
     public:
      Cache() = default;
      explicit Cache(size_t limit) : limit_(limit) {}
      virtual ~Cache() { values_.clear(); }
      Value &at(const Key &key) {
        auto found = values_.find(key);
        if (found != values_.end()) return found->second;
        evict();
        return values_[key] = Value();
      }
     private:
      void evict() {
        if (values_.size() >= limit_) values_.erase(values_.begin());
      }
      size_t limit_ = 10;
      std::map<Key, Value> values_;
    };
    namespace {
    struct Shape {
      virtual ~Shape() {}
      virtual double area() const = 0;
    };
    struct Square : Shape {
      explicit Square(double side) : side(side) {}
      double area() const override { return side * side; }
      double side;
    };
    }
    }
    int main(int argc, char **argv) {
      store::Cache<std::string, std::vector<int>> cache(3);
      for (int i = 0; i < argc; i++) cache.at(argv[i]).push_back(i);
      std::vector<std::unique_ptr<store::Shape>> shapes;
      for (int i = 0; i < argc; i++) shapes.emplace_back(new store::Square(i));
      std::sort(shapes.begin(), shapes.end(),
                [](const auto &a, const auto &b) { return a->area() < b->area(); });
      try {
        if (argc > 5) throw std::string("many");
      } catch (const std::string &text) {
        std::cout << text << std::endl;
      }
      return static_cast<int>(shapes.size() + cache.at("x").size());
    }
    """

  private static let sessions = """
    struct Key: Hashable {
      var name: String
      var number: Int
    }

    final class Session {
      var values: [Key: [UInt8]] = [:]
      lazy var label: String = "session \\(values.count)"

      subscript(name: String) -> [UInt8] {
        get { values[Key(name: name, number: 0)] ?? [] }
        set { values[Key(name: name, number: 0)] = newValue }
      }

      func fill(_ count: Int) throws {
        for number in 0..<count {
          values[Key(name: "key", number: number)] = Array(repeating: 7, count: number)
        }
        if count > 1000 { throw Failure.tooMany(count) }
      }
    }

    enum Failure: Error { case tooMany(Int) }

    protocol Shape { func area() -> Double }
    struct Square: Shape {
      var side: Double
      func area() -> Double { side * side }
    }

    func total(_ shapes: [any Shape]) -> Double {
      shapes.map { $0.area() }.filter { $0 > 1 }.reduce(0, +)
    }

    func later(_ session: Session) async -> Int {
      await Task.yield()
      return session.values.values.reduce(0) { $0 + $1.count }
    }

    let session = Session()
    try session.fill(CommandLine.arguments.count * 3)
    session["extra"].append(1)
    print(session.label, total([Square(side: 2), Square(side: 1)]), await later(session))
    """
}
