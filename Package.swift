// swift-tools-version: 6.2
// SPDX-License-Identifier: Apache-2.0
// The house: one target per room, and only the imports that `docs/architecture.md` allows.

import PackageDescription

/// At the desk pointers are fenced: every use of one says `unsafe`.
let swift: [SwiftSetting] = [
  .strictMemorySafety(),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

/// The core lives inside somebody's malloc, on memory that it lays out itself: it is unsafe in every
/// line, and saying so in every line would say nothing.
let core: [SwiftSetting] = [
  .enableExperimentalFeature("Lifetimes")
]

/// Seals the core: Embedded Swift without a runtime, where an allocating type does not compile.
///
/// Always optimised: an unoptimised hook would be measured, and cursed, in someone's daemon.
let sealed: [SwiftSetting] =
  core + [
    .enableExperimentalFeature("Embedded"),
    .unsafeFlags([
      "-wmo", "-O", "-Xfrontend", "-no-allocations", "-Xfrontend", "-function-sections",
      // The package manager asks for them; unwinders need none, and each hook would push one.
      "-Xcc", "-Xclang", "-Xcc", "-mframe-pointer=none",
      // A package that depends on ours may be built with --static-swift-stdlib, and the toolchain
      // has the embedded library beside the shared ones only.
      "-no-static-stdlib",
    ]),
  ]

let package = Package(
  name: "heaptap",
  products: [
    // The installed names are `libheaptap.so` and `heaptap`. The package manager keeps only one
    // product of a name, so the command is `heaptap-cli` until `make install` renames it.
    .library(name: "heaptap", type: .dynamic, targets: ["Tracer"]),
    .executable(name: "heaptap-cli", targets: ["HeaptapCommand"]),
    // For Swift programs and their tests. Both find the tracer where it is linked or preloaded.
    .library(name: "Heaptap", targets: ["Heaptap"]),
    .library(name: "HeaptapTesting", targets: ["HeaptapTesting"]),
    .library(name: "HeaptapService", targets: ["HeaptapService"]),
  ],
  traits: [
    // Off by default: who does not ask for it downloads and builds nothing for it.
    .trait(name: "Service", description: "HeaptapService: swift-log, swift-metrics and a service.")
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.14.0"),
    .package(url: "https://github.com/apple/swift-metrics", from: "2.7.0"),
    .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
  ],
  targets: [
    // Between the two.
    .target(name: "CControlPage"),
    .systemLibrary(name: "CHeaptap"),

    // In the daemon.
    .target(
      name: "CTracerPlatform",
      cSettings: [.unsafeFlags(["-O2", "-fno-plt", "-ftls-model=initial-exec"])]),
    .target(
      name: "CTracerHooks", dependencies: ["CTracerPlatform"],
      cSettings: [.unsafeFlags(["-O2", "-fno-plt", "-ftls-model=initial-exec"])]),
    .target(
      name: "TracerCore", dependencies: ["CTracerPlatform", "CControlPage"], swiftSettings: core),
    .target(
      name: "Tracer", dependencies: ["CTracerPlatform", "CTracerHooks", "CControlPage"],
      exclude: ["exports.map"],
      swiftSettings: sealed,
      linkerSettings: [
        .unsafeFlags([
          "-Xlinker", "--version-script=\(Context.packageDirectory)/Sources/Tracer/exports.map",
          "-Xlinker", "-soname", "-Xlinker", "libheaptap.so",
          "-Xlinker", "-z", "-Xlinker", "now",
          // Never unloaded: its thread and its handlers would go on in what was mapped next.
          "-Xlinker", "-z", "-Xlinker", "nodelete",
          // The embedded runtime brings what nothing here calls, such as a source of random numbers
          // that older C libraries do not have.
          "-Xlinker", "--gc-sections", "-use-ld=lld",
          // valgrind 3.19 gives up on the compiler's debug information, and with it on the program.
          "-Xlinker", "--strip-debug",
        ])
      ]),

    // At the desk.
    .target(name: "HeapModel", swiftSettings: swift),
    .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"])]),
    .target(name: "Pprof", dependencies: ["HeapModel", "CZlib"], swiftSettings: swift),
    .systemLibrary(name: "CElfutils", pkgConfig: "libdw", providers: [.apt(["libdw-dev"])]),
    .systemLibrary(name: "CIberty", providers: [.apt(["libiberty-dev"])]),
    .target(
      name: "Symbolication", dependencies: ["HeapModel", "CElfutils", "CIberty"],
      swiftSettings: swift),
    .target(name: "Reports", dependencies: ["HeapModel"], swiftSettings: swift),
    .target(name: "ProcessControl", dependencies: ["CControlPage"], swiftSettings: swift),
    .target(name: "UnitControl", dependencies: ["ProcessControl"], swiftSettings: swift),
    .systemLibrary(
      name: "CSystemd", pkgConfig: "libsystemd", providers: [.apt(["libsystemd-dev"])]),
    .target(name: "JournalReader", dependencies: ["HeapModel", "CSystemd"], swiftSettings: swift),
    .executableTarget(
      name: "HeaptapCommand",
      dependencies: [
        "HeapModel", "Pprof", "Symbolication", "Reports", "ProcessControl", "UnitControl",
        "JournalReader",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      swiftSettings: swift,
      // Other linkers repeat glibc's warnings about what Foundation's static half calls.
      linkerSettings: [.unsafeFlags(["-use-ld=lld"])]),

    // In a Swift program, and in its tests.
    .target(
      name: "Heaptap",
      dependencies: [
        "CHeaptap", "HeapModel", "Pprof",
        .target(name: "Symbolication", condition: .when(platforms: [.linux])),
      ],
      swiftSettings: swift),
    .target(name: "HeaptapTesting", dependencies: ["Heaptap"], swiftSettings: swift),
    .target(
      name: "HeaptapService",
      dependencies: [
        "Heaptap",
        .product(name: "Logging", package: "swift-log", condition: .when(traits: ["Service"])),
        .product(name: "Metrics", package: "swift-metrics", condition: .when(traits: ["Service"])),
        .product(
          name: "ServiceLifecycle", package: "swift-service-lifecycle",
          condition: .when(traits: ["Service"])),
      ],
      swiftSettings: swift),

    // Tests.
    .testTarget(name: "HeapModelTests", dependencies: ["HeapModel"], swiftSettings: swift),
    .testTarget(name: "PprofTests", dependencies: ["Pprof", "HeapModel"], swiftSettings: swift),
    .testTarget(
      name: "SymbolicationTests", dependencies: ["Symbolication", "HeapModel"],
      swiftSettings: swift),
    .testTarget(
      name: "ReportsTests", dependencies: ["Reports", "HeapModel"], swiftSettings: swift),
    .testTarget(
      name: "ProcessControlTests", dependencies: ["ProcessControl"], swiftSettings: swift),
    .testTarget(name: "UnitControlTests", dependencies: ["UnitControl"], swiftSettings: swift),
    .testTarget(
      name: "JournalReaderTests", dependencies: ["JournalReader", "HeapModel"],
      swiftSettings: swift),
    .testTarget(
      name: "HeaptapTests",
      // The last is only built: the reference is made of it (ReferenceTests).
      dependencies: ["Heaptap", "HeapModel", "HeaptapTesting"], swiftSettings: swift),
    .testTarget(
      name: "TracerCoreTests", dependencies: ["TracerCore", "CTracerPlatform"],
      exclude: ["Trees"]),
    .testTarget(
      name: "GuestTests",
      dependencies: [
        "HeapModel", "Pprof", "Symbolication", "ProcessControl", "JournalReader", "TracerCore",
      ],
      exclude: ["Programs"]),
  ],
  swiftLanguageModes: [.v6]
)

// `make fuzz`: the parsers with libFuzzer and AddressSanitizer in them. Built by nothing else, since
// everything that it depends on has to be built that way too.
if let runtime = Context.environment["HEAPTAP_FUZZER"] {
  package.targets.append(
    .executableTarget(
      name: "heaptap-fuzz",
      dependencies: [
        "HeapModel", "Pprof", "Symbolication", "Reports", "ProcessControl", "UnitControl",
        "JournalReader", "TracerCore", "CTracerPlatform",
      ],
      path: "Tests/Fuzz/Driver",
      // The compiler (6.3) does not survive its own analysis of data races in calls of C++'s runtime.
      swiftSettings: [.swiftLanguageMode(.v5)],
      linkerSettings: [
        .unsafeFlags(["-Xlinker", runtime, "-use-ld=lld"]), .linkedLibrary("stdc++"),
      ]))
}
