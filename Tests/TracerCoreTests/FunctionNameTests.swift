// SPDX-License-Identifier: Apache-2.0
// Names of functions: found in images that may lie, and cut to fit a line.

import CTracerPlatform
import Foundation
import Testing

@testable import TracerCore

/// Exported by name only in the symbol table of the test's own file.
@_cdecl("heaptap_test_landmark") @inline(never)
public func landmark(_ value: Int) -> Int { value &* 3 }

@Suite struct FunctionNameTests {
  private static let capacity = 64 << 10

  /// Opens a file as an image; the body gets `nil` where it is none.
  private func withImage<Answer>(
    _ path: String, origin: UInt64 = 0, bias: UInt64? = nil, limit: UInt64? = nil,
    _ body: (SymbolImage?) throws -> Answer
  ) throws -> Answer {
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.capacity, alignment: 16)
    defer { buffer.deallocate() }
    let descriptor = open(path, O_RDONLY)
    try #require(descriptor >= 0, "\(path)")
    defer { close(descriptor) }
    let end = limit ?? UInt64(lseek(descriptor, 0, SEEK_END))
    return try body(
      SymbolImage(
        PositionReader(descriptor: descriptor, buffer: buffer, capacity: Self.capacity),
        origin: origin, bias: bias, limit: end))
  }

  /// The C library's own definition: a sanitizer's runtime, in the program, has some of the same name.
  private func libraryFunction(_ name: String) throws -> UInt {
    let library = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD)
    defer { library.map { _ = dlclose($0) } }
    let address = UInt(bitPattern: dlsym(library, name))
    try #require(address != 0)
    return address
  }

  private func string(_ bytes: UnsafeRawBufferPointer) -> String {
    String(decoding: bytes, as: UTF8.self)
  }

  private func object(holding address: UInt) throws -> tracer_object {
    var object = tracer_object()
    try #require(tracer_find_object(UInt64(address), &object) == 0)
    return object
  }

  private func function(
    holding address: UInt64, _ image: SymbolImage, _ list: SymbolList
  ) -> String? {
    var found: UInt32?
    image.forEachFunction(list) { symbol in
      guard address &- symbol.address < symbol.byteCount else { return true }
      found = symbol.name
      return false
    }
    return found.flatMap { image.name($0, list, byteLimit: 1024) }.map { string($0.bytes) }
  }

  // MARK: Images

  @Test(arguments: ["qsort", "getenv", "pthread_create", "fopen"])
  func `a mapped library's symbols are those that the loader finds`(_ name: String) throws {
    let address = try libraryFunction(name)
    let object = try object(holding: address)
    try withImage(
      "/proc/self/mem", origin: object.start, bias: object.load_bias, limit: object.end
    ) { image in
      let image = try #require(image)
      let list = try #require(image.dynamicSymbols())
      // Some function that begins there: others have more names than one.
      var names: [String] = []
      var offsets: [UInt32] = []
      image.forEachFunction(list) { symbol in
        if object.load_bias &+ symbol.address == address { offsets.append(symbol.name) }
        return true
      }
      for offset in offsets {
        names.append(string(try #require(image.name(offset, list, byteLimit: 1024)).bytes))
      }
      #expect(names.contains(name))
    }
  }

  @Test func `a function is found by its name`() throws {
    let address = UInt(bitPattern: try #require(dlsym(nil, "swift_demangle")))
    let object = try object(holding: address)
    try withImage(
      "/proc/self/mem", origin: object.start, bias: object.load_bias, limit: object.end
    ) { image in
      let image = try #require(image)
      let list = try #require(image.dynamicSymbols())
      #expect(
        image.address(of: "swift_demangle", list).map { object.load_bias &+ $0 } == UInt64(address))
      #expect(image.address(of: "wift_demangle", list) == nil)
      #expect(image.address(of: "no_such_function_anywhere", list) == nil)
    }
  }

  @Test func `a file's symbols name what is not exported`() throws {
    let address =
      unsafeBitCast(landmark as @convention(c) (Int) -> Int, to: UInt.self)
    let object = try object(holding: address)
    #expect(landmark(2) == 6)
    try withImage("/proc/self/exe") { image in
      let image = try #require(image)
      let list = try #require(image.fileSymbols())
      #expect(
        function(holding: UInt64(address) &- object.load_bias &+ 1, image, list)
          == "heaptap_test_landmark")
      #expect(function(holding: 1, image, list) == nil)
    }
  }

  @Test func `a library is the one of its build ID`() throws {
    let function = try libraryFunction("qsort")
    let object = try object(holding: function)
    let path = String(cString: try #require(object.name))
    let table = Zeroed(ModuleTable.self)
    #expect(table { $0.pointee.open() })
    let number = table { $0.pointee.number(holding: UInt64(function)) }
    var module = table { $0.pointee.module(number).pointee }
    #expect(module.buildIDByteCount > 0)
    try withImage(path) { #expect($0?.isSame(as: module) == true) }
    try withImage(
      "/proc/self/mem", origin: object.start, bias: object.load_bias, limit: object.end
    ) { #expect($0?.isSame(as: module) == true) }
    module.buildID[0] ^= 1
    try withImage(path) { #expect($0?.isSame(as: module) == false) }
    try withImage("/proc/self/exe") { #expect($0?.isSame(as: module) == false) }
  }

  @Test func `an image that ends anywhere is read no further`() throws {
    let path = "/tmp/heaptap-image-\(getpid())"
    defer { unlink(path) }
    let whole = try Data(contentsOf: URL(fileURLWithPath: "/bin/true"))
    for count in stride(from: 0, to: whole.count, by: 509) {
      try whole.prefix(count).write(to: URL(fileURLWithPath: path))
      // As a file, and as memory whose rest has been unmapped.
      try withImage(path) { $0?.fileSymbols().map { _ in } }
      try withImage(path, bias: 0, limit: UInt64(whole.count)) { image in
        guard let image, let list = image.dynamicSymbols() else { return }
        image.forEachFunction(list) { symbol in
          _ = image.name(symbol.name, list, byteLimit: 1024)
          return true
        }
      }
    }
  }

  @Test func `an image full of lies is read without harm`() throws {
    let path = "/tmp/heaptap-lies-\(getpid())"
    defer { unlink(path) }
    let whole = [UInt8](try Data(contentsOf: URL(fileURLWithPath: "/bin/true")))
    var random = SystemRandomNumberGenerator()
    for _ in 0..<2000 {
      var bytes = whole
      for _ in 0..<8 {
        // The headers and the dynamic section are what positions and sizes are taken from.
        let place =
          Bool.random(using: &random) ? Int.random(in: 4..<1024) : Int.random(in: 4..<bytes.count)
        bytes[place] = UInt8.random(in: 0...255)
      }
      try Data(bytes).write(to: URL(fileURLWithPath: path))
      for bias in [nil, 0] as [UInt64?] {
        try withImage(path, bias: bias) { image in
          guard let image, let list = bias == nil ? image.fileSymbols() : image.dynamicSymbols()
          else { return }
          var count = 0
          image.forEachFunction(list) { symbol in
            _ = image.name(symbol.name, list, byteLimit: 64)
            count += 1
            return count < 1000
          }
        }
      }
    }
  }

  // MARK: Demanglers

  private func demangled(_ name: String, _ means: NameMeans = .all) throws -> String {
    tracer_originals.free = free
    let buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.capacity, alignment: 16)
    defer { buffer.deallocate() }
    let memory = open("/proc/self/mem", O_RDONLY)
    try #require(memory >= 0)
    defer { close(memory) }
    let table = Zeroed(ModuleTable.self)
    var demanglers = table {
      Demanglers(
        PositionReader(descriptor: memory, buffer: buffer, capacity: Self.capacity), $0.pointee,
        means)
    }
    defer { demanglers.end() }
    return name.withCString { name in
      text {
        demanglers.append(
          UnsafeRawBufferPointer(start: name, count: strlen(name)), isWhole: true, to: &$0)
      }
    }
  }

  @Test func `names are demangled by what the process has loaded`() throws {
    try #require(dlopen("libstdc++.so.6", RTLD_NOW) != nil)
    #expect(try demangled("_ZNSt6vectorIiSaIiEE9push_backEOi") == "std::vector<…>::push_back")
    #expect(
      try demangled("$s11LeakyServer8SessionsC5visit2by7showingySS_SitF")
        == "Sessions.visit(by:showing:)")
    #expect(try demangled("plain_c") == "plain_c")
    // Where nothing may be allocated, what can be read off the name.
    #expect(try demangled("_ZN8Sessions5visitEi", .mapped) == "Sessions::visit")
    #expect(
      try demangled("_ZNSt6vectorIiSaIiEE9push_backEOi", .mapped)
        == "_ZNSt6vectorIiSaIiEE9push_backEOi")
  }

  /// Demanglers recur for what is nested: on the worker's stack these would end the process.
  @Test(arguments: [
    ("_Z1f", "P", "i", ""), ("_Z1f", "PF", "v", "vE"), ("_Z1f", "1AI", "i", "E"),
    ("_Z1f", "KP", "i", ""), ("_Z1f", "A_", "i", ""), ("$s1a1fyy", "Say", "Si", "G"),
    ("$s1a1fyy", "", "Si", "m"), ("$s1a1fyy", "", "Si_t", "_t"), ("$s1a1fyyF", "", "", "TA"),
    ("$s1a", "1AV", "1fyyF", ""), ("$s1a1fyyF", "", "", "yycfU_"),
  ])
  func `the longest nested name is taken`(
    _ start: String, _ opening: String, _ middle: String, _ closing: String
  ) throws {
    let room = FunctionNames.nameByteLimit - start.utf8.count - middle.utf8.count
    let count = room / (opening + closing).utf8.count
    let name =
      start + String(repeating: opening, count: count) + middle
      + String(repeating: closing, count: count)
    #expect(name.utf8.count <= FunctionNames.nameByteLimit)
    let shown = try demangled(name)
    #expect(!shown.isEmpty && shown.utf8.count <= NameStyle.byteLimit + 3)
  }

  // MARK: Style

  private func styled(
    _ name: String, _ style: (UnsafeRawBufferPointer, inout TextBuffer) -> Void
  ) -> String {
    var copy = name
    return copy.withUTF8 { bytes in text { style(UnsafeRawBufferPointer(bytes), &$0) } }
  }

  @Test(arguments: [
    ("main", "main"), ("f(int)", "f"),
    ("Sessions::visit(std::string, int) const", "Sessions::visit"),
    (
      "void std::vector<int, std::allocator<int> >::push_back(int const&)",
      "std::vector<…>::push_back"
    ),
    ("operator new(unsigned long)", "operator new"),
    ("A::operator()(int) const", "A::operator()"), ("A::operator<(A const&)", "A::operator<"),
    ("bool operator< <int>(A<int> const&, A<int> const&)", "operator< <…>"),
    ("A::operator std::string() const", "A::operator std::string"),
    ("std::ostream& operator<< <int>(std::ostream&, int)", "operator<< <…>"),
    ("(anonymous namespace)::f(int)", "(anonymous namespace)::f"),
    ("f(int)::{lambda(int)#1}::operator()(int) const", "f::{lambda#1}::operator()"),
    ("f() [clone .cold]", "f"), ("operators::run(int)", "operators::run"),
    ("std::function<void (int)>::operator()(int) const", "std::function<…>::operator()"),
    ("A<&B::operator->>::f()", "A<…>::f"), ("(", "("), ("<", "<…>"), ("x::operator", "x::operator"),
  ])
  func `a C++ name keeps its path`(_ name: String, _ expected: String) {
    #expect(styled(name, NameStyle.appendCxx) == expected)
  }

  @Test(arguments: [
    (
      "LeakyServer.Sessions.visit(by: Swift.String, showing: Swift.Int) -> ()",
      "Sessions.visit(by:showing:)"
    ),
    ("App.run() async throws -> Swift.Int", "run() async throws"),
    (
      "closure #1 (Swift.Int) -> () in App.Main.go(with: (Swift.Int, Swift.Int)) -> ()",
      "closure #1 in Main.go(with:)"
    ),
    ("static App.Maker.make<A where A: App.P>(_: A) -> App.Maker", "static Maker.make(_:)"),
    ("App.Session.__allocating_init(n: Swift.Int) -> App.Session", "Session.__allocating_init(n:)"),
    ("App.Session.data.getter : Swift.Array<Swift.Int>", "Session.data.getter"),
    (
      "generic specialization <Swift.String, sw.Session> of Swift.Dictionary.set(A, for: B) -> ()",
      "Dictionary.set(_:for:)"
    ),
    (
      "function signature specialization <Arg[0] = Dead> of function signature specialization "
        + "<Arg[0] = [Closure Propagated : $s2sw, Argument Types : []> of sw.Sessions.each(() -> ()) -> ()",
      "Sessions.each(_:)"
    ),
    ("(extension in App):Swift.Array.fill() -> ()", "Array.fill()"),
    ("Swift.(allocate in _A317)(capacity: Swift.Int) -> ()", "allocate(capacity:)"),
    ("static Swift.Int.< infix(Swift.Int, Swift.Int) -> Swift.Bool", "static Int.< infix(_:_:)"),
    ("main", "main"), ("(", "("), ("a.", "a."),
  ])
  func `a Swift name keeps its labels`(_ name: String, _ expected: String) {
    #expect(styled(name, NameStyle.appendSwift) == expected)
  }

  @Test(arguments: [
    ("_Z1fi", "f"), ("_ZN1a1bEv", "a::b"), ("_ZNK1a1bEv", "a::b"), ("_ZN1aC2Ev", "a::a"),
    ("_ZN1aD0Ev", "a::~a"), ("_ZL6hiddenv", "hidden"),
    ("_ZN12_GLOBAL__N_11fEv", "(anonymous namespace)::f"),
    ("_ZNSt6vectorIiE", ""), ("_ZN1fIiEvv", ""), ("_Z", ""), ("_ZN", ""), ("_ZN1", ""),
    ("_ZN9ab", ""),
    ("_Znwm", ""), ("main", ""), ("_ZN99999999999999999999aE", ""),
  ])
  func `a plain C++ name needs no demangler`(_ name: String, _ expected: String) {
    var isTaken = false
    let shown = styled(name) { isTaken = NameStyle.appendPlainCxx($0, to: &$1) }
    #expect(shown == expected)
    #expect(isTaken == !expected.isEmpty)
  }

  @Test func `a name that is too long is cut, and says so`() {
    let long = styled(String(repeating: "ä", count: 100), NameStyle.appendCut)
    #expect(long == String(repeating: "ä", count: 60) + "…")
  }

  @Test func `no name is read past its end, whatever is in it`() {
    let pieces = [
      "operator", "<", ">", "(", ")", " ", "::", ".", " -> ", " : ", " in ", " of ", "a",
      "specialization", "[", "]", "-", "~", "(extension in", ",",
    ]
    for _ in 0..<20_000 {
      let name = (0..<Int.random(in: 1...12)).map { _ in pieces.randomElement()! }.joined()
      _ = styled(name, NameStyle.appendCxx)
      _ = styled(name, NameStyle.appendSwift)
    }
  }
}
