// SPDX-License-Identifier: Apache-2.0
// Bytes to a snapshot: what `docs/dump-format.md` describes, and other tools' heap profiles.

import HeapModel

extension Snapshot {
  /// Reads a heap profile: a Heaptap dump, or what another tool wrote in pprof's format.
  ///
  /// The bytes may be compressed by gzip. Functions and lines are taken over if there are any. A
  /// profile that was cut short is read up to its last whole field, and says so in `warnings`; a
  /// profile of something else, or with damage in it, is refused.
  ///
  /// Nothing in the bytes is trusted: memory and time are bounded by their number, by
  /// `inflatedByteCountLimit` where they are compressed, and by `ProfileLimits`.
  public init(
    profile bytes: [UInt8], inflatedByteCountLimit: Int = 512 << 20
  ) throws(ProfileError) {
    try self.init(
      profile: bytes, inflatedByteCountLimit: inflatedByteCountLimit, limits: ProfileLimits())
  }

  package init(
    profile bytes: [UInt8], inflatedByteCountLimit: Int = 512 << 20, limits: ProfileLimits
  ) throws(ProfileError) {
    let contents = try Gzip.contents(of: bytes, byteCountLimit: inflatedByteCountLimit)
    guard !contents.bytes.isEmpty else { throw ProfileError(contents.isCut ? .truncated : .empty) }
    guard contents.bytes.count < UInt32.max else {
      throw ProfileError(.tooLarge, "more than 4 GiB")
    }
    var reader = ProfileReader(contents.bytes, isCut: contents.isCut, limits: limits)
    do {
      try reader.readAll()
    } catch {
      // What is missing may well have been in the part that was cut off.
      guard reader.isCut, error.code == .danglingReference || error.code == .notHeapProfile else {
        throw error
      }
      throw ProfileError(.truncated, at: reader.end)
    }
    self = reader.finish()
  }
}

/// How much a profile may have, several times what a tracer ever writes.
///
/// What is read takes twenty times the bytes of the smallest samples and locations: without limits
/// a compressed file of half a megabyte could fill 10 GB.
package struct ProfileLimits: Sendable {
  package var samples: Int
  /// Of locations, functions and mappings together, and of inlined calls.
  package var frames: Int

  package init(samples: Int = 1 << 24, frames: Int = 1 << 22) {
    self.samples = samples
    self.frames = frames
  }
}

/// Reads a profile in three passes: fields may come in any order, and refer to others by number.
///
/// Passing over the top-level fields is cheap, a list of them would not be: a hostile file can
/// have one in every two bytes.
struct ProfileReader: ~Copyable {
  private let bytes: [UInt8]
  private let limits: ProfileLimits
  /// Whether the bytes end in the middle of a field.
  private(set) var isCut: Bool
  /// The end of the last whole field.
  private(set) var end = 0
  private var sampleCount = 0
  private var sampleByteCount = 0

  private var strings: StringTable
  private var builder = Snapshot.Builder()
  private var sampleTypes = SampleTypes()
  private var header = Header()
  private var timeNanoseconds: UInt64 = 0
  private var headerByteCount = 0

  private var mappings: IDTable
  private var functions: IDTable
  private var functionNames: [(function: String?, file: String?)] = []
  private var locations: IDTable
  /// Where each location's frames end in `locationFrames`.
  private var locationEnds: [Int] = []
  private var locationFrames: [UInt32] = []

  private var frameBudget: Int
  /// The frames of the sample being read: kept for its memory.
  private var stack: [UInt32] = []

  init(_ bytes: [UInt8], isCut: Bool, limits: ProfileLimits) {
    self.bytes = bytes
    self.limits = limits
    self.isCut = isCut
    strings = StringTable(of: bytes)
    mappings = IDTable(profileByteCount: bytes.count)
    functions = IDTable(profileByteCount: bytes.count)
    locations = IDTable(profileByteCount: bytes.count)
    // A location may hold thousands of inlined frames and be on thousands of stacks, which makes
    // gigabytes of a small file. An honest frame on a stack takes a byte of it or more, and
    // inlining rarely makes ten of one.
    frameBudget = 65536 + 16 * bytes.count
  }

  /// Finds the end and the strings, and counts.
  private mutating func survey() throws(ProfileError) {
    var definitionCount = 0
    var reader = WireReader(bytes)
    while !reader.isAtEnd {
      do {
        let tag = try reader.readTag()
        if tag.field == ProfileField.string {
          let lengthOffset = reader.position
          _ = try reader.readBytes(tag)
          strings.append(lengthAt: lengthOffset)
        } else if tag.field == ProfileField.sample {
          sampleByteCount += try reader.readBytes(tag).count
          sampleCount += 1
          try Self.check(sampleCount, limits.samples, "samples", tag)
        } else {
          switch tag.field {
          case ProfileField.location, ProfileField.function, ProfileField.mapping:
            definitionCount += 1
          default: break
          }
          try Self.check(definitionCount, limits.frames, "locations and functions", tag)
          try reader.skip(tag.type)
        }
      } catch {
        guard error.code == .truncated else { throw error }
        isCut = true
        return
      }
      end = reader.position
    }
  }

  private static func check(
    _ count: Int, _ limit: Int, _ what: StaticString, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    guard count > limit else { return }
    throw ProfileError(.tooLarge, at: tag.byteOffset, "more than \(limit) \(what)")
  }

  mutating func readAll() throws(ProfileError) {
    try survey()
    try pass { me, reader, tag throws(ProfileError) in
      try me.readHeaderField(&reader, tag)
    }
    try sampleTypes.check()
    if timeNanoseconds != 0, header.dumpWallNanoseconds == nil, !header.isHeaptap {
      header["dump_wall_ns"] = "\(timeNanoseconds)"
    }
    builder.header = header
    try pass { me, reader, tag throws(ProfileError) in
      guard tag.field == ProfileField.location else { return false }
      try me.readLocation(&reader, tag)
      return true
    }
    reserve()
    try pass { me, reader, tag throws(ProfileError) in
      guard tag.field == ProfileField.sample else { return false }
      try me.readSample(&reader, tag)
      return true
    }
  }

  /// Makes room for the stacks that an honest file of this size has: most IDs take two bytes. Pages
  /// that are not used are not there; and what a file may claim by being large has its limit.
  private mutating func reserve() {
    let limit = 1 << 20
    builder.reserve(
      stacks: min(sampleCount, limit), frames: min(sampleByteCount / 2, 64 * limit),
      samples: min(sampleCount, limit))
  }

  /// Goes over the top-level fields, skipping those that the body does not take.
  private mutating func pass(
    _ body: (inout Self, inout WireReader, WireReader.Tag) throws(ProfileError) -> Bool
  ) throws(ProfileError) {
    var reader = WireReader(bytes, from: 0, to: end)
    while !reader.isAtEnd {
      let tag = try reader.readTag()
      if try !body(&self, &reader, tag) { try reader.skip(tag.type) }
    }
  }

  consuming func finish() -> Snapshot {
    let sites = builder.stackCount
    if header.isHeaptap && (isCut || !header.isComplete) || isCut {
      let place = isCut ? "inside a field" : "before its last field"
      let which = header.isHeaptap ? "largest" : "first"
      let kept = sites == 1 ? "1 site was" : "\(sites) sites were"
      builder.warnings.append(
        "profile ends \(place) (byte \(isCut ? bytes.count : end)): the \(which) \(kept) kept")
    } else if sites == 0 && !header.isHeaptap {
      builder.warnings.append("profile has no samples")
    }
    if let version = header.formatVersion, version > 1 {
      builder.warnings.append(
        "profile is of a newer format (heaptap=\(version)): what is new in it is not shown")
    }
    return builder.finish()
  }
}

// What samples and locations refer to.
extension ProfileReader {
  private mutating func readHeaderField(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) -> Bool {
    switch tag.field {
    case ProfileField.sampleType: try readSampleType(&reader, tag)
    case ProfileField.comment: try readComments(&reader, tag)
    case ProfileField.mapping: try readMapping(&reader, tag)
    case ProfileField.function: try readFunction(&reader, tag)
    case ProfileField.timeNanoseconds: try readTime(&reader, tag)
    default: return false
    }
    return true
  }

  private mutating func readSampleType(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    var type: UInt64 = 0
    var unit: UInt64 = 0
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case ValueTypeField.type: type = try reader.readInteger(inner)
      case ValueTypeField.unit: unit = try reader.readInteger(inner)
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    sampleTypes.append(
      type: try strings.text(type, for: tag.byteOffset),
      unit: try strings.text(unit, for: tag.byteOffset))
  }

  private mutating func readComments(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    // Not through `readIntegers`: its body would have to change what the reader belongs to.
    if tag.type == .varint { return try append(comment: try reader.readVarint(), tag.byteOffset) }
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let start = reader.position
      try append(comment: try reader.readVarint(), start)
    }
    reader.leaveMessage(outer)
  }

  private mutating func append(comment: UInt64, _ place: Int) throws(ProfileError) {
    // One long string may be referred to in every third byte, and is copied for each.
    headerByteCount += try strings.byteCount(of: comment, for: place)
    guard headerByteCount <= bytes.count else {
      throw ProfileError(.tooLarge, at: place, "its comments are longer than the whole")
    }
    header.append(Header.Entry(comment: try strings.text(comment, for: place)))
  }

  private mutating func readTime(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    timeNanoseconds = try reader.readInteger(tag)
  }

  private mutating func readMapping(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    var id: UInt64 = 0
    var module = Module(start: 0, limit: 0, fileOffset: 0, path: "", buildID: "")
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case MappingField.id: id = try reader.readInteger(inner)
      case MappingField.start: module.start = try reader.readInteger(inner)
      case MappingField.limit: module.limit = try reader.readInteger(inner)
      case MappingField.fileOffset: module.fileOffset = try reader.readInteger(inner)
      case MappingField.fileName:
        module.path = try strings.text(try reader.readInteger(inner), for: inner.byteOffset)
      case MappingField.buildID:
        module.buildID = try strings.text(try reader.readInteger(inner), for: inner.byteOffset)
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    guard mappings.insert(id, builder.modules.count) else {
      throw ProfileError(.duplicateID, at: tag.byteOffset, "mapping \(id)")
    }
    builder.modules.append(module)
  }

  private mutating func readFunction(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    var id: UInt64 = 0
    var name: UInt64 = 0
    var systemName: UInt64 = 0
    var file: UInt64 = 0
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case FunctionField.id: id = try reader.readInteger(inner)
      case FunctionField.name: name = try reader.readInteger(inner)
      case FunctionField.systemName: systemName = try reader.readInteger(inner)
      case FunctionField.fileName: file = try reader.readInteger(inner)
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    guard functions.insert(id, functionNames.count) else {
      throw ProfileError(.duplicateID, at: tag.byteOffset, "function \(id)")
    }
    let systemText = try strings.optionalText(systemName, for: tag.byteOffset)
    functionNames.append(
      (
        function: try strings.optionalText(name, for: tag.byteOffset) ?? systemText,
        file: try strings.optionalText(file, for: tag.byteOffset)
      ))
  }
}

// Locations and samples.
extension ProfileReader {
  private mutating func readLocation(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    var id: UInt64 = 0
    var frame = Frame()
    var lines: [Frame] = []
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case LocationField.id: id = try reader.readInteger(inner)
      case LocationField.address: frame.address = try reader.readInteger(inner)
      case LocationField.mapping:
        let mapping = try reader.readInteger(inner)
        guard mapping != 0 else { break }
        guard let module = mappings[mapping] else {
          throw ProfileError(.danglingReference, at: inner.byteOffset, "mapping \(mapping)")
        }
        frame.module = Int(module)
      case LocationField.line:
        lines.append(try readLine(&reader, inner))
        try Self.check(
          locationFrames.count + lines.count, limits.frames, "inlined calls", inner)
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    guard locations.insert(id, locationEnds.count) else {
      throw ProfileError(.duplicateID, at: tag.byteOffset, "location \(id)")
    }
    append(frame, lines)
  }

  /// Keeps the frames of a location: itself, or one for each of its lines, innermost first.
  private mutating func append(_ frame: Frame, _ lines: [Frame]) {
    if header.isHeaptap, frame == Frame(), lines.count == 1, StackRoot(lines[0]) != nil {
      // It stands for frames that are not there; the sample's labels say the same.
      return locationEnds.append(locationFrames.count)
    }
    if lines.isEmpty {
      let isLostStack = header.isHeaptap && frame == Frame()
      locationFrames.append(builder.index(of: isLostStack ? .lostStack : frame))
    }
    for (number, var line) in lines.enumerated() {
      line.address = frame.address
      line.module = frame.module
      line.isInlined = number < lines.count - 1
      locationFrames.append(builder.index(of: line))
    }
    locationEnds.append(locationFrames.count)
  }

  private mutating func readLine(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) -> Frame {
    var line = Frame()
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case LineField.function:
        let function = try reader.readInteger(inner)
        guard function != 0 else { break }
        guard let index = functions[function] else {
          throw ProfileError(.danglingReference, at: inner.byteOffset, "function \(function)")
        }
        (line.function, line.file) = functionNames[Int(index)]
      case LineField.line:
        line.line = Int(truncatingIfNeeded: try reader.readInteger(inner))
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    return line
  }

  private mutating func readSample(
    _ reader: inout WireReader, _ tag: WireReader.Tag
  ) throws(ProfileError) {
    var sample = Snapshot.Sample(stack: 0, liveBytes: 0, liveBlocks: 0)
    var valueCount = 0
    stack.removeAll(keepingCapacity: true)
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case SampleField.location:
        try reader.readIntegers(inner) { id, place throws(ProfileError) in
          try append(location: id, place)
        }
      case SampleField.value:
        try reader.readIntegers(inner) { value, place throws(ProfileError) in
          guard value <= UInt64(Int.max) else { throw ProfileError(.negativeValue, at: place) }
          sampleTypes.set(valueCount, to: Int(value), in: &sample)
          valueCount += 1
        }
      case SampleField.label: try readLabel(&reader, inner, into: &sample)
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    guard valueCount == sampleTypes.count else {
      throw ProfileError(
        .valueCount, at: tag.byteOffset, valueCount < sampleTypes.count ? "fewer" : "more")
    }
    sample.stack = builder.stack(stack[...])
    builder.add(sample)
  }

  @inline(__always)
  private mutating func append(location id: UInt64, _ place: Int) throws(ProfileError) {
    guard let index = locations[id] else {
      throw ProfileError(.danglingReference, at: place, "location \(id)")
    }
    let start = index == 0 ? 0 : locationEnds[Int(index) - 1]
    let frames = start..<locationEnds[Int(index)]
    frameBudget -= frames.count
    guard frameBudget >= 0 else {
      throw ProfileError(.tooLarge, at: place, "its stacks have more frames than its size allows")
    }
    for frame in frames { stack.append(locationFrames[frame]) }
  }

  private mutating func readLabel(
    _ reader: inout WireReader, _ tag: WireReader.Tag, into sample: inout Snapshot.Sample
  ) throws(ProfileError) {
    var key: UInt64 = 0
    var number = 0
    var string: UInt64 = 0
    let outer = try reader.enterMessage(tag)
    while !reader.isAtEnd {
      let inner = try reader.readTag()
      switch inner.field {
      case LabelField.key: key = try reader.readInteger(inner)
      case LabelField.string: string = try reader.readInteger(inner)
      case LabelField.number: number = Int(truncatingIfNeeded: try reader.readInteger(inner))
      default: try reader.skip(inner.type)
      }
    }
    reader.leaveMessage(outer)
    if try strings.isEqual(key, to: "generation", for: tag.byteOffset) {
      sample.generation = number
    } else if try strings.isEqual(key, to: "truncated", for: tag.byteOffset) {
      guard number >= 0 else { throw ProfileError(.negativeValue, at: tag.byteOffset) }
      sample.missingFrames = number
    } else if try strings.isEqual(key, to: "broken", for: tag.byteOffset) {
      sample.isBroken = number != 0
    } else if try strings.isEqual(key, to: "domain", for: tag.byteOffset) {
      sample.domain = number
    } else if try strings.isEqual(key, to: "type", for: tag.byteOffset) {
      sample.type = try strings.optionalText(string, for: tag.byteOffset)
    } else if try strings.isEqual(key, to: "thread", for: tag.byteOffset) {
      sample.thread = try strings.optionalText(string, for: tag.byteOffset)
    } else if try strings.isEqual(key, to: "tid", for: tag.byteOffset) {
      sample.threadID = number
    } else if try strings.isEqual(key, to: "sampled_blocks", for: tag.byteOffset) {
      guard number >= 0 else { throw ProfileError(.negativeValue, at: tag.byteOffset) }
      sample.sampledBlocks = number
    } else if try strings.isEqual(key, to: "standard_error", for: tag.byteOffset) {
      guard number >= 0 else { throw ProfileError(.negativeValue, at: tag.byteOffset) }
      sample.liveErrorBytes = number
    } else if try strings.isEqual(key, to: "total_standard_error", for: tag.byteOffset) {
      guard number >= 0 else { throw ProfileError(.negativeValue, at: tag.byteOffset) }
      sample.totalErrorBytes = number
    } else if try strings.isEqual(key, to: "reach", for: tag.byteOffset) {
      // What a later tracer may tell apart is not lost for all that is known.
      let word = try strings.optionalText(string, for: tag.byteOffset)
      sample.reach = word.flatMap { Snapshot.Reach(rawValue: $0) } ?? .held
    } else if try strings.isEqual(key, to: "temporary", for: tag.byteOffset) {
      guard number >= 0 else { throw ProfileError(.negativeValue, at: tag.byteOffset) }
      sample.temporaryBlocks = number
    }
  }
}

/// What stands behind the outermost frame of a stack that is not whole, as a frame, so that in other
/// tools' flame graphs such stacks do not begin with whatever was the last that was found.
enum StackRoot: String {
  case truncated = "[truncated]"
  case broken = "[broken]"

  /// `nil` where the frame is one.
  init?(_ frame: Frame) {
    guard let name = frame.function, frame == Frame(function: name) else { return nil }
    self.init(rawValue: name)
  }

  /// What a sample's stack ends in; `nil` where it is whole.
  init?(of sample: Snapshot.Sample) {
    guard sample.missingFrames != 0 || sample.isBroken else { return nil }
    self = sample.missingFrames != 0 ? .truncated : .broken
  }

  var frame: Frame { Frame(function: rawValue) }
}

/// Which of a sample's values is what.
struct SampleTypes {
  private(set) var count = 0
  private var first: (type: String, unit: String)?
  private var liveBytes = Place()
  private var liveBlocks = Place()
  private var totalBytes = Place()
  private var totalBlocks = Place()
  private var peakBytes = Place()
  private var peakBlocks = Place()

  /// The index of a value, and how good its name is: gperftools calls live memory `space`.
  private struct Place {
    var index = -1
    var isExact = false

    mutating func take(_ index: Int, isExact: Bool) {
      if self.index < 0 || isExact && !self.isExact { self = Place(index: index, isExact: isExact) }
    }
  }

  mutating func append(type: String, unit: String) {
    if first == nil { first = (type, unit) }
    switch (type, unit) {
    case ("inuse_space", "bytes"): liveBytes.take(count, isExact: true)
    case ("inuse_objects", _): liveBlocks.take(count, isExact: true)
    case ("alloc_space", "bytes"): totalBytes.take(count, isExact: true)
    case ("alloc_objects", _): totalBlocks.take(count, isExact: true)
    case ("peak_space", "bytes"): peakBytes.take(count, isExact: true)
    case ("peak_objects", _): peakBlocks.take(count, isExact: true)
    case ("space", "bytes"): liveBytes.take(count, isExact: false)
    case ("objects", _): liveBlocks.take(count, isExact: false)
    default: break
    }
    count += 1
  }

  /// Refuses profiles that do not count live bytes.
  func check() throws(ProfileError) {
    guard liveBytes.index < 0 else { return }
    throw ProfileError(
      .notHeapProfile,
      first.map { "first sample type is '\($0.type)', expected 'inuse_space'" })
  }

  @inline(__always)
  func set(_ index: Int, to value: Int, in sample: inout Snapshot.Sample) {
    if index == liveBytes.index { sample.liveBytes = value }
    if index == liveBlocks.index { sample.liveBlocks = value }
    if index == totalBytes.index { sample.totalBytes = value }
    if index == totalBlocks.index { sample.totalBlocks = value }
    if index == peakBytes.index { sample.peakBytes = value }
    if index == peakBlocks.index { sample.peakBlocks = value }
  }
}
