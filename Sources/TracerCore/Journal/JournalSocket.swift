// SPDX-License-Identifier: Apache-2.0
// How an entry gets to journald: by one datagram, or by a sealed memory file where that is too small.

import CTracerPlatform

/// journald's socket for entries. Each is sent by a socket of its own, with the address: one that
/// stays connected is dead for good after journald restarts.
package enum JournalSocket {
  /// Sends an entry, and does not wait; `false` where journald does not take it now.
  static func send(_ entry: UnsafeRawBufferPointer) -> Bool {
    let path: StaticString = "/run/systemd/journal/socket"
    return send(
      entry, to: UnsafeRawBufferPointer(start: path.utf8Start, count: path.utf8CodeUnitCount))
  }

  package static func send(
    _ entry: UnsafeRawBufferPointer, to path: UnsafeRawBufferPointer
  ) -> Bool {
    let socket = System.call(
      SYS_socket, Int(AF_UNIX), Int(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { return false }
    defer { System.close(Int32(socket)) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    return withUnsafeMutableBytes(of: &address) { bytes in
      // sun_path, which a zero ends.
      guard path.count <= bytes.count &- 3 else { return false }
      for position in 0..<path.count { bytes[2 &+ position] = path[position] }
      let sent = System.call(
        SYS_sendto, socket, Int(bitPattern: entry.baseAddress), entry.count,
        MSG_DONTWAIT | MSG_NOSIGNAL, Int(bitPattern: bytes.baseAddress), bytes.count)
      if sent == entry.count { return true }
      guard sent == -Int(EMSGSIZE) || sent == -Int(ENOBUFS) else { return false }
      return sendAsFile(entry, socket, UnsafeRawBufferPointer(bytes))
    }
  }

  /// Hands over a file that holds the entry. journald takes one that is sealed, so that nobody can
  /// change it or cut it off while it reads. (memfd_create(2), fcntl(2), unix(7))
  private static func sendAsFile(
    _ entry: UnsafeRawBufferPointer, _ socket: Int, _ address: UnsafeRawBufferPointer
  ) -> Bool {
    let name: StaticString = "heaptap-entry"
    let flags = 1 | 2  // MFD_CLOEXEC | MFD_ALLOW_SEALING
    let file = System.call(SYS_memfd_create, Int(bitPattern: name.utf8Start), flags)
    guard file >= 0 else { return false }
    defer { System.close(Int32(file)) }
    guard let bytes = entry.baseAddress, System.write(Int32(file), bytes, entry.count) == 0,
      System.call(SYS_fcntl, file, 1033, 15) == 0  // F_ADD_SEALS: seal, shrink, grow, write
    else { return false }
    // struct cmsghdr: a length of 8 bytes, SOL_SOCKET, SCM_RIGHTS; the descriptor; padding.
    var control: (length: UInt, level: Int32, type: Int32, file: Int32, padding: Int32) = (
      20, 1, 1, Int32(truncatingIfNeeded: file), 0
    )
    return withUnsafeMutableBytes(of: &control) { control in
      // struct msghdr: name, its length, buffers, their number, control, its length, flags.
      var message: (UInt, UInt, UInt, UInt, UInt, UInt, UInt) = (
        UInt(bitPattern: address.baseAddress), UInt(address.count), 0, 0,
        UInt(bitPattern: control.baseAddress), UInt(control.count), 0
      )
      return withUnsafeMutableBytes(of: &message) {
        System.call(
          SYS_sendmsg, socket, Int(bitPattern: $0.baseAddress), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0
      }
    }
  }
}
