// SPDX-License-Identifier: Apache-2.0
// A small shop over HTTP: products that can be looked at, orders that are priced. It leaks.
//
//     LeakyServer [PORT]      0, the default, takes a free port; the first line says which
//
//     GET  /products/7?session=anna   the product's page
//     POST /orders                    [{"product": 7, "count": 2}]: what that costs
//
// What leaks, and what the report must show, is at the head of `Sessions.swift`.

import FlyingFox
import Foundation

guard let port = UInt16(CommandLine.arguments.dropFirst().first ?? "0") else {
  FileHandle.standardError.write(Data("usage: LeakyServer [PORT]\n".utf8))
  exit(64)
}

let catalog = Catalog(productCount: 1000)
let sessions = Sessions()
let server = HTTPServer(address: try .inet(ip4: "127.0.0.1", port: port), logger: .disabled)

await server.appendRoute("GET /products/:id") { (request: HTTPRequest, id: Int) in
  guard let product = await catalog.product(id) else {
    return HTTPResponse(statusCode: .notFound)
  }
  let description = try JSONEncoder().encode(product)
  let page = await sessions.visit(
    by: request.query["session"] ?? "nobody", showing: Array(description))
  return HTTPResponse(
    statusCode: .ok, headers: [.contentType: "application/json"], body: Data(page))
}

await server.appendRoute("POST /orders") { request in
  guard let items = try? JSONDecoder().decode([Item].self, from: await request.bodyData) else {
    return HTTPResponse(statusCode: .badRequest)
  }
  let bill = await catalog.bill(for: items)
  return HTTPResponse(
    statusCode: .ok, headers: [.contentType: "application/json"],
    body: try JSONEncoder().encode(bill))
}

let running = Task { try await server.run() }
try await server.waitUntilListening()
if case .ip4(_, let port) = await server.listeningAddress {
  // Not by print: whoever started the server waits for the port, and a pipe is buffered.
  FileHandle.standardOutput.write(Data("listening on \(port)\n".utf8))
}
try await running.value
