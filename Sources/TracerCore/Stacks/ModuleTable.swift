// SPDX-License-Identifier: Apache-2.0
// The modules that stacks have led through, kept when they are unloaded.

import CTracerPlatform
import Synchronization

/// An executable segment of a file that was mapped when a stack led through it.
package struct LoadedModule {
  /// The segment, as whole pages.
  package var start: UInt64
  package var limit: UInt64
  package var fileOffset: UInt64
  /// The whole module, from its first segment to its last.
  package var moduleStart: UInt64
  package var moduleLimit: UInt64
  package var loadBias: UInt64
  package var ehFrameHeader: UInt
  /// What the file has of the segment that the unwind tables lie in; where that is not known, of the
  /// whole module.
  package var tableStart: UInt64
  package var tableLimit: UInt64
  /// The loader's name: empty for the program itself.
  package var pathOffset: UInt32
  package var pathByteCount: UInt32
  package var buildIDByteCount: UInt32
  /// Where the build ID was read; 0 where there is none.
  package var buildIDAddress: UInt = 0
  /// 1 once all of the above is written.
  package var isReady: UInt32
  package var buildID: InlineArray<32, UInt8>
}

/// Modules by number, from 1; 0 is code that belongs to none. All zero is a valid, closed table.
package struct ModuleTable: ~Copyable {
  package static var limit: UInt32 { 4096 }
  private static var byteCount: Int { Int(limit) * MemoryLayout<LoadedModule>.stride }

  private let base: Atomic<UInt>
  private let names: ChunkedArena
  private let count: Atomic<UInt32>

  package func open() -> Bool {
    base.map(Self.byteCount) && names.open(reserving: 2)
  }

  package func discard() {
    guard let pointer = base.mapped else { return }
    System.discard(pointer, Self.byteCount)
    names.discard(reserving: 2)
    count.store(0, ordering: .releasing)
  }

  package var usedByteCount: Int {
    Int(moduleCount) * MemoryLayout<LoadedModule>.stride + names.usedByteCount
  }

  package var moduleCount: UInt32 { min(count.load(ordering: .acquiring), Self.limit &- 1) }

  package func module(_ number: UInt32) -> UnsafeMutablePointer<LoadedModule> {
    UnsafeMutablePointer<LoadedModule>(
      bitPattern: base.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(number)
  }

  package func path(of module: LoadedModule) -> UnsafeRawBufferPointer {
    guard module.pathByteCount > 0 else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    return UnsafeRawBufferPointer(
      start: names.address(module.pathOffset), count: Int(module.pathByteCount))
  }

  /// The number of the module that holds a program counter which is on a stack now: as long as the
  /// frame lives, nobody can unload it. Cold: once for each new return address.
  package func number(holding address: UInt64) -> UInt32 {
    var object = tracer_object()
    guard base.load(ordering: .relaxed) != 0, tracer_find_object(address, &object) == 0 else {
      return 0
    }
    let known = knownNumber(holding: address, object)
    if known != 0 { return known }
    guard var found = Self.describe(object, holding: address) else { return 0 }
    var number: UInt32 = 1
    while number <= moduleCount {
      if isSame(module(number).pointee, found, named: object.name) { return number }
      number &+= 1
    }
    return add(&found, named: object.name)
  }

  /// The module whose file is still where it was found: of the same name, with the same tables and the same
  /// build ID at their addresses; 0 where none is. Without a call to the kernel, of which `describe` needs
  /// several: what could be read at that address of that file can be.
  private func knownNumber(holding address: UInt64, _ object: tracer_object) -> UInt32 {
    var number: UInt32 = 1
    while number <= moduleCount {
      let known = module(number)
      if known.pointee.isReady == 1, known.pointee.buildIDByteCount > 0,
        address >= known.pointee.start, address < known.pointee.limit,
        known.pointee.loadBias == object.load_bias,
        known.pointee.ehFrameHeader == UInt(bitPattern: object.eh_frame_header),
        isPath(of: known.pointee, object.name), hasBuildID(known)
      {
        return number
      }
      number &+= 1
    }
    return 0
  }

  private func hasBuildID(_ module: UnsafeMutablePointer<LoadedModule>) -> Bool {
    guard let place = UnsafeRawPointer(bitPattern: module.pointee.buildIDAddress) else {
      return false
    }
    for position in 0..<Int(min(module.pointee.buildIDByteCount, 32))
    where place.load(fromByteOffset: position, as: UInt8.self) != module.pointee.buildID[position] {
      return false
    }
    return true
  }

  /// The same file at the same place, whether or not it was unloaded and loaded again. Where no
  /// build ID says so, its name does.
  private func isSame(
    _ known: LoadedModule, _ found: LoadedModule, named name: UnsafePointer<CChar>?
  ) -> Bool {
    guard known.isReady == 1, known.start == found.start, known.limit == found.limit,
      known.moduleStart == found.moduleStart, known.ehFrameHeader == found.ehFrameHeader,
      known.buildIDByteCount == found.buildIDByteCount
    else { return false }
    for position in 0..<Int(min(known.buildIDByteCount, 32))
    where known.buildID[position] != found.buildID[position] { return false }
    return known.buildIDByteCount > 0 || isPath(of: known, name)
  }

  private func isPath(of known: LoadedModule, _ name: UnsafePointer<CChar>?) -> Bool {
    let path = path(of: known)
    guard let name else { return path.isEmpty }
    for position in 0..<path.count
    where UInt8(bitPattern: name[position]) != path[position] { return false }
    return path.count == 4096 || name[path.count] == 0
  }

  private func add(_ found: inout LoadedModule, named name: UnsafePointer<CChar>?) -> UInt32 {
    guard count.load(ordering: .relaxed) < Self.limit else { return 0 }
    if let name {
      var length = 0
      while length < 4096, name[length] != 0 { length &+= 1 }
      if length > 0, let offset = names.allocate(UInt32(length &+ 7) / 8 * 2) {
        names.address(offset).copyMemory(from: name, byteCount: length)
        found.pathOffset = offset
        found.pathByteCount = UInt32(length)
      }
    }
    let number = count.wrappingAdd(1, ordering: .relaxed).newValue
    guard number < Self.limit else { return 0 }
    found.isReady = 1
    module(number).pointee = found
    return number
  }

  // MARK: The file's own headers, as they are mapped

  /// Reads the segment and the build ID from the ELF header in memory. (System V ABI, chapter 5.)
  private static func describe(_ object: tracer_object, holding address: UInt64) -> LoadedModule? {
    var module = LoadedModule(
      start: object.start & ~4095, limit: (object.end &+ 4095) & ~4095, fileOffset: 0,
      moduleStart: object.start, moduleLimit: object.end, loadBias: object.load_bias,
      ehFrameHeader: UInt(bitPattern: object.eh_frame_header), tableStart: object.start,
      tableLimit: max(object.start, object.end), pathOffset: 0, pathByteCount: 0,
      buildIDByteCount: 0,
      isReady: 0, buildID: InlineArray(repeating: 0))
    if object.name == nil || object.name?.pointee == 0 {
      describeProgram(object, holding: address, &module)
      return module
    }
    // A first segment that may only be executed is not read.
    guard System.isReadable(UInt(object.start)),
      let header = UnsafeRawPointer(bitPattern: UInt(object.start)),
      header.loadUnaligned(as: UInt32.self) == 0x464c_457f
    else { return module }
    let entries = header.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
    let stride = UInt64(header.loadUnaligned(fromByteOffset: 54, as: UInt16.self))
    let entryCount = UInt64(header.loadUnaligned(fromByteOffset: 56, as: UInt16.self))
    // The headers lie in the first page of what the loader has mapped, or are not read.
    guard stride == 56, entries &+ entryCount &* stride <= 4096 else { return module }
    readSegments(header + Int(entries), entryCount, object, holding: address, into: &module)
    return module
  }

  /// Of a program with gaps between its segments the loader tells the one that holds the address, and
  /// the headers lie in another: the kernel has said where they are.
  private static func describeProgram(
    _ object: tracer_object, holding address: UInt64, _ module: inout LoadedModule
  ) {
    var count = 0
    guard let headers = tracer_program_headers(&count) else { return }
    var whole = object
    for position in 0..<min(count, 256) {
      let entry = headers + position &* 56
      guard entry.loadUnaligned(as: UInt32.self) == 1 else { continue }  // PT_LOAD
      let start = object.load_bias &+ entry.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
      whole.start = min(whole.start, start)
      whole.end = max(
        whole.end, start &+ entry.loadUnaligned(fromByteOffset: 40, as: UInt64.self))
    }
    (module.moduleStart, module.moduleLimit) = (whole.start, whole.end)
    readSegments(headers, UInt64(min(count, 256)), whole, holding: address, into: &module)
  }

  private static func readSegments(
    _ entries: UnsafeRawPointer, _ entryCount: UInt64, _ object: tracer_object,
    holding address: UInt64, into module: inout LoadedModule
  ) {
    for position in 0..<entryCount {
      let entry = entries + Int(position &* 56)
      let start = object.load_bias &+ entry.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
      let memorySize = entry.loadUnaligned(fromByteOffset: 40, as: UInt64.self)
      guard start >= object.start, start <= object.end, memorySize <= object.end &- start else {
        continue
      }
      switch entry.loadUnaligned(as: UInt32.self) {
      case 1:  // PT_LOAD
        let fileSize = min(entry.loadUnaligned(fromByteOffset: 32, as: UInt64.self), memorySize)
        if UInt64(module.ehFrameHeader) &- start < fileSize {
          (module.tableStart, module.tableLimit) = (start, start &+ fileSize)
        }
        guard address &- start < memorySize else { continue }
        module.start = start & ~4095
        module.limit = (start &+ memorySize &+ 4095) & ~4095
        module.fileOffset = entry.loadUnaligned(fromByteOffset: 8, as: UInt64.self) & ~4095
      case 4 where module.buildIDByteCount == 0:  // PT_NOTE
        readBuildID(UInt(start), UInt(memorySize), into: &module)
      default: break
      }
    }
  }

  private static func readBuildID(
    _ start: UInt, _ byteCount: UInt, into module: inout LoadedModule
  ) {
    guard let notes = UnsafeRawPointer(bitPattern: start), System.isReadable(start) else { return }
    var position: UInt = 0
    while position &+ 12 <= byteCount {
      let note = notes + Int(position)
      let nameSize = UInt(note.loadUnaligned(as: UInt32.self))
      let size = UInt(note.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
      let type = note.loadUnaligned(fromByteOffset: 8, as: UInt32.self)
      let contents = 12 &+ ((nameSize &+ 3) & ~3)
      guard position &+ contents &+ size <= byteCount else { return }
      if type == 3, nameSize == 4,  // NT_GNU_BUILD_ID of "GNU\0"
        note.loadUnaligned(fromByteOffset: 12, as: UInt32.self) == 0x0055_4e47
      {
        module.buildIDByteCount = UInt32(min(size, 32))
        module.buildIDAddress = start &+ position &+ contents
        for index in 0..<Int(module.buildIDByteCount) {
          module.buildID[index] = note.load(
            fromByteOffset: Int(contents) &+ index, as: UInt8.self)
        }
        return
      }
      position &+= contents &+ ((size &+ 3) & ~3)
    }
  }
}
