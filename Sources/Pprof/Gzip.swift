// SPDX-License-Identifier: Apache-2.0
// Unpacks compressed profiles, which is what most tools write, and packs them.

import CZlib

/// gzip, read and written by zlib.
public enum Gzip {
  /// Whether the bytes are gzip's. No profile begins so: it would be a wire type that is not used.
  public static func isCompressed(_ bytes: [UInt8]) -> Bool { bytes.starts(with: [0x1f, 0x8b]) }

  /// The bytes of a profile that may be compressed, and whether they were cut before their end.
  static func contents(
    of bytes: [UInt8], byteCountLimit: Int
  ) throws(ProfileError) -> (bytes: [UInt8], isCut: Bool) {
    guard isCompressed(bytes) else { return (bytes, isCut: false) }
    return try inflated(bytes, byteCountLimit: byteCountLimit)
  }

  /// The bytes compressed, as a file of gzip's without a name and a time in it.
  public static func compressed(_ contents: [UInt8]) throws(ProfileError) -> [UInt8] {
    guard contents.count <= UInt32.max else {
      throw ProfileError(.tooLarge, "more than 4 GiB to compress")
    }
    var stream = unsafe z_stream()
    guard
      unsafe deflateInit2_(
        &stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY, ZLIB_VERSION,
        Int32(MemoryLayout<z_stream>.size)) == Z_OK
    else { throw ProfileError(.tooLarge, "zlib has no memory") }
    defer { unsafe deflateEnd(&stream) }
    var compressed = unsafe [UInt8](
      repeating: 0, count: Int(deflateBound(&stream, UInt(contents.count))))
    let status = unsafe contents.withUnsafeBufferPointer { input in
      unsafe stream.next_in = UnsafeMutablePointer(mutating: input.baseAddress)
      unsafe stream.avail_in = UInt32(input.count)
      return unsafe compressed.withUnsafeMutableBufferPointer { output in
        unsafe stream.next_out = output.baseAddress
        unsafe stream.avail_out = UInt32(clamping: output.count)
        return unsafe deflate(&stream, Z_FINISH)
      }
    }
    guard status == Z_STREAM_END else { throw ProfileError(.tooLarge, "zlib gave up") }
    return Array(compressed.prefix(Int(unsafe stream.total_out)))
  }

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
