// SPDX-License-Identifier: Apache-2.0
// The functions of the few stacks that a message shows.

import CTracerPlatform
import Synchronization

/// What may be done for a name.
package struct NameMeans: BitSet {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }

  /// The tables that the loader has mapped, and nothing else: where memory is short. Reading a file
  /// fills the page cache, which counts against the limit.
  package static var mapped: Self { Self(rawValue: 0) }
  /// The modules' files too, for functions that are not exported.
  package static var files: Self { Self(rawValue: 1) }
  /// The demanglers of the languages' own libraries, which allocate.
  package static var demanglers: Self { Self(rawValue: 2) }
  package static var all: Self { files.union(demanglers) }
}

/// A frame whose name is looked for.
struct WantedName {
  /// Of the call, in memory.
  var address: UInt64 = 0
  /// The row that asked, and its module.
  var row: UInt32 = 0
  var module: UInt32 = 0
  /// The function that holds it; 0 for none yet.
  var functionStart: UInt64 = 0
  var nameOffset: UInt32 = 0
  /// In the names' text; 0 bytes where there is no name.
  var textOffset: UInt32 = 0
  var textByteCount: UInt32 = 0
  /// Whether it is somebody's allocator, which says nothing of who allocates.
  var isAllocator: Bool = false
}

/// The names of a summary's frames. Lies in the memory that dumps are made in, which is free by then.
struct FunctionNames {
  static var limit: Int { 128 }
  static var textByteCount: Int { 24 << 10 }
  static var rawByteCount: Int { 4 << 10 }
  static var byteCount: Int {
    limit * MemoryLayout<WantedName>.stride + textByteCount + rawByteCount
  }
  /// Of a name as it is in a table; the rest of a longer one is not read. Demanglers recur: what this
  /// many bytes can have them use of a stack was measured, see `Demanglers`.
  static var nameByteLimit: Int { 1024 }

  let wanted: UnsafeMutablePointer<WantedName>
  private let raw: UnsafeMutableRawPointer
  private(set) var count = 0
  private var text: TextBuffer

  init(_ memory: UnsafeMutableRawPointer) {
    wanted = memory.assumingMemoryBound(to: WantedName.self)
    let names = memory + Self.limit * MemoryLayout<WantedName>.stride
    text = TextBuffer(names, capacity: Self.textByteCount)
    raw = names + Self.textByteCount
  }

  /// Asks for the name of a row's function.
  mutating func want(_ row: UInt32, address: UInt64, module: UInt32) {
    guard count < Self.limit, find(row) == nil else { return }
    var name = WantedName()
    name.address = address
    name.row = row
    name.module = module
    wanted[count] = name
    count &+= 1
  }

  func find(_ row: UInt32) -> UnsafeMutablePointer<WantedName>? {
    var position = 0
    while position < count {
      if wanted[position].row == row { return wanted + position }
      position &+= 1
    }
    return nil
  }

  func name(_ wanted: UnsafeMutablePointer<WantedName>) -> UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(
      start: text.base + Int(wanted.pointee.textOffset), count: Int(wanted.pointee.textByteCount))
  }

  // MARK: Looking up

  /// Looks for the functions of one module in one of its tables.
  mutating func resolve(
    _ module: UInt32, bias: UInt64, _ image: SymbolImage, _ list: SymbolList,
    _ demanglers: inout Demanglers
  ) {
    let (wanted, count) = (wanted, count)
    image.forEachFunction(list) { symbol in
      // Without a size, nobody knows what else comes behind it.
      guard symbol.byteCount > 0, symbol.name != 0 else { return true }
      let start = bias &+ symbol.address
      var position = 0
      while position < count {
        let name = wanted + position
        // Of functions that begin at the same place, the first: an alias comes later.
        if name.pointee.module == module, name.pointee.textByteCount == 0,
          name.pointee.address &- start < symbol.byteCount, name.pointee.functionStart < start
        {
          name.pointee.functionStart = start
          name.pointee.nameOffset = symbol.name
        }
        position &+= 1
      }
      return true
    }
    var position = 0
    while position < count {
      let name = wanted + position
      if name.pointee.module == module, name.pointee.functionStart != 0,
        name.pointee.textByteCount == 0
      {
        take(name, image, list, &demanglers)
      }
      position &+= 1
    }
  }

  private mutating func take(
    _ name: UnsafeMutablePointer<WantedName>, _ image: SymbolImage, _ list: SymbolList,
    _ demanglers: inout Demanglers
  ) {
    guard
      let (read, isWhole) = image.name(
        name.pointee.nameOffset, list, byteLimit: Self.nameByteLimit)
    else { return }
    // Out of the reader's buffer, and ended by a zero, for the demanglers.
    raw.copyMemory(from: read.baseAddress.unsafelyUnwrapped, byteCount: read.count)
    (raw + read.count).storeBytes(of: 0, as: UInt8.self)
    let bytes = UnsafeRawBufferPointer(start: raw, count: read.count)
    name.pointee.isAllocator = Self.isAllocator(bytes)
    name.pointee.textOffset = UInt32(text.count)
    demanglers.append(bytes, isWhole: isWhole, to: &text)
    name.pointee.textByteCount = UInt32(text.count) &- name.pointee.textOffset
  }

  /// Functions that hand out memory to whoever asks.
  private static func isAllocator(_ name: UnsafeRawBufferPointer) -> Bool {
    name.after("_Znw") != nil || name.after("_Zna") != nil || name.after("swift_alloc") != nil
      || name.after("swift_slowAlloc") != nil || name.after("_swift_alloc") != nil
      || name.after("swift_bufferAllocate") != nil || name.after("g_malloc") != nil
      || name.after("g_slice_alloc") != nil || name.after("g_realloc") != nil
      || name.after("_ZNSt15__new_allocator") != nil
      || name.after("_ZN9__gnu_cxx13new_allocator") != nil
      || name.after("_ZNSt16allocator_traits") != nil || name.after("_ZNSt9allocator") != nil
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Has the worker's view of the process's memory at hand: a process that gives up its rights can no
  /// longer open it. Only where descriptors are the worker's own.
  func openMemoryFile() {
    pointee.notices.memoryFile = Self.openMemory() &+ 1
  }

  private static func openMemory() -> Int32 {
    let path: StaticString = "/proc/self/mem"
    let descriptor = System.open(
      UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self), O_RDONLY)
    return max(descriptor, -1)
  }

  private var isWorkersTable: Bool {
    pointee.requests.workerHasOwnDescriptors.load(ordering: .acquiring) != 0
      && pointee.requests.worker.load(ordering: .acquiring) == UInt32(bitPattern: System.threadID)
  }

  private func withMemoryFile(_ body: (Int32) -> Void) {
    if isWorkersTable, pointee.notices.memoryFile > 0 {
      return body(pointee.notices.memoryFile &- 1)
    }
    let descriptor = Self.openMemory()
    guard descriptor >= 0 else { return }
    defer { System.close(descriptor) }
    body(descriptor)
  }

  /// Finds the names of all frames that are wanted, as far as the means reach.
  func resolve(_ names: inout FunctionNames, _ means: NameMeans) {
    let (input, capacity) = (pointee.dumps.input, DumpState.inputByteCount)
    var copy = names
    withMemoryFile { memory in
      let reader = PositionReader(descriptor: memory, buffer: input, capacity: capacity)
      var demanglers = Demanglers(reader, pointee.rows.modules, means)
      forEachModule(copy) { number, module in
        guard
          let image = SymbolImage(
            reader, origin: module.moduleStart, bias: module.loadBias, limit: module.moduleLimit),
          image.isSame(as: module)
        else { return }
        if let list = image.dynamicSymbols() {
          copy.resolve(number, bias: module.loadBias, image, list, &demanglers)
        }
        guard means.contains(.files), Self.misses(copy, number) else { return }
        withFile(of: module, input, capacity: capacity) { image in
          guard let list = image.fileSymbols() else { return }
          copy.resolve(number, bias: module.loadBias, image, list, &demanglers)
        }
      }
      demanglers.end()
    }
    names = copy
  }

  private func forEachModule(
    _ names: FunctionNames, _ body: (UInt32, LoadedModule) -> Void
  ) {
    var position = 0
    while position < names.count {
      let number = names.wanted[position].module
      var isFirst = number != 0
      var earlier = 0
      while earlier < position {
        if names.wanted[earlier].module == number { isFirst = false }
        earlier &+= 1
      }
      if isFirst {
        let module = pointee.rows.modules.module(number).pointee
        if module.isReady == 1 { body(number, module) }
      }
      position &+= 1
    }
  }

  private static func misses(_ names: FunctionNames, _ module: UInt32) -> Bool {
    var position = 0
    while position < names.count {
      let name = names.wanted[position]
      if name.module == module, name.textByteCount == 0 { return true }
      position &+= 1
    }
    return false
  }

  /// Opens the file that a module was loaded from, if it still is that file.
  private func withFile(
    of module: LoadedModule, _ buffer: UnsafeMutableRawPointer, capacity: Int,
    _ body: (SymbolImage) -> Void
  ) {
    let path = pointee.rows.modules.path(of: module)
    var bytes = InlineArray<1024, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 1023)
      if path.isEmpty { text.append("/proc/self/exe") } else { text.append(path) }
      guard !text.isFull, text.bytes[0] == 0x2f else { return }
      let descriptor = System.open(text.cString(), O_RDONLY | O_NONBLOCK | O_NOCTTY)
      guard descriptor >= 0 else { return }
      defer { System.close(descriptor) }
      guard let facts = System.facts(of: descriptor), FileKind(facts) == .regular,
        let image = SymbolImage(
          PositionReader(descriptor: descriptor, buffer: buffer, capacity: capacity), origin: 0,
          bias: nil, limit: UInt64(clamping: facts.st_size)),
        image.isSame(as: module)
      else { return }
      body(image)
    }
  }
}
