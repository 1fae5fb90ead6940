// SPDX-License-Identifier: Apache-2.0
// Unpacks compressed profiles: other tools write little else.

import CZlib

/// gzip, read by zlib.
enum Gzip {
  /// Whether the bytes are gzip's. No profile begins so: it would be a wire type that is not used.
  static func compressed(_ bytes: [UInt8]) -> Bool { bytes.starts(with: [0x1f, 0x8b]) }

  /// The contents, and whether the file was cut before its end.
  ///
  /// A few kilobytes can unpack to gigabytes, so there is a limit; memory grows with what comes
  /// out, not with what the file says of itself.
  static func inflated(
    _ compressed: [UInt8], byteCountLimit: Int
  ) throws(ProfileError) -> (bytes: [UInt8], isCut: Bool) {
    guard compressed.count <= UInt32.max else {
      throw ProfileError(.tooLarge, "more than 4 GiB compressed")
    }
    var stream = unsafe z_stream()
    // 15 for the largest window, 16 more for gzip's header and checksum.
    guard
      unsafe inflateInit2_(&stream, 15 + 16, ZLIB_VERSION, Int32(MemoryLayout<z_stream>.size))
        == Z_OK
    else { throw ProfileError(.damagedCompression, "zlib has no memory") }
    defer { unsafe inflateEnd(&stream) }

    var contents: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    return try unsafe compressed.withUnsafeBufferPointer {
      input throws(ProfileError) -> (bytes: [UInt8], isCut: Bool) in
      // zlib takes a mutable pointer for C's sake and writes nothing there.
      unsafe stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
      unsafe stream.avail_in = UInt32(input.count)
      while true {
        let status = unsafe chunk.withUnsafeMutableBufferPointer { output in
          unsafe stream.next_out = output.baseAddress
          unsafe stream.avail_out = UInt32(output.count)
          return unsafe inflate(&stream, Z_NO_FLUSH)
        }
        let unpacked = unsafe chunk.count - Int(stream.avail_out)
        guard unpacked <= byteCountLimit - contents.count else {
          throw ProfileError(.tooLarge, "unpacks to more than \(byteCountLimit) bytes")
        }
        contents += chunk[..<unpacked]
        switch status {
        case Z_OK: continue
        case Z_STREAM_END:
          // gzip files may follow one another; what is not one is padding.
          guard unsafe stream.avail_in >= 2, unsafe stream.next_in[0] == 0x1f,
            unsafe stream.next_in[1] == 0x8b, unsafe inflateReset(&stream) == Z_OK
          else { return (contents, isCut: false) }
        case Z_BUF_ERROR: return (contents, isCut: true)
        default:
          let message = unsafe stream.msg.map { unsafe String(cString: $0) }
          throw ProfileError(.damagedCompression, message)
        }
      }
    }
  }
}
