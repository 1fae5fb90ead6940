// SPDX-License-Identifier: Apache-2.0
// Which frames are the allocator's and the runtime's own, and not an answer to who allocated.

/// Says which frames at the inner end of a stack are plumbing: the allocator and the runtime.
///
/// Without folding every stack of a Swift program begins with `malloc`, `swift_slowAlloc` and
/// `swift_allocObject`, and a report by function has one row. Folding drops such frames from the
/// inner end until one is met that somebody wrote for this program.
///
/// So are the C and C++ libraries as a whole, with the functions that allocate because the caller
/// asked for text or lines (`strdup`, `getline`, `asprintf`, `fopen`), and what C++'s headers put
/// into the program: a leak is mended where they are called. The rows of the callers say what is
/// called, and reports that do not fold show the way down.
public struct FrameFolding: Hashable, Sendable {
  /// One kind of frame that is folded. What is `nil` does not matter.
  public struct Rule: Hashable, Sendable {
    /// The function's name without the words that the compiler puts in front: see `matches`.
    public var function: Glob?
    /// The last component of the module's path.
    public var module: Glob?
    /// The path of the source file, with all its directories.
    public var file: Glob?
    /// Whether frames with a source file stay: then somebody has the code at hand.
    public var keepsFramesWithFile: Bool
    /// Whether only code fits that the compiler made, which has no line: see `Frame.isDerived`.
    public var onlyDerivedFrames: Bool
    /// Whether what fits is to stay, whatever rules before this one say.
    public var isException: Bool

    /// A rule of any form. What is left out does not matter.
    public init(
      function: Glob? = nil, module: Glob? = nil, file: Glob? = nil,
      keepsFramesWithFile: Bool = false, onlyDerivedFrames: Bool = false,
      isException: Bool = false
    ) {
      self.function = function
      self.module = module
      self.file = file
      self.keepsFramesWithFile = keepsFramesWithFile
      self.onlyDerivedFrames = onlyDerivedFrames
      self.isException = isException
    }

    /// Functions by name.
    public static func function(_ pattern: Glob) -> Rule { Rule(function: pattern) }
    /// All of a library's or a program's code, by the last component of its path.
    public static func module(_ pattern: Glob) -> Rule { Rule(module: pattern) }
    /// Code by the path of its source file.
    public static func file(_ pattern: Glob) -> Rule { Rule(file: pattern) }
    /// What the compiler made without anyone writing a line: the caller is who wrote something.
    public static let derivedFrames = Rule(onlyDerivedFrames: true)
  }

  /// Frames that are left out at the inner end of a stack. Of several rules that fit, the last counts.
  public var rules: [Rule]
  /// Frames that are left out wherever in a stack they are: the ways between two functions that
  /// somebody wrote, such as from a Swift task to what made it.
  public var passages: [Rule]

  /// Folds by these rules and no others.
  public init(rules: [Rule], passages: [Rule] = []) {
    self.rules = rules
    self.passages = passages
  }

  /// The default rules and more: for a program with an allocator of its own.
  public init(adding rules: Rule...) {
    self.init(rules: Self.standard.rules + rules, passages: Self.standard.passages)
  }

  /// The allocators of libc, C++ and Swift, and what Swift's standard library does inside.
  public static let standard = FrameFolding(
    rules: standardGroups.flatMap(\.rules), passages: standardGroups.flatMap(\.passages))

  /// Rules of the default list that have one reason.
  struct Group {
    /// One line, as it is printed above them.
    let reason: String
    var rules: [Rule] = []
    var passages: [Rule] = []
  }

  static let standardGroups = [
    Group(
      reason: "The tracer itself, should its hook be on the stack.",
      rules: [.module("libheaptap.so*")]),
    Group(
      reason: "The loader, C and C++: what allocates there does it for its caller.",
      rules: [
        .module("ld-linux-*.so*"), .module("libc.so*"), .module("libgcc_s.so*"),
        .module("libstdc++.so*"), .module("libc++.so*"), .module("libc++abi.so*"),
      ]),
    Group(
      reason: "C++'s headers, which are compiled into the program.",
      rules: [.file("*/include/c++/*")]),
    Group(
      reason: "C's allocators, where they are linked statically.", rules: functions(cFunctions)),
    Group(
      reason: "C++'s operators, allocators and the inside of containers, where there are no lines.",
      rules: functions(cppFunctions)),
    Group(
      reason:
        "Rust's library, made special for the program: as built, and with its sources installed.",
      rules: [.file("/rustc/*/library/*"), .file("*/rustlib/src/rust/library/*")]),
    Group(
      reason: "Rust's allocators and vectors, where there are no lines.",
      rules: functions(rustFunctions)),
    Group(
      reason: "Swift's library: without lines all of it is between the program and its memory.",
      rules: [
        Rule(module: "libswiftCore.so*", keepsFramesWithFile: true),
        // What it has special for common types, for programs that are not optimised.
        Rule(module: "libswiftSwiftOnoneSupport.so*", keepsFramesWithFile: true),
      ]),
    Group(
      reason: "Code that Swift's compiler made without anyone writing a line.",
      rules: [.derivedFrames]),
    Group(reason: "Swift's allocators and its runtime.", rules: functions(swiftFunctions)),
    Group(
      reason: "The inside of Swift's collections, which is made special for the program.",
      rules: functions(swiftLibraryFunctions)),
    Group(
      reason:
        "Where a task ends and is made, what runs it, and thunks: wherever in a stack they are.",
      passages: functions(swiftPassages)),
  ]

  private static func functions(_ globs: [Glob]) -> [Rule] { globs.map(Rule.function) }

  /// Where a task ends and is made, what runs it, and what the compiler puts between a closure or a
  /// witness and its caller.
  private static let swiftPassages: [Glob] = [
    "completeTask", "completeTask(*", "completeTaskWithClosure*", "completeTaskAndRelease*",
    "completeInlineTask*", "swift_task_create*", "swift_job_run*",
    "swift::runJobInEstablishedExecutorContext*", "thunk for *", "reabstraction thunk *",
    "partial apply forwarder for *", "protocol witness for *",
  ]

  private static let cFunctions: [Glob] = [
    "malloc", "calloc", "realloc", "reallocarray", "memalign", "aligned_alloc", "posix_memalign",
    "valloc", "pvalloc", "__libc_malloc", "__libc_calloc", "__libc_realloc", "__libc_memalign",
    "__libc_valloc", "__libc_pvalloc", "__libc_reallocarray", "__GI___libc_*", "_int_malloc",
    "_int_realloc", "_int_memalign", "heaptap_track",
  ]

  private static let cppFunctions: [Glob] = [
    // Plain, array, aligned and nothrow; the mangled forms where nothing demangled them.
    "operator new", "operator new(*", "operator new[[][]]", "operator new[[][]](*", "_Znw*",
    "_Zna*", "__gnu_cxx::new_allocator<*", "__gnu_cxx::__alloc_traits<*",
    "__gnu_cxx::__aligned_membuf<*", "std::__new_allocator<*", "std::allocator<*",
    "std::allocator_traits<*", "std::__allocate_guarded*", "std::_Vector_base<*>::_M_allocate*",
    "std::_Vector_base<*>::_M_create_storage*", "std::_Vector_base<*>::_Vector_base*",
    "std::_Deque_base<*>::_M_allocate_*", "std::_Rb_tree<*>::_M_get_node*",
    "std::_Rb_tree<*>::_M_create_node*", "std::__cxx11::_List_base<*>::_M_get_node*",
    "std::__detail::_Hashtable_alloc<*>::_M_allocate_*",
    "std::__cxx11::basic_string<*>::_M_create*",
    // libc++.
    "std::__1::allocator<*", "std::__1::allocator_traits<*", "std::__1::__libcpp_allocate*",
    "std::__1::__libcpp_operator_new*", "std::__1::__allocate_at_least*",
  ]

  /// Where there are no lines.
  private static let rustFunctions: [Glob] = [
    "__rust_alloc*", "__rust_realloc", "__rdl_alloc*", "__rdl_realloc", "__rustc::__r*",
    "std::alloc::*", "alloc::alloc::*", "<alloc::alloc::*", "alloc::raw_vec::*",
    "<alloc::raw_vec::*",
  ]

  private static let swiftFunctions: [Glob] = [
    "swift_allocObject", "_swift_allocObject*", "swift_slowAlloc", "swift_slowAllocTyped",
    "swift::swift_slowAlloc*", "swift_coroFrameAlloc*", "swift_allocBox", "swift::swift_allocBox*",
    "swift_bufferAllocate", "swift_initStackObject", "swift_initStaticObject",
    "swift_allocError", "swift_task_alloc", "swift_task_create*", "swift_asyncLet_*",
    "swift::_swift_task_alloc*", "swift::StackAllocator<*", "swift::MetadataAllocator::*",
    "swift_job_allocate*", "swift_taskGroup_*",
  ]

  /// Specialised, these are in the program's own module, mostly without a line.
  private static let swiftLibraryFunctions: [Glob] = [
    "_ContiguousArrayStorage*", "_ContiguousArrayBuffer*", "_ArrayBuffer*", "_SliceBuffer*",
    "_allocateUninitializedArray*", "_copyCollectionToContiguousArray*", "_growArrayCapacity*",
    "Array._*", "Array<*>._*", "Dictionary._*", "Dictionary<*>._*", "Set._*", "Set<*>._*",
    "ContiguousArray._*", "ContiguousArray<*>._*", "ArraySlice._*",
    "ManagedBuffer.*", "ManagedBuffer<*", "ManagedBufferPointer*", "_DictionaryStorage*",
    "_NativeDictionary*", "_SetStorage*", "_NativeSet*", "__StringStorage*",
    "__SharedStringStorage*", "_StringGuts*", "UnsafeMutablePointer.allocate*",
    "UnsafeMutablePointer<*>.allocate*", "UnsafeMutableRawPointer.allocate*",
    "UnsafeMutableBufferPointer.allocate*", "UnsafeMutableBufferPointer<*>.allocate*",
    "UnsafeMutableRawBufferPointer.allocate*", "HeapTracer.track(*", "TracerCalls.track(*",
  ]

  /// Whether a frame is plumbing.
  ///
  /// Swift's demangler puts words in front of what the compiler derived: `specialized`, `static`,
  /// `generic specialization <A> of`. They are taken off before the rules see the name, as is the
  /// standard library's own `Swift.`.
  public func matches(_ frame: Frame, in module: Module?) -> Bool {
    Self.isAny(of: rules, matching: frame, named: Self.bareName(of: frame), in: module)
  }

  /// Whether a frame is a mere passage, by the same rules for names.
  public func isPassage(_ frame: Frame, in module: Module?) -> Bool {
    Self.isAny(of: passages, matching: frame, named: Self.bareName(of: frame), in: module)
  }

  static func bareName(of frame: Frame) -> Substring? {
    frame.function.map { bareName(of: $0[...]) }
  }

  static func isAny(
    of rules: [Rule], matching frame: Frame, named name: Substring?, in module: Module?
  ) -> Bool {
    let moduleName = module?.name
    let decisive = rules.last { rule in
      if rule.keepsFramesWithFile && frame.file != nil { return false }
      if rule.onlyDerivedFrames && !frame.isDerived { return false }
      if let glob = rule.function, !(name.map { glob.matches($0) } ?? false) { return false }
      if let glob = rule.module, !(moduleName.map { glob.matches($0) } ?? false) { return false }
      if let glob = rule.file, !(frame.file.map { glob.matches($0) } ?? false) { return false }
      return rule.function != nil || rule.module != nil || rule.file != nil
        || rule.onlyDerivedFrames
    }
    return decisive.map { !$0.isException } ?? false
  }

  static func bareName(of name: Substring) -> Substring {
    for word in ["specialized ", "static ", "merged ", "class ", "partial apply for ", "Swift."]
    where name.hasPrefix(word) {
      return bareName(of: name.dropFirst(word.count))
    }
    // "(1) await resume partial function for four(Swift.Int) async -> Swift.Int"
    // Not of "(anonymous namespace)::f()", which is common, and the search slow.
    if name.utf8.first == UInt8(ascii: "("), name.dropFirst().first?.isNumber == true,
      let end = name.firstRange(of: " resume partial function for ")
    {
      return bareName(of: name[end.upperBound...])
    }
    for word in ["generic ", "function signature "] where name.hasPrefix(word) {
      // "generic specialization <Swift.Int> of Swift.Array.append(…)"
      let rest = name.dropFirst(word.count)
      guard let end = endOfAngleBrackets(in: rest), rest[end...].hasPrefix(" of ") else { break }
      return bareName(of: rest[end...].dropFirst(" of ".count))
    }
    return name
  }

  /// The place after the bracket that closes the first one; `->` is no bracket.
  private static func endOfAngleBrackets(in name: Substring) -> Substring.Index? {
    var depth = 0
    var last: Character = " "
    for index in name.indices {
      let character = name[index]
      if character == "<" { depth += 1 }
      if character == ">" && last != "-" {
        depth -= 1
        if depth == 0 { return name.index(after: index) }
      }
      last = character
    }
    return nil
  }
}

extension Frame {
  /// Whether the compiler made the code from something that was written elsewhere: a generic of
  /// another module made special for this one, a memberwise initialiser, a thunk.
  ///
  /// Swift says so in place of a file. A specialised function may have the file of its caller's
  /// module instead, with line 0; a line 0 alone says less, since a function that somebody wrote
  /// has such places too.
  public var isDerived: Bool {
    if file == "<compiler-generated>" { return true }
    guard file != nil, line == 0, let function else { return false }
    return ["specialized ", "generic specialization <"].contains { function.hasPrefix($0) }
  }
}

extension Snapshot {
  /// The snapshot without the frames that the folding names: those at the inner end of each stack,
  /// and the passages in it.
  ///
  /// A stack of nothing else keeps its innermost frame: no block may vanish from the reports.
  public func folded(by folding: FrameFolding = .standard) -> Snapshot {
    replacingFrames(foldedBy: folding) { _ in [] }
  }
}
