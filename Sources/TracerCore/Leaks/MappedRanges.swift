// SPDX-License-Identifier: Apache-2.0
// What of the address space can be read, and what of it may hold pointers.

import CTracerPlatform

/// One mapping, as `/proc/self/smaps` has it.
struct MappedRange {
  struct Kind: BitSet {
    let rawValue: UInt32
    static var readable: Self { Self(rawValue: 1) }
    /// Has memory of the process's own, in which it may have stored a pointer.
    static var root: Self { Self(rawValue: 2) }
    /// glibc's first heap, by brk.
    static var heap: Self { Self(rawValue: 4) }
    /// The main thread's stack.
    static var mainStack: Self { Self(rawValue: 8) }
    /// Directly behind a mapping that nobody may touch, as a thread's stack is.
    static var guarded: Self { Self(rawValue: 16) }
    static var shared: Self { Self(rawValue: 32) }
    /// No file's: all of it can be read.
    static var anonymous: Self { Self(rawValue: 64) }
  }

  var start: UInt
  var end: UInt
  var kind: Kind
}

/// The mappings in the order of addresses, but for those that cannot be read and the tracer's own.
struct MappedRanges {
  /// Twice what a process may have unless an administrator has raised `vm.max_map_count`.
  private static var limit: Int { 1 << 17 }
  private static var byteCount: Int { limit &* MemoryLayout<MappedRange>.stride }

  private let ranges: UnsafeMutablePointer<MappedRange>
  private(set) var count = 0
  /// Where the last search ended: the next is often for the same.
  private var lastFound = 0

  /// `nil` where there is no memory, no list, or no room for all of it.
  init?(_ buffer: UnsafeMutableRawPointer, capacity: Int) {
    guard let base = System.map(Self.byteCount) else { return nil }
    ranges = base.assumingMemoryBound(to: MappedRange.self)
    guard read(buffer, capacity) else {
      System.unmap(base, Self.byteCount)
      return nil
    }
  }

  func discard() { System.unmap(UnsafeMutableRawPointer(ranges), Self.byteCount) }

  subscript(_ position: Int) -> MappedRange { ranges[position] }

  // The kernel tells of pages that were written to only where they are; swapped out they count apart.
  private mutating func read(_ buffer: UnsafeMutableRawPointer, _ capacity: Int) -> Bool {
    guard var file = ProcFile("/proc/self/smaps", buffer, capacity: capacity) else { return false }
    defer { file.close() }
    var range = MappedRange(start: 0, end: 0, kind: MappedRange.Kind(rawValue: 0))
    var (isNamedOurs, isPrivate, ownBytes) = (false, false, UInt64(0))
    var guardEnd: UInt = 0
    while let line = file.nextLine() {
      if let value = line.after("Anonymous:") ?? line.after("Swap:")
        ?? line.after("Private_Hugetlb:")
      {
        ownBytes = ownBytes &+ value.number().value
      } else if let flags = line.after("VmFlags:") {
        let isDevice = flags.contains(" io") || flags.contains(" pf")
        // A kernel that cannot name memory tells ours by how we ask for it.
        let isOurs = isNamedOurs || (isPrivate && flags.contains(" nr") && flags.contains(" nh"))
        guard range.kind.contains(.readable), !isDevice, !isOurs else { continue }
        if ownBytes > 0 { range.kind.insert(.root) }
        guard count < Self.limit else { return false }
        ranges[count] = range
        count &+= 1
      } else if let (bounds, path) = MemoryMaps.mapping(line) {
        let permissions = MemoryMaps.permissions(line)
        range = MappedRange(
          start: UInt(bounds.lowerBound), end: UInt(bounds.upperBound),
          kind: MappedRange.Kind(rawValue: 0))
        isNamedOurs = path.after("[anon:heaptap]") != nil
        isPrivate = permissions.hasSuffix("p")
        // Another process may cut short the file behind shared memory, but for what is no file's.
        ownBytes = !isPrivate && path.after("/dev/zero (deleted)") != nil ? 1 : 0
        if !isPrivate { range.kind.insert(.shared) }
        if permissions.after("r") != nil { range.kind.insert(.readable) }
        if permissions.after("---") != nil { guardEnd = range.end }
        let isAnonymous = isPrivate && (path.isEmpty || path.after("[") != nil)
        if isAnonymous { range.kind.insert(.anonymous) }
        if isAnonymous, guardEnd == range.start { range.kind.insert(.guarded) }
        if path.after("[heap]") != nil { range.kind.insert(.heap) }
        if path.after("[stack]") != nil { range.kind.insert(.mainStack) }
      }
    }
    return true
  }

  /// The range that an address lies in.
  mutating func range(at address: UInt) -> MappedRange? {
    if lastFound < count, ranges[lastFound].start <= address, address < ranges[lastFound].end {
      return ranges[lastFound]
    }
    var (start, end) = (0, count)
    while start < end {
      let middle = start &+ (end &- start) / 2
      if ranges[middle].end <= address { start = middle &+ 1 } else { end = middle }
    }
    guard start < count, ranges[start].start <= address else { return nil }
    lastFound = start
    return ranges[start]
  }
}

/// Which pages of a range the process has memory of its own for, by `/proc/self/pagemap`.
///
/// So that nothing is read that was never written: a page of a reservation would cost its page table,
/// and one behind the end of a file a signal.
struct PageMap {
  private static var perRead: Int { 4096 }
  static var byteCount: Int { perRead &* 8 }

  private let descriptor: Int32
  private let entries: UnsafeMutablePointer<UInt64>

  /// - Parameter buffer: Room for `byteCount` bytes.
  init?(_ buffer: UnsafeMutableRawPointer) {
    let path: StaticString = "/proc/self/pagemap"
    descriptor = System.open(
      UnsafeRawPointer(path.utf8Start).assumingMemoryBound(to: CChar.self), O_RDONLY)
    guard descriptor >= 0 else { return nil }
    entries = buffer.assumingMemoryBound(to: UInt64.self)
  }

  func close() { System.close(descriptor) }

  /// Calls the body for each run of pages, or part of one, that is there. Bounds are whole pages.
  ///
  /// - Parameter isShared: Whether pages that others see too count.
  func forEachPresent(
    _ start: UInt, _ end: UInt, isShared: Bool = false, _ body: (_ start: UInt, _ end: UInt) -> Void
  ) {
    var page = start
    while page < end {
      let wanted = min(Int(end &- page) >> 12, Self.perRead)
      let got =
        System.restarting {
          System.call(
            SYS_pread64, Int(descriptor), Int(bitPattern: entries), wanted &* 8,
            Int(page >> 12) &* 8)
        } / 8
      guard got > 0 else { return }
      var position = 0
      while position < got {
        guard isPresent(entries[position], page &+ UInt(position) << 12, isShared) else {
          position &+= 1
          continue
        }
        let first = position
        while position < got,
          isPresent(entries[position], page &+ UInt(position) << 12, isShared)
        {
          position &+= 1
        }
        body(page &+ UInt(first) << 12, page &+ UInt(position) << 12)
      }
      page &+= UInt(got) << 12
    }
  }

  /// Bit 63 is for a page in memory, 62 for one that is elsewhere, 61 for one of a file or shared.
  private func isPresent(_ entry: UInt64, _ page: UInt, _ isShared: Bool) -> Bool {
    guard entry & (1 << 61) == 0 || isShared else { return false }
    if entry & (1 << 63) != 0 { return true }
    // Swapped out, or something else in the place of a page that reading it would be a fault.
    return entry & (1 << 62) != 0 && System.isReadable(page)
  }
}
