// SPDX-License-Identifier: Apache-2.0
// The benchmarks' own arithmetic: what they measure is not asserted anywhere, what they compute is.

import Foundation
import Testing

@Suite(.enabled(if: Workshop.find("python3") != nil, "needs python3"))
struct BenchmarkTests {
  @Test func `ratios, medians, slopes, tables and plots are computed as documented`() throws {
    let finished = try run(
      ["/usr/bin/env", "python3", "-B", "-m", "unittest", "driver.test_figures"],
      directory: Workshop.package.appendingPathComponent("Benchmarks"))
    #expect(finished.status == 0, "\(finished.errors)")
    #expect(finished.errors.contains("OK"))
  }
}
