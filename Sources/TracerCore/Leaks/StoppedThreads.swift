// SPDX-License-Identifier: Apache-2.0
// Stops the threads of the process, from a process beside it, and reads their registers.

import CTracerPlatform
import Synchronization

/// What ptrace(2) is asked for.
private enum Trace {
  static func call(_ request: Int, _ thread: Int32, _ address: Int = 0, _ data: Int = 0) -> Int {
    System.call(SYS_ptrace, request, Int(thread), address, data)
  }

  static var resume: Int { 7 }  // PTRACE_CONT
  static var detach: Int { 17 }  // PTRACE_DETACH
  static var registers: Int { 0x4204 }  // PTRACE_GETREGSET
  static var seize: Int { 0x4206 }  // PTRACE_SEIZE
  static var interrupt: Int { 0x4207 }  // PTRACE_INTERRUPT

  /// Which registers: the general ones, and those of the vector unit. (NT_PRSTATUS, NT_X86_XSTATE)
  static var general: Int { 1 }
  static var vector: Int { 0x202 }
}

/// A thread that is held, or about to be.
private struct StoppedThread {
  var number: Int32
  /// The signal that was on its way to it, and goes on when it does.
  var signal: Int32
  var isStopped: Bool
}

/// The threads of another process, held until they are let go.
///
/// They are released by the kernel as well when this process dies, whichever way.
struct StoppedThreads {
  enum Problem {
    case refused, tooMany, notInTime, noMemory, noList
  }

  private static var limit: Int { 1 << 16 }
  private static var tableByteCount: Int { limit &* MemoryLayout<StoppedThread>.stride }
  private static var stateByteCount: Int { 16 << 10 }
  private static var byteCount: Int { tableByteCount &+ limit &* 8 &+ stateByteCount }

  private let process: Int32
  /// The tracer's own thread, which waits for us.
  private let spared: Int32
  private let threads: UnsafeMutablePointer<StoppedThread>
  private(set) var count = 0
  /// Stack pointers, in order once `sortStackPointers` was called; they come with the registers.
  private let stackPointers: UnsafeMutablePointer<UInt>
  private var stackPointerCount = 0
  private let state: UnsafeMutableRawPointer

  init?(process: Int32, sparing spared: Int32) {
    guard let base = System.map(Self.byteCount) else { return nil }
    (self.process, self.spared) = (process, spared)
    threads = base.assumingMemoryBound(to: StoppedThread.self)
    stackPointers = (base + Self.tableByteCount).assumingMemoryBound(to: UInt.self)
    state = base + Self.tableByteCount + Self.limit &* 8
  }

  // MARK: Stopping

  /// Stops every thread but the spared one. What is stopped stays so, whatever is answered.
  ///
  /// A thread that is running may make another: the list is read until there is nothing new on it.
  mutating func stopAll() -> Problem? {
    while true {
      let before = count
      if let problem = seizeNew() { return problem }
      if count == before { return nil }
      for position in before..<count {
        guard wait(for: position) else { return .notInTime }
      }
    }
  }

  /// Lets those threads run that a test names until it no longer does, some hundred times at most;
  /// `false` where it then still names one.
  mutating func runOn(while isBusy: (_ thread: Int32) -> Bool) -> Bool {
    for round in 0..<100 {
      var isAnyBusy = false
      // What a busy thread waits for, such as a lock of the allocator's, another one may have.
      let isForAll = round % 8 == 7
      for position in 0..<count where threads[position].isStopped {
        if isBusy(threads[position].number) { isAnyBusy = true }
      }
      if !isAnyBusy { return true }
      for position in 0..<count where threads[position].isStopped {
        guard isForAll || isBusy(threads[position].number) else { continue }
        threads[position].isStopped = false
        _ = Trace.call(
          Trace.resume, threads[position].number, 0, Int(threads[position].signal))
        threads[position].signal = 0
      }
      // Until the busy ones are through, or for a while.
      for _ in 0..<50 {
        System.sleep(nanoseconds: 50_000)
        var isAnyBusy = false
        for position in 0..<count where !threads[position].isStopped {
          if isBusy(threads[position].number) { isAnyBusy = true }
        }
        if !isAnyBusy { break }
      }
      for position in 0..<count where !threads[position].isStopped {
        _ = Trace.call(Trace.interrupt, threads[position].number)
      }
      for position in 0..<count where !threads[position].isStopped {
        guard wait(for: position) else { return false }
      }
      if stopAll() != nil { return false }
    }
    return false
  }

  /// Whether every thread is stopped that was met, or has ended.
  var areStopped: Bool {
    for position in 0..<count where !threads[position].isStopped { return false }
    return true
  }

  /// Lets all threads go.
  mutating func release() {
    for position in 0..<count where threads[position].number != 0 {
      let thread = threads[position]
      // What has not stopped yet cannot be let go; our end will.
      _ = Trace.call(Trace.detach, thread.number, 0, Int(thread.signal))
    }
    count = 0
  }

  func discard() { System.unmap(UnsafeMutableRawPointer(threads), Self.byteCount) }

  private mutating func seizeNew() -> Problem? {
    var problem: Problem?
    let hasList = Self.forEachThread(of: process, state, Self.stateByteCount) { number in
      guard problem == nil, number != spared, !isKnown(number) else { return }
      guard count < Self.limit else {
        problem = .tooMany
        return
      }
      guard Trace.call(Trace.seize, number) == 0 else {
        // In a namespace for children only (unshare(2)) we know nobody by their numbers.
        if !Self.hasEnded(number, of: process) { problem = .refused }
        return
      }
      _ = Trace.call(Trace.interrupt, number)
      threads[count] = StoppedThread(number: number, signal: 0, isStopped: false)
      count &+= 1
    }
    return hasList ? problem : .noList
  }

  private func isKnown(_ number: Int32) -> Bool {
    for position in 0..<count where threads[position].number == number { return true }
    return false
  }

  /// Waits for a thread to stop or end; `false` where it does neither in time: it may wait for a disk,
  /// or for the child of a vfork.
  private mutating func wait(for position: Int) -> Bool {
    var pause = 20_000
    // One that does not stop now will not a minute later.
    let deadline = System.monotonicTime &+ 2_000_000_000
    while true {
      var status: Int32 = 0
      // WNOHANG and __WALL: it is no child of ours.
      let answer = withUnsafeMutablePointer(to: &status) {
        System.call(
          SYS_wait4, Int(threads[position].number), Int(bitPattern: $0), 1 | 0x4000_0000, 0)
      }
      if answer > 0, status & 0xff == 0x7f {
        // Above the signal: which event it is. Without one, the signal is the thread's own.
        threads[position].signal = status >> 16 == 0 ? status >> 8 & 0xff : 0
        threads[position].isStopped = true
        return true
      }
      if answer != 0 {
        // Ended. As number 0 it is nobody's.
        threads[position].number = 0
        threads[position].isStopped = true
        return true
      }
      guard System.monotonicTime < deadline else { return false }
      System.sleep(nanoseconds: pause)
      pause = min(pause &* 2, 1_000_000)
    }
  }

  // MARK: Threads

  /// Calls the body for each thread of a process; `false` where there is no list.
  static func forEachThread(
    of process: Int32, _ buffer: UnsafeMutableRawPointer, _ capacity: Int,
    _ body: (_ number: Int32) -> Void
  ) -> Bool {
    var bytes = InlineArray<64, UInt8>(repeating: 0)
    let descriptor = withUnsafeMutableBytes(of: &bytes) {
      var path = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 64)
      path.append("/proc/")
      path.append(decimal: UInt64(UInt32(bitPattern: process)))
      path.append("/task")
      return System.open(path.cString(), O_RDONLY | O_DIRECTORY)
    }
    guard descriptor >= 0 else { return false }
    defer { System.close(descriptor) }
    while true {
      let got = System.call(SYS_getdents64, Int(descriptor), Int(bitPattern: buffer), capacity)
      guard got > 0 else { return got == 0 }
      var offset = 0
      while offset < got {
        // struct linux_dirent64: the record's length at 16, its name at 19. (getdents64(2))
        let length = Int(buffer.loadUnaligned(fromByteOffset: offset &+ 16, as: UInt16.self))
        guard length > 19 else { return false }
        let name = UnsafeRawBufferPointer(start: buffer + offset + 19, count: length &- 19)
        let (number, digits) = name.number()
        if digits > 0 { body(Int32(truncatingIfNeeded: number)) }
        offset &+= length
      }
    }
  }

  /// Whether a thread is only an entry in a list, such as a first thread that has called pthread_exit.
  private static func hasEnded(_ thread: Int32, of process: Int32) -> Bool {
    var bytes = InlineArray<600, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      let base = $0.baseAddress.unsafelyUnwrapped
      var path = TextBuffer(base, capacity: 88)
      path.append("/proc/")
      path.append(decimal: UInt64(UInt32(bitPattern: process)))
      path.append("/task/")
      path.append(decimal: UInt64(UInt32(bitPattern: thread)))
      path.append("/stat")
      let state = ThreadFile.state(path.cString(), base + 88, capacity: 512)
      // Zombie, or dead.
      return state == nil || state == 0x5a || state == 0x58
    }
  }

  // MARK: Registers

  /// Calls the body for each word of the registers of each thread; `false` where some cannot be had.
  mutating func forEachRegister(_ body: (_ word: UInt) -> Void) -> Bool {
    var isComplete = true
    for position in 0..<count where threads[position].number != 0 {
      let number = threads[position].number
      let general = read(Trace.general, of: number)
      guard general >= MemoryLayout<user_regs_struct>.size else {
        isComplete = false
        continue
      }
      let stackPointer = UInt(state.load(as: user_regs_struct.self).rsp)
      stackPointers[stackPointerCount] = stackPointer
      stackPointerCount &+= 1
      forEachWord(general, body)
      // A pair of pointers may be on its way from one place to another. Not every machine has them.
      forEachWord(read(Trace.vector, of: number), body)
    }
    return isComplete
  }

  @inline(__always)
  private func forEachWord(_ byteCount: Int, _ body: (_ word: UInt) -> Void) {
    var offset = 0
    while offset &+ 8 <= byteCount {
      body(state.load(fromByteOffset: offset, as: UInt.self))
      offset &+= 8
    }
  }

  /// Reads a set of registers into `state`, and answers its size; 0 where there is none.
  private func read(_ set: Int, of thread: Int32) -> Int {
    var vector = iovec(iov_base: state, iov_len: Self.stateByteCount)
    let answer = withUnsafeMutablePointer(to: &vector) {
      Trace.call(Trace.registers, thread, set, Int(bitPattern: $0))
    }
    return answer == 0 ? min(Int(vector.iov_len), Self.stateByteCount) : 0
  }

  /// A stack pointer that is known otherwise.
  mutating func note(stackPointer: UInt) {
    guard stackPointerCount < Self.limit else { return }
    stackPointers[stackPointerCount] = stackPointer
    stackPointerCount &+= 1
  }

  mutating func sortStackPointers() {
    HeapSort.sort(stackPointers, stackPointerCount) { $0 < $1 }
  }

  /// The lowest stack pointer in a range.
  func stackPointer(in range: Range<UInt>) -> UInt? {
    var (start, end) = (0, stackPointerCount)
    while start < end {
      let middle = start &+ (end &- start) / 2
      if stackPointers[middle] < range.lowerBound { start = middle &+ 1 } else { end = middle }
    }
    guard start < stackPointerCount, stackPointers[start] < range.upperBound else { return nil }
    return stackPointers[start]
  }
}
