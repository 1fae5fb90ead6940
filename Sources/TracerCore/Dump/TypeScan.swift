// SPDX-License-Identifier: Apache-2.0
// What the blocks of Swift's allocator are: found out while a dump looks at each of them.

// A block is an object if the function that has allocated it made one: `swift_allocObject` calls
// `swift_slowAlloc`, and stores the metadata and a first reference count where that has pointed to. These
// two stores, behind the call, are what the function is known by; its name is not exported, and a static
// executable may have none. Whatever else begins with the address of a class's metadata, such as a buffer of
// types, is made by another function, and is no object.
//
// Tasks are made by malloc itself. Of each other stack one block is looked at, and if that is a task, all
// are: it takes the runtime's own metadata for tasks to be taken for one.

import CTracerPlatform
import Synchronization

/// How a site's blocks begin.
enum SiteMaker: UInt16 {
  /// Not yet found out.
  case unknown = 0
  case other
  /// Of which a block is to be looked at.
  case untried
  case objects
  case tasks
}

/// Why a dump has no types.
enum TypesProblem {
  case none
  /// `HEAPTAP_TYPES=0`
  case isOff
  case nearLimit
  case noPipe
  case noMemory

  func append(to text: inout TextBuffer) {
    switch self {
    case .none: break
    case .isOff: text.append("HEAPTAP_TYPES=0")
    case .nearLimit: text.append("a limit was near")
    case .noPipe: text.append("no pipe could be made")
    case .noMemory: text.append("the kernel gave no memory")
    }
  }
}

/// A block whose first word is wanted.
struct PendingBlock {
  var address: UInt
  var word: BlockWord
  var byteCount: UInt64
  /// Where in the transfer its first word is.
  var offset: Int
}

/// Blocks that wait for their first words to be read, in the memory that a dump's output is buffered in.
struct TypeScan {
  private static var limit: Int { 512 }
  /// Bytes between two blocks that are read rather than asked for apart.
  private static var nearby: UInt { 64 }
  /// Two bits for each row.
  private static var traitsByteCount: Int { Int(RowTable.limit) / 4 }
  private static var vectorsOffset: Int {
    traitsByteCount + limit * MemoryLayout<PendingBlock>.stride
  }
  private static var bytesOffset: Int { vectorsOffset + limit * MemoryLayout<iovec>.stride }
  static var byteCount: Int { bytesOffset + ForeignMemory.byteLimit }

  private let base: UnsafeMutableRawPointer
  private var metadata: SwiftMetadata
  private(set) var count = 0
  private var vectorCount = 0
  private var usedBytes = 0

  init(_ base: UnsafeMutableRawPointer, _ memory: ForeignMemory) {
    self.base = base
    metadata = SwiftMetadata(memory)
    base.initializeMemory(as: UInt8.self, repeating: 0, count: Self.traitsByteCount)
  }

  var memory: ForeignMemory { metadata.memory }
  var pending: UnsafeMutablePointer<PendingBlock> {
    (base + Self.traitsByteCount).assumingMemoryBound(to: PendingBlock.self)
  }
  private var vectors: UnsafeMutablePointer<iovec> {
    (base + Self.vectorsOffset).assumingMemoryBound(to: iovec.self)
  }

  /// Has a block wait; `false` where there is no room for it.
  @inline(__always)
  mutating func append(_ address: UInt, _ word: BlockWord, _ byteCount: UInt64) -> Bool {
    guard count < Self.limit else { return false }
    var offset = usedBytes
    if vectorCount > 0, let gap = gap(before: address) {
      // A transfer of much takes little longer than one of little, and blocks mostly lie close.
      guard usedBytes &+ gap &+ 8 <= memory.byteLimit else { return false }
      vectors[vectorCount &- 1].iov_len &+= gap &+ 8
      offset &+= gap
    } else {
      guard usedBytes &+ 8 <= memory.byteLimit else { return false }
      vectors[vectorCount] = iovec(
        iov_base: UnsafeMutableRawPointer(bitPattern: address), iov_len: 8)
      vectorCount &+= 1
    }
    usedBytes = offset &+ 8
    pending[count] = PendingBlock(
      address: address, word: word, byteCount: byteCount, offset: offset)
    count &+= 1
    return true
  }

  /// The bytes between what was asked for last and a block close behind it; `nil` where it is not.
  @inline(__always)
  private func gap(before address: UInt) -> Int? {
    let last = vectors[vectorCount &- 1]
    let end = UInt(bitPattern: last.iov_base) &+ UInt(last.iov_len)
    return address &- end <= Self.nearby ? Int(address &- end) : nil
  }

  /// Reads the first words of all that wait; 0 for what is gone.
  func readWords() {
    let bytes = base + Self.bytesOffset
    guard count > 0, !memory.copy(vectors, vectorCount, usedBytes, to: bytes) else { return }
    for position in 0..<count {
      let block = pending[position]
      bytes.storeBytes(
        of: memory.word(block.address) ?? 0, toByteOffset: block.offset, as: UInt.self)
    }
  }

  /// The first word of a block, once it was read.
  @inline(__always)
  func firstWord(of block: PendingBlock) -> UInt {
    (base + Self.bytesOffset).load(fromByteOffset: block.offset, as: UInt.self)
  }

  mutating func clear() {
    count = 0
    vectorCount = 0
    usedBytes = 0
  }

  /// Whether the function that a row returns to makes an object of what it gets: it goes on by storing
  /// a register to where rax points, and the reference count of a new object (3) behind.
  func makesObjects(_ number: UInt32, _ row: borrowing Row) -> Bool {
    let byte = base + Int(number >> 2)
    let shift = UInt8(number & 3) &* 2
    let traits = byte.load(as: UInt8.self) >> shift
    if traits & 1 != 0 { return traits & 2 != 0 }
    let makes = row.key & Row.exactFlag == 0 && Self.makesObjects(row.address, memory)
    byte.storeBytes(
      of: byte.load(as: UInt8.self) | (makes ? 3 : 1) << shift, as: UInt8.self)
    return makes
  }

  private static func makesObjects(_ address: UInt64, _ memory: ForeignMemory) -> Bool {
    var code = InlineArray<11, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &code) {
      guard memory.copy(UInt(address), 11, to: $0.baseAddress.unsafelyUnwrapped) else {
        return false
      }
      // mov %reg,(%rax); movq $3,8(%rax)
      let isStore = $0[0] & 0xfb == 0x48 && $0[1] == 0x89 && $0[2] & 0xc7 == 0
      return isStore && $0.loadUnaligned(fromByteOffset: 3, as: UInt64.self) == 0x3_0840_c748
    }
  }

  // MARK: Types

  /// The type's number for an object that begins with a word; 0 where it is none.
  mutating func type(
    _ word: UInt, of block: PendingBlock, _ table: inout TypeTable
  ) -> UInt32 {
    guard word != 0 else { return 0 }
    var metadata = metadata
    var number = table.number(word) { entry, text in
      guard let kind = metadata.kind(word), metadata.append(kind, of: word, to: &text) else {
        return
      }
      entry.byteCount = kind.byteCount
      entry.isError = kind.kind == .error
      entry.isTask = kind.kind == .task
    }
    guard number != 0, table.entry(number).pointee.isKnown,
      block.byteCount >= table.entry(number).pointee.byteCount
    else { return 0 }
    if table.entry(number).pointee.isError, let type = memory.word(block.address &+ 16) {
      // By an odd address, which no metadata have.
      let named = table.number(type | 1) { entry, text in
        text.append("error ")
        guard metadata.appendName(type, to: &text) else { return }
        entry.byteCount = 32
      }
      if named != 0, table.entry(named).pointee.isKnown { number = named }
    }
    return number
  }
}

extension SwiftMetadata {
  /// Appends what an object is.
  mutating func append(
    _ kind: ObjectKind, of metadata: UInt, to text: inout TextBuffer
  ) -> Bool {
    switch kind.kind {
    case .instance: return appendName(metadata, to: &text)
    case .captures: text.append("closure context")
    case .error: text.append("error")
    case .task: text.append("task")
    case .box:
      text.append("box of ")
      return appendName(kind.boxed, to: &text)
    }
    return true
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Has the dump's memory at hand in which types are found out; says why there are none.
  func openTypes(_ trigger: DumpTrigger) -> (TypeScan?, TypesProblem) {
    guard pointee.settings.looksForTypes else { return (nil, .isOff) }
    // It takes as long again as the scan, and pages that nobody has set aside.
    guard trigger != .limit || !isPressed else { return (nil, .nearLimit) }
    guard pointee.dumps.types.open() else { return (nil, .noMemory) }
    pointee.dumps.types.clear()
    guard let memory = ForeignMemory() else { return (nil, .noPipe) }
    return (TypeScan(pointee.dumps.output, memory), .none)
  }

  /// Whether the blocks of a site are to be looked at.
  @inline(__always)
  func mayHaveTypes(_ site: UInt32, _ types: TypeScan) -> Bool {
    let summary = summary(site)
    if summary.pointee.maker == .unknown { summary.pointee.maker = maker(site, types) }
    return summary.pointee.maker != .other
  }

  @inline(never)
  private func maker(_ number: UInt32, _ types: TypeScan) -> SiteMaker {
    let site = pointee.sites.site(number)
    guard site.pointee.frameCount > 1 else { return .other }
    let second = pointee.sites.rows(of: site.pointee)[1]
    return types.makesObjects(second, pointee.rows.row(second).pointee) ? .objects : .untried
  }

  /// The type of a block that was waited for, by its first word as it was read.
  func type(
    of block: PendingBlock, _ word: UInt, _ types: inout TypeScan
  ) -> UInt32 {
    let summary = summary(block.word.site)
    guard summary.pointee.maker != .other,
      // Freed meanwhile, and its memory perhaps somebody else's.
      find(block.address) == block.word
    else { return 0 }
    let number = types.type(word, of: block, &pointee.dumps.types)
    if summary.pointee.maker == .objects { return number }
    let isTask = number != 0 && pointee.dumps.types.entry(number).pointee.isTask
    summary.pointee.maker = isTask ? .tasks : .other
    return isTask ? number : 0
  }
}
