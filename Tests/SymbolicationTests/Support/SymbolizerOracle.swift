// SPDX-License-Identifier: Apache-2.0
// What llvm-symbolizer says of an address: another reader of the same debug information.

import Foundation
import HeapModel
import Symbolication

/// The answers of `llvm-symbolizer`, made comparable with ours.
///
/// Ours differ on purpose in this: a part that was cut out of a function (`f.part.0`) has the
/// function's name, C++ names are put as libstdc++ does, Swift names are demangled, and what the
/// Swift compiler made up lies in `<compiler-generated>`, which is not in the root directory. So
/// it is asked for mangled names, and those go through our demangler.
enum SymbolizerOracle {
  private struct Answer: Decodable {
    struct Symbol: Decodable {
      var FunctionName: String
      var FileName: String
      var Line: Int
      var StartAddress: String?
    }
    var Address: String
    var Symbol: [Symbol]

    /// Whether it is where a part of an asynchronous function begins, after an `await`.
    var isResumption: Bool {
      guard let function = self.Symbol.last, function.StartAddress == Address else { return false }
      return function.FunctionName.contains(/T[QY][0-9]+_$/)
    }
  }

  private static func path(_ name: String) -> String {
    name == "/<compiler-generated>" ? "<compiler-generated>" : name
  }

  /// - Returns: `nil` for the address at which a part of an asynchronous function begins: no call
  ///   returns there, and who awaits has the place of its `await`, which ours looks for.
  static func frames(
    of file: MappedFile, at addresses: [UInt64], scratch: Scratch,
    style: Demangler.Style = .simplified
  ) throws -> [[Frame]?] {
    let demangler = Demangler(style: style)
    let output = try scratch.run(
      .symbolizer, "--obj=\(file.path)", "--output-style=JSON", "--no-demangle",
      input: addresses.map { "0x" + String($0, radix: 16) + "\n" }.joined())
    return try output.split(separator: "\n").enumerated().map { index, line in
      let answer = try JSONDecoder().decode(Answer.self, from: Data(line.utf8))
      if answer.isResumption { return nil }
      let frame = file.frame(at: addresses[index])
      return answer.Symbol.enumerated().map { number, symbol in
        Frame(
          address: frame.address, module: frame.module,
          function: symbol.FunctionName.isEmpty ? nil : demangler.demangled(symbol.FunctionName),
          file: symbol.FileName.isEmpty ? nil : path(symbol.FileName),
          line: symbol.FileName.isEmpty ? nil : symbol.Line,
          isInlined: number < answer.Symbol.count - 1)
      }
    }
  }
}

extension Frame {
  /// `function file:line`, with the last component of the file; for expectations on one line.
  var summary: String {
    let name = file.map { $0.split(separator: "/").last ?? "" } ?? "?"
    return
      "\(function ?? "?") \(name):\(line.map(String.init) ?? "?")\(isInlined ? " inlined" : "")"
  }
}
