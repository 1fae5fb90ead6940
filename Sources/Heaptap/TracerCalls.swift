// SPDX-License-Identifier: Apache-2.0
// The one door to the tracer's C interface, and its stand-in where there is none.

#if os(Linux)
  import CHeaptap
  import Glibc

  /// What the tracer answers: 0 or an errno.
  enum TracerCalls {
    static func start(depth: UInt32) -> Int32 { heaptap_start(depth) }
    static func start(depth: UInt32, sampleBytes: Int) -> Int32 {
      heaptap_start_sampling(depth, sampleBytes)
    }
    static func stop() -> Int32 { heaptap_discard() }
    static func stopWithSnapshot() -> Int32 { heaptap_stop() }
    static var isRecording: Bool { heaptap_is_recording() != 0 }
    static func clear() -> Int32 { heaptap_clear() }
    static func mark() -> Int32 { heaptap_mark() }
    static func snapshot() -> Int32 { heaptap_snapshot() }
    static func snapshot(to path: String) -> Int32 { unsafe heaptap_snapshot_to(path) }
    static func resetPeak() -> Int32 { heaptap_reset_peak() }
    static func track(_ domain: UInt32, _ address: UInt, _ byteCount: Int) -> Int32 {
      heaptap_track(domain, address, byteCount)
    }
    static func untrack(_ domain: UInt32, _ address: UInt) -> Int32 {
      heaptap_untrack(domain, address)
    }
    static func figures() -> (error: Int32, HeapFigures) {
      var now = heaptap_figures()
      let error = unsafe heaptap_read(&now)
      return (
        error,
        HeapFigures(
          isRecording: now.is_recording != 0, liveBytes: Int(clamping: now.live_bytes),
          liveBlocks: Int(clamping: now.live_blocks), peakBytes: Int(clamping: now.peak_bytes),
          trackedBytes: Int(clamping: now.tracked_bytes),
          trackedBlocks: Int(clamping: now.tracked_blocks),
          tracerBytes: Int(clamping: now.tracer_bytes), lostBlocks: Int(clamping: now.lost_blocks),
          depthLimit: Int(clamping: now.depth), generation: Int(clamping: now.generation),
          sampleBytes: Int(clamping: now.sample_bytes),
          liveErrorBytes: Int(clamping: now.live_error_bytes))
      )
    }

    /// Addresses of the stack that a block was allocated from, innermost first, and how deep it was.
    static func traceback(_ block: UnsafeRawPointer) -> (addresses: [UInt], total: Int) {
      var total = 0
      let addresses = unsafe [UInt](unsafeUninitializedCapacity: 1024) { buffer, count in
        unsafe count = heaptap_traceback(block, buffer.baseAddress!, buffer.count, &total)
      }
      return (addresses, total)
    }

    /// What an answer means; `nil` where all went well.
    static func meaning(of error: Int32) -> HeapTracerError.Code? {
      switch error {
      case 0: nil
      case ENOSYS: .noTracer
      case EPERM: .off
      case ESRCH: .notRecording
      case EINVAL: .depthOutOfRange
      case ENOMEM: .outOfMemory
      case ERANGE: .generationsUsedUp
      case EBUSY: .sampledOtherwise
      case ETIMEDOUT: .timedOut
      default: .other
      }
    }
  }
#else
  enum TracerCalls {
    private static let unsupported: Int32 = 1

    static func start(depth: UInt32) -> Int32 { unsupported }
    static func start(depth: UInt32, sampleBytes: Int) -> Int32 { unsupported }
    static func stop() -> Int32 { unsupported }
    static func stopWithSnapshot() -> Int32 { unsupported }
    static var isRecording: Bool { false }
    static func clear() -> Int32 { unsupported }
    static func mark() -> Int32 { unsupported }
    static func snapshot() -> Int32 { unsupported }
    static func snapshot(to path: String) -> Int32 { unsupported }
    static func resetPeak() -> Int32 { unsupported }
    static func track(_ domain: UInt32, _ address: UInt, _ byteCount: Int) -> Int32 { unsupported }
    static func untrack(_ domain: UInt32, _ address: UInt) -> Int32 { unsupported }
    static func figures() -> (error: Int32, HeapFigures) { (unsupported, HeapFigures()) }
    static func traceback(_ block: UnsafeRawPointer) -> (addresses: [UInt], total: Int) { ([], 0) }

    static func meaning(of error: Int32) -> HeapTracerError.Code? {
      error == 0 ? nil : .unsupportedPlatform
    }
  }
#endif
