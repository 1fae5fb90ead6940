// SPDX-License-Identifier: Apache-2.0
// LD_PRELOAD without us: what children of a process inherit that is traced alone.

import CTracerPlatform

/// The list of libraries that the loader is told to load first.
package enum Preload {
  /// Takes every entry that names this library out of LD_PRELOAD, in place, and leaves the others as
  /// they are. (ld.so(8): entries are separated by colons or blanks.)
  package static func removeOwnEntry(
    from environment: UnsafeMutablePointer<UnsafePointer<CChar>?>
  ) {
    let name: StaticString = "LD_PRELOAD="
    var position = 0
    while let entry = environment[position] {
      position &+= 1
      var matched = 0
      while matched < name.utf8CodeUnitCount,
        UInt8(bitPattern: entry[matched]) == name.utf8Start[matched]
      { matched &+= 1 }
      if matched == name.utf8CodeUnitCount {
        removeOwnEntry(fromList: UnsafeMutablePointer(mutating: entry + matched))
      }
    }
  }

  package static func removeOwnEntry(fromList list: UnsafeMutablePointer<CChar>) {
    var (read, written) = (0, 0)
    while list[read] != 0 {
      var end = read
      while list[end] != 0, !isSeparator(list[end]) { end &+= 1 }
      let hasSeparator = list[end] != 0
      if !isOwn(list + read, end &- read) {
        for source in read..<(hasSeparator ? end &+ 1 : end) {
          list[written] = list[source]
          written &+= 1
        }
      } else if !hasSeparator, written > 0 {
        // The separator before the last entry would begin an empty one.
        written &-= 1
      }
      read = hasSeparator ? end &+ 1 : end
    }
    list[written] = 0
  }

  private static func isSeparator(_ byte: CChar) -> Bool { byte == 0x3a || byte == 0x20 }

  private static func isOwn(_ entry: UnsafeMutablePointer<CChar>, _ count: Int) -> Bool {
    let bytes = UnsafeRawBufferPointer(start: entry, count: count).lastComponent
    guard let rest = bytes.after("libheaptap.so") else { return false }
    return rest.isEmpty
  }
}
