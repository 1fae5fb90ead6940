// SPDX-License-Identifier: Apache-2.0
// Entries of the journal: what a receiver reads out of them, and how they get there.

import CTracerPlatform
import Foundation
import Testing

@testable import TracerCore

@Suite struct JournalEntryTests {
  /// Composes an entry, and reads it as journald does. (systemd, Native Journal Protocol.)
  private func fields(
    capacity: Int = 4096, _ compose: (inout JournalEntry) -> Void
  ) throws -> [(name: String, value: String)] {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 8)
    defer { memory.deallocate() }
    var entry = JournalEntry(memory, capacity: capacity)
    compose(&entry)
    try #require(!entry.text.isFull)
    var rest = Array(entry.text.bytes)[...]
    var fields: [(name: String, value: String)] = []
    while !rest.isEmpty {
      let end = try #require(rest.firstIndex(of: 0x0a))
      let line = rest[..<end]
      if let sign = line.firstIndex(of: 0x3d) {
        fields.append((string(line[..<sign]), string(line[(sign + 1)...])))
        rest = rest[(end + 1)...]
        continue
      }
      let start = end + 9
      try #require(start <= rest.endIndex)
      let count = rest[(end + 1)..<start].reversed().reduce(0) { $0 << 8 | Int($1) }
      try #require(start + count < rest.endIndex && rest[start + count] == 0x0a)
      fields.append((string(line), string(rest[start..<(start + count)])))
      rest = rest[(start + count + 1)...]
    }
    return fields
  }

  private func string(_ bytes: ArraySlice<UInt8>) -> String {
    String(decoding: bytes, as: UTF8.self)
  }

  private func with(_ text: String, _ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
    var copy = text
    try copy.withUTF8 { try body(UnsafeRawBufferPointer($0)) }
  }

  @Test(arguments: [
    "plain", "", "two\nlines", "x\nPRIORITY=0", "\n", "=", "a=b\n\nMESSAGE=other", "zero\0inside",
    "MESSAGE\n\u{5}\0\0\0\0\0\0\0hello\n",
  ])
  func `a value is what it was, whatever is in it`(_ value: String) throws {
    try with(value) { bytes in
      let fields = try fields { entry in
        entry.add("PRIORITY", "5")
        entry.add("HEAPTAP_DUMP") { $0.append(bytes) }
        entry.add("HEAPTAP_SITE_", suffix: 3) { $0.append(bytes) }
        entry.add("HEAPTAP_PID", 12)
        entry.add("MESSAGE", cutting: bytes)
      }
      #expect(
        fields.map(\.name) == [
          "PRIORITY", "HEAPTAP_DUMP", "HEAPTAP_SITE_3", "HEAPTAP_PID", "MESSAGE",
        ])
      #expect(fields.map(\.value) == ["5", value, value, "12", value])
    }
  }

  @Test func `a message is cut to the room that is left, between two characters`() throws {
    try with(String(repeating: "ä", count: 100)) { bytes in
      for capacity in 24...60 {
        let fields = try fields(capacity: capacity) { $0.add("MESSAGE", cutting: bytes) }
        let value = try #require(fields.first?.value)
        #expect(value == String(repeating: "ä", count: (capacity - 17) / 2))
      }
    }
  }

  @Test func `an entry without room says so`() {
    let memory = UnsafeMutableRawPointer.allocate(byteCount: 16, alignment: 8)
    defer { memory.deallocate() }
    for capacity in 0..<16 {
      var entry = JournalEntry(memory, capacity: capacity)
      entry.add("HEAPTAP_UNIT") { $0.append("myd.service") }
      #expect(entry.text.isFull)
    }
  }

  @Test func `the nearer the limit, the more urgent a crossing`() {
    func priority(_ event: NoticeEvent, _ thousandths: UInt64) -> String {
      "\(event.priority(atThousandths: thousandths))"
    }
    #expect(
      [0, 899, 900, 949, 950, 1200].map { priority(.limit, $0) } == ["4", "4", "3", "3", "2", "2"])
    #expect(priority(.armed, 999) == "6")
    #expect(priority(.trouble, 999) == "4")
    for event in [NoticeEvent.started, .snapshot, .stopped] { #expect(priority(event, 999) == "5") }
  }

  // MARK: Sending

  /// A socket as journald's, which only the test reads.
  private final class Receiver {
    let descriptor: Int32
    let path: String

    init() throws {
      path = "/tmp/heaptap-journal-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
      descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      withUnsafeMutableBytes(of: &address) { $0[2...].copyBytes(from: path.utf8) }
      let bound = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      try #require(bound == 0)
    }

    deinit {
      close(descriptor)
      unlink(path)
    }

    func send(_ bytes: [UInt8]) -> Bool {
      var path = path
      return path.withUTF8 { path in
        bytes.withUnsafeBytes { JournalSocket.send($0, to: UnsafeRawBufferPointer(path)) }
      }
    }

    /// The next datagram, and the descriptor that came with it.
    func receive() throws -> (bytes: [UInt8], file: Int32?) {
      var bytes = [UInt8](repeating: 0, count: 1 << 20)
      var control = [UInt8](repeating: 0, count: 64)
      var message = msghdr()
      let count = bytes.withUnsafeMutableBytes { buffer in
        var vector = iovec(iov_base: buffer.baseAddress, iov_len: buffer.count)
        return withUnsafeMutablePointer(to: &vector) { vector in
          control.withUnsafeMutableBytes { control in
            message.msg_iov = vector
            message.msg_iovlen = 1
            message.msg_control = control.baseAddress
            message.msg_controllen = control.count
            return recvmsg(descriptor, &message, Int32(MSG_DONTWAIT))
          }
        }
      }
      try #require(count >= 0, "errno \(errno)")
      guard message.msg_controllen >= 20 else { return (Array(bytes[..<count]), nil) }
      let file = control.withUnsafeBytes { $0.load(fromByteOffset: 16, as: Int32.self) }
      return (Array(bytes[..<count]), file)
    }
  }

  @Test func `an entry is one datagram`() throws {
    let receiver = try Receiver()
    #expect(receiver.send(Array("MESSAGE=hello\n".utf8)))
    let received = try receiver.receive()
    #expect(received.bytes == Array("MESSAGE=hello\n".utf8))
    #expect(received.file == nil)
  }

  @Test func `an entry that is too large comes in a file that nobody can change`() throws {
    let receiver = try Receiver()
    let entry = (0..<600_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    #expect(receiver.send(entry))
    let received = try receiver.receive()
    #expect(received.bytes.isEmpty)
    let file = try #require(received.file)
    defer { close(file) }
    #expect(fcntl(file, 1034) == 15)  // F_GET_SEALS: seal, shrink, grow, write
    var read = [UInt8](repeating: 0, count: entry.count + 1)
    #expect(pread(file, &read, read.count, 0) == entry.count)
    #expect(read.dropLast() == entry[...])
  }

  @Test func `a receiver that does not read keeps nobody waiting`() throws {
    let receiver = try Receiver()
    let start = ContinuousClock.now
    var taken = 0
    while taken < 10_000, receiver.send(Array("MESSAGE=x\n".utf8)) { taken += 1 }
    #expect(taken > 0 && taken < 10_000)
    #expect(ContinuousClock.now - start < .seconds(5))
    _ = try receiver.receive()
    #expect(receiver.send(Array("MESSAGE=x\n".utf8)))
  }

  @Test func `nobody there is no entry`() {
    var path = "/tmp/heaptap-nobody-\(getpid())"
    let isSent = path.withUTF8 { path in
      [UInt8](repeating: 1, count: 10).withUnsafeBytes {
        JournalSocket.send($0, to: UnsafeRawBufferPointer(path))
      }
    }
    #expect(!isSent)
  }
}
