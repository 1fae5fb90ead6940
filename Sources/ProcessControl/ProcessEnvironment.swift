// SPDX-License-Identifier: Apache-2.0
// The variables of a process, byte for byte: what is only handed on must arrive as it came.

import Glibc

/// The variables of a process.
///
/// Kept as bytes: values need not be UTF-8, and a command gets those it was meant to get.
public struct ProcessEnvironment: Equatable, Sendable {
  /// `NAME=value`, in order.
  package private(set) var entries: [[UInt8]]

  init(entries: [[UInt8]]) { self.entries = entries }

  /// This process's variables.
  public static var current: ProcessEnvironment {
    var entries: [[UInt8]] = []
    var next = unsafe environ
    while let entry = unsafe next.pointee {
      entries.append(
        unsafe Array(UnsafeBufferPointer(start: entry, count: strlen(entry))).map {
          UInt8(bitPattern: $0)
        })
      unsafe next += 1
    }
    return ProcessEnvironment(entries: entries)
  }

  /// The order of variables means nothing.
  public static func == (a: Self, b: Self) -> Bool { Set(a.entries) == Set(b.entries) }

  /// The value of a variable; of the first, should there be several, as getenv(3) has it.
  public subscript(name: String) -> String? {
    get {
      let prefix = Array((name + "=").utf8)
      return entries.first { $0.starts(with: prefix) }.map {
        String(decoding: $0.dropFirst(prefix.count), as: UTF8.self)
      }
    }
    set {
      let prefix = Array((name + "=").utf8)
      entries.removeAll { $0.starts(with: prefix) }
      if let newValue { entries.append(prefix + newValue.utf8) }
    }
  }
}

extension ProcessEnvironment: ExpressibleByDictionaryLiteral {
  public init(dictionaryLiteral variables: (String, String)...) {
    entries = []
    for (name, value) in variables { self[name] = value }
  }
}
