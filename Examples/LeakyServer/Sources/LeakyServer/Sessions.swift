// SPDX-License-Identifier: Apache-2.0
// Who is visiting, and which pages they can go back to. This is where the server leaks.
//
// A visitor's pages are kept so that "back" needs no work, and nobody ever takes them away: each
// request for a product leaves 16 KiB behind. Of two snapshots with requests between them,
// `heaptap diff OLD NEW` must show the line marked LEAK in its first row, with the function
// `Sessions.visit(by:showing:)`, 16,416 bytes and one block for each request: 16,384 bytes of page
// and the array's header of 32. All else is churn or levels off: `Catalog.swift` says at what, and
// the timers of requests that were in time, which the server's library sets for 15 seconds, go
// when those are over.

actor Sessions {
  /// Pages are filled up to one size, so that their length gives nobody's shopping away.
  private static let pageByteCount = 16_384

  private var pagesByVisitor: [String: [[UInt8]]] = [:]

  /// Makes the page that shows a product, and keeps it for the visitor's way back.
  func visit(by visitor: String, showing description: [UInt8]) -> [UInt8] {
    var page = [UInt8](repeating: UInt8(ascii: " "), count: Self.pageByteCount)  // LEAK
    let shown = description.prefix(page.count)
    page.replaceSubrange(..<shown.count, with: shown)
    pagesByVisitor[visitor, default: []].append(page)
    return page
  }
}
