// SPDX-License-Identifier: Apache-2.0
// Ports for servers that cannot be told to take one themselves.

import Foundation

/// A port of 127.0.0.1 that nobody listens on.
///
/// From below those that the kernel gives to clients (32768 and up, ip(7)): there, any other test's client
/// may get the port before the server does.
func freePort() throws -> UInt16 {
  for _ in 0..<100 {
    let port = UInt16.random(in: 20000..<32000)
    let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(number) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
    address.sin_port = port.bigEndian
    let status = unsafe withUnsafeMutablePointer(to: &address) { address in
      unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(number, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    if status == 0 { return port }
  }
  throw ToolFailure(description: "no free port")
}
