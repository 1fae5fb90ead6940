// SPDX-License-Identifier: Apache-2.0
// What the worker may call of the C library beside a program whose one thread is left to believe itself alone.

import CTracerPlatform
import Synchronization

/// What the heap held when recording began. All zero is not known.
package struct BeforeRecording: ~Copyable {
  private let held: Atomic<UInt64>
  package var residentBytes: UInt64

  private static var awaited: UInt64 { .max }

  /// Bytes that the allocator had handed out; `nil` where it was not asked, or not yet.
  package var heapBytes: UInt64? {
    let bytes = held.load(ordering: .relaxed)
    return bytes == 0 || bytes == Self.awaited ? nil : bytes
  }

  borrowing func forget() { held.store(0, ordering: .relaxed) }
  borrowing func note(heapBytes: UInt64) { held.store(heapBytes, ordering: .relaxed) }
  borrowing func awaitHeap() { held.store(Self.awaited, ordering: .relaxed) }

  @inline(__always)
  var isAwaited: Bool { held.load(ordering: .relaxed) == Self.awaited }

  /// Whether the caller is the one to ask the allocator.
  borrowing func takeTurn() -> Bool {
    held.compareExchange(expected: Self.awaited, desired: 0, ordering: .relaxed).exchanged
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  // MARK: The allocator's figures

  /// Asks the allocator what it has handed out, or has the program's thread do so with its next call of it.
  ///
  /// Between now and then it calls nothing that is recorded, so that the answer is the same.
  func noteHeap() {
    if isLeftAlone, pointee.requests.libraryIsShared.load(ordering: .relaxed) == 0,
      !programWaitsForUs
    {
      pointee.before.awaitHeap()
    } else {
      askAllocator(excluding: 0)
    }
  }

  /// The other half, in the program's thread.
  ///
  /// - Parameter block: What it has just been handed out.
  /// Cost: a load; once in a recording, mallinfo2's walk over what is free.
  @inline(__always)
  func noteAwaitedHeap(excluding block: UnsafeMutableRawPointer? = nil) {
    if pointee.before.isAwaited { noteHeapNow(block) }
  }

  @inline(never)
  private func noteHeapNow(_ block: UnsafeMutableRawPointer?) {
    // Not where the program has others by now: the locks of their arenas would be waited for.
    guard pointee.before.takeTurn(), isLeftAlone else { return }
    // With the word before it in which glibc keeps a block's size.
    let size = block.flatMap { tracer_originals.malloc_usable_size?($0) }
    askAllocator(excluding: size.map { UInt64($0) &+ 8 } ?? 0)
  }

  private func askAllocator(excluding byteCount: UInt64) {
    var figures = tracer_heap_figures()
    guard tracer_heap_figures(&figures) == 0 else { return }
    pointee.before.note(heapBytes: figures.in_use &- min(byteCount, figures.in_use))
  }

  // MARK: Calls of the worker's

  /// Whether the worker may call what takes locks of the C library's, as a demangler does, which allocates.
  ///
  /// A program's thread that believes itself alone takes none. The first such call ends this: locks are
  /// taken by all that the thread calls from then on. What it may be in the middle of is over when it has
  /// been seen outside, in a call of its own that waits or in a hook.
  /// Cost: once in the life of such a program a millisecond or two; 50 where the thread is not seen, and
  /// then the answer is no.
  package func mayCallLibrary() -> Bool {
    guard pointee.requests.libraryIsShared.load(ordering: .relaxed) == 0,
      pointee.requests.worker.load(ordering: .relaxed) == UInt32(bitPattern: System.threadID),
      tracer_services.share_library?() ?? 0 != 0
    else { return true }
    // Not before the thread is sure to see it: what it counts now may be of a call from before.
    System.sleep(nanoseconds: 1_000_000)
    let before = countedCalls
    for _ in 0..<50 {
      if countedCalls != before || programWaits {
        pointee.requests.libraryIsShared.store(1, ordering: .relaxed)
        return true
      }
      System.sleep(nanoseconds: 1_000_000)
    }
    return false
  }

  private var countedCalls: UInt64 {
    let counters = counterValues()
    return counters.allocatedBlocks &+ counters.freedBlocks &+ counters.unknownFreedBlocks
  }

  // MARK: The program's thread

  /// Whether it may believe itself alone, and has made no other.
  var isLeftAlone: Bool { tracer_services.is_left_alone?() ?? 0 != 0 }

  /// Whether it sleeps in a system call that no allocator makes.
  private var programWaits: Bool {
    programsCall { call, _ in
      switch call {
      case SYS_read, SYS_poll, SYS_select, SYS_pause, SYS_nanosleep, SYS_accept, SYS_recvfrom,
        SYS_recvmsg, SYS_wait4, SYS_rt_sigtimedwait, SYS_rt_sigsuspend, SYS_clock_nanosleep,
        SYS_epoll_wait, SYS_waitid, SYS_pselect6, SYS_ppoll, SYS_epoll_pwait, SYS_accept4,
        SYS_recvmmsg, SYS_epoll_pwait2:
        return true
      default: return false
      }
    } || programWaitsForUs
  }

  /// Whether it sleeps until the worker has answered.
  private var programWaitsForUs: Bool {
    let served = UInt64(UInt(bitPattern: word(.served)))
    let exit = UInt64(UInt(bitPattern: word(.exitDone)))
    return programsCall { call, argument in
      call == SYS_futex && (argument == served || argument == exit)
    }
  }

  /// Asks about the system call that the process's first thread sleeps in, which is its only one, and
  /// the call's first argument; `false` where it sleeps in none. (proc_pid_syscall(5))
  private func programsCall(_ test: (_ call: Int32, _ argument: UInt64) -> Bool) -> Bool {
    var bytes = InlineArray<512, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      let base = $0.baseAddress.unsafelyUnwrapped
      var path = TextBuffer(base, capacity: 64)
      ThreadFile.appendPath(of: UInt32(bitPattern: pointee.processID), "/syscall", to: &path)
      guard var file = ProcFile(path: path.cString(), base + 64, capacity: 448) else {
        return false
      }
      defer { file.close() }
      // `232 0x5 …`; `running`, or -1 for a thread that waits for something else.
      guard let line = file.nextLine() else { return false }
      let (call, length) = line.number()
      guard length > 0, let argument = line.dropping(length).after(" 0x") else { return false }
      return test(Int32(truncatingIfNeeded: call), argument.number(radix: 16).value)
    }
  }
}
