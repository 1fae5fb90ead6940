// SPDX-License-Identifier: Apache-2.0
// The control page of a traced process, mapped here: read without trust, written by atomics only.

import CControlPage
import Glibc
import Synchronization

/// The mapped control page of a traced process. `control_page.h` is its contract.
///
/// The other side may be hostile, and may change any byte between two reads: every number is read
/// once, every string is copied within its bounds, and nothing read is used as a size or address.
@safe final class ControlPage: @unchecked Sendable {
  // Unchecked: the pointer never changes, and all that is behind it is read and written atomically
  // or is a string whose bytes may be torn anyway.
  private let base: UnsafeMutableRawPointer

  /// Maps the page behind a descriptor that stays the caller's.
  ///
  /// - Parameter place: the process, as sentences name it.
  init(descriptor: Int32, pid: Int32, place: String) throws(ProcessControlError) {
    func refusal(_ why: String) -> ProcessControlError {
      ProcessControlError(.badControlPage, "the control page of \(place) is refused: \(why)")
    }
    var file = stat()
    guard unsafe fstat(descriptor, &file) == 0, file.st_mode & S_IFMT == S_IFREG,
      file.st_size == off_t(TRACER_CONTROL_BYTE_COUNT)
    else { throw refusal("it is not \(TRACER_CONTROL_BYTE_COUNT) bytes long") }
    // Without the seals, its owner could cut the file short and make us fault on the mapping.
    let seals = fcntl(descriptor, Kernel.getSeals)
    guard seals >= 0, seals & Kernel.sealShrink != 0, seals & Kernel.sealGrow != 0 else {
      throw refusal("it is not sealed against a change of size")
    }
    guard
      let address = unsafe mmap(
        nil, Int(TRACER_CONTROL_BYTE_COUNT), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0),
      unsafe address != MAP_FAILED
    else { throw refusal(SystemError.last.words) }
    unsafe base = address

    guard word64(\.magic) == TRACER_CONTROL_MAGIC else { throw refusal("its magic is wrong") }
    let version = word(\.version)
    guard version == TRACER_CONTROL_VERSION else {
      throw refusal(
        "its version is \(version) and this heaptap speaks \(TRACER_CONTROL_VERSION);"
          + " use the heaptap that was installed with that libheaptap.so")
    }
    guard word(\.byte_count) == TRACER_CONTROL_BYTE_COUNT, word(\.pid) == UInt32(bitPattern: pid)
    else { throw refusal("it describes another process") }
  }

  deinit { unsafe munmap(base, Int(TRACER_CONTROL_BYTE_COUNT)) }

  // MARK: Fields

  /// Acquiring: a field read after `handled` must be as new as the answer that `handled` announced.
  func word(_ field: KeyPath<tracer_control_page, UInt32>) -> UInt32 {
    unsafe atomic(field).pointee.load(ordering: .acquiring)
  }

  func word64(_ field: KeyPath<tracer_control_page, UInt64>) -> UInt64 {
    unsafe address(of: field).assumingMemoryBound(to: Atomic<UInt64>.self)
      .pointee.load(ordering: .acquiring)
  }

  /// A string field up to its NUL or its end, with control bytes made visible.
  func text<Characters>(_ field: KeyPath<tracer_control_page, Characters>) -> String {
    let capacity = MemoryLayout<Characters>.size
    let bytes = unsafe UnsafeRawBufferPointer(start: address(of: field), count: capacity)
    let copy = unsafe Array(bytes)
    return String(decoding: copy.prefix { $0 != 0 }, as: UTF8.self).plainText
  }

  private func address(of field: PartialKeyPath<tracer_control_page>) -> UnsafeMutableRawPointer {
    // Stored fields of a C struct always have an offset.
    unsafe base + MemoryLayout<tracer_control_page>.offset(of: field)!
  }

  private func atomic(
    _ field: KeyPath<tracer_control_page, UInt32>
  ) -> UnsafeMutablePointer<Atomic<UInt32>> {
    unsafe address(of: field).assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  // MARK: Requests

  /// A request that was made, and by which its answer is recognised.
  struct Ticket {
    fileprivate let number: UInt32
  }

  func request(_ command: tracer_command) -> Ticket {
    // Sequentially consistent, each: the worker must find the bit once it sees the number, and must
    // see the number once it wakes. This runs once a command, so the simplest order is the best.
    _ = unsafe atomic(\.commands).pointee
      .bitwiseOr(command.rawValue, ordering: .sequentiallyConsistent)
    let number = unsafe atomic(\.requested).pointee
      .wrappingAdd(1, ordering: .sequentiallyConsistent).newValue
    _ = unsafe atomic(\.wake).pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    unsafe futexWakeAll(address(of: \.wake))
    return Ticket(number: number)
  }

  /// Sleeps until the request is answered, at most for the time given; `true` when it is.
  func waitForAnswer(to ticket: Ticket, milliseconds: Int) -> Bool {
    let handled = word(\.handled)
    if Int32(bitPattern: handled &- ticket.number) >= 0 { return true }
    unsafe futexWait(address(of: \.handled), while: handled, milliseconds: milliseconds)
    return Int32(bitPattern: word(\.handled) &- ticket.number) >= 0
  }
}
