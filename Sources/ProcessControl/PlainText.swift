// SPDX-License-Identifier: Apache-2.0
// Names that other processes chose, made safe to print.

extension String {
  /// The text with what could move a cursor, change a colour or reverse a line written as escapes.
  ///
  /// Names of programs, units and files come from processes that we do not trust, and are printed
  /// on root's terminal.
  public var plainText: String {
    guard unicodeScalars.contains(where: \.isUnprintable) else { return self }
    var result = ""
    for scalar in unicodeScalars {
      if scalar.isUnprintable {
        result += "\\u{\(String(scalar.value, radix: 16))}"
      } else {
        result.unicodeScalars.append(scalar)
      }
    }
    return result
  }
}

extension Unicode.Scalar {
  fileprivate var isUnprintable: Bool {
    switch properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse: true
    default: false
    }
  }
}
