// SPDX-License-Identifier: Apache-2.0
// What is known of the limit that the process is nearest to.

import CTracerPlatform
import Synchronization

/// A limit, and how near the memory that it applies to has come. All bytes.
package struct LimitReading {
  /// 0 where no limit is known.
  package var limit: UInt64 = 0
  /// What counts against the limit and the kernel cannot take back.
  package var usage: UInt64 = 0
  /// How fast usage has grown lately, in bytes a second.
  package var rate: UInt64 = 0

  package init() {}

  package var isKnown: Bool { limit != 0 }
  package var headroom: UInt64 { limit > usage ? limit &- usage : 0 }
  /// How full it is, in thousandths.
  package var thousandths: UInt64 {
    limit == 0 ? 0 : UInt64(min(Double(usage) / Double(limit) * 1000, 10_000))
  }
}

/// The state of the watch. All zero is one that has not looked yet.
package struct LimitState: ~Copyable {
  /// The limit with the least headroom, as of the last look.
  package var reading: LimitReading
  /// Which of the kernel's files or limits that is.
  var sourceByteCount: Int
  var source: InlineArray<512, UInt8>
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Appends where the limit of the last look comes from: a file's path, or a limit's name.
  package func appendLimitSource(to text: inout TextBuffer) {
    for position in 0..<min(pointee.limits.sourceByteCount, 512) {
      text.append(pointee.limits.source[position])
    }
  }
}
