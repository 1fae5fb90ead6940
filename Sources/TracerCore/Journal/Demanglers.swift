// SPDX-License-Identifier: Apache-2.0
// The demanglers that the process has loaded anyway, called with care.

// They are found by reading the mapped symbol tables: dlsym would wait for the loader's lock, which a
// thread may hold for as long as a constructor runs. They are called on a stack of their own, since they
// recur: Debian 12's __cxa_demangle took up to 352 KiB for names of 1024 bytes and Swift 6.3's
// swift_demangle up to 1080 KiB (and 1.1 MiB for 2048), measured on nested pointers, tuples, metatypes
// and thunks; the worker has 256 KiB. What they answer is freed by the original free.

import CTracerPlatform

struct Demanglers {
  static var stackByteCount: Int { 2 << 20 }

  private let reader: PositionReader
  private let isAllowed: Bool
  /// The program itself, which has the runtime inside where that was linked statically.
  private var program: LoadedModule?
  /// Entry points; 0 where there is none.
  private var (cxx, swift): (UInt, UInt) = (0, 0)
  private var hasLooked = false
  private var stack: UnsafeMutableRawPointer?

  init(_ reader: PositionReader, _ modules: borrowing ModuleTable, _ means: NameMeans) {
    self.reader = reader
    isAllowed = means.contains(.demanglers)
    var number: UInt32 = 1
    while number <= modules.moduleCount {
      let module = modules.module(number).pointee
      if module.isReady == 1, module.pathByteCount == 0 { program = module }
      number &+= 1
    }
  }

  /// Gives the stack back.
  mutating func end() {
    if let stack { System.unmap(stack, Self.stackByteCount) }
    stack = nil
  }

  /// Appends a function's name as a person would write it, or else as it is in the table.
  ///
  /// - Parameter name: Followed by a zero.
  mutating func append(
    _ name: UnsafeRawBufferPointer, isWhole: Bool, to text: inout TextBuffer
  ) {
    let isSwift = NameStyle.isSwift(name)
    if isWhole, isSwift || name.after("_Z") != nil, let readable = demangle(name, isSwift) {
      isSwift
        ? NameStyle.appendSwift(readable, to: &text) : NameStyle.appendCxx(readable, to: &text)
      tracer_originals.free?(UnsafeMutableRawPointer(mutating: readable.baseAddress))
    } else if !NameStyle.appendPlainCxx(name, to: &text) {
      NameStyle.appendCut(name, to: &text)
    }
  }

  /// The demangler's own text, to be freed.
  private mutating func demangle(
    _ name: UnsafeRawBufferPointer, _ isSwift: Bool
  ) -> UnsafeRawBufferPointer? {
    guard isAllowed, tracer_originals.free != nil else { return nil }
    if !hasLooked { find() }
    let function = isSwift ? swift : cxx
    guard function != 0, let end = stackEnd() else { return nil }
    var call = tracer_demangling(
      function: function, is_swift: isSwift ? 1 : 0,
      name: name.baseAddress.unsafelyUnwrapped.assumingMemoryBound(to: CChar.self),
      byte_count: name.count, result: nil)
    withUnsafeMutablePointer(to: &call) { call in
      core.withoutRecording { tracer_call_on_stack(end, tracer_demangle, call) }
    }
    guard let result = call.result else { return nil }
    var count = 0
    while count < 1 << 16, result[count] != 0 { count &+= 1 }
    return UnsafeRawBufferPointer(start: result, count: count)
  }

  private mutating func stackEnd() -> UnsafeMutableRawPointer? {
    if stack == nil, let base = System.map(Self.stackByteCount) {
      // Below it a page that ends who runs over, rather than let it write to something else.
      _ = System.call(SYS_mprotect, Int(bitPattern: base), System.pageByteCount, 0)
      stack = base
    }
    return stack.map { $0 + Self.stackByteCount }
  }

  // MARK: Where they are

  private mutating func find() {
    hasLooked = true
    var found = (cxx: UInt64(0), swift: UInt64(0))
    // First the list, which is read through the same buffer.
    _ = MemoryMaps.forEach(reader.buffer, capacity: reader.capacity) { range, path in
      let name = path.lastComponent
      let isCxx = name.after("libstdc++.so") != nil || name.after("libc++abi.so") != nil
      guard isCxx || name.after("libswiftCore.so") != nil, Self.isLoaded(range.lowerBound) else {
        return
      }
      if isCxx, found.cxx == 0 { found.cxx = range.lowerBound }
      if !isCxx, found.swift == 0 { found.swift = range.lowerBound }
    }
    cxx = exported("__cxa_demangle", at: found.cxx) ?? inProgram("__cxa_demangle") ?? 0
    swift = exported("swift_demangle", at: found.swift) ?? inProgram("swift_demangle") ?? 0
    // They allocate, and so does a program that may know of no other thread.
    if cxx != 0 || swift != 0, !core.mayCallLibrary() { (cxx, swift) = (0, 0) }
  }

  /// Whether the loader has put a module at an address. A program that maps a library to read it, as
  /// those do that search or back up files, has it there too, and nothing in it can be called.
  private static func isLoaded(_ start: UInt64) -> Bool {
    var object = tracer_object()
    return tracer_find_object(start, &object) == 0 && object.start == start
  }

  /// A function that the module at an address exports.
  private func exported(_ name: StaticString, at start: UInt64) -> UInt? {
    guard start != 0,
      let probe = SymbolImage(reader, origin: start, bias: 0, limit: start &+ (1 << 30)),
      let first = probe.firstAddress,
      let image = SymbolImage(
        reader, origin: start, bias: start &- first, limit: start &+ (1 << 30)),
      let list = image.dynamicSymbols(), let address = image.address(of: name, list)
    else { return nil }
    return UInt(start &- first &+ address)
  }

  /// A function that the program has linked in and exports to what it loads.
  private func inProgram(_ name: StaticString) -> UInt? {
    guard let program,
      let image = SymbolImage(
        reader, origin: program.moduleStart, bias: program.loadBias, limit: program.moduleLimit),
      image.isSame(as: program), let list = image.dynamicSymbols(),
      let address = image.address(of: name, list)
    else { return nil }
    return UInt(program.loadBias &+ address)
  }
}
