// SPDX-License-Identifier: Apache-2.0
// Profiles for the tests: one of everything, and hand-made ones of other tools.

import HeapModel
import Pprof

/// A snapshot with one of everything that a dump can say.
func everything() -> Snapshot {
  let header: Header = [
    "heaptap": "1", "tracer": "0.1", "program": "leaky", "pid": "1234", "host": "höst",
    "unit": "a=b.service", "start_monotonic_ns": "10", "dump_monotonic_ns": "30",
    "dump_wall_ns": "1700000000000000000", "histogram": "16:2:20,more:1:5000",
    "unheard_of": "yes", "empty": "", "temporary_blocks": "5", "peak.picture_bytes": "8000",
    "peak.picture_blocks": "6", "complete": "1",
  ]
  let modules = [
    Module(
      start: 0x5000, limit: 0x9000, fileOffset: 0x1000, path: "/usr/bin/leaky",
      buildID: "0123456789abcdef"),
    Module(start: 0x7f00_0000_0000, limit: .max, fileOffset: 0, path: "", buildID: ""),
  ]
  var builder = Snapshot.Builder(header: header, modules: modules)
  let call = Frame(
    address: 0x5010, module: 0, function: "Session.open()", file: "/src/s.swift", line: 12)
  let inlined = Frame(
    address: 0x5010, module: 0, function: "closure #1", file: "/src/c.swift", line: 0,
    isInlined: true)
  let stack = builder.stack([inlined, call, Frame(address: 0x5020, module: 0), call])
  builder.add(
    .init(
      stack: stack, generation: 1, type: "M.Node<Swift.Int>", thread: "worker-1", threadID: 17,
      liveBytes: 5000, liveBlocks: 3, totalBytes: 9000,
      totalBlocks: 7, temporaryBlocks: 5, peakBytes: 8000, peakBlocks: 6, missingFrames: 2,
      reach: .indirect))
  builder.add(.init(stack: stack, generation: 0, liveBytes: 10, liveBlocks: 1, missingFrames: 2))
  builder.add(
    bytes: 1, stack: [Frame(address: 0xdead)], missingFrames: 1, isBroken: true, domain: -3,
    generation: -1)
  builder.add(bytes: 2, stack: [.lostStack], reach: .lost)
  builder.add(bytes: 3, stack: [Frame()])
  builder.add(bytes: 4, stack: [Frame(module: 1)])
  builder.add(bytes: 5, stack: [])
  builder.add(bytes: 6, stack: [Frame(function: "only a name")])
  builder.add(bytes: 7, stack: [Frame(file: "only a file")], isBroken: true)
  builder.add(bytes: 8, stack: [Frame(address: .max, line: -1), Frame(line: 0)])
  builder.add(bytes: .max, blocks: 0, stack: [inlined, call])
  return builder.finish()
}

/// A profile written field by field, as other tools do or as nobody should.
struct HandMade: ByteSink {
  var bytes: [UInt8] = []

  mutating func append(_ byte: UInt8) { bytes.append(byte) }
  mutating func append(_ more: UnsafeRawBufferPointer) { unsafe bytes.append(contentsOf: more) }

  static func message(
    _ fields: (inout WireWriter<HandMade>) -> Void
  ) -> [UInt8] {
    var writer = WireWriter(HandMade())
    fields(&writer)
    return writer.finish().bytes
  }
}

extension WireWriter where Sink == HandMade {
  mutating func message(_ field: UInt32, _ fields: (inout WireWriter<HandMade>) -> Void) {
    let bytes = HandMade.message(fields)
    beginMessage(field, byteCount: bytes.count)
    sink.bytes += bytes
  }

  mutating func strings(_ texts: String...) {
    for text in texts {
      beginMessage(ProfileField.string, byteCount: text.utf8.count)
      sink.bytes += Array(text.utf8)
    }
  }

  mutating func packed(_ field: UInt32, _ values: UInt64...) {
    message(field) { message in
      for value in values { message.writeVarint(value) }
    }
  }

  mutating func sampleType(_ type: UInt64, _ unit: UInt64) {
    message(ProfileField.sampleType) {
      $0.write(ValueTypeField.type, varint: type)
      $0.write(ValueTypeField.unit, varint: unit)
    }
  }
}
