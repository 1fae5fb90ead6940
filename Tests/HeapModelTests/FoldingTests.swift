// SPDX-License-Identifier: Apache-2.0
// Folding away the allocator, and putting symbols in.

import HeapModel
import Testing

private let swiftCore = Module(
  start: 0, limit: 1, fileOffset: 0, path: "/usr/lib/swift/linux/libswiftCore.so", buildID: "")

@Suite struct FrameFoldingTests {
  @Test(arguments: [
    "malloc", "realloc", "posix_memalign", "__libc_malloc", "operator new(unsigned long)",
    "operator new[](unsigned long)", "operator new[](unsigned long, std::nothrow_t const&)",
    "operator new(unsigned long, std::align_val_t)", "_Znwm", "swift_allocObject",
    "_swift_allocObject_", "swift_slowAlloc", "swift_slowAllocTyped",
    "swift::swift_slowAllocTyped(unsigned long, unsigned long, unsigned long long)",
    "swift_allocBox", "swift_bufferAllocate", "swift_initStackObject", "swift_task_alloc",
    "__gnu_cxx::new_allocator<char>::allocate(unsigned long, void const*)",
    "std::__new_allocator<int>::allocate(unsigned long, void const*)",
    "std::allocator_traits<std::allocator<int> >::allocate(std::allocator<int>&, unsigned long)",
    "std::_Vector_base<int, std::allocator<int> >::_M_allocate(unsigned long)",
    "static _ContiguousArrayStorage.allocate(capacity:)",
    "specialized static _ContiguousArrayStorage.allocate(capacity:)",
    "specialized _ContiguousArrayBuffer.init(_uninitializedCount:minimumCapacity:)",
    "_allocateUninitializedArray<A>(_:)", "Array._copyToNewBuffer(oldCount:)",
    "specialized Array._createNewBuffer(bufferIsUnique:minimumCapacity:growForAppend:)",
    "Swift._allocateUninitializedArray<A>(Builtin.Word) -> ([A], Builtin.RawPointer)",
    """
    generic specialization <Swift.UInt8, (Swift.Int) -> ()> of \
    Swift._ContiguousArrayBuffer.init(_uninitializedCount: Swift.Int)
    """,
    "UnsafeMutablePointer.allocate(capacity:)",
    "specialized Dictionary._Variant.removeValue(forKey:)", "Set._Variant.insert(_:)",
    "__rust_alloc", "__rustc::__rust_alloc", "alloc::alloc::alloc", "alloc::raw_vec::finish_grow",
    "<alloc::alloc::Global as core::alloc::Allocator>::allocate",
    "<alloc::raw_vec::RawVecInner>::with_capacity_in",
    "heaptap_track", "static HeapTracer.track(address:byteCount:domain:)",
  ])
  func `plumbing is folded`(function: String) {
    #expect(FrameFolding.standard.matches(Frame(function: function), in: nil))
  }

  @Test(arguments: [
    "main", "strdup_twice", "my_malloc", "mallocator", "Session.open()",
    "specialized Session.open()", "Array.append(_:)", "Array<A>.map", "newOperator",
    "std::vector<int, std::allocator<int> >::push_back(int const&)", "generic ",
    "generic specialization <", "specialized ", "",
  ])
  func `what somebody wrote, or asks about, is not folded`(function: String) {
    #expect(!FrameFolding.standard.matches(Frame(function: function), in: nil))
  }

  @Test func `the standard library is folded where it has no source`() {
    let frame = Frame(module: 0, function: "Array.append(_:)")
    #expect(FrameFolding.standard.matches(frame, in: swiftCore))
    #expect(FrameFolding.standard.matches(Frame(module: 0), in: swiftCore))
    let withSource = Frame(function: "Array.append(_:)", file: "Array.swift", line: 1)
    #expect(!FrameFolding.standard.matches(withSource, in: swiftCore))
  }

  @Test(arguments: ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libstdc++.so.6.0.30"])
  func `the C and C++ libraries are folded as a whole`(path: String) {
    let library = Module(start: 0, limit: 1, fileOffset: 0, path: path, buildID: "")
    let strdup = Frame(module: 0, function: "strdup", file: "strdup.c", line: 42)
    #expect(FrameFolding.standard.matches(strdup, in: library))
    let other = Module(start: 0, limit: 1, fileOffset: 0, path: "/lib/libcurl.so.4", buildID: "")
    #expect(!FrameFolding.standard.matches(strdup, in: other))
  }

  @Test func `what headers of C++ put into a program is folded`() {
    func isFolded(_ file: String) -> Bool {
      FrameFolding.standard.matches(Frame(function: "f", file: file, line: 1), in: nil)
    }
    #expect(isFolded("/usr/include/c++/12/bits/basic_string.tcc"))
    #expect(
      isFolded("/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/alloc/src/vec/mod.rs"))
    #expect(isFolded("/root/.rustup/toolchains/x/lib/rustlib/src/rust/library/std/src/rt.rs"))
    #expect(!isFolded("/home/me/rustc/library/main.rs"))
    #expect(!isFolded("/home/me/include/pool.h"))
  }

  @Test(arguments: [
    ("specialized Array.init(repeating:count:)", "<compiler-generated>", 0),
    ("Session.__allocating_init()", "<compiler-generated>", 0),
    ("specialized Dictionary.subscript.setter", "/src/pool.swift", 0),
    ("generic specialization <Swift.Int> of Swift.Array.map", "/src/pool.swift", 0),
  ])
  func `code that nobody wrote a line of is folded`(function: String, file: String, line: Int) {
    let frame = Frame(function: function, file: file, line: line)
    #expect(FrameFolding.standard.matches(frame, in: nil))
  }

  @Test(arguments: [
    // Written in this module, and specialised.
    ("specialized Storage.init(_:)", "/src/mutex.swift", 153),
    // Someone's function, in a place without a line.
    ("Socket.accept()", "/src/socket.swift", 0),
  ])
  func `code that somebody wrote is not`(function: String, file: String, line: Int) {
    let frame = Frame(function: function, file: file, line: line)
    #expect(!FrameFolding.standard.matches(frame, in: nil))
  }

  @Test func `an unknown frame is not folded`() {
    #expect(!FrameFolding.standard.matches(Frame(), in: nil))
    #expect(!FrameFolding(rules: [.init()]).matches(Frame(function: "f"), in: nil))
  }

  @Test func `only the inner end is folded`() {
    var builder = Snapshot.Builder()
    let open = Frame(function: "Session.open()", file: "s.swift", line: 4)
    let malloc = Frame(function: "malloc")
    builder.add(
      bytes: 8,
      stack: [malloc, Frame(function: "swift_slowAlloc"), open, malloc, Frame(function: "main")],
      missingFrames: 3, generation: 2)
    let folded = builder.finish().folded()
    #expect(
      folded.stack(of: folded.samples[0]).map(\.function)
        == ["Session.open()", "malloc", "main"])
    #expect(folded.samples[0].missingFrames == 3)
    #expect(folded.samples[0].generation == 2)
  }

  @Test(arguments: [
    "completeTaskWithClosure(swift::AsyncContext*, swift::SwiftError*)", "completeTask",
    "swift_task_create_common", "thunk for @escaping @callee_guaranteed () -> ()",
    "partial apply for thunk for @escaping @callee_guaranteed () -> ()",
    """
    (1) await resume partial function for reabstraction thunk helper from @escaping \
    @convention(thin) @async () -> () to @escaping @callee_guaranteed @async () -> (@out ())
    """,
    "(2) suspend resume partial function for partial apply forwarder for closure #1 in main.f()",
    "protocol witness for Route.answer(_:) in conformance Shop",
  ])
  func `what lies between a task and its maker is left out anywhere in a stack`(passage: String) {
    let (inner, outer) = (Frame(function: "serve()"), Frame(function: "main"))
    var builder = Snapshot.Builder()
    builder.add(bytes: 8, stack: [inner, Frame(function: passage), outer])
    let folded = builder.finish().folded()
    #expect(folded.stack(of: folded.samples[0]).map { $0 } == [inner, outer])
  }

  @Test func `a way into a function is left out next to it, and recursion is not`() {
    func frame(_ line: Int?, file: String? = "a.swift") -> Frame {
      Frame(module: 0, function: "serve()", file: file, line: line)
    }
    let forwarder = frame(0, file: "<compiler-generated>")
    let unknown = frame(nil, file: nil)
    func folded(_ stack: [Frame]) -> [Frame] {
      var builder = Snapshot.Builder()
      builder.modules = [swiftCore]
      builder.add(bytes: 8, stack: stack)
      let folded = builder.finish().folded(by: FrameFolding(rules: []))
      return folded.stack(of: folded.samples[0]).map { $0 }
    }
    #expect(folded([frame(4), forwarder, frame(9), unknown]) == [frame(4), frame(9)])
    #expect(folded([frame(4), frame(4)]) == [frame(4), frame(4)])
    #expect(folded([unknown, unknown]) == [unknown, unknown])
    #expect(folded([forwarder, frame(4)]) == [forwarder, frame(4)])
  }

  @Test func `a stack of plumbing keeps its innermost frame`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 8, stack: [Frame(function: "calloc"), Frame(function: "malloc")])
    builder.add(bytes: 8, stack: [])
    let folded = builder.finish().folded()
    #expect(folded.stack(of: folded.samples[0]).map(\.function) == ["calloc"])
    #expect(folded.stack(of: folded.samples[1]).isEmpty)
    #expect(folded.liveBytes == 16)
  }

  @Test func `rules can be added`() {
    let folding = FrameFolding(adding: .function("pool_*"), .module("libjemalloc.so*"))
    let jemalloc = Module(
      start: 0, limit: 1, fileOffset: 0, path: "/usr/lib/libjemalloc.so.2", buildID: "")
    #expect(folding.matches(Frame(function: "pool_take"), in: nil))
    #expect(folding.matches(Frame(function: "malloc"), in: nil))
    #expect(folding.matches(Frame(module: 0), in: jemalloc))
    #expect(!FrameFolding.standard.matches(Frame(module: 0), in: jemalloc))
  }
}

@Suite struct ReplacingFramesTests {
  @Test func `one frame may become several, and each is asked about once`() {
    var builder = Snapshot.Builder()
    builder.warnings = ["kept"]
    builder.add(bytes: 1, stack: [Frame(address: 1), Frame(address: 9)], missingFrames: 2)
    builder.add(bytes: 2, stack: [Frame(address: 2), Frame(address: 9)])
    let snapshot = builder.finish()
    var asked: [UInt64] = []
    let symbolicated = snapshot.replacingFrames { frame in
      asked.append(frame.address)
      if frame.address == 2 { return [] }
      return [
        Frame(address: frame.address, function: "inlined", isInlined: true),
        Frame(address: frame.address, function: "outer"),
      ]
    }
    #expect(asked.sorted() == [1, 2, 9])
    let stacks = symbolicated.samples.map { symbolicated.stack(of: $0) }
    #expect(stacks[0].map(\.function) == ["inlined", "outer", "inlined", "outer"])
    #expect(stacks[0].missingFrames == 2)
    #expect(stacks[1].map(\.address) == [2, 9, 9])
    #expect(symbolicated.warnings == ["kept"])
  }

  @Test func `stacks that become equal become one`() {
    var builder = Snapshot.Builder()
    builder.add(bytes: 1, stack: [Frame(address: 1)])
    builder.add(bytes: 2, stack: [Frame(address: 2)])
    let merged = builder.finish().replacingFrames { _ in [Frame(function: "f")] }
    #expect(merged.stackCount == 1)
    #expect(merged.samples.map(\.liveBytes) == [1, 2])
  }
}

@Suite struct FoldingListTests {
  private func folding(_ list: String) throws -> FrameFolding {
    var folding = FrameFolding.standard
    try folding.add(list: list)
    return folding
  }

  @Test func `the default list, printed, reads as the default list`() throws {
    var read = FrameFolding(rules: [])
    try read.add(list: FrameFolding.standardList)
    #expect(read == FrameFolding.standard)
    #expect(FrameFolding.standardList.contains("# The loader, C and C++"))
    #expect(!FrameFolding.standardList.contains("\n\n\n"))
  }

  @Test func `a list's lines may end as those of Windows do`() throws {
    let lines = try folding("# Ours.\r\nmine_*\r\nmodule:libpool.so\r\n")
    #expect(lines.rules == (try folding("mine_*\nmodule:libpool.so").rules))
  }

  @Test func `a list folds by function, module and file, and remarks say nothing`() throws {
    let module = Module(start: 0, limit: 9, fileOffset: 0, path: "/opt/libpool.so.2", buildID: "")
    let ours = try folding(
      """
      # Our pool.
        pool_*\t

      module:libpool.so*
      file: */third_party/*
      function:odd:name
      JS:*grow *
      std::pool::*
      """)
    for function in ["pool_take", "odd:name", "JS:xgrow /a.js:1:2", "std::pool::take"] {
      #expect(ours.matches(Frame(function: function), in: nil), "\(function)")
      #expect(!FrameFolding.standard.matches(Frame(function: function), in: nil))
    }
    #expect(ours.matches(Frame(module: 0), in: module))
    #expect(ours.matches(Frame(function: "f", file: "/a/third_party/b.c", line: 1), in: nil))
    #expect(!ours.matches(Frame(function: "f", file: "/a/b.c", line: 1), in: nil))
    #expect(ours.matches(Frame(function: "malloc"), in: nil), "the default rules stay")
  }

  @Test func `of rules that fit the last counts, and an exception holds for passages too`() throws {
    let first = try folding("!malloc\n!thunk for *\n")
    #expect(!first.matches(Frame(function: "malloc"), in: nil))
    #expect(first.matches(Frame(function: "calloc"), in: nil))
    #expect(!first.isPassage(Frame(function: "thunk for f"), in: nil))
    let second = try folding("!pool_*\npool_take\npassage:hop_*")
    #expect(second.matches(Frame(function: "pool_take"), in: nil))
    #expect(!second.matches(Frame(function: "pool_give"), in: nil))
    #expect(second.isPassage(Frame(function: "hop_on"), in: nil))
    #expect(!second.matches(Frame(function: "hop_on"), in: nil))
  }

  @Test(arguments: [
    ("malloc\n!", 2, "there is no pattern; '*' stands for any text"),
    ("module:", 1, "there is no pattern; '*' stands for any text"),
    (
      "# a\n\nmodul:libc.so*", 3,
      """
      'modul:' says nothing of a pattern; 'function:', 'module:', 'file:', 'passage:', \
      'module-without-lines:' and 'compiler-made:' do, and 'function:modul:libc.so*' is a name
      """
    ),
    ("**", 1, "it would fold every frame; 'show --by module' has the largest parts"),
    ("a\u{1b}[31m", 1, "it has characters that no name has; patterns are text in UTF-8"),
  ])
  func `a line that is none says what is wrong, and where`(
    _ list: String, _ line: Int, _ words: String
  ) {
    let error = #expect(throws: FrameFolding.ListError.self) { _ = try folding(list) }
    #expect(error?.line == line)
    #expect(error?.description == words)
  }

  @Test func `a snapshot without symbols is what the tracer wrote`() {
    let module = Module(start: 0, limit: 99, fileOffset: 0, path: "/bin/p", buildID: "")
    let jit = Module(start: 0, limit: 0, fileOffset: 0, path: "[jit]", buildID: "")
    var plain = Snapshot.Builder(header: Header(), modules: [module, jit])
    let generated = Frame(address: 50, module: 1, function: "JS:f")
    plain.add(bytes: 7, stack: [Frame(address: 10, module: 0), generated, .lostStack])
    let written = plain.finish()
    let named = written.replacingFrames { frame in
      frame.module != 0
        ? []
        : [
          Frame(address: 10, module: 0, function: "inner", file: "p.c", line: 1, isInlined: true),
          Frame(address: 10, module: 0, function: "outer", file: "p.c", line: 2),
        ]
    }
    #expect(named.hasSymbols && !written.hasSymbols)
    #expect(named.stack(of: named.samples[0]).count == 4)
    #expect(named.withoutSymbols() == written)
  }
}
