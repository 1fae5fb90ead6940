// SPDX-License-Identifier: Apache-2.0
// The addresses of stacks that lie in no module, and what a JIT compiler says that is there.

import CTracerPlatform

/// An address that lies in no module.
struct GeneratedAddress {
  /// Of the call.
  var address: UInt64
  /// Where in the perf map the line is that names it, plus one; 0 for none.
  var line: Int
  /// Whether the dump has its function already.
  var isWritten: Bool
}

/// What a dump knows of generated code: its addresses in order, and the perf map, open.
///
/// Only the addresses are kept, and a name is read when it is written: a map may be 50 MB.
/// All zero is a valid state, in which there are none.
struct GeneratedCode {
  /// So many bytes of a name are kept.
  static var nameByteLimit: Int { 512 }
  /// So much of a map's end is read near a limit: the pages may be the process's own to pay for.
  static var byteLimitNearLimit: Int { 8 << 20 }

  var base: UnsafeMutablePointer<GeneratedAddress>?
  var count = 0
  var namedCount = 0
  var map: PerfMap?
  var problem = PerfMapProblem.none
  /// The part of the map that was read: its end.
  var readByteCount = 0

  /// The first address that is not below another.
  private func firstIndex(from address: UInt64) -> Int {
    guard let base else { return 0 }
    var (low, high) = (0, count)
    while low < high {
      let middle = (low &+ high) / 2
      if base[middle].address < address { low = middle &+ 1 } else { high = middle }
    }
    return low
  }

  func index(of address: UInt64) -> Int? {
    let index = firstIndex(from: address)
    guard let base, index < count, base[index].address == address else { return nil }
    return index
  }

  /// The first address that the same line names: what its function is known by.
  func firstIndex(ofLineAt index: Int) -> Int {
    guard let base else { return index }
    var first = index
    while first > 0, base[first &- 1].line == base[index].line { first &-= 1 }
    return first
  }

  /// Notes that a line is about the addresses in its range. A later one is about them alone.
  func note(_ line: Int, _ entry: PerfMap.Entry) {
    guard let base, count > 0, entry.start <= base[count &- 1].address else { return }
    var index = firstIndex(from: entry.start)
    while index < count, base[index].address &- entry.start < entry.byteCount {
      base[index].line = line &+ 1
      index &+= 1
    }
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Gathers the addresses that lie in no module, and reads what the perf map says of them.
  ///
  /// A process without generated code has none, and no file is opened. Costs a few nanoseconds for
  /// each row and one for each byte of the map.
  func findGeneratedCode(_ trigger: DumpTrigger) {
    gatherGeneratedAddresses(trigger)
    guard pointee.dumps.code.count > 0 else { return }
    if trigger == .limit, isPressed {
      pointee.dumps.code.problem = .nearLimit
      return
    }
    openPerfMap()
    guard let map = pointee.dumps.code.map else { return }
    let most = trigger == .limit ? GeneratedCode.byteLimitNearLimit : Int.max
    let start = max(map.byteCount &- most, 0)
    let code = pointee.dumps.code
    map.forEachEntry(from: start, pointee.dumps.input, capacity: DumpState.inputByteCount) {
      code.note($0, $1)
    }
    pointee.dumps.code.readByteCount = map.byteCount &- start
    var index = 0
    while index < code.count {
      if let base = code.base, base[index].line != 0 { pointee.dumps.code.namedCount &+= 1 }
      index &+= 1
    }
  }

  /// Forgets the addresses, and lets go of the map.
  func closeGeneratedCode() {
    pointee.dumps.code.map?.close()
    pointee.dumps.code = GeneratedCode()
  }

  /// Near a limit only as many as there are pages for.
  private func gatherGeneratedAddresses(_ trigger: DumpTrigger) {
    pointee.dumps.code = GeneratedCode()
    guard let base = pointee.dumps.generatedAddresses else { return }
    let limit =
      trigger == .limit ? pointee.dumps.preparedAddresses : DumpState.generatedAddressLimit
    var count = 0
    pointee.rows.forEachGeneratedAddress { address in
      guard count < limit else { return }
      base[count] = GeneratedAddress(address: address, line: 0, isWritten: false)
      count &+= 1
    }
    HeapSort.sort(base, count) { $0.address < $1.address }
    pointee.dumps.code.base = base
    pointee.dumps.code.count = count
  }

  private func openPerfMap() {
    var bytes = InlineArray<64, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &bytes) {
      var path = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 64)
      PerfMap.appendPath(of: pointee.processID, to: &path)
      let user = UInt32(truncatingIfNeeded: System.call(SYS_geteuid))
      pointee.dumps.code.map = PerfMap(
        path: path.cString(), owner: user, &pointee.dumps.code.problem)
    }
  }

  /// The number of the function that holds a row's code, written if the dump does not have it yet; 0
  /// where nobody knows.
  func generatedFunction(_ row: UnsafeMutablePointer<Row>, _ encoder: inout ProfileEncoder)
    -> UInt64
  {
    let code = pointee.dumps.code
    guard let base = code.base, let map = code.map,
      let index = code.index(of: row.pointee.callAddress), base[index].line != 0
    else { return 0 }
    let first = code.firstIndex(ofLineAt: index)
    if !base[first].isWritten {
      // Read again, and believed only where it is still about this address: a file can change.
      guard
        let (entry, name) = map.entry(
          at: base[index].line &- 1, pointee.dumps.input,
          capacity: GeneratedCode.nameByteLimit &+ 64),
        base[index].address &- entry.start < entry.byteCount
      else { return 0 }
      var text = TextBuffer(pointee.dumps.text, capacity: GeneratedCode.nameByteLimit)
      text.append(utf8: name)
      encoder.writeFunction(UInt64(first &+ 1), name: text.bytes)
      base[first].isWritten = true
    }
    return UInt64(first &+ 1)
  }

  func writeGeneratedCode(
    _ encoder: inout ProfileEncoder, _ comments: inout CommentWriter
  ) {
    let code = pointee.dumps.code
    guard code.count > 0 else { return }
    comments.write(&encoder, "jit.addresses", UInt64(code.count))
    comments.write(&encoder, "jit.named", UInt64(code.namedCount))
    comments.write(&encoder, "jit.map") {
      PerfMap.appendPath(of: pointee.processID, to: &$0)
    }
    if let map = code.map {
      comments.write(&encoder, "jit.map_bytes", UInt64(map.byteCount))
      comments.write(&encoder, "jit.map_read_bytes", UInt64(code.readByteCount))
    } else {
      comments.write(&encoder, "jit.map_problem") { code.problem.append(to: &$0) }
    }
  }
}
