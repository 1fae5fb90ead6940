// SPDX-License-Identifier: Apache-2.0
// Memory that a running thread may give back at any moment, read by the kernel in our name.

import CTracerPlatform

/// A pipe that memory is written to and read back from.
///
/// What is unmapped by then makes the write come short, where a load would end the daemon by SIGSEGV.
/// No more rights are needed than to make a pipe, and many places are read in one go: 40 ns for each of
/// 512 words, measured, and less where they are near each other. /proc/self/mem takes 1.2 µs for a word, and
/// process_vm_readv is not among the calls that service managers allow (@system-service).
struct ForeignMemory {
  /// Bytes of one transfer that are of use.
  static var byteLimit: Int { 16384 }

  private let readingEnd: Int32
  private let writingEnd: Int32
  /// Bytes that the pipe has room for, up to that: a page at least.
  let byteLimit: Int

  /// `nil` where there are no descriptors left, or a filter refuses pipes.
  init?() {
    var ends = InlineArray<2, Int32>(repeating: -1)
    let answer = withUnsafeMutableBytes(of: &ends) {
      System.call(SYS_pipe2, Int(bitPattern: $0.baseAddress), Int(O_CLOEXEC | O_NONBLOCK))
    }
    guard answer == 0 else { return nil }
    readingEnd = ends[0]
    writingEnd = ends[1]
    // A user with many pipes gets small ones. (F_GETPIPE_SZ)
    let room = System.call(SYS_fcntl, Int(ends[1]), 1032)
    byteLimit = min(max(room, 4096), Self.byteLimit)
  }

  func close() {
    System.close(readingEnd)
    System.close(writingEnd)
  }

  /// Copies so many bytes, a page at most; `false` where not all of them are there.
  func copy(_ address: UInt, _ byteCount: Int, to bytes: UnsafeMutableRawPointer) -> Bool {
    guard address < LiveMap.addressLimit, byteCount <= 4096 else { return false }
    let written = System.restarting {
      System.call(SYS_write, Int(writingEnd), Int(bitPattern: address), byteCount)
    }
    return take(written, byteCount, to: bytes)
  }

  /// Copies what the vectors lead to, one behind the other; `false` where not all of it is there. The
  /// kernel does not tell what is missing.
  func copy(
    _ vectors: UnsafePointer<iovec>, _ count: Int, _ byteCount: Int,
    to bytes: UnsafeMutableRawPointer
  ) -> Bool {
    let written = System.restarting {
      System.call(SYS_writev, Int(writingEnd), Int(bitPattern: vectors), count)
    }
    return take(written, byteCount, to: bytes)
  }

  /// Takes out what was written, if that is all, and leaves the pipe empty.
  private func take(_ written: Int, _ byteCount: Int, to bytes: UnsafeMutableRawPointer) -> Bool {
    let count = System.read(readingEnd, bytes, byteCount)
    if written == byteCount, count == byteCount { return true }
    // Some kernels leave an empty page in the pipe after a fault, which a read of nothing takes out.
    while System.read(readingEnd, bytes, byteCount) > 0 {}
    return false
  }

  func word(_ address: UInt) -> UInt? {
    var word: UInt = 0
    let isThere = withUnsafeMutableBytes(of: &word) {
      copy(address, 8, to: $0.baseAddress.unsafelyUnwrapped)
    }
    return isThere ? word : nil
  }

  func halfWord(_ address: UInt) -> UInt32? {
    var word: UInt32 = 0
    let isThere = withUnsafeMutableBytes(of: &word) {
      copy(address, 4, to: $0.baseAddress.unsafelyUnwrapped)
    }
    return isThere ? word : nil
  }

  /// Copies bytes up to a zero, which is not among those that are counted; `nil` where none follows
  /// within the limit, or memory ends before it. A page is not asked for before the one ahead is read.
  func copyText(_ address: UInt, to bytes: UnsafeMutableRawPointer, limit: Int) -> Int? {
    var count = 0
    while count < limit {
      let place = address &+ UInt(count)
      let part = min(min(limit &- count, 64), 4096 &- Int(place & 4095))
      guard copy(place, part, to: bytes + count) else { return nil }
      for _ in 0..<part {
        if bytes.load(fromByteOffset: count, as: UInt8.self) == 0 { return count }
        count &+= 1
      }
    }
    return nil
  }
}
