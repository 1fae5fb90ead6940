// SPDX-License-Identifier: Apache-2.0
// A snapshot to show to strangers: figures, stacks and builds, and nothing that names the program.

extension Snapshot {
  /// What stays in a stripped snapshot that is not needed to read it.
  public struct StrippingOptions: Hashable, Sendable {
    /// Whether the names of functions, of source files and of modules stay, without directories.
    public var keepsNames: Bool
    /// Whether build IDs stay, by which whoever has the binaries finds functions and lines.
    public var keepsBuildIDs: Bool

    /// By default names go and build IDs stay.
    public init(keepsNames: Bool = false, keepsBuildIDs: Bool = true) {
      self.keepsNames = keepsNames
      self.keepsBuildIDs = keepsBuildIDs
    }
  }

  /// The snapshot without what tells whose it is: no host, unit, program, user or directory, no address
  /// of the process, and no name of the program's own functions, files and modules.
  ///
  /// What stays is chosen, and not what goes, so that what a newer tracer adds does not slip through.
  /// Figures, times, stacks and their order stay, so that reports and comparisons show the same rows
  /// under other names. A name is replaced by a number that is made of it: the same one in every dump,
  /// and so one that a guess can be checked by. Names of libc, the C++ and Swift runtimes and the like
  /// stay, as do those by which allocators are folded.
  ///
  /// Cost: about that of reading the snapshot.
  public func stripped(_ options: StrippingOptions = StrippingOptions()) -> Snapshot {
    var stripper = Stripper(self, options)
    var builder = Builder(header: stripper.header, modules: stripper.modules)
    let numbers = distinctFrames.map { builder.index(of: stripper.frame($0)) }
    var stacks = [Int](repeating: -1, count: runs.count)
    for sample in samples {
      if stacks[sample.stack] < 0 {
        stacks[sample.stack] = builder.stack(runs[sample.stack].map { numbers[Int($0)] }[...])
      }
      // Written out, so that a label that is new has to be thought of.
      builder.add(
        Sample(
          stack: stacks[sample.stack], domain: sample.domain, generation: sample.generation,
          type: sample.type.map(stripper.type), thread: sample.thread.map(stripper.thread),
          threadID: sample.threadID, liveBytes: sample.liveBytes, liveBlocks: sample.liveBlocks,
          totalBytes: sample.totalBytes, totalBlocks: sample.totalBlocks,
          temporaryBlocks: sample.temporaryBlocks, peakBytes: sample.peakBytes,
          peakBlocks: sample.peakBlocks,
          missingFrames: sample.missingFrames, isBroken: sample.isBroken, reach: sample.reach,
          sampledBlocks: sample.sampledBlocks, liveErrorBytes: sample.liveErrorBytes,
          totalErrorBytes: sample.totalErrorBytes))
    }
    return builder.finish()
  }
}

/// Replaces what names something, the same by the same.
private struct Stripper {
  private let source: Snapshot
  private let options: Snapshot.StrippingOptions
  let header: Header
  private(set) var modules: [Module] = []
  private let isSystem: [Bool]
  private var functions: [String: String] = [:]
  private var looseAddresses: [UInt64: UInt64] = [:]

  init(_ source: Snapshot, _ options: Snapshot.StrippingOptions) {
    self.source = source
    self.options = options
    header = Self.header(of: source.header)
    isSystem = source.modules.map(Self.isSystem)
    for (index, module) in source.modules.enumerated() {
      modules.append(stripped(module, number: index))
    }
  }

  // MARK: The header

  /// Words that are the tracer's own, by their key.
  private static let wordKeys: Set = [
    "tracer", "trigger", "limit_mark", "histogram", "jit.map_problem", "types_problem",
    "reach.problem",
  ]
  /// Numbers that tell whose the dump is.
  private static let tellingKeys: Set = ["uid", "host", "unit", "program", "executable", "boot_id"]
  /// Paths, of which the last part says what kind of limit it is.
  private static let pathKeys: Set = ["usage_source", "limit_source"]

  private static func header(of header: Header) -> Header {
    // Another tool's remarks may be anything.
    guard header.isHeaptap else { return Header() }
    var kept = Header()
    for entry in header.entries where !tellingKeys.contains(entry.key) {
      if pathKeys.contains(entry.key) {
        let name = entry.value.split(separator: "/").last ?? ""
        kept.append(Header.Entry(key: entry.key, value: String(name)))
      } else if isName(entry.key), wordKeys.contains(entry.key) || isFigures(entry.value) {
        kept.append(entry)
      }
    }
    // At its end is what says that all is there.
    let complete = kept["complete"]
    kept["complete"] = nil
    kept["stripped"] = "1"
    kept["complete"] = complete
    return kept
  }

  private static func isName(_ key: String) -> Bool {
    !key.isEmpty
      && key.utf8.allSatisfy {
        (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
          || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "_")
          || $0 == UInt8(ascii: ".")
      }
  }

  /// Whether a value is a number, or two with a comma between them, as generations begin at.
  private static func isFigures(_ value: String) -> Bool {
    let parts = value.split(separator: ",", omittingEmptySubsequences: false)
    return parts.count <= 2 && parts.allSatisfy { Int($0) != nil }
  }

  // MARK: Modules

  /// Whether everybody has the file: a library of the distribution's, or of Swift's runtime.
  private static func isSystem(_ module: Module) -> Bool {
    if module.path == "[vdso]" { return true }
    let name = module.name
    guard name.hasPrefix("lib") || name.hasPrefix("ld-linux"), name.contains(".so") else {
      return false
    }
    let runtimes = [
      "libswift", "lib_Foundation", "libFoundation", "libdispatch.", "libBlocksRuntime.",
    ]
    if runtimes.contains(where: { name.hasPrefix($0) }) || name.hasPrefix("libheaptap.so") {
      return true
    }
    // Directly in a directory of the loader's, and not in one that a package has made for itself.
    let directory = module.path.dropLast(name.utf8.count)
    return ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/"].contains { place in
      guard directory.hasPrefix(place) else { return false }
      let below = directory.dropFirst(place.utf8.count)
      return below.isEmpty || below.hasSuffix("-linux-gnu/") && below.count { $0 == "/" } == 1
    }
  }

  private static let pseudoFiles: Set = ["[vdso]", "[vsyscall]", "[jit]"]

  private func stripped(_ module: Module, number: Int) -> Module {
    var kept = module
    if !options.keepsBuildIDs { kept.buildID = "" }
    if !Self.pseudoFiles.contains(module.path) {
      let name =
        isSystem[number] || options.keepsNames
        ? String(module.name) : Self.alias("module", module.path)
      // By its directory a library is found on other machines of the kind; what is told to be no path
      // is looked for by nobody, not even by its build ID.
      let isOfDistribution = module.path.hasPrefix("/lib") || module.path.hasPrefix("/usr/lib")
      if !(isSystem[number] && isOfDistribution) {
        kept.path = module.isBackedByFile ? "/" + name : name
      }
    }
    // Where modules lay in the process is as good as a way into it, should it still run.
    if module.limit != 0 {
      kept.start = UInt64(number + 1) << 32 | module.start & 0xfff
      kept.limit = kept.start &+ min(module.limit &- module.start, 1 << 31)
    }
    return kept
  }

  // MARK: Frames

  mutating func frame(_ frame: Frame) -> Frame {
    if frame == .lostStack { return frame }
    var kept = Frame(address: address(frame), module: frame.module, isInlined: frame.isInlined)
    let keepsNames = options.keepsNames || home(of: frame).map { isSystem[$0] } ?? false
    kept.function = frame.function.map { name in
      guard keepsNames else { return alias(ofFunction: name) }
      return home(of: frame).map { modules[$0].isBackedByFile } ?? true
        ? name : Self.withoutDirectories(name)
    }
    if keepsNames {
      kept.file = frame.file.map(Self.publicPath)
    } else {
      // Without a path that folding goes by, frames of headers would be in the way.
      kept.file = frame.file.map { Self.libraryPath($0) ?? Self.alias("file", $0) }
    }
    kept.line = frame.line
    return kept
  }

  // MARK: Labels

  /// A type's number, unless it is of a kind that everybody has: `task`, or one of Swift's own that is not
  /// made for another type. What is in a type of Swift's may be a program's, from an extension.
  func type(_ name: String) -> String {
    let isOfSwift =
      name.hasPrefix("Swift.") && !name.contains("<") && name.count { $0 == "." } == 1
    let isKind = ["closure context", "task"].contains(name)
    return options.keepsNames || isOfSwift || isKind ? name : Self.alias("type", name)
  }

  func thread(_ name: String) -> String {
    options.keepsNames ? name : Self.alias("thread", name)
  }

  /// The number of a frame's module, if there is one of that number.
  private func home(of frame: Frame) -> Int? {
    frame.module.flatMap { source.modules.indices.contains($0) ? $0 : nil }
  }

  private mutating func address(_ frame: Frame) -> UInt64 {
    guard frame.address != 0 else { return 0 }
    guard let module = home(of: frame), source.modules[module].limit != 0 else {
      if let known = looseAddresses[frame.address] { return known }
      let number = UInt64(looseAddresses.count + 1)
      looseAddresses[frame.address] = number
      return number
    }
    return frame.address &- source.modules[module].start &+ modules[module].start
  }

  /// A source file of a language's own library, by the part of its path that is the same everywhere.
  private static func libraryPath(_ path: String) -> String? {
    if path == "<compiler-generated>" { return path }
    for place in ["/include/c++/", "/rustlib/src/rust/library/"] {
      if let found = path.firstRange(of: place) { return String(path[found.lowerBound...]) }
    }
    return path.hasPrefix("/rustc/") && path.contains("/library/") ? path : nil
  }

  /// A name of generated code, `LazyCompile:*leak /srv/app/leak.js:3`, with what paths end in.
  private static func withoutDirectories(_ name: String) -> String {
    name.split(separator: " ", omittingEmptySubsequences: false)
      .map { $0.split(separator: "/", omittingEmptySubsequences: false).last ?? $0 }
      .joined(separator: " ")
  }

  private static func publicPath(_ path: String) -> String {
    libraryPath(path) ?? path.split(separator: "/").last.map(String.init) ?? path
  }

  /// A name that folding takes for an allocator's stays as far as it has to.
  private mutating func alias(ofFunction name: String) -> String {
    if let known = functions[name] { return known }
    let bare = FrameFolding.bareName(of: name[...])
    let standard = FrameFolding.standard
    let rule = (standard.rules + standard.passages).last { $0.function?.matches(bare) ?? false }
    let alias =
      rule?.function.map { Self.text(of: $0) } ?? Self.alias("function", name)
    functions[name] = alias
    return alias
  }

  /// A text that a pattern matches, with nothing in it but the pattern.
  private static func text(of pattern: Glob) -> String {
    pattern.pattern.replacing("[[]", with: "[").replacing("[]]", with: "]").replacing(
      "*", with: "…")
  }

  /// FNV-1a: the same everywhere and for ever, which `Hasher` is not.
  private static func alias(_ kind: String, _ name: String) -> String {
    let sum = name.utf8.reduce(into: UInt64(0xcbf2_9ce4_8422_2325)) {
      $0 = ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3
    }
    let digits = String(sum, radix: 16)
    return kind + "-" + String(repeating: "0", count: 16 - digits.count) + digits
  }
}
