// SPDX-License-Identifier: Apache-2.0
// Dumps for strangers: what may be in their bytes, and what must be.

import HeapModel
import Testing

@testable import Pprof

@Suite struct StrippingTests {
  /// In every place that holds text there is a word that must not get out.
  private static let header: Header = [
    "heaptap": "1", "tracer": "0.1.0", "program": "secret-program", "executable": "/secret/bin/it",
    "pid": "4321", "uid": "31337", "host": "secret-host", "unit": "secret.service",
    "boot_id": "5ec7e7b0-07ed", "trigger": "signal", "depth": "64",
    "start_wall_ns": "1800000000000000000", "generation.1": "1800000000000000000,5",
    "histogram": "16:1:10,more:2:99999", "usage_bytes": "100",
    "usage_source": "/sys/fs/cgroup/secret.slice/memory.current",
    "limit_source": "/sys/fs/cgroup/secret.slice/memory.max", "limit_bytes": "200",
    "jit.map": "/tmp/secret.map", "jit.map_problem": "there is none", "later.secret": "secret-word",
    "secret-key": "5", "complete": "1",
  ]

  private static let modules = [
    Module(
      start: 0x5555_0000_0000, limit: 0x5555_0010_0000, fileOffset: 0x1000,
      path: "/secret/bin/it", buildID: "0123456789abcdef"),
    Module(
      start: 0x7f12_3400_0000, limit: 0x7f12_3410_0000, fileOffset: 0x2000,
      path: "/usr/lib/x86_64-linux-gnu/libc.so.6", buildID: "fedcba9876543210"),
    Module(
      start: 0x7f12_3500_0000, limit: 0x7f12_3510_0000, fileOffset: 0,
      path: "/usr/lib/secret/libsecret.so.1", buildID: ""),
    Module(
      start: 0x7f12_3600_0000, limit: 0x7f12_3610_0000, fileOffset: 0,
      path: "/opt/secret/lib/libswiftCore.so", buildID: "00ff00ff"),
    Module(start: 0, limit: 0, fileOffset: 0, path: "[jit]", buildID: ""),
  ]

  private static let stack = [
    Frame(address: 0x7f12_3400_0100, module: 1, function: "malloc"),
    Frame(
      address: 0x5555_0000_0200, module: 0, function: "std::allocator<secret::T>::allocate",
      file: "/secret/toolchain/include/c++/12/bits/allocator.h", line: 9, isInlined: true),
    Frame(
      address: 0x5555_0000_0200, module: 0, function: "secret::Cache::insert",
      file: "/secret/src/secret.cpp", line: 40),
    Frame(address: 0x7f12_3500_0300, module: 2, function: "secret_library_call"),
    Frame(address: 0x7f12_3600_0400, module: 3, function: "swift_job_run"),
    Frame(address: 0x7f12_3700_0500, module: 4, function: "LazyCompile:*secret /secret/a.js:3"),
    Frame(address: 0x7f12_3800_0600),
  ]

  private var snapshot: Snapshot {
    var builder = Snapshot.Builder(header: Self.header, modules: Self.modules)
    builder.add(bytes: 5000, blocks: 5, stack: Self.stack, missingFrames: 3, generation: 1)
    builder.add(bytes: 64, stack: [.lostStack])
    builder.add(bytes: 7, stack: Array(Self.stack.dropFirst(2)), isBroken: true, domain: 2)
    return builder.finish()
  }

  private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  @Test(arguments: [false, true])
  func `no word of the program's and its host's is in the bytes`(keepsBuildIDs: Bool) throws {
    let bytes = snapshot.stripped(.init(keepsBuildIDs: keepsBuildIDs)).profileBytes()
    let everything = text(bytes).lowercased()
    for word in ["secret", "31337", "5ec7e7b0", "it\0", "/bin", "/opt", "/tmp", ".js", "toolchain"]
    {
      #expect(!everything.contains(word), "'\(word)'")
    }
    #expect(everything.contains("0123456789abcdef") == keepsBuildIDs)
    // What is no secret, and what reports need.
    for word in [
      "4321", "memory.max", "libc.so.6", "libswiftcore.so", "swift_job_run",
      "/include/c++/12/bits/allocator.h", "std::allocator<…", "[jit]",
    ] {
      #expect(everything.contains(word), "'\(word)'")
    }
    let read = try Snapshot(profile: bytes)
    for frame in read.distinctFrames {
      // No address of the process.
      #expect(frame.address < 0x5555_0000_0000)
    }
  }

  @Test func `figures, stacks and offsets in files are what they were`() throws {
    let original = snapshot
    let read = try Snapshot(profile: original.stripped().profileBytes())
    #expect(read.warnings == [])
    #expect(read.samples.count == 3)
    for (before, after) in zip(original.samples, read.samples) {
      #expect(
        (before.liveBytes, before.liveBlocks, before.totalBytes, before.generation, before.domain)
          == (after.liveBytes, after.liveBlocks, after.totalBytes, after.generation, after.domain))
      #expect((before.missingFrames, before.isBroken) == (after.missingFrames, after.isBroken))
      let pairs = Array(zip(original.stack(of: before), read.stack(of: after)))
      #expect(pairs.count == original.stack(of: before).count)
      for (old, new) in pairs {
        #expect((old.isInlined, old.line, old.module) == (new.isInlined, new.line, new.module))
        guard let module = old.module, Self.modules[module].limit != 0 else { continue }
        #expect(
          original.modules[module].fileOffset(of: old.address)
            == read.modules[module].fileOffset(of: new.address))
      }
    }
    #expect(read.stack(of: read.samples[1]).first == .lostStack)
    #expect(read.header.histogram == original.header.histogram)
    #expect(read.header.generationStarts == original.header.generationStarts)
    #expect(read.header.isComplete && read.header["stripped"] == "1")
    // The allocator is folded as it was.
    #expect(original.folded().stack(of: original.samples[0]).count == 4)
    let folded = read.folded()
    #expect(folded.stack(of: folded.samples[0]).count == 4)
  }

  @Test func `a name has the same number in every dump, and another name another`() {
    let first = snapshot.stripped()
    var builder = Snapshot.Builder(header: Self.header, modules: Self.modules.reversed())
    var other = Self.stack[2]
    other.module = 4
    var another = other
    another.function = "secret::Cache::remove"
    builder.add(bytes: 1, stack: [other])
    builder.add(bytes: 1, stack: [another])
    let second = builder.finish().stripped()
    let names = second.samples.map { second.stack(of: $0)[0].function }
    #expect(names[0] == first.stack(of: first.samples[0])[2].function)
    #expect(names[0] != names[1])
    #expect(second.modules[4].name == first.modules[0].name)
    #expect(second.modules[4].isBackedByFile)
  }

  @Test func `names stay where that is asked for, without directories`() {
    let kept = snapshot.stripped(.init(keepsNames: true))
    let stack = kept.stack(of: kept.samples[0])
    #expect(stack[2].function == "secret::Cache::insert")
    #expect((stack[2].file, stack[2].line) == ("secret.cpp", 40))
    #expect(kept.modules[0].path == "/it")
    #expect(kept.modules[2].path == "/libsecret.so.1")
    #expect(kept.header.program == nil && kept.header.host == nil)
    #expect(!text(kept.profileBytes()).contains("/secret/"))
  }

  @Test func `of types Swift's own keep their names, and not what an extension put into them`() {
    var builder = Snapshot.Builder(header: Self.header, modules: Self.modules)
    let names = [
      "Swift.__StringStorage", "task", "closure context", "secret.Store", "Swift.Mirror.Secret",
      "Swift.Hasher.Secret.Inner", "Swift._DictionaryStorage<Swift.Int, secret.Item>",
      "error Swift.Secret", "box of secret.Item",
    ]
    for name in names { builder.add(bytes: 1, stack: Self.stack, type: name, thread: "secret") }
    let stripped = builder.finish().stripped()
    #expect(stripped.samples.prefix(3).map(\.type) == names.prefix(3).map { $0 })
    #expect(Set(stripped.samples.map(\.type)).count == names.count)
    #expect(!text(stripped.profileBytes()).lowercased().contains("secret"))
  }

  @Test func `remarks of other tools are left out`() throws {
    var builder = Snapshot.Builder(
      header: Header([.init(comment: "secret remark"), .init(key: "password", value: "5")]),
      modules: [])
    builder.add(bytes: 1, stack: [Frame(function: "f")])
    let stripped = builder.finish().stripped()
    #expect(stripped.header.entries.isEmpty)
    #expect(try Snapshot(profile: stripped.profileBytes()).liveBytes == 1)
  }
}
