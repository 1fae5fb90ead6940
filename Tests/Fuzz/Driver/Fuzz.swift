// SPDX-License-Identifier: Apache-2.0
// Feeds bytes that libFuzzer makes up to one parser: heaptap-fuzz PARSER [libFuzzer's options and corpus].

import Glibc

/// A parser under test: it may refuse whatever it is given, and must do nothing else.
///
/// Whatever traps, reads where it may not, takes more than some seconds or some hundred MiB is found by
/// the sanitizers and libFuzzer. What a parser promises beyond that is a `precondition`.
struct Target: Sendable {
  let name: String
  let run: @Sendable ([UInt8]) -> Void

  static let all = deskTargets + tracerTargets
}

@_silgen_name("LLVMFuzzerRunDriver")
private func runDriver(
  _ count: UnsafeMutablePointer<Int32>,
  _ arguments: UnsafeMutablePointer<UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>>,
  _ body: @convention(c) (UnsafePointer<UInt8>?, Int) -> Int32
) -> Int32

/// Set once, before the first input.
nonisolated(unsafe) private var target = Target.all[0]

private func feed(_ bytes: UnsafePointer<UInt8>?, _ byteCount: Int) -> Int32 {
  target.run(Array(UnsafeBufferPointer(start: bytes, count: byteCount)))
  return 0
}

@main enum Fuzz {
  static func main() {
    let names = Target.all.map(\.name)
    guard CommandLine.argc > 1,
      let chosen = Target.all.first(where: { $0.name == CommandLine.arguments[1] })
    else {
      print(names.joined(separator: "\n"))
      exit(CommandLine.argc > 1 ? 64 : 0)
    }
    target = chosen
    // libFuzzer gets the arguments without the parser's name, so it can't start itself again: no -fork.
    let count = Int(CommandLine.argc) - 1
    let arguments = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: count + 1)
    arguments[0] = CommandLine.unsafeArgv[0]
    for position in 1...count { arguments[position] = CommandLine.unsafeArgv[position + 1] }
    var (runCount, runArguments) = (Int32(count), arguments)
    exit(runDriver(&runCount, &runArguments, feed))
  }
}

extension [UInt8] {
  var text: String { String(decoding: self, as: UTF8.self) }

  /// The parts between bytes of 0: for parsers that take several texts.
  var parts: [[UInt8]] { split(separator: 0, omittingEmptySubsequences: false).map(Array.init) }

  subscript(text index: Int) -> String {
    let parts = parts
    return index < parts.count ? parts[index].text : ""
  }
}
