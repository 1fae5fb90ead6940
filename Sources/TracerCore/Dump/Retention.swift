// SPDX-License-Identifier: Apache-2.0
// How many dumps stay: of those that were written by themselves, the newest.

import CTracerPlatform

extension UnsafeMutablePointer where Pointee == Core {
  /// Removes the oldest of this program's automatic dumps until HEAPTAP_KEEP holds.
  ///
  /// A dump that somebody asked for is theirs, and one of another program or owner is never touched.
  /// Nor is another process's of the last minute: where a server's processes all cross at once, the one
  /// that leaks must not lose its dump to the others'.
  /// Names are sorted by time, so that the oldest is the least. Cost: two passes over the directory
  /// for each dump that goes, which is one as a rule.
  func removeOldDumps(in directory: DumpDirectory) {
    guard !pointee.settings.retention.keepsAll else { return }
    var time = InlineArray<32, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &time) {
      var recent = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 32)
      DumpName.appendTime(to: &recent, System.wallTime &- 60_000_000_000)
      removeOldDumps(in: directory, recent: recent.bytes)
    }
  }

  private func removeOldDumps(in directory: DumpDirectory, recent: UnsafeRawBufferPointer) {
    // As many times as there may be dumps too many: a bound on an unbounded directory.
    for _ in 0..<64 {
      var (count, bytes): (UInt64, UInt64) = (0, 0)
      var oldest = InlineArray<256, UInt8>(repeating: 0xff)
      var hasOldest = false
      forEachAutomaticDump(in: directory) { name, isOwn, byteCount in
        count &+= 1
        bytes = bytes &+ byteCount
        guard Self.isLess(name, oldest), isOwn || Self.isLess(name, recent) else { return }
        hasOldest = true
        for position in 0..<256 { oldest[position] = position < name.count ? name[position] : 0 }
      }
      let isTooMuch =
        count > pointee.settings.retention.count || bytes > pointee.settings.retention.bytes
      guard isTooMuch, hasOldest else { return }
      withUnsafeBytes(of: oldest) {
        _ = System.call(
          SYS_unlinkat, Int(directory.descriptor), Int(bitPattern: $0.baseAddress), 0)
      }
    }
  }

  private static func isLess(
    _ name: UnsafeRawBufferPointer, _ other: InlineArray<256, UInt8>
  ) -> Bool {
    withUnsafeBytes(of: other) { isLess(name, $0) }
  }

  private static func isLess(
    _ name: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer
  ) -> Bool {
    for position in 0..<min(name.count, other.count) where name[position] != other[position] {
      return name[position] < other[position]
    }
    return false
  }

  /// Calls the body for each dump in the directory that this program wrote by itself, and this user:
  /// with its name, whether it is this process's, and its size. That which was written just now is
  /// counted with the others, as another's of this minute: the newest stays, however large it is.
  private func forEachAutomaticDump(
    in directory: DumpDirectory,
    _ body: (_ name: UnsafeRawBufferPointer, _ isOwn: Bool, _ byteCount: UInt64) -> Void
  ) {
    _ = System.call(SYS_lseek, Int(directory.descriptor), 0, 0)
    let (buffer, capacity) = (pointee.dumps.input, DumpState.inputByteCount / 2)
    let user = UInt32(truncatingIfNeeded: System.call(SYS_geteuid))
    while true {
      let count = System.call(
        SYS_getdents64, Int(directory.descriptor), Int(bitPattern: buffer), capacity)
      guard count > 0 else { return }
      var offset = 0
      // struct linux_dirent64: inode, offset, record length, type, name. (getdents(2))
      while offset &+ 19 < count {
        let entry = buffer + offset
        let length = Int(entry.loadUnaligned(fromByteOffset: 16, as: UInt16.self))
        guard length > 19, offset &+ length <= count else { return }
        offset &+= length
        var nameCount = 0
        while nameCount < length &- 19, nameCount < 255,
          entry.load(fromByteOffset: 19 &+ nameCount, as: UInt8.self) != 0
        {
          nameCount &+= 1
        }
        let name = UnsafeRawBufferPointer(start: entry + 19, count: nameCount)
        guard let (process, sequence) = numbers(ofThisProgramIn: name),
          let bytes = automaticByteCount(entry + 19, directory, user)
        else { continue }
        let isOwn =
          process == UInt64(UInt32(bitPattern: pointee.processID))
          && sequence != pointee.dumps.sequence
        body(name, isOwn, bytes)
      }
    }
  }

  /// The numbers in `TIME-PROGRAM-PID-SEQUENCE.pb`, as `DumpName` makes it; `nil` for another program's.
  private func numbers(
    ofThisProgramIn name: UnsafeRawBufferPointer
  ) -> (process: UInt64, sequence: UInt64)? {
    let timeByteCount = 24  // 20261121T102757.123456Z-
    guard name.count > timeByteCount, name.hasSuffix(".pb"), name[8] == 0x54,
      name[timeByteCount &- 2] == 0x5a, name[timeByteCount &- 1] == 0x2d
    else { return nil }
    var program = InlineArray<64, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &program) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 64)
      appendProgram(to: &text)
      var rest = name.dropping(timeByteCount)
      guard rest.count > text.count else { return nil }
      for position in 0..<text.count where rest[position] != text.bytes[position] { return nil }
      // Two numbers: a program whose name begins with this one's has more.
      rest = rest.dropping(text.count)
      var found: (process: UInt64, sequence: UInt64) = (0, 0)
      for _ in 0..<2 {
        guard rest.count > 1, rest[0] == 0x2d else { return nil }
        let (value, digits) = rest.dropping(1).number()
        guard digits > 0 else { return nil }
        found = (found.sequence, value)
        rest = rest.dropping(1 &+ digits)
      }
      return rest.isEqual(".pb") ? found : nil
    }
  }

  /// The size of a dump that says at its head that it was written at a limit; `nil` for any other file.
  private func automaticByteCount(
    _ name: UnsafeMutableRawPointer, _ directory: DumpDirectory, _ user: UInt32
  ) -> UInt64? {
    let file = System.open(
      UnsafePointer(name.assumingMemoryBound(to: CChar.self)),
      O_RDONLY | O_NOFOLLOW | O_NONBLOCK, in: directory.descriptor)
    guard file >= 0 else { return nil }
    defer { System.close(file) }
    guard let facts = System.facts(of: file), FileKind(facts) == .regular, facts.st_uid == user
    else { return nil }
    let head = pointee.dumps.input + DumpState.inputByteCount / 2
    let count = System.read(file, head, 4096)
    // As an entry of the string table, with tag and length: a path may have the words in it, and has no
    // control bytes in a dump.
    guard count > 0,
      UnsafeRawBufferPointer(start: head, count: count).contains("2\u{d}trigger=limit")
    else { return nil }
    return UInt64(clamping: facts.st_size)
  }
}
