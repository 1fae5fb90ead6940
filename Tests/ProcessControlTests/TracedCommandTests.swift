// SPDX-License-Identifier: Apache-2.0
// `run`: the environment that a command gets, how its end is told, and why there is no dump.

import Glibc
import Testing

@testable import ProcessControl

// Serialized: a waiting command ignores SIGINT for the whole process.
@Suite(.serialized) struct `Traced command` {
  private let directory = TemporaryDirectory()
  private var environment: ProcessEnvironment {
    get throws {
      ["PATH": "/usr/bin:/bin", "HEAPTAP_LIBRARY": try directory.decoyLibrary()]
    }
  }

  private func run(_ script: String) throws -> TracedCommand.Outcome {
    try TracedCommand(
      ["sh", "-c", script].map { Array($0.utf8) }, directory: directory.path, children: .left,
      environment: try environment
    ).run()
  }

  @Test func `the command records from the start and leaves its children alone`() {
    let command = TracedCommand(
      [[0x78]], directory: ".", depthLimit: 20, children: .left,
      environment: ["LD_PRELOAD": "/lib/other.so", "HOME": "/root"])
    #expect(
      command.childEnvironment(library: "/l/libheaptap.so", directory: "/d") == [
        "LD_PRELOAD": "/l/libheaptap.so:/lib/other.so", "HOME": "/root", "HEAPTAP": "record",
        "HEAPTAP_EXIT": "dump", "HEAPTAP_DIR": "/d", "HEAPTAP_DEPTH": "20",
        "HEAPTAP_CHILDREN": "0", "HEAPTAP_RUN": "\(getpid())",
      ])
  }

  @Test func `traced children get no word to the contrary from an outer run`() {
    let command = TracedCommand(
      [[0x78]], directory: ".", children: .traced,
      environment: ["HEAPTAP_CHILDREN": "0", "HEAPTAP_RUN": "1"])
    #expect(
      command.childEnvironment(library: "/l/libheaptap.so", directory: "/d") == [
        "LD_PRELOAD": "/l/libheaptap.so", "HEAPTAP": "record", "HEAPTAP_EXIT": "dump",
        "HEAPTAP_DIR": "/d",
      ])
  }

  @Test func `the status is the command's own, and its dumps are found`() throws {
    let dump = "20990101T000000.000000Z-sh-$$-1.pb"
    let outcome = try run(
      """
      touch "$HEAPTAP_DIR/\(dump)" "$HEAPTAP_DIR/20000101T000000.000000Z-sh-$$-1.pb"
      exit 3
      """)
    #expect(outcome.ending == .exited(3))
    #expect(outcome.ending.exitStatus == 3)
    #expect(outcome.dumps.map(\.time) == ["20990101T000000.000000Z"])
    #expect(outcome.reasonForNoDump == nil)
  }

  @Test func `death by a signal is told as shells do, and SIGKILL leaves nothing`() throws {
    let outcome = try run("kill -KILL $$")
    #expect(outcome.ending.exitStatus == 137)
    #expect(outcome.reasonForNoDump == "killed by SIGKILL: nothing could be written")
    let segfault = try run("kill -SEGV $$")
    #expect(segfault.ending.exitStatus == 139)
    #expect(segfault.reasonForNoDump?.hasPrefix("killed by SIGSEGV: no dump was written") == true)
  }

  @Test func `an interrupt from the terminal does not end the wait`() throws {
    // A terminal interrupts both; the command may handle it, and here goes on.
    let outcome = try run("kill -INT \(getpid()); kill -QUIT \(getpid()); exit 7")
    #expect(outcome.ending == .exited(7))
  }

  @Test func `the command finds its signals as this process found them`() throws {
    func masks(_ path: String) throws -> [UInt64] {
      let text = String(decoding: try contents(ofFile: path), as: UTF8.self)
      return text.split(separator: "\n").filter { $0.hasPrefix("SigIgn") }.map {
        // Less the two signals that are glibc's own, and that its posix_spawn leaves ignored.
        UInt64($0.suffix(16), radix: 16)! & ~0x1_8000_0000
      }
    }
    let before = try masks("/proc/self/status")
    _ = try run("cat /proc/self/status > \(directory.path)/status")
    #expect(try masks("\(directory.path)/status") == before)
  }

  @Test func `a command that is not there, or cannot be run, has the shells' status`() throws {
    func failure(_ name: String) throws -> TracedCommand.StartFailure? {
      do {
        _ = try TracedCommand(
          [Array(name.utf8)], directory: directory.path, children: .left,
          environment: try environment
        ).run()
        return nil
      } catch let failure as TracedCommand.StartFailure {
        return failure
      }
    }
    let missing = try failure("heaptap-no-such-command")
    #expect(missing?.exitStatus == 127)
    #expect(missing?.description == "cannot run 'heaptap-no-such-command': no such command")
    let unrunnable = try failure(directory.file("plain", mode: 0o600))
    #expect(unrunnable?.exitStatus == 126)
    let orphan = try failure(directory.file("script", Array("#!/no/such\n".utf8), mode: 0o700))
    #expect(orphan?.exitStatus == 126)
    #expect(
      orphan?.description.hasSuffix("the interpreter or loader that it names is missing") == true)
  }

  @Test func `a directory that is not there is an error before anything runs`() throws {
    let command = TracedCommand(
      [Array("true".utf8)], directory: "/no/such", children: .left, environment: try environment)
    #expect {
      try command.run()
    } throws: {
      "\($0)" == "cannot write dumps to '/no/such': no such file or directory;"
        + " create it, or name another with -o"
    }
  }

  @Test func `a library that is not there is an error that names the way out`() {
    #expect {
      try TracerLibrary.locate(environment: ["HEAPTAP_LIBRARY": "/no/such.so"])
    } throws: {
      "\($0)".contains("HEAPTAP_LIBRARY names '/no/such.so'")
    }
  }

  // MARK: Programs that the loader will not trace

  private func elf(interpreter: String?, machine: UInt8, class wordSize: UInt8 = 2) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 256)
    bytes.replaceSubrange(0..<6, with: [0x7f, 0x45, 0x4c, 0x46, wordSize, 1])
    bytes[18] = machine
    bytes[32] = 64  // program headers begin here
    bytes[54] = 56  // and have this size
    bytes[56] = 1
    bytes[64] = interpreter == nil ? 1 : 3
    bytes[72] = 128
    let name = Array((interpreter ?? "").utf8) + [0]
    bytes[96] = UInt8(name.count)
    bytes.replaceSubrange(128..<(128 + name.count), with: name)
    return bytes
  }

  #if arch(x86_64)
    private let ourMachine: UInt8 = 62
    private let otherMachine: UInt8 = 183
  #else
    private let ourMachine: UInt8 = 183
    private let otherMachine: UInt8 = 62
  #endif

  @Test func `the file shows whether the loader heeds LD_PRELOAD`() {
    func obstacle(_ bytes: [UInt8]) -> PreloadObstacle? { PreloadObstacle(elf: bytes) }
    #expect(obstacle(elf(interpreter: "/lib64/ld-linux-x86-64.so.2", machine: ourMachine)) == nil)
    #expect(
      obstacle(elf(interpreter: "/lib/ld-musl-x86_64.so.1", machine: ourMachine))
        == .foreignLoader("/lib/ld-musl-x86_64.so.1"))
    #expect(obstacle(elf(interpreter: nil, machine: ourMachine)) == .staticallyLinked)
    #expect(obstacle(elf(interpreter: nil, machine: otherMachine)) == .foreignMachine)
    #expect(obstacle(elf(interpreter: nil, machine: ourMachine, class: 1)) == .foreignMachine)
    #expect(obstacle([]) == nil)
  }

  @Test func `an ELF file cut anywhere, or with wild offsets, is survived`() {
    let whole = elf(interpreter: "/lib64/ld-linux-x86-64.so.2", machine: ourMachine)
    for count in 0..<whole.count { _ = PreloadObstacle(elf: Array(whole.prefix(count))) }
    for index in 20..<whole.count {
      var wild = whole
      wild[index] = 0xff
      _ = PreloadObstacle(elf: wild)
    }
  }

  @Test func `a script is as traceable as its interpreter`() {
    #expect(PreloadObstacle(program: directory.file("script", Array("#!/bin/sh\n".utf8))) == nil)
    let fixed = directory.file("static", elf(interpreter: nil, machine: ourMachine))
    let script = directory.file("wrapper", Array("#! \(fixed) -x\n".utf8))
    #expect(PreloadObstacle(program: script) == .staticallyLinked)
  }

  @Test func `a loader of an older glibc is known by the versions that it defines`() {
    let loader = directory.file("ld-linux-of-2.31.so.2", Array("GLIBC_2.31\0GLIBC_2.350\0".utf8))
    let program = directory.file("old", elf(interpreter: loader, machine: ourMachine))
    #expect(PreloadObstacle(program: program) == .oldLoader(loader))
    _ = directory.file("ld-linux-of-2.31.so.2", Array("GLIBC_2.31\0GLIBC_2.35\0".utf8))
    #expect(PreloadObstacle(program: program) == nil)
    // The loader of this machine runs this test, and the library is for it.
    #expect(PreloadObstacle(program: "/bin/sh") == nil)
  }

  @Test func `a set-ID bit is in the way of those whom it changes`() throws {
    let program = directory.file(
      "daemon", elf(interpreter: "/lib/ld-linux.so.2", machine: ourMachine))
    unsafe chmod(program, 0o4755)
    let owner = try status(ofFile: program).st_uid
    func obstacle(_ runner: PreloadObstacle.Runner) -> PreloadObstacle? {
      PreloadObstacle(program: program, run: runner)
    }
    #expect(obstacle(.init(userID: owner, groupID: nil)) == nil)
    #expect(obstacle(.init(userID: owner + 1, groupID: nil)) == .privileged)
    #expect(obstacle(.init(userID: nil, groupID: nil)) == .privileged)
    #expect(obstacle(.init(userID: owner + 1, groupID: nil, gainsPrivileges: false)) == nil)
  }
}
