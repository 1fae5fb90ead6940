// SPDX-License-Identifier: Apache-2.0
// Turns the names that linkers use into the names that people wrote.

import Glibc

/// Turns mangled names of Swift, C++ and older Rust into what a person reads.
///
/// Names that are not mangled, or by a scheme that is not known here (Rust's `_R…`), come back as
/// they are. The demanglers are those of the Swift runtime and of libstdc++; neither is fit for a
/// name made by an enemy, so names from a file belong in the worker process.
public struct Demangler: Sendable {
  /// How much of a name to show.
  public enum Style: UInt8, Sendable {
    /// `static Session.open(_:)`: no modules and no argument types. For reports.
    case simplified
    /// `static main.Session.open(main.Key) -> Swift.Optional<Swift.Int>`. Tells overloads apart.
    case full
  }

  /// How much of a Swift name to show. Names of other languages have one style.
  public var style: Style

  public init(style: Style = .simplified) {
    self.style = style
  }

  /// The name as a person reads it.
  ///
  /// What the compiler cut out of a function (`.cold`, `.part.0`) or made of it (`.constprop.0`)
  /// gets the function's own name: a report counts the function once.
  public func demangled(_ symbol: String) -> String {
    var name = symbol[...]
    // `malloc@@GLIBC_2.2.5`, as some linkers write versioned names. Swift has no `@` in names.
    if let version = name.firstIndex(of: "@"), version > name.startIndex {
      name = name[..<version]
    }
    name = Self.withoutCloneSuffixes(name)
    let plain = String(name)
    if Self.isSwift(plain) { return demangledSwift(plain) ?? plain }
    if plain.hasPrefix("_Z") || plain.hasPrefix("___Z") {
      guard let demangled = Self.demangledCxx(plain) else { return plain }
      return Self.withoutRustHash(demangled)
    }
    return plain
  }

  // MARK: Swift

  private static func isSwift(_ name: String) -> Bool {
    ["$s", "$S", "$e", "_$s", "_$S", "_$e", "_T"].contains { name.hasPrefix($0) }
  }

  private func demangledSwift(_ name: String) -> String? {
    let byteCount = name.utf8.count
    let demangled =
      switch style {
      case .simplified: unsafe swift_backtrace_demangle(name, byteCount, nil, nil)
      case .full: unsafe swift_demangle(name, byteCount, nil, nil, 0)
      }
    guard let demangled = unsafe demangled else { return nil }
    defer { unsafe free(demangled) }
    let result = unsafe String(cString: demangled)
    // A closure in top-level code lies in the module, whose name this style leaves out.
    return style == .simplified && result.hasSuffix(" in ") ? result + "main" : result
  }

  // MARK: C++

  private typealias CxxDemangle =
    @convention(c) (
      UnsafePointer<CChar>, UnsafeMutablePointer<CChar>?, UnsafeMutablePointer<Int>?,
      UnsafeMutablePointer<CInt>?
    ) -> UnsafeMutablePointer<CChar>?

  /// Looked up and not linked: the Swift runtime has loaded libstdc++ anyway, and a link to it
  /// would have to be repeated by everyone who links this library.
  private static let cxxDemangle: CxxDemangle? = {
    guard let function = unsafe dlsym(nil, "__cxa_demangle") else { return nil }
    return unsafe unsafeBitCast(function, to: CxxDemangle.self)
  }()

  private static func demangledCxx(_ name: String) -> String? {
    guard let cxxDemangle = unsafe cxxDemangle,
      let demangled = unsafe cxxDemangle(name, nil, nil, nil)
    else { return nil }
    defer { unsafe free(demangled) }
    return unsafe String(cString: demangled)
  }

  // MARK: Rust

  /// Rust's older scheme is C++'s, with a hash as the last component and escapes for what C++
  /// has no letters for: `_$LT$alloc..vec..Vec$LT$T$GT$$GT$::push::h0123456789abcdef`.
  static func withoutRustHash(_ name: String) -> String {
    guard name.utf8.count > 19, case let hash = name.suffix(19), hash.hasPrefix("::h"),
      hash.dropFirst(3).allSatisfy({ $0.isHexDigit && !$0.isUppercase })
    else { return name }
    let path = name.dropLast(19).split(separator: "::", omittingEmptySubsequences: false)
    return path.map { decodedRustComponent($0) }.joined(separator: "::")
  }

  private static func decodedRustComponent(_ component: Substring) -> String {
    // A component may not begin with an escape, hence the underscore before one.
    var rest = component.hasPrefix("_$") ? component.dropFirst() : component
    var decoded = ""
    while let character = rest.first {
      if character == "$", let end = rest.dropFirst().firstIndex(of: "$"),
        let text = decodedRustEscape(rest[rest.index(after: rest.startIndex)..<end])
      {
        decoded += text
        rest = rest[rest.index(after: end)...]
      } else if rest.hasPrefix("..") {
        decoded += "::"
        rest = rest.dropFirst(2)
      } else {
        decoded.append(character)
        rest = rest.dropFirst()
      }
    }
    return decoded
  }

  private static func decodedRustEscape(_ escape: Substring) -> String? {
    switch escape {
    case "SP": return "@"
    case "BP": return "*"
    case "RF": return "&"
    case "LT": return "<"
    case "GT": return ">"
    case "LP": return "("
    case "RP": return ")"
    case "C": return ","
    default:
      guard escape.hasPrefix("u"), let code = UInt32(escape.dropFirst(), radix: 16),
        let scalar = Unicode.Scalar(code), scalar.value >= 0x20
      else { return nil }
      return String(Character(scalar))
    }
  }

  // MARK: Clones

  private static let cloneSuffixes: Set<Substring> = [
    "cold", "part", "constprop", "isra", "lto_priv", "llvm", "resume", "destroy", "cleanup",
  ]

  /// Drops `.cold`, `.part.0`, `.constprop.0.isra.0` and their like.
  private static func withoutCloneSuffixes(_ name: Substring) -> Substring {
    // Most names have no dot at all.
    guard let dot = name.dropFirst().firstIndex(of: ".") else { return name }
    for suffix in name[dot...].dropFirst().split(separator: ".", omittingEmptySubsequences: false) {
      guard cloneSuffixes.contains(suffix) || UInt64(suffix) != nil else { return name }
    }
    return name[..<dot]
  }
}

// Both are the Swift runtime's own and are there in static and dynamic links alike; they return
// memory of malloc's, or null. The first is not stable API. It has been there since 5.9, gives what
// `swift demangle --simplified` does, and `swift_demangle` takes no flag that would.

@_silgen_name("_swift_backtrace_demangle")
private func swift_backtrace_demangle(
  _ name: UnsafePointer<CChar>, _ byteCount: Int, _ buffer: UnsafeMutablePointer<CChar>?,
  _ bufferByteCount: UnsafeMutablePointer<Int>?
) -> UnsafeMutablePointer<CChar>?

@_silgen_name("swift_demangle")
private func swift_demangle(
  _ name: UnsafePointer<CChar>, _ byteCount: Int, _ buffer: UnsafeMutablePointer<CChar>?,
  _ bufferByteCount: UnsafeMutablePointer<Int>?, _ flags: UInt32
) -> UnsafeMutablePointer<CChar>?
