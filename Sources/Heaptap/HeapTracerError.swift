// SPDX-License-Identifier: Apache-2.0
// What a call of the tracer may come to, in words that say the way out.

/// What kept a call of the tracer from being carried out.
public struct HeapTracerError: Error, Hashable, Sendable {
  /// What went wrong, for programs to decide by.
  public enum Code: Hashable, Sendable {
    /// This platform has no tracer: Heaptap traces Linux processes.
    case unsupportedPlatform
    /// The tracer's library is not in this process.
    case noTracer
    /// The library is there and stays off for the life of the process.
    case off
    /// Nothing is being recorded, so there is nothing to ask about.
    case notRecording
    /// More frames, or fewer, than a recording can keep.
    case depthOutOfRange
    /// The kernel gave no memory for the tracer's tables.
    case outOfMemory
    /// A recording has 1023 generations, and these are used up.
    case generationsUsedUp
    /// A distance of samples that no recording can have.
    case samplingOutOfRange
    /// A process samples at one distance for as long as it lives: its threads are on their way.
    case sampledOtherwise
    /// What was asked for counts every block, and the recording samples.
    case isEstimate
    /// The tracer's thread did not answer within a minute.
    case timedOut
    /// A snapshot's file could not be written, or not be read again.
    case file
    /// Something that this version does not know: `errno` has it.
    case other
  }

  /// What went wrong.
  public let code: Code
  /// The error of the system behind it; 0 where there is none.
  public let errno: Int32
  /// What exactly, in words to be put into the sentence.
  public let detail: String?

  /// An error whose sentence is made from these.
  public init(_ code: Code, errno: Int32 = 0, _ detail: String? = nil) {
    self.code = code
    self.errno = errno
    self.detail = detail
  }
}

extension HeapTracerError: CustomStringConvertible {
  /// One sentence, with the way out.
  public var description: String {
    switch code {
    case .unsupportedPlatform:
      "there is no heap tracer for this platform, run on Linux to trace"
    case .noTracer:
      """
      there is no heap tracer in this process: link the product 'heaptap' of the package \
      'heaptap', start it by 'heaptap run', or preload libheaptap.so
      """
    case .off:
      """
      the heap tracer of this process is off for good: HEAPTAP is 0 or has a value that it \
      refused, another library's malloc comes first, or the process has raised privileges
      """
    case .notRecording:
      "nothing is being recorded, call 'HeapTracer.start()' first"
    case .depthOutOfRange:
      "a recording keeps from 1 to \(HeapTracer.depthRange.upperBound) frames of a stack"
        + (detail.map { ", not \($0)" } ?? "")
    case .outOfMemory:
      "the kernel gave the heap tracer no memory, look at RLIMIT_AS and overcommit"
    case .generationsUsedUp:
      "the recording has used up its generations, 'HeapTracer.clear()' begins anew"
    case .samplingOutOfRange:
      "a recording has a sample in 1 KiB at least and in 1 GiB at most"
        + (detail.map { ", not in \($0) bytes" } ?? "")
    case .sampledOtherwise:
      "this process has sampled at another distance, which holds for as long as it lives"
    case .isEstimate:
      "the recording samples, and this counts every block: stop it, or run without HEAPTAP_SAMPLE"
    case .timedOut:
      "the heap tracer did not answer within a minute, its disk may be stuck"
    case .file:
      "no snapshot: \(detail ?? "error \(errno)")"
    case .other:
      "the heap tracer refused with error \(errno)"
    }
  }
}
