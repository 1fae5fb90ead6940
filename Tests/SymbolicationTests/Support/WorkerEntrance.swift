// SPDX-License-Identifier: Apache-2.0
// Lets the test executable be the worker that its own tests start.

import Foundation
import Symbolication
import Testing

@Suite struct WorkerEntrance {
  /// Whether this process was started by `Symbolicator.Worker.thisTest`.
  static let isWorker = CommandLine.arguments.contains { $0.hasSuffix("`is a worker`") }

  // Among the other tests there is nothing to do: this is where a worker's process enters.
  @Test func `is a worker`() {
    if Self.isWorker { runSymbolicationWorker() }
  }
}

extension Symbolicator.Worker {
  static var thisTest: Self {
    .subprocess(executable: thisExecutable, arguments: thisArguments)
  }

  static var thisExecutable: String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
  }

  static var thisArguments: [String] {
    ["--testing-library", "swift-testing", "--filter", "WorkerEntrance/`is a worker`"]
  }
}
