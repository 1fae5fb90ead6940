// SPDX-License-Identifier: Apache-2.0
// What the kernel says of this process when a dump is made.

import CTracerPlatform

/// Memory as the kernel counts it: anonymous pages by what they are for, in bytes.
struct MemoryFacts {
  var isKnown = false
  /// Anonymous and shared pages of the whole process.
  var usage: UInt64 = 0
  /// Mappings that blocks have come from.
  var heap: UInt64 = 0
  /// The tracer's own.
  var tracer: UInt64 = 0
  /// Anonymous mappings that are neither.
  var mapped: UInt64 = 0

  /// Reads `/proc/self/smaps`: the kernel walks the page tables, a millisecond or so for a GiB.
  static func read(
    _ buffer: UnsafeMutableRawPointer, capacity: Int, isHeap: (Range<UInt>) -> Bool
  ) -> MemoryFacts {
    var facts = MemoryFacts()
    guard var file = ProcFile("/proc/self/smaps", buffer, capacity: capacity) else { return facts }
    defer { file.close() }
    facts.isKnown = true
    var kind = Kind.other
    var bytes: UInt64 = 0
    while let line = file.nextLine() {
      if let value = line.after("Anonymous:") {
        bytes = value.number().value &* 1024
      } else if let flags = line.after("VmFlags:") {
        // The last line of a mapping. A kernel that cannot name memory tells ours by how we ask for it:
        // without reserve and without huge pages.
        let isOurs = kind != .other && flags.contains(" nr") && flags.contains(" nh")
        facts.add(bytes, isOurs ? .tracer : kind)
      } else if let (range, path) = MemoryMaps.mapping(line) {
        kind = Self.kind(range, path, isHeap)
      }
    }
    return facts
  }

  private enum Kind { case heap, tracer, mapped, other }

  private mutating func add(_ bytes: UInt64, _ kind: Kind) {
    usage = usage &+ bytes
    switch kind {
    case .heap: heap = heap &+ bytes
    case .tracer: tracer = tracer &+ bytes
    case .mapped: mapped = mapped &+ bytes
    case .other: break
    }
  }

  private static func kind(
    _ range: Range<UInt64>, _ path: UnsafeRawBufferPointer, _ isHeap: (Range<UInt>) -> Bool
  ) -> Kind {
    if path.after("[anon:heaptap]") != nil { return .tracer }
    if path.after("[heap]") != nil { return .heap }
    if path.count > 0, path.after("[anon") == nil { return .other }
    return isHeap(UInt(range.lowerBound)..<UInt(range.upperBound)) ? .heap : .mapped
  }
}

/// The resident set in bytes, from `/proc/self/statm`; 0 where it cannot be read.
func residentByteCount(_ buffer: UnsafeMutableRawPointer, capacity: Int) -> UInt64 {
  guard var file = ProcFile("/proc/self/statm", buffer, capacity: capacity) else { return 0 }
  defer { file.close() }
  guard let line = file.nextLine() else { return 0 }
  let size = line.number()
  return line.dropping(size.byteCount).number().value &* UInt64(System.pageByteCount)
}

/// The systemd unit by the process's cgroup: the innermost service in the path.
func appendUnit(
  to text: inout TextBuffer, _ buffer: UnsafeMutableRawPointer, capacity: Int
) -> Bool {
  guard var file = ProcFile("/proc/self/cgroup", buffer, capacity: capacity) else { return false }
  defer { file.close() }
  while let line = file.nextLine() {
    // cgroup v2's line, or that of systemd's own hierarchy, whose number depends on the kernel.
    let rest = line.dropping(line.number().byteCount)
    guard rest.after("::") != nil || rest.after(":name=systemd:") != nil else { continue }
    var path = line
    while path.count > 0 {
      let component = path.lastComponent
      if component.hasSuffix(".service") {
        text.append(printable: component)
        return true
      }
      let left = path.count &- component.count &- 1
      path = UnsafeRawBufferPointer(rebasing: path[..<max(0, left)])
    }
  }
  return false
}

/// The mappings of the process, as `/proc/self/maps` lists them.
enum MemoryMaps {
  /// Calls the body for each mapping; `false` where there is no list.
  static func forEach(
    _ buffer: UnsafeMutableRawPointer, capacity: Int,
    _ body: (_ range: Range<UInt64>, _ path: UnsafeRawBufferPointer) -> Void
  ) -> Bool {
    guard var file = ProcFile("/proc/self/maps", buffer, capacity: capacity) else { return false }
    defer { file.close() }
    while let line = file.nextLine() {
      if let (range, path) = mapping(line) { body(range, path) }
    }
    return true
  }

  /// The four letters behind the range of a line that begins a mapping: `rw-p`.
  static func permissions(_ line: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer {
    var position = 0
    while position < line.count, line[position] != 0x20 { position &+= 1 }
    let rest = line.dropping(position &+ 1)
    return UnsafeRawBufferPointer(rebasing: rest[..<min(4, rest.count)])
  }

  /// The range and path of a line that begins a mapping: `start-end perms offset dev inode path`.
  static func mapping(
    _ line: UnsafeRawBufferPointer
  ) -> (Range<UInt64>, UnsafeRawBufferPointer)? {
    let (start, startCount) = line.number(radix: 16)
    guard startCount > 0, startCount < line.count, line[startCount] == 0x2d else { return nil }
    let rest = line.dropping(startCount &+ 1)
    let (end, endCount) = rest.number(radix: 16)
    guard endCount > 0, end >= start else { return nil }
    var field = rest.dropping(endCount)
    for _ in 0..<4 {
      var position = 0
      while position < field.count, field[position] == 0x20 { position &+= 1 }
      while position < field.count, field[position] != 0x20 { position &+= 1 }
      field = field.dropping(position)
    }
    var blanks = 0
    while blanks < field.count, field[blanks] == 0x20 { blanks &+= 1 }
    return (start..<end, field.dropping(blanks))
  }
}
