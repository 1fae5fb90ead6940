// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// Programs that trace themselves, and tests that fail on growth: a package outside Heaptap's.

import PackageDescription

/// The library that programs speak to, and the tracer itself: linked, it needs no LD_PRELOAD.
let tracing: [Target.Dependency] = [
  .product(name: "Heaptap", package: "heaptap"),
  .product(name: "heaptap", package: "heaptap"),
]

let package = Package(
  name: "SelfTracing",
  dependencies: [.package(name: "heaptap", path: "../..")],
  targets: [
    .executableTarget(name: "LeakHunt", dependencies: tracing),
    .executableTarget(name: "Checkpoints", dependencies: tracing),
    .executableTarget(name: "TracedCall", dependencies: tracing),
    .executableTarget(name: "Sampled", dependencies: tracing),
    .testTarget(
      name: "GrowthTests",
      dependencies: tracing + [.product(name: "HeaptapTesting", package: "heaptap")]),
  ]
)
