// SPDX-License-Identifier: Apache-2.0
// The tracer of this process: recording, snapshots, figures, and memory of one's own.

@_exported import HeapModel
import Pprof

/// The heap tracer of this process.
///
/// The tracer is a library of its own, and this finds it where it is: a package that depends on the
/// product `heaptap` beside this one has it, as has a process that `heaptap run` started or that
/// libheaptap.so was preloaded into. Where there is none, every call throws an error that says so,
/// and `isRecording` is `false`.
///
///     try HeapTracer.start()
///     let before = try await HeapTracer.takeSnapshot()
///     serveAnHour()
///     let after = try await HeapTracer.takeSnapshot()
///     let growth = await after.symbolicated().compared(to: before.symbolicated(), groupedBy: .line)
///     for line in growth.prefix(10) { print(line) }
///
/// All of it may be called from any thread. What starts, stops, clears, marks and writes is carried
/// out by the tracer's own thread and waited for.
public enum HeapTracer {
  /// How many frames of a stack a recording can be asked to keep.
  public static let depthRange = 1...1024
  /// Bytes for each sample that a recording can be asked for.
  public static let sampleRange = 1 << 10...1 << 30

  // MARK: Recording

  /// Starts recording. Starting what records changes nothing.
  ///
  /// What is allocated already is not known, and never will be. While recording, an allocation and
  /// its free cost some 25 ns more where their stack has been seen before, else some 100 and up.
  ///
  /// - Parameter depth: How many frames of a stack to keep; `nil` for what `HEAPTAP_DEPTH` says, or
  ///   64. Deeper stacks are cut off at their outermost end, and say so.
  public static func start(depth: Int? = nil) throws(HeapTracerError) {
    if let depth, !depthRange.contains(depth) {
      throw HeapTracerError(.depthOutOfRange, "\(depth)")
    }
    try check(TracerCalls.start(depth: UInt32(depth ?? 0)))
  }

  /// Starts recording, of every block or of samples, whatever `HEAPTAP_SAMPLE` says.
  ///
  /// With samples an allocation costs a few instructions more than without the tracer, and figures are
  /// estimates: see `Snapshot.liveErrorBytes`. Starting what records changes nothing.
  ///
  /// - Parameters:
  ///   - sampleBytes: Bytes for each sample, on average, within `sampleRange`; 0 for every block. A
  ///     process that has sampled does so at one distance for as long as it lives.
  ///   - depth: As for `start(depth:)`.
  public static func start(
    sampleBytes: Int, depth: Int? = nil
  ) throws(HeapTracerError) {
    if let depth, !depthRange.contains(depth) {
      throw HeapTracerError(.depthOutOfRange, "\(depth)")
    }
    if sampleBytes != 0, !sampleRange.contains(sampleBytes) {
      throw HeapTracerError(.samplingOutOfRange, "\(sampleBytes)")
    }
    try check(TracerCalls.start(depth: UInt32(depth ?? 0), sampleBytes: sampleBytes))
  }

  /// Stops recording and gives the tracer's memory back. Stopping what does not record changes
  /// nothing.
  ///
  /// What was recorded is gone: take a snapshot before, or have a last one written.
  ///
  /// - Parameter writingSnapshot: Whether a last snapshot is written to where dumps go.
  public static func stop(writingSnapshot: Bool = false) throws(HeapTracerError) {
    try check(writingSnapshot ? TracerCalls.stopWithSnapshot() : TracerCalls.stop())
  }

  /// Whether allocations are being recorded.
  public static var isRecording: Bool { TracerCalls.isRecording }

  /// Forgets every block, the totals and the peak, and goes on recording.
  ///
  /// What is alive now counts from here on as allocated before the recording. Takes a millisecond.
  public static func clear() throws(HeapTracerError) { try check(TracerCalls.clear()) }

  // MARK: Figures

  /// What is traced now, and was at most. Costs some microseconds.
  public static func figures() throws(HeapTracerError) -> HeapFigures {
    let (error, figures) = TracerCalls.figures()
    try check(error)
    return figures
  }

  /// Has the peak begin anew, from what is alive now.
  public static func resetPeak() throws(HeapTracerError) { try check(TracerCalls.resetPeak()) }

  // MARK: Snapshots

  /// The heap as it is now, with addresses for frames: see `Snapshot.symbolicated()`.
  ///
  /// Blocks the calling thread until the tracer has written the snapshot to a file of the temporary
  /// directory, and reads that: some 50 ms for a million blocks. What the snapshot itself takes is
  /// in later ones. Each begins a new generation.
  public static func takeSnapshot() throws(HeapTracerError) -> Snapshot {
    try SnapshotFile.write().read()
  }

  /// The heap as it is now, without holding up the calling actor.
  public static func takeSnapshot() async throws(HeapTracerError) -> Snapshot {
    try await Background.run { () throws(HeapTracerError) -> Snapshot in
      try SnapshotFile.write().read()
    }
  }

  /// Writes a snapshot to where dumps go, as `heaptap snapshot` has it written, and begins a new
  /// generation.
  public static func writeSnapshot() throws(HeapTracerError) {
    try check(TracerCalls.snapshot(), writing: "the directory for dumps")
  }

  /// Writes a snapshot to a file, in the place of one that is there, and begins a new generation.
  ///
  /// The file is a pprof profile, whole when it has its name, and is not synced to disk.
  public static func writeSnapshot(to path: String) throws(HeapTracerError) {
    try check(TracerCalls.snapshot(to: path), writing: "'\(path)'")
  }

  /// Begins a new generation, so that later snapshots tell what was born before from what was born
  /// since: `snapshot.filtered(.generation(n))`.
  ///
  /// - Returns: The number of the generation that begins.
  @discardableResult
  public static func markGeneration() throws(HeapTracerError) -> Int {
    try check(TracerCalls.mark())
    return try figures().generation
  }

  // MARK: Single blocks

  /// The stack that a live block was allocated from, with names; `nil` where the block is not known,
  /// because it was allocated before recording began, or is none of malloc's.
  ///
  /// Looking it up costs a load or two; to name its frames may take seconds the first time, as with
  /// `Snapshot.symbolicated()`, for which the asynchronous form does not hold up the caller.
  public static func allocationStack(
    of block: UnsafeRawPointer
  ) throws(HeapTracerError) -> Stack? {
    try unsafe AllocationStack(of: block)?.named()
  }

  /// The stack that a live block was allocated from, with names, without holding up the caller.
  public static func allocationStack(
    of block: UnsafeRawPointer
  ) async throws(HeapTracerError) -> Stack? {
    // Now: the block may be gone when a thread is found.
    guard let found = try unsafe AllocationStack(of: block) else { return nil }
    return await Background.run { found.named() }
  }

  /// The stack that an object was allocated from; `nil` also where it is on no heap.
  public static func allocationStack(of object: AnyObject) throws(HeapTracerError) -> Stack? {
    try unsafe AllocationStack(of: UnsafeRawPointer(Unmanaged.passUnretained(object).toOpaque()))?
      .named()
  }

  // MARK: Memory that malloc does not hand out

  /// Tells of memory that malloc did not hand out: a pool's, a mapping's, a device's.
  ///
  /// Snapshots have it with the stack of this call, under its domain, until it is untracked or
  /// recording stops. A second call for an address of a domain replaces the first.
  ///
  /// - Parameters:
  ///   - address: Any number: it need not be an address of this process.
  ///   - byteCount: How large it is.
  ///   - domain: A number of the program's own choice, from 1 up; 0 is the heap's.
  public static func track(
    address: UInt, byteCount: Int, domain: UInt32
  ) throws(HeapTracerError) {
    try check(TracerCalls.track(domain, address, byteCount))
  }

  /// Takes it back. What is not tracked is no error.
  public static func untrack(address: UInt, domain: UInt32) throws(HeapTracerError) {
    try check(TracerCalls.untrack(domain, address))
  }

  // MARK: Answers

  static func check(_ error: Int32) throws(HeapTracerError) {
    guard let code = TracerCalls.meaning(of: error) else { return }
    throw HeapTracerError(code, errno: error)
  }

  static func check(_ error: Int32, writing file: String) throws(HeapTracerError) {
    guard let code = TracerCalls.meaning(of: error) else { return }
    // Of a file, what else might be meant by these is the file's.
    switch code {
    case .noTracer, .off, .notRecording, .timedOut, .unsupportedPlatform:
      throw HeapTracerError(code, errno: error)
    default:
      throw HeapTracerError(
        .file, errno: error, "cannot write \(file): \(SnapshotFile.words(for: error))")
    }
  }
}
