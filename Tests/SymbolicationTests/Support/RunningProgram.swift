// SPDX-License-Identifier: Apache-2.0
// What a program that was run says of itself: return addresses, and its memory map.

import Foundation
import HeapModel

/// The report of a program that was built with `probeSource`.
struct ProgramReport {
  var frames: [Frame]
  var modules: [Module]

  /// Gives a C program `probe()`, which prints the address that it returns to.
  static let probeSource = """
    #include <stdio.h>
    __attribute__((noinline)) void probe(void) {
      printf("frame %p\\n", __builtin_return_address(0));
    }
    __attribute__((destructor)) static void print_maps(void) {
      char line[4096];
      FILE *maps = fopen("/proc/self/maps", "r");
      while (fgets(line, sizeof line, maps)) fputs(line, stdout);
    }

    """

  /// Runs the program; its own file gets its build ID.
  init(running program: String, in scratch: Scratch) throws {
    frames = []
    modules = []
    var addresses: [UInt64] = []
    for line in try scratch.run(program, []).split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
      if words.first == "frame" {
        addresses.append(UInt64(words[1].dropFirst(2), radix: 16)!)
      } else if words.count == 6, words[1].contains("x") {
        let bounds = words[0].split(separator: "-").map { UInt64($0, radix: 16)! }
        let path = words[5].trimmingCharacters(in: .whitespaces)
        let buildID = path == program ? try MappedFile(path: path).buildID : ""
        modules.append(
          Module(
            start: bounds[0], limit: bounds[1], fileOffset: UInt64(words[2], radix: 16)!,
            path: path, buildID: buildID))
      }
    }
    frames = addresses.map { address in
      Frame(
        address: address,
        module: modules.firstIndex { ($0.start..<$0.limit).contains(address) })
    }
  }
}

extension ProgramReport {
  /// Of `nested.c`, with debug information and a build ID, run in a scratch directory.
  init(ofNestedCallsIn scratch: Scratch) throws {
    try scratch.write("nested.c", LinesTests.nested)
    try scratch.run(
      .gcc, "-g", "-O2", "-fno-optimize-sibling-calls", "-Wl,--build-id", "nested.c", "-o", "nested"
    )
    try self.init(running: scratch.file("nested"), in: scratch)
  }
}
