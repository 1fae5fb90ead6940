// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// The tracer's core and its tests as ordinary modules, apart from the rest, to be built with a sanitizer.

import PackageDescription

let package = Package(
  name: "sanitizers",
  targets: [
    .target(name: "CControlPage", path: "Parts/CControlPage"),
    .target(
      name: "CTracerPlatform", path: "Parts/CTracerPlatform",
      cSettings: [.unsafeFlags(["-O1"])]),
    .target(
      name: "TracerCore", dependencies: ["CTracerPlatform", "CControlPage"],
      path: "Parts/TracerCore",
      swiftSettings: [.enableExperimentalFeature("Lifetimes")]),
    .testTarget(
      name: "TracerCoreTests", dependencies: ["TracerCore", "CTracerPlatform"],
      path: "Parts/TracerCoreTests", exclude: ["Trees"]),
  ],
  swiftLanguageModes: [.v6]
)
