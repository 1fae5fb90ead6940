// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// A service that tells its logger and its metrics of its heap: a package outside Heaptap's, which asks
// for the product that needs swift-log, swift-metrics and swift-service-lifecycle.

import PackageDescription

let package = Package(
  name: "TracedService",
  dependencies: [
    // From elsewhere: .package(url: "…/heaptap", from: "0.1.0", traits: ["Service"])
    .package(name: "heaptap", path: "../..", traits: ["Service"]),
    .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.7.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    .executableTarget(
      name: "TracedService",
      dependencies: [
        .product(name: "HeaptapService", package: "heaptap"),
        .product(name: "heaptap", package: "heaptap"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
      ]),
    .testTarget(
      name: "ServiceTests",
      dependencies: [
        .product(name: "HeaptapService", package: "heaptap"),
        .product(name: "heaptap", package: "heaptap"),
        .product(name: "InMemoryLogging", package: "swift-log"),
        .product(name: "MetricsTestKit", package: "swift-metrics"),
        .product(name: "ServiceLifecycleTestKit", package: "swift-service-lifecycle"),
      ]),
  ]
)
