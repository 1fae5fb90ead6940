// SPDX-License-Identifier: Apache-2.0
// The same for XCTest.

import HeaptapTesting
import XCTest

final class XCGrowthTests: XCTestCase {
  func testAnImportLeavesNothing() {
    XCTAssertHeapGrowth { importFile(byteCount: 5000) }
  }

  func testAnImportAllocatesOnce() {
    XCTAssertAllocations(atMostBlocks: isLeaking ? 0 : 1) { importFile(byteCount: 5000) }
  }
}
