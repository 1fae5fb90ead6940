// SPDX-License-Identifier: Apache-2.0
// The threads of a recording, by number and with their names: where HEAPTAP_THREADS asks for them.

import CTracerPlatform
import Synchronization

/// What is kept of a thread when it is gone.
struct ThreadEntry {
  /// As the kernel keeps it: 15 bytes and a zero.
  var name: InlineArray<16, UInt8>
  /// The kernel's number; 0 until the entry is written.
  var identifier: UInt32
  /// The name's number among the strings of the dump that is being written; 0 where it is in none.
  var string: UInt64
}

/// Threads by numbers from 1, in the order of their first recorded call. All zero is a valid, closed table.
package struct ThreadTable: ~Copyable {
  /// As many as a site has bits for. All threads that come later are one.
  package static var limit: UInt32 { (1 << 15) - 1 }
  /// The number of the threads for which there was none left.
  static var others: UInt32 { limit }
  private static var byteCount: Int { Int(limit + 1) * MemoryLayout<ThreadEntry>.stride }

  private let base: Atomic<UInt>
  private let given: Atomic<UInt32>

  package func open() -> Bool { base.map(Self.byteCount) }

  /// Gives the pages back, and begins to count anew.
  package func discard() {
    given.store(0, ordering: .relaxed)
    base.discard(Self.byteCount)
  }

  /// How many threads have been given a number of their own.
  var count: UInt32 { min(given.load(ordering: .acquiring), Self.limit &- 1) }

  /// How many threads there were.
  var threadCount: UInt32 { given.load(ordering: .relaxed) }

  package var usedByteCount: Int { Int(count) * MemoryLayout<ThreadEntry>.stride }

  func entry(_ number: UInt32) -> UnsafeMutablePointer<ThreadEntry> {
    UnsafeMutablePointer<ThreadEntry>(
      bitPattern: base.load(ordering: .relaxed)
    ).unsafelyUnwrapped + Int(number)
  }

  /// A number for the calling thread.
  func add(_ identifier: UInt32) -> UInt32 {
    let number = given.wrappingAdd(1, ordering: .relaxed).newValue
    guard number < Self.others else {
      // Not past the end of 32 bits, however many threads come and go.
      given.store(Self.others, ordering: .relaxed)
      return Self.others
    }
    entry(number).pointee.identifier = identifier
    noteName(number)
    return number
  }

  /// Notes the name of the calling thread. Costs a system call.
  func noteName(_ number: UInt32) {
    guard number != 0, number < Self.others else { return }
    withUnsafeMutableBytes(of: &entry(number).pointee.name) {
      _ = System.call(SYS_prctl, Int(PR_GET_NAME), Int(bitPattern: $0.baseAddress))
    }
  }

  /// Notes the name that a thread has now, by `/proc/self/task/TID/comm`: many are given theirs after
  /// they have allocated. After a fork the thread that goes on has another number, too.
  func readName(_ number: UInt32, of thread: UInt32) {
    guard number != 0, number < Self.others else { return }
    entry(number).pointee.identifier = thread
    var bytes = InlineArray<48, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      let base = $0.baseAddress.unsafelyUnwrapped
      var path = TextBuffer(base, capacity: 48)
      ThreadFile.appendPath(of: thread, "/comm", to: &path)
      let file = System.open(path.cString(), O_RDONLY)
      guard file >= 0 else { return }
      defer { System.close(file) }
      let count = System.read(file, base, 16)
      guard count > 0 else { return }
      for position in 0..<16 {
        let byte = position < count ? $0[position] : 0
        entry(number).pointee.name[position] = byte == 0x0a ? 0 : byte
      }
    }
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Gives a thread that begins in a recording a number, where threads are told apart.
  ///
  /// The memory of stacks that comes with its state is another thread's, and leads to that one's sites.
  func numberThread(_ thread: UnsafeMutablePointer<ThreadState>) {
    thread.pointee.number = 0
    guard pointee.settings.tellsThreads else { return }
    thread.pointee.number = pointee.threadTable.add(UInt32(bitPattern: System.threadID))
    thread.pointee.cache?.pointee.epoch = 0
  }

  /// Reads the names that living threads have now. Costs some 5 µs a thread.
  func readThreadNames() {
    guard pointee.settings.tellsThreads else { return }
    let epoch = pointee.epoch.load(ordering: .relaxed)
    pointee.threads.forEach { thread in
      guard thread.pointee.epoch.load(ordering: .acquiring) == epoch else { return }
      pointee.threadTable.readName(
        thread.pointee.number, of: thread.pointee.owner.load(ordering: .relaxed))
    }
  }

  /// The labels of a site's thread: the number of the string that names it, written if the dump does not
  /// have it yet, and the kernel's number. Both are 0 where threads are not told apart.
  func threadLabels(
    _ site: borrowing Site, _ encoder: inout ProfileEncoder
  ) -> (name: UInt64, identifier: UInt32) {
    guard site.thread != 0 else { return (0, 0) }
    let entry = pointee.threadTable.entry(site.thread)
    if entry.pointee.string == 0 {
      var bytes = InlineArray<64, UInt8>(repeating: 0)
      let identifier = entry.pointee.identifier
      let isOthers = site.thread == ThreadTable.others
      entry.pointee.string = withUnsafeMutableBytes(of: &bytes) { bytes in
        var text = TextBuffer(bytes.baseAddress.unsafelyUnwrapped, capacity: 64)
        withUnsafeBytes(of: &entry.pointee.name) { name in
          var count = 0
          while count < 15, name[count] != 0 { count &+= 1 }
          text.append(utf8: UnsafeRawBufferPointer(rebasing: name[..<count]))
        }
        if isOthers {
          text.append("other threads")
        } else if text.count == 0 {
          text.append("tid ")
          text.append(decimal: UInt64(identifier))
        }
        return encoder.string(text.bytes)
      }
    }
    return (entry.pointee.string, entry.pointee.identifier)
  }

  /// Forgets which names are in a dump: the next one has its own strings.
  func forgetThreadStrings() {
    guard pointee.settings.tellsThreads else { return }
    var number: UInt32 = 1
    while number <= pointee.threadTable.count {
      pointee.threadTable.entry(number).pointee.string = 0
      number &+= 1
    }
    pointee.threadTable.entry(ThreadTable.others).pointee.string = 0
  }
}
