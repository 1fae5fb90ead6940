// SPDX-License-Identifier: Apache-2.0
// A service whose cache nobody empties, and one that says so in the log. SIGTERM ends both. With
// --required the first does not serve where the second has no tracer.

import HeaptapService
import Logging
import ServiceLifecycle

actor Cache: Service {
  private var pages: [Int: [UInt8]] = [:]

  func load(_ number: Int) { pages[number] = [UInt8](repeating: 0, count: 100_000) }

  func run() async throws {
    await cancelWhenGracefulShutdown {
      for number in 0... {
        await self.load(number)
        guard (try? await Task.sleep(for: .milliseconds(5))) != nil else { return }
      }
    }
  }
}

@main struct TracedService {
  static func main() async throws {
    let logger = Logger(label: "traced-service")
    var configuration = HeapReporter.Configuration()
    configuration.interval = .milliseconds(200)
    configuration.growthByteCount = 1 << 20
    if CommandLine.arguments.contains("--required") { configuration.missingTracer = .fail }
    let reporter = HeapReporter(logger: logger, configuration: configuration)
    let services = ServiceGroup(
      services: [Cache(), reporter], gracefulShutdownSignals: [.sigterm], logger: logger)
    try await services.run()
  }
}
