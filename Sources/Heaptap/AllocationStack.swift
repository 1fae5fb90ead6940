// SPDX-License-Identifier: Apache-2.0
// Where one block came from, as addresses of this process and as names.

import HeapModel

#if canImport(Glibc)
  import Glibc
#endif

/// The addresses of the stack that a live block was allocated from.
struct AllocationStack: Sendable {
  private let addresses: [UInt]
  private let total: Int

  init?(of block: UnsafeRawPointer) throws(HeapTracerError) {
    guard try HeapTracer.figures().isRecording else { throw HeapTracerError(.notRecording) }
    (addresses, total) = unsafe TracerCalls.traceback(block)
    if addresses.isEmpty { return nil }
  }

  /// The stack as reports show it.
  func named() -> Stack? {
    var builder = Snapshot.Builder(header: Header(), modules: Self.modules())
    let modules = builder.modules
    let frames = addresses.map { address in
      // The call is before the address, which may be the next module's first.
      Frame(
        address: UInt64(address),
        module: modules.firstIndex { $0.start < address && UInt64(address) <= $0.limit })
    }
    builder.add(bytes: 0, stack: frames, missingFrames: max(0, total - addresses.count))
    let snapshot = builder.finish().symbolicatedBlocking()
    return snapshot.samples.first.map { snapshot.stack(of: $0) }
  }

  /// What code of which files this process has mapped now.
  private static func modules() -> [Module] {
    #if os(Linux)
      guard let file = unsafe fopen("/proc/self/maps", "re") else { return [] }
      defer { unsafe fclose(file) }
      var modules: [Module] = []
      var line: UnsafeMutablePointer<CChar>?
      var capacity = 0
      defer { unsafe free(line) }
      while unsafe getline(&line, &capacity, file) > 0, let text = unsafe line {
        // 7f00…-7f01… r-xp 00001000 fe:01 1234   /usr/lib/libc.so.6
        let fields = unsafe String(cString: text)
          .split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
        guard fields.count == 6, fields[1].contains("x") else { continue }
        let range = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
        let path = fields[5].drop { $0 == " " }.prefix { $0 != "\n" }
        guard range.count == 2, path.hasPrefix("/"), let offset = UInt64(fields[2], radix: 16)
        else { continue }
        modules.append(
          Module(
            start: range[0], limit: range[1], fileOffset: offset, path: String(path), buildID: ""))
      }
      return modules
    #else
      return []
    #endif
  }
}
