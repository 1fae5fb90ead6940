// SPDX-License-Identifier: Apache-2.0
// The file in which a JIT compiler tells what it has put where: /tmp/perf-PID.map.

import CTracerPlatform

/// Why there is no perf map to read.
enum PerfMapProblem {
  case none
  /// There is none: nobody generates code, or nobody was asked to tell.
  case absent
  case isNoFile
  case isNotOurs
  case isOpenToAll
  case cannotOpen(Int32)
  case nearLimit

  func append(to text: inout TextBuffer) {
    switch self {
    case .none: break
    case .absent: text.append("there is none")
    case .isNoFile: text.append("it is not a file of one name")
    case .isNotOurs: text.append("it belongs to another user")
    case .isOpenToAll: text.append("everybody may write to it")
    case .cannotOpen(let error):
      text.append("it cannot be opened, error ")
      text.append(decimal: UInt64(UInt32(bitPattern: error)))
    case .nearLimit: text.append("not read, the limit was less than a second of growth away")
    }
  }
}

/// A perf map, open: lines `START SIZE NAME`, the numbers hexadecimal, as perf(1) has JIT compilers
/// write it. They append: where code was replaced by other code, the later line is true.
struct PerfMap {
  /// An entry's numbers, and where in its line the name begins.
  struct Entry {
    var start: UInt64
    var byteCount: UInt64
    var nameOffset: Int
  }

  let descriptor: Int32
  /// As long as it was when it was opened; whoever generates code goes on.
  let byteCount: Int

  /// Opens the map of this process: by its own number and in its own /tmp, which in a container are
  /// others than the host's.
  ///
  /// Everybody may make a file of that name. Only one of the process's own user or root's is taken,
  /// which no link leads to and nobody else may write to.
  init?(
    path: UnsafePointer<CChar>, owner: UInt32, _ problem: inout PerfMapProblem
  ) {
    let opened = System.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
    guard opened >= 0 else {
      switch 0 &- opened {
      case ENOENT: problem = .absent
      case ELOOP: problem = .isNoFile
      case let error: problem = .cannotOpen(error)
      }
      return nil
    }
    problem = Self.problem(with: opened, owner: owner)
    guard case .none = problem, let facts = System.facts(of: opened) else {
      System.close(opened)
      return nil
    }
    descriptor = opened
    byteCount = Int(facts.st_size)
  }

  private static func problem(with descriptor: Int32, owner: UInt32) -> PerfMapProblem {
    guard let facts = System.facts(of: descriptor), FileKind(facts) == .regular,
      facts.st_nlink <= 1
    else { return .isNoFile }
    guard facts.st_uid == owner || facts.st_uid == 0 else { return .isNotOurs }
    return facts.st_mode & 0o002 == 0 ? .none : .isOpenToAll
  }

  func close() { System.close(descriptor) }

  /// The path of a process's map.
  static func appendPath(of process: Int32, to text: inout TextBuffer) {
    text.append("/tmp/perf-")
    text.append(decimal: UInt64(UInt32(bitPattern: process)))
    text.append(".map")
  }

  /// Calls the body with each entry and the place of its line, first to last.
  ///
  /// What is no entry is passed over, and so is a last line that is still being written. Costs about
  /// a nanosecond a byte.
  ///
  /// - Parameter place: Where to begin; in the middle of a line the next one is the first.
  func forEachEntry(
    from place: Int, _ buffer: UnsafeMutableRawPointer, capacity: Int,
    _ body: (_ line: Int, Entry) -> Void
  ) {
    var offset = place
    var isInside = place > 0
    while offset < byteCount {
      let count = read(at: offset, buffer, min(capacity, byteCount &- offset))
      guard count > 0 else { return }
      var start = 0
      var position = 0
      while position < count {
        if buffer.load(fromByteOffset: position, as: UInt8.self) == 0x0a {
          if !isInside {
            let line = UnsafeRawBufferPointer(start: buffer + start, count: position &- start)
            if let entry = Self.entry(line) { body(offset &+ start, entry) }
          }
          isInside = false
          start = position &+ 1
        }
        position &+= 1
      }
      if start > 0 {
        offset &+= start
      } else {
        // A line longer than the buffer is nobody's; one that has no end yet comes next time.
        guard count == capacity else { return }
        isInside = true
        offset &+= count
      }
    }
  }

  /// The entry on the line at a place, and as much of its name as fits into the buffer.
  func entry(
    at line: Int, _ buffer: UnsafeMutableRawPointer, capacity: Int
  ) -> (Entry, name: UnsafeRawBufferPointer)? {
    let count = read(at: line, buffer, min(capacity, max(byteCount &- line, 0)))
    var end = 0
    while end < count, buffer.load(fromByteOffset: end, as: UInt8.self) != 0x0a { end &+= 1 }
    let bytes = UnsafeRawBufferPointer(start: buffer, count: end)
    guard let entry = Self.entry(bytes) else { return nil }
    return (entry, bytes.dropping(entry.nameOffset))
  }

  private func read(at place: Int, _ buffer: UnsafeMutableRawPointer, _ count: Int) -> Int {
    PositionReader(descriptor: descriptor, buffer: buffer, capacity: count)
      .some(at: UInt64(place), count).count
  }

  static func entry(_ line: UnsafeRawBufferPointer) -> Entry? {
    guard let (start, startCount) = number(line),
      let (size, count) = number(line.dropping(startCount))
    else { return nil }
    var name = startCount &+ count
    while name < line.count, line[name] == 0x20 { name &+= 1 }
    guard size > 0, name > startCount &+ count, name < line.count else { return nil }
    return Entry(start: start, byteCount: size, nameOffset: name)
  }

  /// A hexadecimal number, with or without `0x`, and how many bytes it took.
  private static func number(
    _ bytes: UnsafeRawBufferPointer
  ) -> (value: UInt64, byteCount: Int)? {
    let (value, count) = bytes.number(radix: 16)
    guard count > 0, count < bytes.count else { return nil }
    if value == 0, bytes[count] == 0x78 {
      let (value, rest) = bytes.dropping(count &+ 1).number(radix: 16)
      return rest > 0 ? (value, count &+ 1 &+ rest) : nil
    }
    return (value, count)
  }
}
