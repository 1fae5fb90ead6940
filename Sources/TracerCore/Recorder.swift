// SPDX-License-Identifier: Apache-2.0
// The tracer's whole state, and the words that it is described in.

// Glossary
//
// block       what malloc returned: an address and the bytes that were asked for
// site        a distinct stack from which blocks are allocated
// frame       one return address of a stack; stacks are kept innermost first
// row         how to step from one frame to its caller; frames are kept as numbers of rows
// recording   the time from a start to the next stop; each has an epoch
// generation  the time between two snapshots of a recording; a block is of the one it was born in
// snapshot    the state of the heap at one moment, and the act of writing it as a dump
// dump        the bytes of a snapshot, in a file
// picture     what the sites had alive at one moment, kept in memory until a dump tells of it
// loss        what was not recorded, always counted

import CTracerPlatform
import Synchronization

/// When a generation began.
package struct GenerationStart {
  package var wall: UInt64
  package var monotonic: UInt64
}

/// All state of the tracer. It lies in zeroed memory that C declares, and all zero is its first
/// state: nothing of it is ever initialised, so nothing runs before the first call of a hook.
package struct Core: ~Copyable {
  // Slept on by address, through `word`: they come first.
  /// What the worker sleeps on where there is no control page.
  private var wakeWord: UInt32
  /// 1 when the dump at the end of the process is written, or has failed.
  private var exitDoneWord: UInt32
  /// The ticket up to which requests of the API are carried out.
  private var servedWord: UInt32
  /// Which call of the API has the worker to itself: see `callWorker`.
  private var callerWord: UInt32
  /// 1 while no thread may begin to move a block: see `LeakSearch`.
  private var holdWord: UInt32

  // Read at every recorded call; written when recording starts and stops.
  package let isRecording: Atomic<UInt32>
  package let epoch: Atomic<UInt32>
  package let generation: Atomic<UInt32>
  /// Both of these as the words of new blocks carry them.
  package let birth: Atomic<UInt64>
  package var depth: UInt32
  package var ownStart: UInt64
  package var ownEnd: UInt64

  package let map: LiveMap
  package var sampling: Sampling
  package let tracked: TrackedTable
  package let sites: SiteTable
  package let rows: RowTable
  package let threads: ThreadPool
  package let threadTable: ThreadTable

  // Shared, and written by every thread now and then.
  /// Traced bytes, but for what threads have not yet published, and their high-water mark.
  package let publishedBytes: Atomic<Int64>
  package let peakBytes: Atomic<Int64>
  /// The thread that takes the traced bytes up to here wakes the worker; 0 while nobody need.
  package let wakeAtBytes: Atomic<Int64>
  /// Threads that have begun, and that have finished, to add their counts to `retired`.
  package let retiring: Atomic<UInt32>
  package let retiredThreads: Atomic<UInt32>
  /// What ended threads have counted, and what is counted without a thread.
  package let retired: Counters

  // Of the recording.
  package var startWall: UInt64
  package var startMonotonic: UInt64
  package var before: BeforeRecording
  /// Whether recording began with the process's first allocation: no block is older.
  package var hasSeenFirstAllocation: Bool
  package var generationStarts: UInt

  // Of the process.
  package var settings: Settings
  package var allocatorIsGlibc: Bool
  package var isOff: Bool
  /// Whether calls were served before the originals were known.
  package var hasBootBlocks: Bool
  package var processID: Int32
  package let requests: Requests
  /// The file that a call of the API wants a snapshot in: a C string.
  package var calledPath: InlineArray<4096, UInt8>
  /// The depth that a call of the API wants; 0 for the setting's.
  package var calledDepth: UInt32
  /// How far apart it wants the samples, in bytes, 0 for every block; `UInt64.max` for the setting's.
  package var calledSampling: UInt64
  package var dumps: DumpState
  package var notices: NoticeState
  package var limits: LimitState
  package var peaks: PeakState
  /// What `wakeAtBytes` was set to last.
  package var armedAtBytes: Int64
  package var leaks: LeakSearch
}

/// The one state of the process.
@inline(__always)
package var core: UnsafeMutablePointer<Core> {
  tracer_core_address().assumingMemoryBound(to: Core.self)
}

/// The words of the state that threads sleep on.
package enum CoreWord: Int {
  case wake = 0
  case exitDone = 4
  case served = 8
  case caller = 12
  case hold = 16
}

extension UnsafeMutablePointer where Pointee == Core {
  package func word(_ word: CoreWord) -> UnsafeMutablePointer<Atomic<UInt32>> {
    (UnsafeMutableRawPointer(self) + word.rawValue).assumingMemoryBound(to: Atomic<UInt32>.self)
  }
}
