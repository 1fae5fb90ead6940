// swift-tools-version: 6.0
// SPDX-License-Identifier: Apache-2.0
// A package of its own: what the example needs, Heaptap does not.

import PackageDescription

let package = Package(
  name: "LeakyServer",
  dependencies: [
    .package(url: "https://github.com/swhitty/FlyingFox", from: "0.27.1")
  ],
  targets: [
    .executableTarget(
      name: "LeakyServer",
      dependencies: [.product(name: "FlyingFox", package: "FlyingFox")])
  ]
)
