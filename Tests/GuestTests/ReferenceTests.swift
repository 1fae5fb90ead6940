// SPDX-License-Identifier: Apache-2.0
// The reference of the Swift modules: it is built, and has everything that they show.

import Foundation
import Testing

@Suite struct ReferenceTests {
  /// What the compiler tells of a module: its symbols, with what is written above each.
  private struct Graph: Decodable {
    struct Symbol: Decodable {
      struct Comment: Decodable {}

      var pathComponents: [String]
      var docComment: Comment?
    }

    var symbols: [Symbol]
  }

  @Test func `the reference is built without a warning, and has every public symbol`() throws {
    let place = try Workshop.makeDirectory().path
    let script = Workshop.package.appendingPathComponent("docs/reference.sh").path
    let result = try run([script, place], environment: ["HEAPTAP_MODULES": Workshop.modules()])
    try #require(result.status == 0, "\(result.output)\(result.errors)")
    let files = FileManager.default
    for module in ["Heaptap", "HeaptapTesting", "HeaptapService"] {
      var symbolCount = 0
      for name in try files.contentsOfDirectory(atPath: "\(place)/\(module).symbols") {
        let file = URL(fileURLWithPath: "\(place)/\(module).symbols/\(name)")
        let graph = try JSONDecoder().decode(Graph.self, from: Data(contentsOf: file))
        symbolCount += graph.symbols.count
        let bare = graph.symbols.filter { $0.docComment == nil }
          .map { $0.pathComponents.joined(separator: ".") }
        #expect(bare == [], "nothing is written above these")
      }
      // A module without symbols would be one without missing words.
      #expect(symbolCount > 8, "\(module)")
      let page = "\(place)/\(module).doccarchive/data/documentation/\(module.lowercased()).json"
      #expect(files.fileExists(atPath: page))
    }
  }
}
