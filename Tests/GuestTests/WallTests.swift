// SPDX-License-Identifier: Apache-2.0
// The walls of the house: what the library shows and needs, and which room imports which.

import Foundation
import Testing

@Suite struct WallTests {
  private func lines(_ command: [String]) throws -> [String] {
    let result = try run(["/usr/bin/env"] + command)
    #expect(result.status == 0, "\(command): \(result.errors)")
    return result.output.split(separator: "\n").map(String.init)
  }

  private func text(_ path: String) throws -> String {
    try String(contentsOf: Workshop.package.appendingPathComponent(path), encoding: .utf8)
  }

  // MARK: The library

  @Test func `the library exports what its list says, and nothing else`() throws {
    let map = try text("Sources/Tracer/exports.map")
    let list = map[(try #require(map.range(of: "*/"))).upperBound...]
    let start = try #require(list.range(of: "global:"))
    let end = try #require(list.range(of: "local:"))
    let listed = list[start.upperBound..<end.lowerBound]
      .split { !($0.isLetter || $0.isNumber || $0 == "_") }.map(String.init)
    #expect(listed.count == 62)
    let exported = try lines(["nm", "-D", "--defined-only", Workshop.library])
      .compactMap { $0.split(separator: " ").last.map(String.init) }
    #expect(exported.sorted() == listed.sorted())
  }

  @Test func `the library needs libc and its loader, and no symbol of anything else`() throws {
    let dynamic = try lines(["readelf", "-W", "-d", Workshop.library])
    let needed = dynamic.filter { $0.contains("(NEEDED)") }.compactMap { $0.bracketed }
    #expect(Set(needed).isSubset(of: ["libc.so.6", "ld-linux-x86-64.so.2"]), "\(needed)")
    #expect(needed.contains("libc.so.6"))
    #expect(dynamic.filter { $0.contains("(SONAME)") }.compactMap(\.bracketed) == ["libheaptap.so"])
    #expect(!dynamic.contains { $0.contains("TEXTREL") })

    // What it does not define, libc or the loader does.
    let libraries = try lines(["ldd", Workshop.library]).compactMap { line in
      line.split { $0 == " " || $0 == "\t" }.first { $0.hasPrefix("/") }.map(String.init)
    }
    #expect(libraries.count == 2, "\(libraries)")
    var provided: Set<String> = []
    for library in libraries {
      for line in try lines(["nm", "-D", "--defined-only", library]) {
        guard let name = line.split(separator: " ").last?.split(separator: "@").first else {
          continue
        }
        provided.insert(String(name))
      }
    }
    let missing = try lines(["nm", "-D", "--undefined-only", Workshop.library])
      .map { $0.trimmingCharacters(in: .whitespaces) }
      // Weak ones are asked for by name and may be absent.
      .filter { $0.hasPrefix("U ") }
      .compactMap { $0.dropFirst(2).split(separator: "@").first.map(String.init) }
    #expect(!missing.isEmpty)
    #expect(missing.filter { !provided.contains($0) } == [])
    for banned in ["arc4random", "arc4random_buf", "posix_spawn", "printf"] {
      #expect(!missing.contains(banned))
    }
  }

  @Test func `every hook can be unwound through`() throws {
    let symbols = try lines(["nm", "-D", "--defined-only", Workshop.library])
    let tables = try lines(["readelf", "-W", "--debug-dump=frames", Workshop.library])
    let starts = Set(
      tables.filter { $0.contains(" FDE ") }.compactMap { line in
        line.components(separatedBy: "pc=").last?.components(separatedBy: "..").first
          .flatMap { UInt64($0, radix: 16) }
      })
    // Nothing throws through what a program calls of ours by name.
    let functions = symbols.filter { $0.contains(" T ") && !$0.contains(" heaptap_") }
    #expect(functions.count >= 36)
    for line in functions {
      let words = line.split(separator: " ")
      let address = try #require(UInt64(words[0], radix: 16))
      #expect(starts.contains(address), "\(words.last ?? "")")
    }
  }

  // MARK: The rooms

  /// What each target may import besides the language's own modules and libc: the table of
  /// `docs/architecture.md`.
  private static let rooms: [String: Set<String>] = [
    "TracerCore": ["CTracerPlatform", "CControlPage", "Synchronization"],
    "Tracer": ["CTracerPlatform", "CTracerHooks", "CControlPage", "Synchronization"],
    "HeapModel": [],
    "Pprof": ["HeapModel", "CZlib"],
    "Symbolication": ["HeapModel", "CElfutils", "CIberty"],
    "Reports": ["HeapModel"],
    "ProcessControl": ["CControlPage"],
    "UnitControl": ["ProcessControl"],
    "JournalReader": ["HeapModel", "CSystemd"],
    "HeaptapCommand": [
      "HeapModel", "Pprof", "Symbolication", "Reports", "ProcessControl", "UnitControl",
      "JournalReader",
      "ArgumentParser",
    ],
    "Heaptap": ["CHeaptap", "HeapModel", "Pprof", "Symbolication", "Darwin", "Dispatch"],
    "HeaptapTesting": ["Heaptap", "Testing", "XCTest"],
    "HeaptapService": ["Heaptap", "Logging", "Metrics", "ServiceLifecycle"],
  ]
  /// What the desk may use of the platform; the daemon's rooms may not.
  private static let platform: Set<String> = [
    "Foundation", "FoundationEssentials", "Glibc", "Synchronization",
  ]

  private func sources(_ target: String) throws -> [(path: String, lines: [Substring])] {
    let root = Workshop.package.appendingPathComponent("Sources/\(target)")
    let names = try FileManager.default.subpathsOfDirectory(atPath: root.path)
    return try names.filter { $0.hasSuffix(".swift") }.map { name in
      let path = root.appendingPathComponent(name)
      let text = try String(contentsOf: path, encoding: .utf8)
      return ("\(target)/\(name)", text.split(separator: "\n", omittingEmptySubsequences: false))
    }
  }

  @Test(arguments: rooms.keys.sorted())
  func `a room imports what the table allows`(_ target: String) throws {
    let isDaemons = target.hasPrefix("Tracer")
    var allowed = try #require(Self.rooms[target])
    if !isDaemons && target != "HeapModel" { allowed.formUnion(Self.platform) }
    for (path, lines) in try sources(target) {
      for line in lines {
        let words = line.split(separator: " ")
        guard let index = words.firstIndex(of: "import"), index < 2, index + 1 < words.count,
          words[..<index].allSatisfy({ $0.hasPrefix("@") || $0 == "public" || $0 == "internal" })
        else { continue }
        #expect(allowed.contains(String(words[index + 1])), "\(path) imports \(words[index + 1])")
      }
    }
  }

  @Test func `only the command prints`() throws {
    for target in Self.rooms.keys where target != "HeaptapCommand" {
      for (path, lines) in try sources(target) {
        for line in lines where !line.drop(while: { $0 == " " }).hasPrefix("//") {
          let prints = ["print(", "debugPrint(", "dump(", "puts(", "FileHandle.standardError"]
            .contains { call in
              line.range(of: call).map { range in
                range.lowerBound == line.startIndex
                  || !(line[line.index(before: range.lowerBound)].isLetter
                    || line[line.index(before: range.lowerBound)] == ".")
              } ?? false
            }
          #expect(!prints, "\(path): \(line)")
        }
      }
    }
  }

  @Test func `every behaviour of tracemalloc has tests, which are there`() throws {
    let page = try text("docs/tracemalloc.md")
    let table = page[try #require(page.range(of: "## Behaviours")).upperBound...]
    let rows = table.split(separator: "\n").filter { $0.hasPrefix("| ") }.dropFirst(2)
    let tests = try ["Tests", "Examples/SelfTracing/Tests"].flatMap { folder in
      let root = Workshop.package.appendingPathComponent(folder)
      return try FileManager.default.subpathsOfDirectory(atPath: root.path)
        .filter { $0.hasSuffix(".swift") }
        .map { try String(contentsOf: root.appendingPathComponent($0), encoding: .utf8) }
    }
    #expect(rows.count >= 40)
    for row in rows {
      // Every other part of what backticks divide is a name.
      let names = row.split(separator: "`", omittingEmptySubsequences: false).enumerated()
        .filter { $0.offset % 2 == 1 }.map(\.element)
      #expect(!names.isEmpty, "\(row)")
      for name in names {
        #expect(tests.contains { $0.contains("func `\(name)`") }, "\(name)")
      }
    }
  }

  @Test func `the table of the architecture names the rooms that there are`() throws {
    let table = try text("docs/architecture.md")
    let targets = try FileManager.default.contentsOfDirectory(
      atPath: Workshop.package.appendingPathComponent("Sources").path)
    // The modules of system libraries and the page between the two sides have no row of their own.
    for target in targets
    where !["CControlPage", "CElfutils", "CIberty", "CSystemd", "CZlib"].contains(target) {
      #expect(table.contains("| `\(target)` |"), "\(target)")
    }
  }
}

extension String {
  /// What stands in square brackets, as readelf shows names.
  fileprivate var bracketed: String? {
    guard let start = firstIndex(of: "["), let end = lastIndex(of: "]"), start < end else {
      return nil
    }
    return String(self[index(after: start)..<end])
  }
}
