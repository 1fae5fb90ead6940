// SPDX-License-Identifier: Apache-2.0
// The search for lost blocks at the end of a process: a process beside it holds its threads, and looks.

import CTracerPlatform
import Synchronization

/// Why nothing can be said of lost blocks. All zero is: it was not looked for.
enum LeakProblem: UInt32 {
  case notAsked = 0
  case none
  case noMemory, noProcess, died, filtered, refused, tooManyThreads, notInTime, noThreadList
  case noMappings, noPageMap, noRegisters, otherNumbers, sampled

  /// What a dump, and a message, say after "leaks were not looked for: ".
  var words: StaticString {
    switch self {
    case .notAsked, .none: ""
    case .noMemory: "the kernel gave no memory for the search"
    case .noProcess: "the kernel gave no process to stop the threads by (RLIMIT_NPROC, pids.max)"
    case .died: "the process that was to look was killed"
    case .filtered: "a seccomp filter may kill who calls ptrace"
    case .refused:
      "the kernel does not let the threads be stopped by ptrace (a debugger, PR_SET_DUMPABLE, ptrace_scope)"
    case .tooManyThreads: "there are more than 65536 threads"
    case .notInTime: "it took longer than a minute, or a thread could not be stopped"
    case .noThreadList, .noMappings: "/proc cannot be read"
    case .noPageMap: "/proc/self/pagemap cannot be read"
    case .otherNumbers: "/proc is that of another PID namespace"
    case .noRegisters: "the registers of a thread could not be read"
    case .sampled:
      "few blocks were recorded, and the others may lead to them (heaptap_start_sampling)"
    }
  }
}

/// The search's state. All zero is: nothing was looked for.
package struct LeakSearch: ~Copyable {
  /// The helper waits for 1, and says 2 when it knows.
  let stage: Atomic<UInt32>
  /// A `LeakProblem`.
  let problem: Atomic<UInt32>
  /// The thread that waits for the helper, where it is the tracer's, and the end of its own stack frames.
  var worker: Int32
  package var workerStack: UInt
  /// A place on the stack of the thread that ends the process, below which nothing of it is.
  package var endingStack: UInt
  /// Whether ptrace would be the end of the helper, which then does without.
  var isTracingDeadly: Bool
  var index: BlockIndex?
  /// What the search came to, for the dump.
  var rootByteCount: UInt64
  var stoppedNanoseconds: UInt64
  /// 1 where a block was on the way to another address in a thread that could not go on.
  var wasMoving: Bool

  var outcome: LeakProblem? { LeakProblem(rawValue: problem.load(ordering: .acquiring)) }

  /// How a block is held; where it was not looked for, as all are.
  @inline(__always)
  func reach(ofBlockAt address: UInt) -> Reach { index?.reach(ofBlockAt: address) ?? .held }

  static var nanosecondLimit: UInt64 { 60_000_000_000 }
  static var stackByteCount: Int { 256 << 10 }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Where glibc is mapped, if the blocks are its; empty otherwise.
  var glibcRange: Range<UInt> {
    var object = tracer_object()
    guard pointee.allocatorIsGlibc, let malloc = tracer_originals.malloc,
      tracer_find_object(UInt64(unsafeBitCast(malloc, to: UInt.self)), &object) == 0
    else { return 0..<0 }
    return UInt(object.start)..<UInt(object.end)
  }

  // MARK: In the process

  /// Finds out which blocks nothing leads to. Threads that run meanwhile are stopped, and go on.
  ///
  /// Cost: a second for a GiB or two of what is read, in which no thread runs.
  func searchForLeaks() {
    let problem = pointee.sampling.isOn ? .sampled : runHelper()
    if problem != .none {
      pointee.leaks.problem.store(problem.rawValue, ordering: .relaxed)
      withMessage { message in
        message.append("leaks were not looked for: ")
        message.append(problem.words)
        notify(.trouble, message.bytes)
      }
    }
  }

  func forgetLeaks() {
    pointee.leaks.index?.discard()
    pointee.leaks.index = nil
  }

  private func runHelper() -> LeakProblem {
    guard let number = Self.ownNumberInProc else { return .noThreadList }
    // By numbers of another namespace, other processes' threads would be stopped, and not ours.
    guard number == UInt64(UInt32(bitPattern: pointee.processID)) else { return .otherNumbers }
    let stackByteCount = LeakSearch.stackByteCount
    guard let stack = System.map(stackByteCount) else { return .noMemory }
    // The lowest page ends who runs over, rather than let it write to something else.
    _ = System.call(SYS_mprotect, Int(bitPattern: stack), System.pageByteCount, 0)
    defer { System.unmap(stack, stackByteCount) }
    let end = stack + stackByteCount
    // A signal that is for all of this process's group must not be handled in the helper.
    var (all, before) = (UInt64.max, UInt64(0))
    _ = System.call(
      SYS_rt_sigprocmask, Int(SIG_SETMASK), address(of: &all), address(of: &before), 8)
    defer { _ = System.call(SYS_rt_sigprocmask, Int(SIG_SETMASK), address(of: &before), 0, 8) }
    pointee.leaks.isTracingDeadly = System.isFiltered && isTracingDeadly(end)
    pointee.leaks.problem.store(LeakProblem.died.rawValue, ordering: .relaxed)
    pointee.leaks.stage.store(0, ordering: .relaxed)
    let worker = Int32(bitPattern: pointee.requests.worker.load(ordering: .relaxed))
    pointee.leaks.worker = worker == System.threadID ? worker : 0
    // CLONE_VM: our memory, not a copy of it, which a large process may have no room or time for.
    // CLONE_FILES, CLONE_FS: nothing that would outlive us. No signal at its end: our parent's business.
    let helper = tracer_clone(0x100 | 0x200 | 0x400, end, { $0.helpWithLeaks() }, self)
    guard helper > 0 else { return .noProcess }
    // Where ptrace is for descendants only (Yama), it is for this one too. It was for none before, or
    // for somebody whom the process has named for its end: that has come.
    _ = System.call(SYS_prctl, Int(PR_SET_PTRACER), helper)
    pointee.leaks.stage.store(1, ordering: .releasing)
    let status = wait(for: helper)
    word(.hold).pointee.store(0, ordering: .releasing)
    System.wake(UnsafeMutableRawPointer(word(.hold)), shared: false)
    _ = System.call(SYS_prctl, Int(PR_SET_PTRACER), 0)
    let said = LeakProblem(rawValue: pointee.leaks.problem.load(ordering: .acquiring)) ?? .died
    guard status == 0 else { return .died }
    return said
  }

  /// This process's number in the PID namespace that /proc was mounted for.
  private static var ownNumberInProc: UInt64? {
    let path: StaticString = "/proc/self"
    var bytes = InlineArray<24, UInt8>(repeating: 0)
    return withUnsafeMutableBytes(of: &bytes) {
      let count = System.call(
        SYS_readlinkat, Int(AT_FDCWD), Int(bitPattern: path.utf8Start),
        Int(bitPattern: $0.baseAddress), 24)
      guard count > 0 else { return nil }
      return UnsafeRawBufferPointer(rebasing: $0[..<min(count, 24)]).number().value
    }
  }

  /// Whether ptrace is deadly here: tried by a process with a copy of our memory, that goes alone.
  private func isTracingDeadly(_ stack: UnsafeMutableRawPointer) -> Bool {
    let child = tracer_clone(
      0, stack,
      { _ in
        // No core dump of a copy of the daemon.
        _ = System.call(SYS_prctl, Int(PR_SET_DUMPABLE), 0)
        _ = System.call(SYS_ptrace, 17, 0)  // PTRACE_DETACH from nobody
      }, self)
    return child < 0 || wait(for: child) != 0
  }

  /// How a child that sends no signal has ended.
  private func wait(for child: Int) -> Int32 {
    var status: Int32 = 0
    while true {
      // __WALL
      let answer = System.call(SYS_wait4, child, address(of: &status), 0x4000_0000, 0)
      if answer != -Int(EINTR) { return answer == child ? status : -1 }
    }
  }

  private func address<Value>(of value: inout Value) -> Int {
    withUnsafeMutablePointer(to: &value) { Int(bitPattern: $0) }
  }
}

// MARK: In the helper

extension UnsafeMutableRawPointer {
  /// The helper's life: our memory, and a process of its own.
  fileprivate func helpWithLeaks() {
    assumingMemoryBound(to: Core.self).helpWithLeaks()
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  fileprivate func helpWithLeaks() {
    tracer_end_on_faults()
    // Should the process be killed, its memory is not to stay for our sake.
    _ = System.call(SYS_prctl, Int(PR_SET_PDEATHSIG), Int(SIGKILL))
    while pointee.leaks.stage.load(ordering: .acquiring) == 0 { System.sleep(nanoseconds: 20_000) }
    let problem = lookForLeaks()
    pointee.leaks.problem.store(problem.rawValue, ordering: .releasing)
  }

  private func lookForLeaks() -> LeakProblem {
    let start = System.monotonicTime
    var deadline = start &+ LeakSearch.nanosecondLimit
    guard
      var threads = StoppedThreads(process: pointee.processID, sparing: pointee.leaks.worker)
    else { return .noMemory }
    defer {
      threads.release()
      threads.discard()
      pointee.leaks.stoppedNanoseconds = System.monotonicTime &- start
    }
    switch pointee.leaks.isTracingDeadly ? .refused : threads.stopAll() {
    case nil: break
    case .refused where isEndingAlone:
      threads.note(stackPointer: pointee.leaks.endingStack)
      // It is not stopped, and waits for its dump for half a minute.
      deadline = start &+ LeakSearch.nanosecondLimit / 3
    case .refused: return pointee.leaks.isTracingDeadly ? .filtered : .refused
    case .tooMany: return .tooManyThreads
    case .notInTime: return .notInTime
    case .noMemory: return .noMemory
    case .noList: return .noThreadList
    }
    // Whoever is moving a block comes out, and nobody begins to.
    word(.hold).pointee.store(1, ordering: .sequentiallyConsistent)
    pointee.leaks.wasMoving = !threads.runOn { isMoving($0) }
    guard threads.areStopped else { return .notInTime }
    return mark(&threads, deadline)
  }

  /// Whether no other thread runs than the one that ends the process, and waits: its registers are on its
  /// stack, and it need not be stopped.
  private var isEndingAlone: Bool {
    guard pointee.leaks.endingStack != 0 else { return false }
    var count = 0
    let hasList = StoppedThreads.forEachThread(
      of: pointee.processID, pointee.dumps.input, DumpState.inputByteCount
    ) { number in
      if number != pointee.leaks.worker { count &+= 1 }
    }
    return hasList && count == 1
  }

  /// Whether a thread has a block under no address.
  private func isMoving(_ thread: Int32) -> Bool {
    guard thread != 0 else { return false }
    var isMoving = false
    pointee.threads.forEach { state in
      if state.pointee.owner.load(ordering: .relaxed) == UInt32(bitPattern: thread),
        state.pointee.isMoving.load(ordering: .acquiring) != 0
      {
        isMoving = true
      }
    }
    return isMoving
  }

  private func mark(_ threads: inout StoppedThreads, _ deadline: UInt64) -> LeakProblem {
    guard
      let index = BlockIndex(pointee.map, epoch: pointee.epoch.load(ordering: .relaxed))
    else { return .noMemory }
    guard let pages = PageMap(pointee.dumps.output) else { return .noPageMap }
    defer { pages.close() }
    guard let mapped = MappedRanges(pointee.dumps.input, capacity: DumpState.inputByteCount) else {
      return .noMappings
    }
    var mark = LeakMark(self, index, mapped, pages, deadline: deadline)
    guard threads.forEachRegister({ mark.visit($0) }) else { return .noRegisters }
    // Its stack may be a block.
    mark.visit(pointee.leaks.endingStack)
    threads.sortStackPointers()
    mark.visitRoots(threads, workerStack: pointee.leaks.workerStack)
    mark.flood()
    mark.sortLost()
    mapped.discard()
    pointee.leaks.rootByteCount = mark.rootByteCount
    guard !mark.isLate else {
      index.discard()
      return .notInTime
    }
    pointee.leaks.index = mark.index
    return .none
  }
}
