// SPDX-License-Identifier: Apache-2.0
// The same for XCTest.

import HeaptapTesting
import XCTest

final class XCGrowthTests: XCTestCase {
  func testAnImportLeavesNothing() {
    XCTAssertHeapGrowth { importFile(byteCount: 5000) }
  }

  func testAnImportInATaskLeavesNothing() async {
    await XCTAssertHeapGrowth(under: 2000) { await Task { importFile(byteCount: 5000) }.value }
  }

  func testAnImportInATaskAllocatesLittle() async {
    await XCTAssertAllocations(atMostBytes: 8000) {
      await Task { importFile(byteCount: 5000) }.value
    }
  }

  func testAnImportAllocatesOnce() {
    XCTAssertAllocations(atMostBlocks: isLeaking ? 0 : 1) { importFile(byteCount: 5000) }
  }
}
