// SPDX-License-Identifier: Apache-2.0
// A snapshot to bytes: in the order of `docs/dump-format.md`, so that every prefix is a profile.

import HeapModel

extension Snapshot {
  /// The snapshot as an uncompressed pprof profile, to be read by `Snapshot.init(profile:)` or by
  /// any pprof tool.
  ///
  /// Everything comes back but `warnings`. A dump that was not complete stays so: whoever reads
  /// the copy is warned as well. Frames that no sample has are left out.
  public func profileBytes() -> [UInt8] {
    var writer = ProfileWriter(self)
    writer.writeHeader()
    writer.writeModules()
    for sample in samples { writer.write(sample) }
    return writer.finish()
  }
}

/// Writes what a snapshot holds, each string and frame just before what first refers to it.
struct ProfileWriter: ~Copyable {
  private let snapshot: Snapshot
  private var wire = WireWriter(ArraySink())
  private var strings: [String: UInt64] = ["": 0]
  private var functions: [Function: UInt64] = [:]
  /// The location of each frame that is alone in one; 0 where none was written yet.
  private var locationOfFrame: [UInt64]
  /// The locations of calls with what was inlined into them.
  private var locationOfRun: [ArraySlice<UInt32>: UInt64] = [:]
  private var locationCount: UInt64 = 0
  /// A site's samples follow one another: only the last stack is asked for again.
  private var last: (stack: Int, locations: [UInt64])?

  private struct Function: Hashable {
    let name: UInt64
    let file: UInt64
  }

  init(_ snapshot: Snapshot) {
    self.snapshot = snapshot
    locationOfFrame = Array(repeating: 0, count: snapshot.distinctFrames.count)
  }

  private static let sampleTypes = [
    (type: "alloc_objects", unit: "count"), (type: "alloc_space", unit: "bytes"),
    (type: "inuse_objects", unit: "count"), (type: "inuse_space", unit: "bytes"),
  ]

  mutating func writeHeader() {
    wire.write(ProfileField.string, text: "")
    for (type, unit) in Self.sampleTypes { writeValueType(ProfileField.sampleType, type, unit) }
    wire.write(ProfileField.defaultSampleType, varint: string("inuse_space"))
    writeValueType(ProfileField.periodType, "space", "bytes")
    wire.write(ProfileField.period, varint: 1)
    if let time = snapshot.header.dumpWallNanoseconds {
      wire.write(ProfileField.timeNanoseconds, varint: UInt64(bitPattern: Int64(time)))
    }
    if let duration = snapshot.header.durationNanoseconds {
      wire.write(ProfileField.durationNanoseconds, varint: UInt64(duration))
    }
    for entry in snapshot.header.entries where entry.key != "complete" { write(comment: entry) }
  }

  mutating func writeModules() {
    let symbols = symbolsByModule()
    for (index, module) in snapshot.modules.enumerated() {
      let fields = [
        (MappingField.id, UInt64(index + 1)), (MappingField.start, module.start),
        (MappingField.limit, module.limit), (MappingField.fileOffset, module.fileOffset),
        (MappingField.fileName, string(module.path)),
        (MappingField.buildID, string(module.buildID)),
        (MappingField.hasFunctions, symbols[index].functions ? 1 : 0),
        (MappingField.hasFileNames, symbols[index].files ? 1 : 0),
        (MappingField.hasLineNumbers, symbols[index].lines ? 1 : 0),
        (MappingField.hasInlineFrames, symbols[index].inlined ? 1 : 0),
      ].filter { $0.1 != 0 }
      wire.beginMessage(ProfileField.mapping, byteCount: byteCount(of: fields))
      write(fields)
    }
  }

  /// Says which modules need no symbols any more: `go tool pprof` looks for binaries otherwise.
  private func symbolsByModule() -> [(functions: Bool, files: Bool, lines: Bool, inlined: Bool)] {
    var symbols = Array(
      repeating: (functions: false, files: false, lines: false, inlined: false),
      count: snapshot.modules.count)
    for frame in snapshot.distinctFrames {
      guard let module = frame.module, symbols.indices.contains(module) else { continue }
      symbols[module].functions = symbols[module].functions || frame.function != nil
      symbols[module].files = symbols[module].files || frame.file != nil
      symbols[module].lines = symbols[module].lines || frame.line != nil
      symbols[module].inlined = symbols[module].inlined || frame.isInlined
    }
    return symbols
  }

  mutating func write(_ sample: Snapshot.Sample) {
    let locations = self.locations(ofStack: sample.stack)
    let values = [sample.totalBlocks, sample.totalBytes, sample.liveBlocks, sample.liveBytes]
      .map { UInt64(bitPattern: Int64($0)) }
    var labels: [[(UInt32, UInt64)]] = []
    if let generation = sample.generation {
      labels.append(label("generation", generation))
    }
    if sample.missingFrames != 0 {
      labels.append(label("truncated", sample.missingFrames, unit: "frames"))
    }
    if sample.domain != 0 { labels.append(label("domain", sample.domain)) }

    var size = packedByteCount(SampleField.location, locations)
    size += packedByteCount(SampleField.value, values)
    for label in labels {
      size += WireSize.field(SampleField.label, byteCount: byteCount(of: label))
    }
    wire.beginMessage(ProfileField.sample, byteCount: size)
    writePacked(SampleField.location, locations)
    writePacked(SampleField.value, values)
    for label in labels {
      wire.beginMessage(SampleField.label, byteCount: byteCount(of: label))
      write(label)
    }
  }

  consuming func finish() -> [UInt8] {
    for entry in snapshot.header.entries where entry.key == "complete" { write(comment: entry) }
    return wire.finish().bytes
  }
}

// Locations: the calls of a stack, with what was inlined into each.
extension ProfileWriter {
  private mutating func locations(ofStack stack: Int) -> [UInt64] {
    if let last, last.stack == stack { return last.locations }
    var rest = snapshot.frameIndices(ofStack: stack)
    var locations: [UInt64] = []
    locations.reserveCapacity(rest.count)
    while !rest.isEmpty {
      let run = rest.prefix(inlinedCount(in: rest) + 1)
      locations.append(location(of: run))
      rest = rest.dropFirst(run.count)
    }
    last = (stack, locations)
    return locations
  }

  /// How many frames from the first on were inlined into a later one of the same address.
  private func inlinedCount(in run: ArraySlice<UInt32>) -> Int {
    let frames = snapshot.distinctFrames
    var count = 0
    for (inner, outer) in zip(run, run.dropFirst()) {
      let (inner, outer) = (frames[Int(inner)], frames[Int(outer)])
      guard inner.isInlined, inner.address == outer.address, inner.module == outer.module else {
        break
      }
      count += 1
    }
    return count
  }

  private mutating func location(of run: ArraySlice<UInt32>) -> UInt64 {
    let first = Int(run.first!)
    if run.count == 1 {
      if locationOfFrame[first] == 0 { locationOfFrame[first] = writeLocation(run) }
      return locationOfFrame[first]
    }
    if let known = locationOfRun[run] { return known }
    let location = writeLocation(run)
    locationOfRun[run] = location
    return location
  }

  private mutating func writeLocation(_ run: ArraySlice<UInt32>) -> UInt64 {
    let outermost = snapshot.distinctFrames[Int(run.last!)]
    var lines: [[(UInt32, UInt64)]] = []
    if hasLines(outermost, isAlone: run.count == 1) {
      for index in run { lines.append(line(of: snapshot.distinctFrames[Int(index)])) }
    }
    locationCount += 1
    let fields = [
      (LocationField.id, locationCount),
      (LocationField.mapping, outermost.module.map { UInt64($0 + 1) } ?? 0),
      (LocationField.address, outermost.address),
    ].filter { $0.1 != 0 }
    var size = byteCount(of: fields)
    for line in lines {
      size += WireSize.field(LocationField.line, byteCount: byteCount(of: line))
    }
    wire.beginMessage(ProfileField.location, byteCount: size)
    write(fields)
    for line in lines {
      wire.beginMessage(LocationField.line, byteCount: byteCount(of: line))
      write(line)
    }
    return locationCount
  }

  /// An address alone needs no line. A location of nothing at all is a lost stack to readers of
  /// Heaptap's dumps, so a frame of which nothing is known has a line without a function.
  private func hasLines(_ frame: Frame, isAlone: Bool) -> Bool {
    if !isAlone { return true }
    if frame == .lostStack && snapshot.header.isHeaptap { return false }
    if frame.function != nil || frame.file != nil || frame.line != nil { return true }
    return frame.address == 0 && frame.module == nil
  }

  private mutating func line(of frame: Frame) -> [(UInt32, UInt64)] {
    var fields: [(UInt32, UInt64)] = []
    if frame.function != nil || frame.file != nil {
      fields.append((LineField.function, function(of: frame)))
    }
    // Line 0 is written too: it is a line, and not the absence of one.
    if let line = frame.line {
      fields.append((LineField.line, UInt64(bitPattern: Int64(line))))
    }
    return fields
  }

  private mutating func function(of frame: Frame) -> UInt64 {
    let key = Function(name: string(frame.function ?? ""), file: string(frame.file ?? ""))
    if let known = functions[key] { return known }
    let id = UInt64(functions.count + 1)
    functions[key] = id
    let fields = [
      (FunctionField.id, id), (FunctionField.name, key.name),
      (FunctionField.systemName, key.name), (FunctionField.fileName, key.file),
    ].filter { $0.1 != 0 }
    wire.beginMessage(ProfileField.function, byteCount: byteCount(of: fields))
    write(fields)
    return id
  }
}

// Strings and plain messages.
extension ProfileWriter {
  /// The number of a string, which is written if it is new.
  private mutating func string(_ text: String) -> UInt64 {
    if let known = strings[text] { return known }
    let index = UInt64(strings.count)
    strings[text] = index
    var text = text
    text.withUTF8 { unsafe wire.write(ProfileField.string, bytes: UnsafeRawBufferPointer($0)) }
    return index
  }

  private mutating func write(comment entry: Header.Entry) {
    let index = string(entry.comment)
    wire.write(ProfileField.comment, varint: index)
  }

  private mutating func writeValueType(_ field: UInt32, _ type: String, _ unit: String) {
    let fields = [(ValueTypeField.type, string(type)), (ValueTypeField.unit, string(unit))]
    wire.beginMessage(field, byteCount: byteCount(of: fields))
    write(fields)
  }

  private mutating func label(
    _ key: String, _ number: Int, unit: String? = nil
  ) -> [(UInt32, UInt64)] {
    let fields = [
      (LabelField.key, string(key)), (LabelField.number, UInt64(bitPattern: Int64(number))),
    ]
    return unit.map { fields + [(LabelField.unit, string($0))] } ?? fields
  }

  private func byteCount(of fields: [(UInt32, UInt64)]) -> Int {
    fields.reduce(0) { $0 + WireSize.field($1.0, varint: $1.1) }
  }

  private mutating func write(_ fields: [(UInt32, UInt64)]) {
    for (field, value) in fields { wire.write(field, varint: value) }
  }

  private func packedByteCount(_ field: UInt32, _ values: [UInt64]) -> Int {
    let size = values.reduce(0) { $0 + WireSize.varint($1) }
    return size == 0 ? 0 : WireSize.field(field, byteCount: size)
  }

  private mutating func writePacked(_ field: UInt32, _ values: [UInt64]) {
    if values.isEmpty { return }
    wire.beginMessage(field, byteCount: values.reduce(0) { $0 + WireSize.varint($1) })
    for value in values { wire.writeVarint(value) }
  }
}

/// Keeps what is written in an array.
private struct ArraySink: ByteSink {
  var bytes: [UInt8] = []

  mutating func append(_ byte: UInt8) {
    bytes.append(byte)
  }

  mutating func append(_ more: UnsafeRawBufferPointer) {
    unsafe bytes.append(contentsOf: more)
  }
}
