// SPDX-License-Identifier: Apache-2.0
// The symbols of a module, as it is mapped or as its file has them.

// Every byte is read by pread, from /proc/self/mem or from the file, into a buffer. A module that is
// unloaded meanwhile, or a file that is cut off, then makes a read come short, where a pointer into it
// would end the daemon by SIGSEGV or SIGBUS.

import CTracerPlatform

/// Bytes by position, read through a buffer that the next read takes over.
struct PositionReader {
  let descriptor: Int32
  let buffer: UnsafeMutableRawPointer
  let capacity: Int

  /// All of so many bytes; `nil` where they are not there.
  func bytes(at position: UInt64, _ byteCount: Int) -> UnsafeRawBufferPointer? {
    let some = some(at: position, byteCount)
    return some.count == byteCount ? some : nil
  }

  /// As many of the bytes as there are.
  func some(at position: UInt64, _ byteCount: Int) -> UnsafeRawBufferPointer {
    guard byteCount <= capacity, position < 1 << 62 else {
      return UnsafeRawBufferPointer(start: nil, count: 0)
    }
    let count = System.restarting {
      System.call(
        SYS_pread64, Int(descriptor), Int(bitPattern: buffer), byteCount, Int(position))
    }
    return UnsafeRawBufferPointer(start: buffer, count: max(count, 0))
  }

  func word(at position: UInt64) -> UInt32? {
    bytes(at: position, 4)?.loadUnaligned(as: UInt32.self)
  }
}

/// Where the symbols of a module are, and their names.
struct SymbolList {
  static var entryByteCount: UInt64 { 24 }

  var start: UInt64 = 0
  var count: UInt64 = 0
  var names: UInt64 = 0
  var nameByteCount: UInt64 = 0
}

/// An ELF file, or the image of one in memory. (System V ABI, chapters 4 and 5.)
struct SymbolImage {
  /// Symbols of one table that are looked at, at most.
  private static var symbolLimit: UInt64 { 4 << 20 }

  let reader: PositionReader
  /// Where the ELF header is: an address, or 0 of a file.
  let origin: UInt64
  /// What is added to a virtual address for its position in memory; `nil` for a file.
  let bias: UInt64?
  /// Where the image ends.
  let limit: UInt64

  /// The program headers.
  private var headers: UInt64 = 0
  private var headerCount: UInt64 = 0

  init?(_ reader: PositionReader, origin: UInt64, bias: UInt64?, limit: UInt64) {
    self.reader = reader
    self.origin = origin
    self.bias = bias
    self.limit = limit
    guard let header = reader.bytes(at: origin, 64),
      header.loadUnaligned(as: UInt32.self) == 0x464c_457f,  // "\u{7f}ELF"
      header[4] == 2, header[5] == 1,  // 64 bits, little-endian
      header.loadUnaligned(fromByteOffset: 54, as: UInt16.self) == 56
    else { return nil }
    let offset = header.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
    headerCount = UInt64(header.loadUnaligned(fromByteOffset: 56, as: UInt16.self))
    headers = origin &+ offset
    guard offset < 1 << 40, headerCount <= 128, contains(headers, headerCount &* 56) else {
      return nil
    }
  }

  private func contains(_ start: UInt64, _ byteCount: UInt64) -> Bool {
    start >= origin && start <= limit && byteCount <= limit &- start
  }

  private struct Segment {
    var type: UInt32
    var address: UInt64
    var start: UInt64
    var byteCount: UInt64
  }

  private func segment(_ number: UInt64) -> Segment? {
    guard let entry = reader.bytes(at: headers &+ number &* 56, 56) else { return nil }
    let address = entry.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
    let segment = Segment(
      type: entry.loadUnaligned(as: UInt32.self), address: address,
      start: bias.map { $0 &+ address }
        ?? entry.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
      byteCount: entry.loadUnaligned(fromByteOffset: 32, as: UInt64.self))
    return segment
  }

  /// The virtual address that the image begins with.
  var firstAddress: UInt64? {
    for number in 0..<headerCount {
      guard let segment = segment(number) else { return nil }
      if segment.type == 1 { return segment.address & ~4095 }  // PT_LOAD
    }
    return nil
  }

  /// Whether this is what a module was when a stack led through it: by its build ID, or in memory by
  /// the place of its unwind table.
  func isSame(as module: LoadedModule) -> Bool {
    for number in 0..<headerCount {
      guard let segment = segment(number) else { return false }
      if module.buildIDByteCount > 0 {
        if segment.type == 4, hasBuildID(of: module, segment) { return true }  // PT_NOTE
      } else if segment.type == 0x6474_e550, bias != nil {  // PT_GNU_EH_FRAME
        return segment.start == UInt64(module.ehFrameHeader)
      }
    }
    return false
  }

  private func hasBuildID(of module: LoadedModule, _ segment: Segment) -> Bool {
    guard segment.byteCount <= 4096, contains(segment.start, segment.byteCount),
      let notes = reader.bytes(at: segment.start, Int(segment.byteCount))
    else { return false }
    var position = 0
    while position &+ 16 <= notes.count {
      let nameSize = Int(notes.loadUnaligned(fromByteOffset: position, as: UInt32.self))
      let size = Int(notes.loadUnaligned(fromByteOffset: position &+ 4, as: UInt32.self))
      let type = notes.loadUnaligned(fromByteOffset: position &+ 8, as: UInt32.self)
      let contents = position &+ 12 &+ ((nameSize &+ 3) & ~3)
      guard contents &+ size <= notes.count else { return false }
      if type == 3, nameSize == 4, size >= Int(module.buildIDByteCount) {  // NT_GNU_BUILD_ID
        for index in 0..<Int(min(module.buildIDByteCount, 32))
        where notes[contents &+ index] != module.buildID[index] { return false }
        return true
      }
      position = contents &+ ((size &+ 3) & ~3)
    }
    return false
  }

  // MARK: The table that the loader uses

  /// `.dynsym`, by the dynamic section of a mapped module.
  func dynamicSymbols() -> SymbolList? {
    guard let bias else { return nil }
    for number in 0..<headerCount {
      guard let segment = segment(number) else { return nil }
      if segment.type == 2 { return dynamicSymbols(segment, bias) }  // PT_DYNAMIC
    }
    return nil
  }

  private func dynamicSymbols(_ segment: Segment, _ bias: UInt64) -> SymbolList? {
    guard segment.byteCount <= 16384, contains(segment.start, segment.byteCount),
      let entries = reader.bytes(at: segment.start, Int(segment.byteCount))
    else { return nil }
    var list = SymbolList()
    var (hash, gnuHash): (UInt64, UInt64) = (0, 0)
    var position = 0
    while position &+ 16 <= entries.count {
      let tag = entries.loadUnaligned(fromByteOffset: position, as: UInt64.self)
      let value = entries.loadUnaligned(fromByteOffset: position &+ 8, as: UInt64.self)
      // glibc has made addresses of most modules' values, but not of the vDSO's.
      let place = value >= origin ? value : bias &+ value
      switch tag {
      case 4: hash = place
      case 5: list.names = place
      case 6: list.start = place
      case 10: list.nameByteCount = value
      case 0x6fff_fef5: gnuHash = place
      default: break
      }
      if tag == 0 { break }
      position &+= 16
    }
    list.count = (hash == 0 ? nil : countByHash(hash)) ?? countByGNUHash(gnuHash) ?? 0
    guard list.count > 0, list.count <= Self.symbolLimit, contains(list.names, list.nameByteCount),
      contains(list.start, list.count &* SymbolList.entryByteCount)
    else { return nil }
    return list
  }

  /// DT_HASH has a chain's link for each symbol.
  private func countByHash(_ table: UInt64) -> UInt64? {
    guard contains(table, 8) else { return nil }
    return reader.word(at: table &+ 4).map { UInt64($0) }
  }

  /// DT_GNU_HASH has no count: the last symbol ends the chain of the highest bucket.
  private func countByGNUHash(_ table: UInt64) -> UInt64? {
    guard table != 0, contains(table, 16), let header = reader.bytes(at: table, 16) else {
      return nil
    }
    let bucketCount = UInt64(header.loadUnaligned(as: UInt32.self))
    let firstSymbol = UInt64(header.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
    let bloomCount = UInt64(header.loadUnaligned(fromByteOffset: 8, as: UInt32.self))
    let buckets = table &+ 16 &+ bloomCount &* 8
    guard bucketCount <= Self.symbolLimit, contains(buckets, bucketCount &* 4) else { return nil }
    var highest: UInt64 = 0
    forEachWord(buckets, bucketCount) { word in
      highest = max(highest, UInt64(word))
      return true
    }
    guard highest >= firstSymbol else { return firstSymbol }
    let chains = buckets &+ bucketCount &* 4
    var last = highest
    forEachWord(chains &+ (highest &- firstSymbol) &* 4, Self.symbolLimit) { word in
      if word & 1 != 0 { return false }
      last &+= 1
      return true
    }
    return last &+ 1
  }

  private func forEachWord(_ start: UInt64, _ count: UInt64, _ body: (UInt32) -> Bool) {
    let end = start &+ count &* 4
    var position = start
    while position < end {
      let chunk = reader.some(at: position, Int(min(UInt64(4096), end &- position)))
      guard chunk.count >= 4 else { return }
      var index = 0
      while index &+ 4 <= chunk.count {
        guard body(chunk.loadUnaligned(fromByteOffset: index, as: UInt32.self)) else { return }
        index &+= 4
      }
      position &+= UInt64(index)
    }
  }

  // MARK: The table of the file

  /// `.symtab`, which strip takes away.
  func fileSymbols() -> SymbolList? {
    guard bias == nil, let header = reader.bytes(at: 0, 64) else { return nil }
    let sections = header.loadUnaligned(fromByteOffset: 40, as: UInt64.self)
    let stride = UInt64(header.loadUnaligned(fromByteOffset: 58, as: UInt16.self))
    let sectionCount = UInt64(header.loadUnaligned(fromByteOffset: 60, as: UInt16.self))
    guard stride == 64, sections < limit, contains(sections, sectionCount &* 64) else {
      return nil
    }
    for number in 0..<sectionCount {
      guard let section = reader.bytes(at: sections &+ number &* 64, 64) else { return nil }
      guard section.loadUnaligned(fromByteOffset: 4, as: UInt32.self) == 2 else { continue }
      let link = UInt64(section.loadUnaligned(fromByteOffset: 40, as: UInt32.self))
      var list = SymbolList()
      list.start = section.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
      list.count =
        section.loadUnaligned(fromByteOffset: 32, as: UInt64.self) / SymbolList.entryByteCount
      guard link < sectionCount, let names = reader.bytes(at: sections &+ link &* 64, 64) else {
        return nil
      }
      list.names = names.loadUnaligned(fromByteOffset: 24, as: UInt64.self)
      list.nameByteCount = names.loadUnaligned(fromByteOffset: 32, as: UInt64.self)
      guard list.count <= Self.symbolLimit, contains(list.names, list.nameByteCount),
        contains(list.start, list.count &* SymbolList.entryByteCount)
      else { return nil }
      return list
    }
    return nil
  }

  // MARK: Symbols

  /// Calls the body for each function that is defined, until it answers `false`.
  func forEachFunction(_ list: SymbolList, _ body: (Symbol) -> Bool) {
    let end = list.start &+ list.count &* SymbolList.entryByteCount
    let stride = Int(SymbolList.entryByteCount)
    var position = list.start
    while position < end {
      let wanted = min(UInt64(reader.capacity / stride * stride), end &- position)
      let chunk = reader.some(at: position, Int(wanted))
      guard chunk.count >= stride else { return }
      var index = 0
      while index &+ stride <= chunk.count {
        let kind = chunk[index &+ 4] & 15
        // STT_FUNC and STT_GNU_IFUNC, of a section that is in the file.
        if kind == 2 || kind == 10,
          chunk.loadUnaligned(fromByteOffset: index &+ 6, as: UInt16.self) != 0
        {
          let symbol = Symbol(
            name: chunk.loadUnaligned(fromByteOffset: index, as: UInt32.self),
            isGlobal: chunk[index &+ 4] >> 4 != 0, isPlain: kind == 2,
            address: chunk.loadUnaligned(fromByteOffset: index &+ 8, as: UInt64.self),
            byteCount: chunk.loadUnaligned(fromByteOffset: index &+ 16, as: UInt64.self))
          guard body(symbol) else { return }
        }
        index &+= stride
      }
      position &+= UInt64(index)
    }
  }

  /// A symbol's name, at most `byteLimit` bytes of it, in the reader's buffer; and whether that is all.
  func name(
    _ offset: UInt32, _ list: SymbolList, byteLimit: Int
  ) -> (bytes: UnsafeRawBufferPointer, isWhole: Bool)? {
    guard UInt64(offset) < list.nameByteCount else { return nil }
    let left = Int(min(list.nameByteCount &- UInt64(offset), UInt64(byteLimit)))
    let bytes = reader.some(at: list.names &+ UInt64(offset), left)
    var count = 0
    while count < bytes.count, bytes[count] != 0 { count &+= 1 }
    guard count > 0 else { return nil }
    return (UnsafeRawBufferPointer(rebasing: bytes[..<count]), count < bytes.count)
  }

  /// The value of a global function of this name.
  func address(of wanted: StaticString, _ list: SymbolList) -> UInt64? {
    var found: UInt64?
    var places = InlineArray<4, UInt32>(repeating: UInt32.max)
    var count = 0
    // The names first, in one go: a symbol knows its own by its place. Another's may end with it.
    forEachNamePlace(wanted, list) { place in
      places[count] = place
      count &+= 1
      return count < 4
    }
    guard count > 0 else { return nil }
    forEachFunction(list) { symbol in
      guard symbol.isGlobal, symbol.isPlain, symbol.byteCount > 0 else { return true }
      for index in 0..<count where places[index] == symbol.name { found = symbol.address }
      return found == nil
    }
    return found
  }

  /// Calls the body with each place of a name in the table of names, also as another's end.
  private func forEachNamePlace(
    _ wanted: StaticString, _ list: SymbolList, _ body: (UInt32) -> Bool
  ) {
    let length = wanted.utf8CodeUnitCount
    var position: UInt64 = 0
    while position < list.nameByteCount {
      let left = Int(min(list.nameByteCount &- position, UInt64(reader.capacity)))
      let chunk = reader.some(at: list.names &+ position, left)
      guard chunk.count > length else { return }
      var index = 0
      while index &+ length < chunk.count {
        if chunk[index] == wanted.utf8Start[0], chunk[index &+ length] == 0,
          chunk.dropping(index).after(wanted) != nil
        {
          guard body(UInt32(truncatingIfNeeded: position &+ UInt64(index))) else { return }
        }
        index &+= 1
      }
      // A name may lie across the border.
      position &+= UInt64(index)
    }
  }
}

/// A function that a module has.
struct Symbol {
  /// Where its name is in the table of names.
  var name: UInt32
  var isGlobal: Bool
  /// Whether its address is where it is called.
  var isPlain: Bool
  /// As the file has it, without the bias.
  var address: UInt64
  var byteCount: UInt64
}
