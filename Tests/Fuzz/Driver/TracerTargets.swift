// SPDX-License-Identifier: Apache-2.0
// What the tracer reads inside a daemon: its environment, the kernel's files, tables and symbols of modules.

import CTracerPlatform
import Glibc

@testable import TracerCore

/// Memory as the tracer sets it aside, for one reader.
private func withBuffer(_ byteCount: Int, _ body: (UnsafeMutableRawPointer) -> Void) {
  let buffer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 16)
  defer { buffer.deallocate() }
  body(buffer)
}

/// A file with these bytes and no name.
private func withFile(_ bytes: [UInt8], _ body: (Int32) -> Void) {
  let file = open("/dev/shm", O_RDWR | 0o20200000 /* O_TMPFILE */, 0o600)
  precondition(file >= 0)
  defer { close(file) }
  _ = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
  body(file)
}

/// A directory of the kernel's files, made once.
private let tree: [UInt8] = {
  var name = Array("/dev/shm/heaptap-fuzz-XXXXXX".utf8CString)
  guard mkdtemp(&name) != nil else { fatalError("no place for files") }
  let root = String(decoding: name.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  for directory in ["/proc", "/proc/self", "/sys", "/sys/fs", "/sys/fs/cgroup"] {
    mkdir(root + directory, 0o700)
  }
  return Array(root.utf8)
}()

private let treeFiles = [
  "/proc/self/cgroup", "/proc/self/mountinfo", "/proc/self/status", "/proc/meminfo",
  "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat",
]

/// Removes what was made, at the end of the process.
private let removal: Void = {
  atexit {
    let root = String(decoding: tree, as: UTF8.self)
    for file in treeFiles { unlink(root + file) }
    for directory in ["/sys/fs/cgroup", "/sys/fs", "/sys", "/proc/self", "/proc", ""] {
      rmdir(root + directory)
    }
  }
}()

/// Whether rules can be followed without reading what they lead to.
///
/// The walk reads whatever is mapped, which is what AddressSanitizer keeps apart from blocks; with the help of
/// libFuzzer, which learns addresses from comparisons, it would be caught at that.
private func readsNothing(_ rules: UnwindRules) -> Bool {
  func hasNoDereference(_ block: UInt) -> Bool {
    guard var reader = TableReader(block: block) else { return true }
    while !reader.isAtEnd { if reader.read(UInt8.self) == 0x06 { return false } }
    return true
  }
  for number in 0..<UnwindRules.registerCount {
    let rule = rules.registers[number]
    switch rule.kind {
    case .atOffset, .atExpression: return false
    case .expression where !hasNoDereference(UInt(bitPattern: rule.value)): return false
    default: break
    }
  }
  return hasNoDereference(rules.cfaExpression)
}

let tracerTargets: [Target] = [
  // Variables between bytes of 0.
  Target(name: "settings") { bytes in
    var copies = bytes.parts.map { strdup($0.text).map { UnsafePointer($0) } }
    copies.append(nil)
    defer { copies.forEach { free(UnsafeMutableRawPointer(mutating: $0)) } }
    var settings = Settings()
    copies.withUnsafeMutableBufferPointer {
      _ = settings.read($0.baseAddress!, signalRange: 34...64)
    }
    withBuffer(64) { memory in
      var text = TextBuffer(memory, capacity: 64)
      settings.startMark.describe(into: &text)
    }
  },

  // The kernel's files about limits, between bytes of 0.
  Target(name: "cgroup") { bytes in
    _ = removal
    let root = String(decoding: tree, as: UTF8.self)
    for (path, contents) in zip(treeFiles, bytes.parts) {
      let file = open(root + path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
      _ = contents.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
      close(file)
    }
    withBuffer(8192) { buffer in
      tree.withUnsafeBytes { root in
        let files = KernelFiles(root: root, buffer: buffer, capacity: 8192)
        let place = CgroupPlace.find(files)
        _ = CgroupPlace.fingerprint(files)
        _ = LimitLook.all(files, place)
      }
    }
  },

  // A line of /proc/self/maps and /proc/self/smaps.
  Target(name: "maps") { bytes in
    bytes.withUnsafeBytes { line in
      if let (range, path) = MemoryMaps.mapping(line) {
        precondition(range.lowerBound <= range.upperBound && path.count < line.count)
      }
      _ = line.value(of: "Anonymous")
      _ = line.field(5)
      _ = line.lastComponent
      _ = line.containsBetweenCommas("memory")
    }
  },

  Target(name: "perfmap") { bytes in
    _ = removal
    let path = String(decoding: tree, as: UTF8.self) + treeFiles[0]
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    _ = bytes.withUnsafeBytes { write(file, $0.baseAddress, $0.count) }
    close(file)
    var problem = PerfMapProblem.none
    guard let map = PerfMap(path: path, owner: geteuid(), &problem) else { fatalError("no map") }
    defer { map.close() }
    withBuffer(512) { buffer in
      var lines: [Int] = []
      map.forEachEntry(from: 0, buffer, capacity: 512) { line, _ in lines.append(line) }
      map.forEachEntry(from: bytes.count / 2, buffer, capacity: 512) { _, _ in }
      for line in lines.prefix(64) { _ = map.entry(at: line, buffer, capacity: 64) }
    }
  },

  // Unwind tables: .eh_frame_hdr, .eh_frame and what follows, at an address of its own, for several counters.
  Target(name: "unwind") { bytes in
    let copy = UnsafeMutableRawPointer.allocate(byteCount: bytes.count, alignment: 8)
    defer { copy.deallocate() }
    bytes.withUnsafeBytes {
      copy.copyMemory(from: $0.baseAddress ?? UnsafeRawPointer(copy), byteCount: $0.count)
    }
    let start = UInt(bitPattern: copy)
    var rules = UnwindRules()
    for offset: UInt in [0x1000, 0x1001, 0x1010, 0x1040, 0] {
      guard
        CallFrameInformation.rules(
          at: start &+ offset, ehFrameHeader: start, in: start..<start + UInt(bytes.count),
          into: &rules)
      else { continue }
      guard readsNothing(rules) else { continue }
      var registers = tracer_registers()
      registers.rbp = 0x2000
      var state = RegisterState(registers, stackPointer: 0x1000)
      var readable = ReadableRange()
      _ = state.step(by: rules, &readable)
    }
  },

  // Symbols of an ELF file.
  Target(name: "symbols") { bytes in
    withFile(bytes) { file in
      withBuffer(4096) { buffer in
        let reader = PositionReader(descriptor: file, buffer: buffer, capacity: 4096)
        for bias: UInt64? in [nil, 0] {
          guard let image = SymbolImage(reader, origin: 0, bias: bias, limit: UInt64(bytes.count))
          else { continue }
          _ = image.firstAddress
          for list in [image.dynamicSymbols(), image.fileSymbols()].compactMap({ $0 }) {
            var names: [UInt32] = []
            image.forEachFunction(list) { symbol in
              names.append(symbol.name)
              return names.count < 64
            }
            for name in names { _ = image.name(name, list, byteLimit: 256) }
            _ = image.address(of: "swift_demangle", list)
          }
        }
      }
    }
  },

  // Demangled names on their way to the journal.
  Target(name: "names") { bytes in
    withBuffer(512) { memory in
      bytes.withUnsafeBytes { name in
        for style in [
          NameStyle.appendCxx, NameStyle.appendPlainCxx, NameStyle.appendSwift, NameStyle.appendCut,
        ] {
          var text = TextBuffer(memory, capacity: 512)
          _ = style(name, &text)
        }
      }
    }
  },
]
