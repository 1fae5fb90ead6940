// SPDX-License-Identifier: Apache-2.0
// Where one block came from, asked from inside the program.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// Copies the stack of a recorded block that is alive, innermost frame first, as its addresses
  /// were found; answers how many were written, and how many the stack had, with those beyond the
  /// depth limit. Zero for a block that is not known, and while nothing is recorded.
  ///
  /// Takes no lock and allocates nothing. Cost: as for entering a block, and a load for each frame.
  package func traceback(
    of block: UInt, into addresses: UnsafeMutablePointer<UInt>?, limit: Int
  ) -> (written: Int, total: Int) {
    // Inside for as long as it takes: the tables go only when no thread is.
    guard let thread = enter() else { return (0, 0) }
    defer { leave(thread) }
    guard
      let word = find(block),
      // Another thread may be giving the block back: what is read of the map may be old, and its
      // site of a recording that is over.
      let site = pointee.sites.siteIfMapped(word.site), site.pointee.frameCount > 0
    else { return (0, 0) }
    let count = Int(site.pointee.frameCount)
    let rows = pointee.sites.rows(of: site.pointee)
    var written = 0
    if let addresses {
      while written < min(count, limit) {
        addresses[written] = UInt(pointee.rows.row(rows[written]).pointee.address)
        written &+= 1
      }
    }
    return (written, Int(site.pointee.totalFrameCount))
  }
}
