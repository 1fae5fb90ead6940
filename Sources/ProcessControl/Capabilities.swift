// SPDX-License-Identifier: Apache-2.0
// What this process may do that others may not, and giving it up.

/// The privileges of root, one by one. (capabilities(7))
package enum Capabilities {
  /// CAP_DAC_READ_SEARCH: to read files and search directories whatever their mode.
  private static let reading: UInt32 = 1 << 2

  /// Gives up every privilege but that of reading all files, if there is any, for good.
  ///
  /// - Returns: Whether none is left; `false` where the kernel was not to be asked.
  package static func keepOnlyReading() -> Bool {
    // Version 3 of the structures: header { version, pid }, twice { effective, permitted, inheritable },
    // low half and high half.
    var header: [UInt32] = [0x2008_0522, 0]
    var sets = [UInt32](repeating: 0, count: 6)
    guard call(Kernel.getCapabilities, &header, &sets) else { return false }
    var kept: [UInt32] = [sets[0] & reading, sets[1] & reading, 0, 0, 0, 0]
    return sets == kept || call(Kernel.setCapabilities, &header, &kept)
  }

  private static func call(_ number: Int, _ header: inout [UInt32], _ sets: inout [UInt32]) -> Bool
  {
    unsafe header.withUnsafeMutableBytes { header in
      unsafe sets.withUnsafeMutableBytes { sets in
        systemCall(
          number, Int(bitPattern: header.baseAddress), Int(bitPattern: sets.baseAddress), 0, 0, 0, 0
        )
          == 0
      }
    }
  }
}
