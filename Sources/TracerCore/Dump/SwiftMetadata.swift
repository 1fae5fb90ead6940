// SPDX-License-Identifier: Apache-2.0
// The names of Swift types, from what the runtime keeps of them in memory.

// An object begins with the address of its metadata. What is read here is part of Swift's stable ABI
// (include/swift/ABI/Metadata.h, MetadataKind.def and MetadataValues.h in Swift's sources):
//
//     class     0 kind (0), 20 address point, 24 instance size, 28 alignment mask, 40 descriptor
//     value     0 kind, 8 descriptor, 16 generic arguments
//     box       0 kind, 16 type
//     tuple     0 kind, 8 count, 24 elements of 16 bytes
//     function  0 kind, 8 flags, 16 result, 24 parameters
//     protocols 0 kind, 8 flags and count, 16 superclass, where there is one, and protocols
//
//     descriptor of a context
//               0 flags, 4 parent, 8 name
//     class's   20 superclass, 24 and 28 metadata's size to either side, 32 immediate members, 44 generics
//     others'   28 generics
//     extension's  8 the mangled name of what it extends
//     generics  8 parameters, 12 arguments, 14 flags, 16 a byte for each parameter
//
// Every word comes by way of the kernel, nothing is believed before it is checked, and what does not fit
// has no name. Descriptors and names must lie in a module: what is made at run time are only metadata.

import CTracerPlatform

/// What the metadata of an object say that it is.
struct ObjectKind {
  enum Kind {
    /// An instance of a class or of an actor.
    case instance
    /// What a closure has captured, or a variable that one has: the compiler makes both alike.
    case captures
    /// A value of a type that is not known before run time.
    case box
    /// An error, whose type is in the object.
    case error
    case task
  }

  var kind: Kind
  /// No object of the kind is smaller.
  var byteCount: UInt64
  /// The metadata of what is in the box.
  var boxed: UInt = 0
}

/// Reads the metadata of types.
struct SwiftMetadata {
  private static var nestingLimit: Int { 8 }
  private static var contextLimit: Int { 16 }
  private static var parameterLimit: Int { 32 }
  private static var nameByteLimit: Int { 256 }

  let memory: ForeignMemory
  /// Words that may still be read for the name at hand: one that leads in circles ends.
  private var budget = 0

  init(_ memory: ForeignMemory) { self.memory = memory }

  // MARK: Objects

  /// What kind of object begins with the address of these metadata; `nil` for none.
  func kind(_ metadata: UInt) -> ObjectKind? {
    guard metadata & 7 == 0, metadata >= 4096, let kind = memory.word(metadata) else { return nil }
    switch kind {
    case 0:
      return Self.classSize(metadata, memory).map { ObjectKind(kind: .instance, byteCount: $0) }
    case 0x400 where Self.isInModule(metadata):
      return ObjectKind(kind: .captures, byteCount: 16)
    case 0x500:
      guard let boxed = memory.word(metadata &+ 16) else { return nil }
      return ObjectKind(kind: .box, byteCount: 16, boxed: boxed)
    case 0x501 where Self.isInModule(metadata): return ObjectKind(kind: .error, byteCount: 32)
    // The runtime's header of a task; see `TaskOrigin`.
    case 0x502 where Self.isInModule(metadata): return ObjectKind(kind: .task, byteCount: 208)
    default: return nil
    }
  }

  /// The size of an instance, where these are the metadata of a class.
  private static func classSize(_ metadata: UInt, _ memory: ForeignMemory) -> UInt64? {
    var bytes = InlineArray<6, UInt64>(repeating: 0)
    let isThere = withUnsafeMutableBytes(of: &bytes) {
      memory.copy(metadata, 48, to: $0.baseAddress.unsafelyUnwrapped)
    }
    let (addressPoint, instance) = (bytes[2] >> 32, bytes[3] & 0xffff_ffff)
    let (alignment, reserved) = (bytes[3] >> 32 & 0xffff &+ 1, bytes[3] >> 48)
    let (size, start) = (bytes[4] & 0xffff_ffff, bytes[4] >> 32)
    guard isThere, bytes[0] == 0, addressPoint == 0, instance >= 16, reserved == 0,
      alignment & (alignment &- 1) == 0, start < size, size <= 1 << 20,
      isInModule(UInt(bytes[5])), let flags = memory.halfWord(UInt(bytes[5])),
      ContextKind(flags) == .class
    else { return nil }
    return instance
  }

  /// Whether the loader has a module at an address.
  private static func isInModule(_ address: UInt) -> Bool {
    var object = tracer_object()
    if tracer_find_object(UInt64(address), &object) == 0 { return true }
    // Of a program with gaps between its segments the loader tells only of those that are executed.
    var count = 0
    guard let headers = tracer_program_headers(&count) else { return false }
    var bias = UInt(0)
    for position in 0..<min(count, 256) {
      let entry = headers + position &* 56
      let start = entry.loadUnaligned(fromByteOffset: 16, as: UInt.self)
      let byteCount = entry.loadUnaligned(fromByteOffset: 40, as: UInt.self)
      switch entry.loadUnaligned(as: UInt32.self) {
      case 6: bias = UInt(bitPattern: headers) &- start  // PT_PHDR comes before all segments.
      case 1 where address &- bias &- start < byteCount: return true  // PT_LOAD
      default: break
      }
    }
    return false
  }

  // MARK: Types

  /// Appends the name of a type by its metadata, `Module.Outer.Inner<Swift.Int>`; `false`, with part of
  /// it, where it cannot be told.
  mutating func appendName(_ metadata: UInt, to text: inout TextBuffer) -> Bool {
    budget = 1000
    return append(metadata, to: &text, nesting: 0)
  }

  /// A type that is part of another: `_` where it cannot be told.
  private mutating func appendPart(
    _ metadata: UInt?, to text: inout TextBuffer, nesting: Int
  ) {
    let start = text
    guard let metadata, append(metadata, to: &text, nesting: nesting &+ 1) else {
      text = start
      return text.append("_")
    }
  }

  private mutating func word(_ address: UInt) -> UInt? {
    budget &-= 1
    return budget > 0 ? memory.word(address) : nil
  }

  private mutating func halfWord(_ address: UInt) -> UInt32? {
    budget &-= 1
    return budget > 0 ? memory.halfWord(address) : nil
  }

  private mutating func append(
    _ metadata: UInt, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    guard nesting < Self.nestingLimit, metadata & 7 == 0, let kind = word(metadata) else {
      return false
    }
    switch kind {
    case 0:
      guard Self.classSize(metadata, memory) != nil, let descriptor = word(metadata &+ 40) else {
        return false
      }
      return appendContext(
        descriptor, arguments: classArguments(metadata, descriptor), to: &text, nesting: nesting)
    case 0x200, 0x201, 0x202, 0x203:
      guard let descriptor = word(metadata &+ 8) else { return false }
      return appendContext(descriptor, arguments: metadata &+ 16, to: &text, nesting: nesting)
    case 0x301: return appendTuple(metadata, to: &text, nesting: nesting)
    case 0x302: return appendFunction(metadata, to: &text, nesting: nesting)
    case 0x303: return appendProtocols(metadata, to: &text, nesting: nesting)
    case 0x304, 0x306:
      appendPart(word(metadata &+ 8), to: &text, nesting: nesting)
      text.append(".Type")
      return true
    default: return false
    }
  }

  private mutating func appendTuple(
    _ metadata: UInt, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    guard let count = word(metadata &+ 8), count <= 16 else { return false }
    text.append("(")
    for position in 0..<count {
      if position > 0 { text.append(", ") }
      appendPart(word(metadata &+ 24 &+ position &* 16), to: &text, nesting: nesting)
    }
    text.append(")")
    return true
  }

  private mutating func appendFunction(
    _ metadata: UInt, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    guard let flags = word(metadata &+ 8), flags & 0xffff <= 16 else { return false }
    text.append("(")
    for position in 0..<(flags & 0xffff) {
      if position > 0 { text.append(", ") }
      appendPart(word(metadata &+ 24 &+ position &* 8), to: &text, nesting: nesting)
    }
    text.append(")")
    if flags & 0x2000_0000 != 0 { text.append(" async") }
    if flags & 0x0100_0000 != 0 { text.append(" throws") }
    text.append(" -> ")
    appendPart(word(metadata &+ 16), to: &text, nesting: nesting)
    return true
  }

  private mutating func appendProtocols(
    _ metadata: UInt, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    guard let facts = word(metadata &+ 8) else { return false }
    let (flags, count) = (facts & 0xffff_ffff, facts >> 32)
    guard count <= 16 else { return false }
    var place = metadata &+ 16
    var isFirst = true
    if flags & 1 << 30 != 0 {
      appendPart(word(place), to: &text, nesting: nesting)
      place &+= 8
      isFirst = false
    }
    for _ in 0..<count {
      if !isFirst { text.append(" & ") }
      isFirst = false
      guard let descriptor = word(place),
        appendContext(descriptor, arguments: nil, to: &text, nesting: nesting)
      else { return false }
      place &+= 8
    }
    // The flag says that it need not be a class.
    if isFirst { text.append(flags & 1 << 31 != 0 ? "Any" : "AnyObject") }
    return true
  }

  // MARK: Contexts

  /// What a context is: the low bits of its flags.
  private enum ContextKind: UInt32 {
    case module = 0
    case `extension` = 1
    case anonymous = 2
    case `protocol` = 3
    case `class` = 16
    case `struct` = 17
    case `enum` = 18

    init?(_ flags: UInt32) { self.init(rawValue: flags & 31) }

    /// Where the header of the generics is, for what has a name and may have them.
    var genericsOffset: UInt? {
      switch self {
      case .class: 44
      case .struct, .enum: 28
      default: nil
      }
    }
  }

  /// Where a class's generic arguments are in its metadata.
  private mutating func classArguments(_ metadata: UInt, _ descriptor: UInt) -> UInt? {
    guard let flags = halfWord(descriptor) else { return nil }
    if flags & 1 << 29 != 0 {
      // A superclass of a library that may grow: how large it is was found out at run time.
      guard let bounds = target(descriptor &+ 24), let offset = word(bounds) else { return nil }
      return metadata &+ offset
    }
    guard let negative = halfWord(descriptor &+ 24), let positive = halfWord(descriptor &+ 28),
      let members = halfWord(descriptor &+ 32), members <= positive, positive < 1 << 20
    else { return nil }
    if flags & 1 << 28 != 0 { return metadata &- UInt(negative) &* 8 }
    return metadata &+ UInt(positive &- members) &* 8
  }

  /// What a relative reference leads to.
  private mutating func target(_ address: UInt) -> UInt? {
    guard let offset = halfWord(address), offset != 0 else { return nil }
    return address &+ UInt(bitPattern: Int(Int32(bitPattern: offset)))
  }

  /// The same of one whose lowest bit says that the address itself is there.
  private mutating func indirectTarget(_ address: UInt) -> UInt? {
    guard let place = target(address) else { return nil }
    return place & 1 == 0 ? place : word(place & ~1)
  }

  /// Appends a context's name with those of the contexts that it is in, the outermost first. What is in
  /// a function or in a file alone has the name as if it were not.
  private mutating func appendContext(
    _ descriptor: UInt, arguments: UInt?, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    var contexts = InlineArray<16, UInt>(repeating: 0)
    var kinds = InlineArray<16, ContextKind>(repeating: .module)
    var count = 0
    var next: UInt? = descriptor
    while let context = next {
      guard count < Self.contextLimit, context & 3 == 0, Self.isInModule(context),
        let flags = halfWord(context), let kind = ContextKind(flags)
      else { return false }
      next = kind == .extension ? extended(context) : indirectTarget(context &+ 4)
      if kind == .anonymous || kind == .extension { continue }
      contexts[count] = context
      kinds[count] = kind
      count &+= 1
      if kind == .module { break }
    }
    guard count > 1, kinds[count &- 1] == .module else { return false }
    return appendNames(contexts, kinds, count, arguments, to: &text, nesting: nesting)
  }

  /// What an extension extends, where a reference says so, or else its module.
  private mutating func extended(_ context: UInt) -> UInt? {
    if let name = target(context &+ 8), let first = halfWord(name) {
      if first & 0xff == 1 { return target(name &+ 1) }
      if first & 0xff == 2, let place = target(name &+ 1) { return word(place) }
    }
    return indirectTarget(context &+ 4)
  }

  private mutating func appendNames(
    _ contexts: InlineArray<16, UInt>, _ kinds: InlineArray<16, ContextKind>, _ count: Int,
    _ arguments: UInt?, to text: inout TextBuffer, nesting: Int
  ) -> Bool {
    // All parameters are those of the innermost; the outer ones' come first.
    var generics = Generics()
    if let arguments { generics = self.generics(contexts[0], kinds[0], arguments) }
    var written: UInt32 = 0
    var position = count
    while position > 0 {
      position &-= 1
      if position < count &- 1 { text.append(".") }
      guard let name = target(contexts[position] &+ 8), appendIdentifier(name, to: &text) else {
        return false
      }
      guard let own = parameterCount(contexts[position], kinds[position]), own > written else {
        continue
      }
      append(generics, written..<own, to: &text, nesting: nesting)
      written = own
    }
    return true
  }

  private mutating func appendIdentifier(_ name: UInt, to text: inout TextBuffer) -> Bool {
    guard Self.isInModule(name) else { return false }
    budget &-= 1
    var bytes = InlineArray<256, UInt8>(repeating: 0)
    let memory = memory
    return withUnsafeMutableBytes(of: &bytes) {
      guard
        let count = memory.copyText(
          name, to: $0.baseAddress.unsafelyUnwrapped, limit: Self.nameByteLimit), count > 0
      else { return false }
      let read = UnsafeRawBufferPointer(rebasing: $0[..<count])
      for byte in read where byte < 0x20 || byte == 0x7f { return false }
      text.append(utf8: read)
      return true
    }
  }

  // MARK: Generic arguments

  /// The parameters of a generic type, and where its arguments are.
  private struct Generics {
    var count: UInt32 = 0
    var arguments: UInt = 0
    /// For each: the low bits say whether it stands for a type (0) or a value (2), the highest whether
    /// there is an argument for it.
    var parameters = InlineArray<32, UInt8>(repeating: 0)
  }

  private mutating func parameterCount(_ context: UInt, _ kind: ContextKind) -> UInt32? {
    guard let offset = kind.genericsOffset, let flags = halfWord(context), flags & 0x80 != 0,
      let counts = halfWord(context &+ offset &+ 8)
    else { return nil }
    return counts & 0xffff
  }

  private mutating func generics(
    _ context: UInt, _ kind: ContextKind, _ arguments: UInt
  ) -> Generics {
    var generics = Generics()
    guard let offset = kind.genericsOffset, let count = parameterCount(context, kind),
      count <= UInt32(Self.parameterLimit),
      let facts = halfWord(context &+ offset &+ 12), facts >> 16 & 1 == 0  // no parameter packs
    else { return generics }
    let memory = memory
    let isThere = withUnsafeMutableBytes(of: &generics.parameters) {
      memory.copy(
        context &+ offset &+ 16, Int(count), to: $0.baseAddress.unsafelyUnwrapped)
    }
    guard isThere else { return generics }
    generics.count = count
    generics.arguments = arguments
    return generics
  }

  private mutating func append(
    _ generics: Generics, _ range: Range<UInt32>, to text: inout TextBuffer, nesting: Int
  ) {
    text.append("<")
    var place = generics.arguments
    for number in 0..<range.upperBound {
      let parameter = number < generics.count ? generics.parameters[Int(number)] : 0
      if range.contains(number) {
        if number > range.lowerBound { text.append(", ") }
        let argument = parameter & 0x80 == 0 ? nil : word(place)
        if let argument, parameter & 0x3f == 2 {
          text.append(signed: Int64(truncatingIfNeeded: argument))
        } else {
          appendPart(parameter & 0x3f == 0 ? argument : nil, to: &text, nesting: nesting)
        }
      }
      if parameter & 0x80 != 0 { place &+= 8 }
    }
    text.append(">")
  }
}
