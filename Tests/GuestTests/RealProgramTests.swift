// SPDX-License-Identifier: Apache-2.0
// The short forms of what Tests/Guests has real programs do, bare and traced.

import Foundation
import Testing

/// One after the other, since each has the machine busy by itself. `make guests` runs them all.
@Suite(.serialized) struct RealProgramTests {
  @Test(
    arguments: [
      "compiler", "git", "go", "nginx", "node", "perl", "postgresql", "python", "redis", "rust",
      "sanitizer", "sqlite", "swift",
    ])
  func `a real program answers the same under the tracer`(_ name: String) throws {
    let script = Workshop.package.appendingPathComponent("Tests/Guests/\(name).sh").path
    let result = try run(
      ["/usr/bin/env", "bash", script],
      environment: ["HEAPTAP_COMMAND": Workshop.command, "HEAPTAP_LIBRARY": Workshop.library])
    // 77 is 'skipped': what it needs is in the Makefile's PACKAGES.
    #expect(result.status == 0, "\(result.output)\(result.errors)")
    print(result.output, terminator: "")
  }
}
