// SPDX-License-Identifier: Apache-2.0
// Turns the names that linkers use into the names that people wrote.

import CIberty
import Glibc

/// Turns mangled names of Swift, C++ and Rust into what a person reads.
///
/// Names that are not mangled come back as they are. The demanglers are those of the Swift runtime,
/// of libstdc++ and of libiberty; none is fit for a name made by an enemy, so names from a file belong
/// in the worker process.
public struct Demangler: Sendable {
  /// How much of a name to show.
  public enum Style: UInt8, Sendable {
    /// `static Session.open(_:)`, `Cache<…>::insert`: no modules of Swift and no types. For reports.
    ///
    /// What is written inside a function has the function's name: closures, and the parts that an
    /// asynchronous function is cut into. A report counts the function once.
    case simplified
    /// `static main.Session.open(main.Key) -> Swift.Optional<Swift.Int>`. Tells overloads apart.
    case full
  }

  /// How much of a name to show.
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
    if let version = name.utf8.firstIndex(of: UInt8(ascii: "@")), version > name.startIndex {
      name = name[..<version]
    }
    name = Self.withoutCloneSuffixes(name)
    let plain = String(name)
    if Self.isSwift(plain) { return demangledSwift(plain) ?? plain }
    if style == .simplified && Self.isAsyncMain(name) { return "main" }
    if plain.hasPrefix("_R") || plain.hasPrefix("_ZN"), let demangled = demangledRust(plain) {
      return demangled
    }
    if plain.hasPrefix("_Z") || plain.hasPrefix("___Z") {
      guard let demangled = Self.demangledCxx(plain) else { return plain }
      return style == .full ? demangled : ShortNames.cxx(demangled)
    }
    return plain
  }

  // MARK: Swift

  private static func isSwift(_ name: String) -> Bool {
    guard let first = name.utf8.first, first == UInt8(ascii: "$") || first == UInt8(ascii: "_")
    else { return false }
    return ["$s", "$S", "$e", "_$s", "_$S", "_$e", "_T"].contains { name.hasPrefix($0) }
  }

  /// Whether it is top-level code that awaits, or one of its parts: `async_Main`, `async_MainTY2_`.
  ///
  /// Named by the compiler without mangling, so that no demangler knows the parts.
  private static func isAsyncMain(_ name: Substring) -> Bool {
    guard name.hasPrefix("async_Main") else { return false }
    let part = name.dropFirst("async_Main".count)
    guard part.hasPrefix("TY") || part.hasPrefix("TQ") else { return part.isEmpty }
    return part.hasSuffix("_") && part.dropFirst(2).dropLast().allSatisfy(\.isNumber)
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
    return style == .full ? result : NestedNames.swift(result)
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

  /// More is nobody's name: the newer scheme refers back to its own parts, and a hundred bytes can
  /// stand for gigabytes.
  private static let rustByteCountLimit = 1 << 16

  /// The name as Rust has it, by the older scheme, which looks like C++'s and ends in a hash, or by
  /// the newer one; `nil` where it is not Rust's.
  private func demangledRust(_ name: String) -> String? {
    var bytes: [UInt8] = []
    let isRust = unsafe withUnsafeMutablePointer(to: &bytes) { bytes in
      unsafe rust_demangle_callback(
        name, style == .full ? HEAPTAP_DMGL_VERBOSE : 0,
        { piece, byteCount, context in
          let bytes = unsafe context!.assumingMemoryBound(to: [UInt8].self)
          guard unsafe bytes.pointee.count <= Demangler.rustByteCountLimit else { return }
          unsafe bytes.pointee.append(
            contentsOf: UnsafeRawBufferPointer(start: piece, count: byteCount))
        }, bytes)
    }
    guard isRust != 0, bytes.count <= Self.rustByteCountLimit else { return nil }
    let demangled = String(decoding: bytes, as: UTF8.self)
    return style == .full ? demangled : ShortNames.rust(demangled)
  }

  // MARK: Clones

  private static let cloneSuffixes: Set<Substring> = [
    "cold", "part", "constprop", "isra", "lto_priv", "llvm", "resume", "destroy", "cleanup",
  ]

  /// Drops `.cold`, `.part.0`, `.constprop.0.isra.0` and their like.
  private static func withoutCloneSuffixes(_ name: Substring) -> Substring {
    // Most names have no dot at all, and by bytes that is seen ten times as fast.
    guard let dot = name.utf8.dropFirst().firstIndex(of: UInt8(ascii: ".")) else { return name }
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
