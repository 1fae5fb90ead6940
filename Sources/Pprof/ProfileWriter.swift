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
  private var out = SymbolWriter()
  /// The location of each frame that is alone in one; 0 where none was written yet.
  private var locationOfFrame: [UInt64]
  /// The locations of calls with what was inlined into them.
  private var locationOfRun: [ArraySlice<UInt32>: UInt64] = [:]
  private var locationCount: UInt64 = 0
  private var locationOfRoot: [StackRoot: UInt64] = [:]
  /// A site's samples follow one another: only the last stack is asked for again.
  private var last: (stack: Int, locations: [UInt64])?

  private let hasPeak: Bool

  init(_ snapshot: Snapshot) {
    self.snapshot = snapshot
    hasPeak = snapshot.header.peakPicture != nil
    locationOfFrame = Array(repeating: 0, count: snapshot.distinctFrames.count)
  }

  private static let sampleTypes = [
    (type: "alloc_objects", unit: "count"), (type: "alloc_space", unit: "bytes"),
    (type: "inuse_objects", unit: "count"), (type: "inuse_space", unit: "bytes"),
  ]
  private static let peakTypes = [
    (type: "peak_objects", unit: "count"), (type: "peak_space", unit: "bytes"),
  ]

  mutating func writeHeader() {
    for (type, unit) in Self.sampleTypes + (hasPeak ? Self.peakTypes : []) {
      writeValueType(ProfileField.sampleType, type, unit)
    }
    let inuse = out.string("inuse_space")
    out.write([(ProfileField.defaultSampleType, inuse)])
    writeValueType(ProfileField.periodType, "space", "bytes")
    out.write([(ProfileField.period, UInt64(snapshot.header.sampleBytes ?? 1))])
    if let time = snapshot.header.dumpWallNanoseconds {
      out.write([(ProfileField.timeNanoseconds, UInt64(bitPattern: Int64(time)))])
    }
    if let duration = snapshot.header.durationNanoseconds {
      out.write([(ProfileField.durationNanoseconds, UInt64(duration))])
    }
    for entry in snapshot.header.entries where entry.key != "complete" { write(comment: entry) }
  }

  mutating func writeModules() {
    let symbols = symbolsByModule()
    for (index, module) in snapshot.modules.enumerated() {
      let fields = [
        (MappingField.id, UInt64(index + 1)), (MappingField.start, module.start),
        (MappingField.limit, module.limit), (MappingField.fileOffset, module.fileOffset),
        (MappingField.fileName, out.string(module.path)),
        (MappingField.buildID, out.string(module.buildID)),
      ].filter { $0.1 != 0 }
      out.write(ProfileField.mapping, message: fields + symbols[index].fields)
    }
  }

  private func symbolsByModule() -> [ModuleSymbols] {
    var symbols = Array(repeating: ModuleSymbols(), count: snapshot.modules.count)
    for frame in snapshot.distinctFrames {
      guard let module = frame.module, symbols.indices.contains(module) else { continue }
      symbols[module].add(frame)
    }
    return symbols
  }

  mutating func write(_ sample: Snapshot.Sample) {
    var locations = self.locations(ofStack: sample.stack)
    // Elsewhere nobody would know it for what it is.
    if snapshot.header.isHeaptap, let root = StackRoot(of: sample) {
      locations.append(location(of: root))
    }
    var figures = [sample.totalBlocks, sample.totalBytes, sample.liveBlocks, sample.liveBytes]
    if hasPeak { figures += [sample.peakBlocks, sample.peakBytes] }
    let values = figures.map { UInt64(bitPattern: Int64($0)) }
    var labels: [[(UInt32, UInt64)]] = []
    if let generation = sample.generation {
      labels.append(label("generation", generation))
    }
    if sample.missingFrames != 0 {
      labels.append(label("truncated", sample.missingFrames, unit: "frames"))
    }
    if sample.isBroken { labels.append(label("broken", 1)) }
    if sample.domain != 0 { labels.append(label("domain", sample.domain)) }
    if let type = sample.type { labels.append(label("type", type)) }
    if let thread = sample.thread { labels.append(label("thread", thread)) }
    if let threadID = sample.threadID { labels.append(label("tid", threadID)) }
    if sample.sampledBlocks != 0 {
      labels.append(label("sampled_blocks", sample.sampledBlocks, unit: "count"))
    }
    if sample.liveErrorBytes != 0 {
      labels.append(label("standard_error", sample.liveErrorBytes, unit: "bytes"))
    }
    if sample.totalErrorBytes != 0 {
      labels.append(label("total_standard_error", sample.totalErrorBytes, unit: "bytes"))
    }
    if sample.reach != .held { labels.append(label("reach", sample.reach.rawValue)) }
    if sample.temporaryBlocks != 0 { labels.append(label("temporary", sample.temporaryBlocks)) }

    var size = SymbolWriter.packedByteCount(SampleField.location, locations)
    size += SymbolWriter.packedByteCount(SampleField.value, values)
    for label in labels {
      size += WireSize.field(SampleField.label, byteCount: SymbolWriter.byteCount(of: label))
    }
    out.beginMessage(ProfileField.sample, byteCount: size)
    out.writePacked(SampleField.location, locations)
    out.writePacked(SampleField.value, values)
    for label in labels { out.write(SampleField.label, message: label) }
  }

  consuming func finish() -> [UInt8] {
    for entry in snapshot.header.entries where entry.key == "complete" { write(comment: entry) }
    return out.finish()
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

  private mutating func location(of root: StackRoot) -> UInt64 {
    if let known = locationOfRoot[root] { return known }
    locationCount += 1
    locationOfRoot[root] = locationCount
    out.write(location: [(LocationField.id, locationCount)], lines: [out.line(of: root.frame)])
    return locationCount
  }

  private mutating func writeLocation(_ run: ArraySlice<UInt32>) -> UInt64 {
    let outermost = snapshot.distinctFrames[Int(run.last!)]
    var lines: [[(UInt32, UInt64)]] = []
    if hasLines(outermost, isAlone: run.count == 1) {
      for index in run { lines.append(out.line(of: snapshot.distinctFrames[Int(index)])) }
    }
    locationCount += 1
    let fields = [
      (LocationField.id, locationCount),
      (LocationField.mapping, outermost.module.map { UInt64($0 + 1) } ?? 0),
      (LocationField.address, outermost.address),
    ].filter { $0.1 != 0 }
    out.write(location: fields, lines: lines)
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
}

// Strings and plain messages.
extension ProfileWriter {
  private mutating func write(comment entry: Header.Entry) {
    let index = out.string(entry.comment)
    out.write([(ProfileField.comment, index)])
  }

  private mutating func writeValueType(_ field: UInt32, _ type: String, _ unit: String) {
    let fields = [(ValueTypeField.type, out.string(type)), (ValueTypeField.unit, out.string(unit))]
    out.write(field, message: fields)
  }

  private mutating func label(
    _ key: String, _ number: Int, unit: String? = nil
  ) -> [(UInt32, UInt64)] {
    let fields = [
      (LabelField.key, out.string(key)), (LabelField.number, UInt64(bitPattern: Int64(number))),
    ]
    return unit.map { fields + [(LabelField.unit, out.string($0))] } ?? fields
  }

  private mutating func label(_ key: String, _ text: String) -> [(UInt32, UInt64)] {
    [(LabelField.key, out.string(key)), (LabelField.string, out.string(text))]
  }
}
