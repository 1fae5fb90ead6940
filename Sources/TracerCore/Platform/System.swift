// SPDX-License-Identifier: Apache-2.0
// The one gate for system calls: made directly, so that errno is the daemon's and nothing is locked.

import CTracerPlatform
import Synchronization

/// System calls. Each answers `-errno` (as a negative number) where it fails.
enum System {
  @inline(__always)
  static func call(
    _ number: Int32, _ a: Int = 0, _ b: Int = 0, _ c: Int = 0, _ d: Int = 0, _ e: Int = 0,
    _ f: Int = 0
  ) -> Int {
    tracer_syscall(Int(number), a, b, c, d, e, f)
  }

  // MARK: Memory

  static let pageByteCount = 4096

  /// Takes zeroed address space from the kernel; pages come with their first use.
  ///
  /// Without huge pages: a table that is touched in a few places must not cost 2 MiB for each.
  /// Named, so that `/proc/PID/smaps` shows whose it is (where the kernel can name memory).
  static func map(_ byteCount: Int) -> UnsafeMutableRawPointer? {
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE
    // Unusable at first and then unlocked: where a program locks all of its future memory, the
    // kernel would put a page behind every address of every table at once.
    let result = call(SYS_mmap, 0, byteCount, Int(PROT_NONE), Int(flags), -1, 0)
    guard result > 0 else { return nil }
    _ = call(SYS_munlock, result, byteCount)
    guard call(SYS_mprotect, result, byteCount, Int(PROT_READ | PROT_WRITE)) == 0 else {
      _ = call(SYS_munmap, result, byteCount)
      return nil
    }
    _ = call(SYS_madvise, result, byteCount, Int(MADV_NOHUGEPAGE))
    let name: StaticString = "heaptap"
    _ = call(
      SYS_prctl, Int(PR_SET_VMA), Int(PR_SET_VMA_ANON_NAME), result, byteCount,
      Int(bitPattern: name.utf8Start))
    return UnsafeMutableRawPointer(bitPattern: result)
  }

  static func unmap(_ base: UnsafeMutableRawPointer, _ byteCount: Int) {
    _ = call(SYS_munmap, Int(bitPattern: base), byteCount)
  }

  /// Has every page of a range be there, and changes nothing in it. Nobody else may write to it now.
  ///
  /// A load and a store: an atomic "or" of nothing is compiled to a load, which finds the zero page that
  /// costs nobody anything.
  static func touch(_ base: UnsafeMutableRawPointer, _ byteCount: Int) {
    var offset = 0
    while offset < byteCount {
      let word = (base + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
      word.pointee.store(word.pointee.load(ordering: .relaxed), ordering: .relaxed)
      offset &+= pageByteCount
    }
  }

  /// Gives the pages back and keeps the addresses: reads find zeros, and a late write harms nobody.
  @discardableResult
  static func discard(_ base: UnsafeMutableRawPointer, _ byteCount: Int) -> Bool {
    call(SYS_madvise, Int(bitPattern: base), byteCount, Int(MADV_DONTNEED)) == 0
  }

  /// Whether eight bytes at an address can be read, without reading them in this process's name.
  ///
  /// The kernel copies the new signal mask before it looks at `how`, so an impossible `how` answers
  /// EFAULT for an unreadable address and EINVAL for a readable one, and changes nothing. The call
  /// is one that no seccomp profile can do without.
  static func isReadable(_ address: UInt) -> Bool {
    call(SYS_rt_sigprocmask, -1, Int(bitPattern: address), 0, 8) != -Int(EFAULT)
  }

  // MARK: Files

  static func open(
    _ path: UnsafePointer<CChar>, _ flags: Int32, mode: Int32 = 0, in directory: Int32 = AT_FDCWD
  ) -> Int32 {
    Int32(
      truncatingIfNeeded: call(
        SYS_openat, Int(directory), Int(bitPattern: path), Int(flags | O_CLOEXEC), Int(mode)))
  }

  /// For `open`: a look at what is there and a way into it, without the right to read it.
  static var pathOnly: Int32 { 0o10000000 }  // O_PATH

  /// What a descriptor leads to.
  static func facts(of descriptor: Int32) -> stat? {
    var facts = stat()
    let answer = withUnsafeMutablePointer(to: &facts) {
      call(SYS_fstat, Int(descriptor), Int(bitPattern: $0))
    }
    return answer == 0 ? facts : nil
  }

  static func close(_ descriptor: Int32) {
    _ = call(SYS_close, Int(descriptor))
  }

  static func read(_ descriptor: Int32, _ bytes: UnsafeMutableRawPointer, _ byteCount: Int) -> Int {
    restarting { call(SYS_read, Int(descriptor), Int(bitPattern: bytes), byteCount) }
  }

  /// Writes all bytes or answers `-errno`.
  static func write(_ descriptor: Int32, _ bytes: UnsafeRawPointer, _ byteCount: Int) -> Int {
    var written = 0
    while written < byteCount {
      let result = restarting {
        call(SYS_write, Int(descriptor), Int(bitPattern: bytes + written), byteCount &- written)
      }
      guard result > 0 else { return result < 0 ? result : -Int(EIO) }
      written &+= result
    }
    return 0
  }

  @inline(__always)
  static func restarting(_ body: () -> Int) -> Int {
    while true {
      let result = body()
      if result != -Int(EINTR) { return result }
    }
  }

  // MARK: Threads

  /// Whether a seccomp filter may kill the process for a call that it does not know.
  static var isFiltered: Bool { call(SYS_prctl, 21) == 2 }  // PR_GET_SECCOMP

  static var processID: Int32 { Int32(truncatingIfNeeded: call(SYS_getpid)) }
  static var threadID: Int32 { Int32(truncatingIfNeeded: call(SYS_gettid)) }

  /// Sleeps while the word holds the value, at most so long. `shared` where another process wakes it.
  static func wait(
    on word: UnsafeMutableRawPointer, while value: UInt32, nanoseconds: Int, shared: Bool
  ) {
    var timeout = timespec(
      tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    withUnsafePointer(to: &timeout) { timeout in
      _ = call(
        SYS_futex, Int(bitPattern: word), shared ? 0 : 128, Int(value), Int(bitPattern: timeout))
    }
  }

  static func wake(_ word: UnsafeMutableRawPointer, shared: Bool) {
    _ = call(SYS_futex, Int(bitPattern: word), shared ? 1 : 129, Int(Int32.max))
  }

  static func sleep(nanoseconds: Int) {
    var time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    withUnsafePointer(to: &time) { _ = call(SYS_nanosleep, Int(bitPattern: $0), 0) }
  }

  /// Nanoseconds of a clock, by the system call: the vDSO's function is the loader's to find.
  static func time(_ clock: Int32) -> UInt64 {
    var now = timespec()
    withUnsafeMutablePointer(to: &now) {
      _ = call(SYS_clock_gettime, Int(clock), Int(bitPattern: $0))
    }
    return UInt64(truncatingIfNeeded: now.tv_sec) &* 1_000_000_000
      &+ UInt64(truncatingIfNeeded: now.tv_nsec)
  }

  static var wallTime: UInt64 { time(CLOCK_REALTIME) }
  static var monotonicTime: UInt64 { time(CLOCK_MONOTONIC) }
}

/// The address of a table, from which all threads take it: 0 until the table is there.
extension Atomic where Value == UInt {
  /// Has zeroed address space be there, now or already; `false` where the kernel gives none. For one thread
  /// at a time.
  func map(_ byteCount: Int) -> Bool {
    guard load(ordering: .acquiring) == 0 else { return true }
    guard let fresh = System.map(byteCount) else { return false }
    store(UInt(bitPattern: fresh), ordering: .releasing)
    return true
  }

  /// The same for any number of threads at once: of what they have mapped one stays, and is new to one of
  /// them; `nil` where the kernel gives none.
  func mapConcurrently(_ byteCount: Int) -> (base: UnsafeMutableRawPointer, isNew: Bool)? {
    if let mapped { return (mapped, false) }
    guard let fresh = System.map(byteCount) else { return nil }
    let (isNew, other) = compareExchange(
      expected: 0, desired: UInt(bitPattern: fresh), ordering: .acquiringAndReleasing)
    if isNew { return (fresh, true) }
    System.unmap(fresh, byteCount)
    return UnsafeMutableRawPointer(bitPattern: other).map { ($0, false) }
  }

  /// What is there. Acquiring, so that the zeros of fresh memory are seen.
  @inline(__always)
  var mapped: UnsafeMutableRawPointer? {
    UnsafeMutableRawPointer(bitPattern: load(ordering: .acquiring))
  }

  /// Gives the pages back that are there, and keeps the addresses.
  func discard(_ byteCount: Int) {
    if let mapped { System.discard(mapped, byteCount) }
  }
}

/// Kinds of files, as `st_mode` has them. (inode(7))
enum FileKind: UInt32 {
  case pipe = 0o010000
  case characterDevice = 0o020000
  case regular = 0o100000

  init?(_ facts: stat) { self.init(rawValue: UInt32(facts.st_mode) & 0o170000) }
}
