// SPDX-License-Identifier: Apache-2.0
// One call in a stack: an address of the traced process, and what is known of it.

/// One call in a stack.
///
/// A frame begins as an address in a module. Symbolication turns it into one frame, or into
/// several where the compiler had inlined calls: those share the address, innermost first.
public struct Frame: Hashable, Sendable {
  /// The return address as recorded: it lies after the call. `0` where there never was one.
  public var address: UInt64
  /// The module that the address lies in, as an index into the snapshot's modules.
  public var module: Int?
  /// The function's name as a person reads it (demangled); `nil` until symbolicated, or unknown.
  public var function: String?
  /// The path of the source file; `nil` where no line information was found.
  public var file: String?
  /// The line in that file, from 1. Line 0 is a real value: code that the compiler made.
  public var line: Int?
  /// Whether the call was inlined into the frame after it.
  public var isInlined: Bool

  /// A frame of which only this is known.
  public init(
    address: UInt64 = 0, module: Int? = nil, function: String? = nil, file: String? = nil,
    line: Int? = nil, isInlined: Bool = false
  ) {
    self.address = address
    self.module = module
    self.function = function
    self.file = file
    self.line = line
    self.isInlined = isInlined
  }

  /// Stands for a whole stack that found no room in the tracer.
  ///
  /// Its blocks are counted, so that totals stay true; who allocated them is not known.
  public static let lostStack = Frame(function: "(stack lost)")

  /// What reports show, and filters match, where no source file is known.
  public static let unknownFile = "<unknown>"
}
