// SPDX-License-Identifier: Apache-2.0
// What a unit's files set for themselves, without what we have added.

import ProcessControl

/// The text of a file of settings, or `nil` where it cannot be read.
func text(ofFile path: String) -> String? {
  (try? contents(ofFile: path)).map { String(decoding: $0, as: UTF8.self) }
}

enum UnitFiles {
  /// What the files of a unit put into a variable, with specifiers as they are written; `nil` where
  /// none does.
  ///
  /// Read from the files and not from what systemd made of them: that includes what we have added.
  static func value(of variable: String, in files: [String]) -> String? {
    var variables: [String: String] = [:]
    for text in files where !DropIn.isOurs(text) {
      var section = ""
      for line in Quoting.lines(text) {
        let line = line.drop(while: \.isWhitespace)
        if line.hasPrefix("[") { section = String(line.prefix { $0 != "]" }) + "]" }
        guard section == "[Service]" else { continue }
        let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].filter({ !$0.isWhitespace }) == "Environment" else {
          continue
        }
        let words = Quoting.words(parts[1])
        // An empty assignment takes all earlier ones back.
        if words.isEmpty { variables = [:] }
        variables.merge(Quoting.assignments(words)) { $1 }
      }
    }
    return variables[variable]
  }
}
