// SPDX-License-Identifier: Apache-2.0
// What is said where a mark is crossed and nothing is recorded: how full, by what, and what to do.

import CTracerPlatform
import Synchronization

/// The mappings that hold the most of the process's own memory. All zero is none.
private struct LargestMappings {
  static var count: Int { 3 }

  var bytes = InlineArray<3, UInt64>(repeating: 0)
  private var names = InlineArray<192, UInt8>(repeating: 0)
  private var nameCounts = InlineArray<3, Int>(repeating: 0)
  private static var nameLimit: Int { 64 }

  /// The mapping whose lines are being read.
  private var current = InlineArray<64, UInt8>(repeating: 0)
  private var currentCount = 0

  mutating func begin(_ path: UnsafeRawBufferPointer) {
    // Of a long path the end says more.
    var kept = path.dropping(max(0, path.count &- Self.nameLimit))
    // From the beginning of a character: what is no UTF-8, journalctl shows as bytes. (10xxxxxx goes on
    // with one.)
    while let first = kept.first, first & 0xc0 == 0x80, kept.count < path.count {
      kept = kept.dropping(1)
    }
    currentCount = kept.count
    for position in 0..<kept.count { current[position] = kept[position] }
  }

  mutating func end(_ byteCount: UInt64) {
    var place = Self.count
    while place > 0, bytes[place &- 1] < byteCount { place &-= 1 }
    guard place < Self.count else { return }
    var position = Self.count &- 1
    while position > place {
      bytes[position] = bytes[position &- 1]
      nameCounts[position] = nameCounts[position &- 1]
      for index in 0..<Self.nameLimit {
        names[position &* Self.nameLimit &+ index] =
          names[(position &- 1) &* Self.nameLimit &+ index]
      }
      position &-= 1
    }
    bytes[place] = byteCount
    nameCounts[place] = currentCount
    for index in 0..<currentCount { names[place &* Self.nameLimit &+ index] = current[index] }
  }

  func appendName(_ place: Int, to text: inout TextBuffer) {
    guard nameCounts[place] > 0 else { return text.append("anonymous") }
    for index in 0..<nameCounts[place] {
      let byte = names[place &* Self.nameLimit &+ index]
      text.append(byte < 0x20 || byte == 0x7f ? 0x3f : byte)
    }
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Begins recording because usage has reached HEAPTAP_START.
  func startAtMark(_ look: borrowing LimitLook) {
    let error = startRecording(.byItself)
    take(look, at: pointee.settings.startMark)
    withMessage { message in
      if error == 0 {
        message.append("recording started by HEAPTAP_START=")
        pointee.limits.mark.describe(into: &message)
        message.append(": ")
      } else {
        message.append("recording did not start at HEAPTAP_START")
        appendReason(error, to: &message)
        message.append("; ")
      }
      appendFullness(to: &message)
      notify(error == 0 ? .started : .trouble, message.bytes)
    }
  }

  /// Says that a mark was crossed with nothing recorded: what is known all the same, and what to do.
  ///
  /// The allocator is not asked: mallinfo2 walks every free chunk with the arena's lock held. Beside a
  /// heap of 1 GiB with 2,600,000 of them, a malloc took half a second, measured.
  func tellFull() {
    guard pointee.settings.log != .off else { return }
    withMessage { message in
      appendFullness(to: &message)
      let isRecording = pointee.isRecording.load(ordering: .relaxed) != 0
      message.append(
        isRecording
          ? ", and recording has only begun; resident: "
          : ", and nothing is being recorded; resident: ")
      let resident = withUnsafeMutableBytes(of: &pointee.limits.input) {
        residentByteCount($0.baseAddress.unsafelyUnwrapped, capacity: $0.count)
      }
      message.append(byteCount: resident)
      appendMappings(to: &message)
      if !isRecording {
        message.append("; 'heaptap start ")
        message.append(decimal: UInt64(UInt32(bitPattern: pointee.processID)))
        message.append("' shows what grows from here on, HEAPTAP_START=60% would have by itself")
      }
      notify(.limit, message.bytes)
    }
  }

  /// `83 % of 64 MiB is used (/sys/fs/cgroup/…/memory.max)`
  func appendFullness(to message: inout TextBuffer) {
    let reading = pointee.limits.reading
    message.append(decimal: reading.thousandths / 10)
    message.append(" % of ")
    message.append(byteCount: reading.limit)
    message.append(" is used (")
    appendLimitSource(to: &message)
    message.append(")")
  }

  private func appendMappings(to message: inout TextBuffer) {
    var largest = LargestMappings()
    withUnsafeMutableBytes(of: &pointee.limits.input) {
      guard
        var file = ProcFile(
          "/proc/self/smaps", $0.baseAddress.unsafelyUnwrapped, capacity: $0.count)
      else { return }
      defer { file.close() }
      while let line = file.nextLine() {
        if let bytes = line.value(of: "Anonymous") {
          largest.end(bytes &* 1024)
        } else if let (_, path) = MemoryMaps.mapping(line) {
          largest.begin(path)
        }
      }
    }
    guard largest.bytes[0] > 0 else { return }
    message.append("; largest mappings: ")
    for place in 0..<LargestMappings.count where largest.bytes[place] > 0 {
      if place > 0 { message.append(", ") }
      message.append(byteCount: largest.bytes[place])
      message.append(" ")
      largest.appendName(place, to: &message)
    }
  }
}
