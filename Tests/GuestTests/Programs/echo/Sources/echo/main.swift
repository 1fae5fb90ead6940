// SPDX-License-Identifier: Apache-2.0
// Answers one client of its own over TCP, on SwiftNIO's event loops, and leaks a block of 30,000 bytes
// for it before it suspends, and one of 30,001 after.

import NIOCore
import NIOPosix

nonisolated(unsafe) var kept: [UnsafeMutableRawPointer] = []

/// Leaks a block.
@inline(never) func keep(_ size: Int) {
  let block = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 8)
  block.storeBytes(of: size, as: Int.self)
  kept.append(block)
}

@inline(never) func remember(_ buffer: ByteBuffer) async {
  keep(30_000)
  await Task.yield()
  keep(30_001)
}

@inline(never) func answer(_ buffer: ByteBuffer) async throws -> ByteBuffer {
  await remember(buffer)
  return buffer
}

typealias Connection = NIOAsyncChannel<ByteBuffer, ByteBuffer>

@inline(never) func serve(_ connection: Connection) async throws {
  try await connection.executeThenClose { inbound, outbound in
    for try await buffer in inbound {
      try await outbound.write(answer(buffer))
    }
  }
}

@inline(never) func accept(_ server: NIOAsyncChannel<Connection, Never>) async throws {
  try await withThrowingDiscardingTaskGroup { group in
    try await server.executeThenClose { connections in
      for try await connection in connections {
        group.addTask { try await serve(connection) }
        break
      }
    }
  }
}

let loops = MultiThreadedEventLoopGroup.singleton
let server = try await ServerBootstrap(group: loops)
  .bind(host: "127.0.0.1", port: 0) { channel in
    channel.eventLoop.makeCompletedFuture {
      try Connection(wrappingChannelSynchronously: channel)
    }
  }
let port = server.channel.localAddress!.port!
let client = Task {
  let connection = try await ClientBootstrap(group: loops)
    .connect(host: "127.0.0.1", port: port) { channel in
      channel.eventLoop.makeCompletedFuture {
        try Connection(wrappingChannelSynchronously: channel)
      }
    }
  return try await connection.executeThenClose { inbound, outbound in
    try await outbound.write(ByteBuffer(string: "hello"))
    for try await reply in inbound { return reply.readableBytes }
    return 0
  }
}
try await accept(server)
print(try await client.value)
