// SPDX-License-Identifier: Apache-2.0
// What a command found is known to the next one.

import Foundation
import Testing

extension CommandTests {
  @Suite struct Caching {
    private let directory: URL
    private let reported: Reports.Reported

    init() throws {
      directory = try Workshop.makeDirectory()
      reported = try Reports.Reported(copyTo: directory.appendingPathComponent("reported-kept"))
    }

    private func show(_ options: String..., environment: [String: String]) throws -> Finished {
      let result = try heaptap(
        ["show", reported.dump, "--exclude", "libstdc++*"] + options, environment: environment)
      #expect(result.status == 0, "\(result.errors)")
      return result
    }

    private func removeProgram() throws {
      try FileManager.default.removeItem(atPath: reported.program)
    }

    @Test func `a program that is gone is still named, but not with --no-cache`() throws {
      let cache = directory.appendingPathComponent("cache")
      let environment = ["XDG_CACHE_HOME": cache.path]
      let row = "\(reported.place("BIG")) in main: size=1024 KiB, count=1, average=1024 KiB"
      #expect(try show("--no-cache", environment: environment).rows.first == row)
      #expect(!FileManager.default.fileExists(atPath: cache.path))
      #expect(try show(environment: environment).rows.first == row)

      try removeProgram()
      let known = try show(environment: environment)
      #expect(known.rows.first == row)
      #expect(!known.errors.contains("reported-kept"), "\(known.errors)")
      let anew = try show("--no-cache", environment: environment)
      #expect(anew.rows.first != row)
      #expect(anew.errors.contains("reported-kept"), "\(anew.errors)")
      // Full names are another thing to know.
      #expect(try show("--full-names", environment: environment).errors.contains("reported-kept"))
    }

    @Test func `without a setting the cache is in the home directory`() throws {
      _ = try show(environment: ["XDG_CACHE_HOME": "", "HOME": directory.path])
      let cache = directory.appendingPathComponent(".cache/heaptap").path
      let names = try FileManager.default.contentsOfDirectory(atPath: cache)
      #expect(!names.isEmpty && names.allSatisfy { $0.hasSuffix(".names") }, "\(names)")
    }

    @Test func `without a home there is no cache, and nothing is said of it`() throws {
      let result = try show(environment: ["XDG_CACHE_HOME": "", "HOME": ""])
      #expect(result.rows.first?.contains(" in main: ") == true)
      #expect(!result.errors.contains("cache"), "\(result.errors)")
    }
  }
}
