// SPDX-License-Identifier: Apache-2.0
// The pipe between symbolicator and worker: what is sent arrives, and garbage is refused.

import Testing

@testable import Symbolication

@Suite struct MessageTests {
  private let request = ModuleRequest(
    path: "/usr/bin/fü", buildID: "00ff", roots: ["/", "/srv/röt"], style: .full, detail: .symbols,
    secondsLimit: 7, mappingOffset: 4096, offsets: [0, 1, .max])

  private var answer: ModuleAnswer {
    var answer = ModuleAnswer(offsetCount: 3)
    answer.calls[0] = [
      Call(function: "inner", file: "/a.c", line: 0),
      Call(function: "outer", file: "/a.c", line: 9),
    ]
    answer.calls[2] = [Call(function: nil, file: nil, line: nil)]
    answer.findings = [
      .changed(buildID: "aa"), .missing, .unreadable(reason: "no"), .noBuildID,
      .buildIDNotRecorded, .noDebugInformation, .damagedDebugInformation,
    ]
    return answer
  }

  private func payload(_ message: [UInt8]) -> [UInt8] {
    let prefix = message.prefix(MessageReader.prefixByteCount)
    #expect(MessageReader.byteCount(prefix: prefix) == message.count - prefix.count)
    return Array(message.dropFirst(prefix.count))
  }

  @Test func `a request arrives as it was sent`() throws {
    #expect(try ModuleRequest(message: payload(request.message)) == request)
  }

  @Test func `an answer arrives as it was sent`() throws {
    #expect(try ModuleAnswer(message: payload(answer.message)) == answer)
  }

  @Test func `a message cut anywhere is refused`() {
    let (request, answer) = (payload(request.message), payload(answer.message))
    for count in request.indices {
      #expect(throws: Garbled.self) { try ModuleRequest(message: Array(request[..<count])) }
    }
    for count in answer.indices {
      #expect(throws: Garbled.self) { try ModuleAnswer(message: Array(answer[..<count])) }
    }
  }

  @Test func `a message with any byte changed is read or refused`() {
    let answer = payload(answer.message)
    for index in answer.indices {
      for value in [0, 1, 0x7f, 0xff] as [UInt8] {
        var bytes = answer
        bytes[index] = value
        _ = try? ModuleAnswer(message: bytes)
        _ = try? ModuleRequest(message: bytes)
      }
    }
  }

  @Test func `no message is as long as a prefix can claim`() {
    #expect(MessageReader.byteCount(prefix: [0xff, 0xff, 0xff, 0xff]) == nil)
  }
}
