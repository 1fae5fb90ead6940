// SPDX-License-Identifier: Apache-2.0
// Memory that a running thread may give back at any moment, read by the kernel in our name.

import CTracerPlatform

/// A pipe that memory is written to and read back from.
///
/// What is unmapped by then makes the write come short, where a load would end the daemon by SIGSEGV.
/// No more rights are needed than to make a pipe, and many places are read in one go: 40 ns for each
/// word of 512, measured, where /proc/self/mem takes 1.2 µs for one, and process_vm_readv is not among
/// the calls that service managers allow (@system-service).
struct ForeignMemory {
  /// Bytes of one transfer: a page, which every pipe has room for.
  static var byteLimit: Int { 4096 }

  private let readingEnd: Int32
  private let writingEnd: Int32

  /// `nil` where there are no descriptors left, or a filter refuses pipes.
  init?() {
    var ends = InlineArray<2, Int32>(repeating: -1)
    let answer = withUnsafeMutableBytes(of: &ends) {
      System.call(SYS_pipe2, Int(bitPattern: $0.baseAddress), Int(O_CLOEXEC | O_NONBLOCK))
    }
    guard answer == 0 else { return nil }
    readingEnd = ends[0]
    writingEnd = ends[1]
  }

  func close() {
    System.close(readingEnd)
    System.close(writingEnd)
  }

  /// Copies so many bytes, at most `byteLimit`; `false` where not all of them are there.
  func copy(_ address: UInt, _ byteCount: Int, to bytes: UnsafeMutableRawPointer) -> Bool {
    guard address < LiveMap.addressLimit, byteCount <= Self.byteLimit else { return false }
    let written = System.restarting {
      System.call(SYS_write, Int(writingEnd), Int(bitPattern: address), byteCount)
    }
    return take(written, byteCount, to: bytes)
  }

  /// Copies the words that the vectors lead to, in their order; 0 for each that is not there.
  ///
  /// As many as fit into `byteLimit`. Each vector is of eight bytes. Costs more where a word is missing:
  /// the kernel does not tell which, and the half is asked for again.
  func copyWords(
    _ vectors: UnsafePointer<iovec>, _ count: Int, to words: UnsafeMutablePointer<UInt>
  ) {
    guard count > 0 else { return }
    let written = System.restarting {
      System.call(SYS_writev, Int(writingEnd), Int(bitPattern: vectors), count)
    }
    if take(written, count &* 8, to: words) { return }
    guard count > 1 else {
      words[0] = 0
      return
    }
    let half = count / 2
    copyWords(vectors, half, to: words)
    copyWords(vectors + half, count &- half, to: words + half)
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
