// SPDX-License-Identifier: Apache-2.0
// The tracer's side of the control page.

import CControlPage
import CTracerPlatform
import Synchronization

/// Where the fields of the control page lie, for those that need an address.
enum ControlPage {
  static var wakeOffset: Int { 24 }
  static var commandsOffset: Int { 28 }
  static var requestedOffset: Int { 32 }
  static var handledOffset: Int { 36 }
  static var signalsOffset: Int { 112 }
  static var programOffset: Int { 176 }
  static var messageOffset: Int { 240 }
  static var dumpPathOffset: Int { 752 }
}

extension UnsafeMutablePointer where Pointee == tracer_control_page {
  func word(_ offset: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
    UnsafeMutableRawPointer(self).advanced(by: offset)
      .assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  /// Replaces a string of the page, with its NUL.
  func setText(_ offset: Int, capacity: Int, _ bytes: UnsafeRawBufferPointer) {
    let count = min(bytes.count, capacity &- 1)
    let base = UnsafeMutableRawPointer(self) + offset
    for position in 0..<count {
      base.storeBytes(of: bytes[position], toByteOffset: position, as: UInt8.self)
    }
    base.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Makes the control page in the calling thread's descriptor table, which must be the worker's
  /// own: there the descriptor stays open, unseen by the daemon.
  func makePage() {
    let name: StaticString = "heaptap-control"
    let flags = 1 | 2  // MFD_CLOEXEC | MFD_ALLOW_SEALING
    let noExecute = 8  // MFD_NOEXEC_SEAL, from Linux 6.3 on
    var file = System.call(
      SYS_memfd_create, Int(bitPattern: name.utf8Start), flags | noExecute)
    if file < 0 { file = System.call(SYS_memfd_create, Int(bitPattern: name.utf8Start), flags) }
    guard file >= 0 else { return }
    let byteCount = Int(TRACER_CONTROL_BYTE_COUNT)
    let seals = 1 | 2 | 4  // F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW
    guard System.call(SYS_ftruncate, file, byteCount) == 0,
      System.call(SYS_fcntl, file, 1033, seals) == 0  // F_ADD_SEALS
    else { return System.close(Int32(file)) }
    let base = System.call(
      SYS_mmap, 0, byteCount, Int(PROT_READ | PROT_WRITE), Int(MAP_SHARED), file, 0)
    guard base > 0, let page = UnsafeMutablePointer<tracer_control_page>(bitPattern: base) else {
      return System.close(Int32(file))
    }
    fill(page)
    // A signal may have come while the worker slept on its own word: it looks before it sleeps.
    pointee.requests.page.store(UInt(base), ordering: .releasing)
  }

  private func fill(_ page: UnsafeMutablePointer<tracer_control_page>) {
    page.pointee.version = UInt32(TRACER_CONTROL_VERSION)
    page.pointee.byte_count = UInt32(TRACER_CONTROL_BYTE_COUNT)
    page.pointee.pid = UInt32(bitPattern: pointee.processID)
    var bytes = InlineArray<128, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 64)
      pointee.settings.describeSignals(
        into: &text, minimum: tracer_services.signal_minimum?() ?? 0)
      page.setText(ControlPage.signalsOffset, capacity: 64, text.bytes)
      text.clear()
      appendProgram(to: &text)
      page.setText(ControlPage.programOffset, capacity: 64, text.bytes)
    }
    publishCounters(on: page)
    // Last: a reader that sees the magic finds everything else in place.
    page.pointee.magic = UInt64(TRACER_CONTROL_MAGIC)
  }

  /// Brings the page's figures up to date.
  func publishCounters(on page: UnsafeMutablePointer<tracer_control_page>) {
    let isRecording = pointee.isRecording.load(ordering: .acquiring) != 0
    let isArmed = pointee.settings.mode == .armed || pointee.settings.mode == .recording
    page.pointee.state =
      isRecording
      ? TRACER_STATE_RECORDING.rawValue
      : isArmed ? TRACER_STATE_DORMANT.rawValue : TRACER_STATE_OFF.rawValue
    page.pointee.depth = isRecording ? pointee.depth : pointee.settings.depth
    page.pointee.sample_bytes = isRecording ? samplingByteCount : pointee.settings.sampleByteCount
    let values = isRecording ? counterValues() : CounterValues()
    if isRecording { raisePeakByOwnBalance() }
    page.pointee.live_bytes = values.liveBytes
    page.pointee.live_blocks = values.liveBlocks
    // What threads have not published is in the sum, and may not be in the peak.
    let peak = UInt64(max(0, pointee.peakBytes.load(ordering: .relaxed)))
    page.pointee.peak_bytes = isRecording ? max(peak, values.liveBytes) : 0
    page.pointee.tracer_bytes = isRecording ? tracerParts.total : 0
    page.pointee.lost = values.lost
    page.pointee.snapshots = pointee.dumps.written.load(ordering: .relaxed)
    page.pointee.recording_since_ns = isRecording ? pointee.startWall : 0
  }
}
