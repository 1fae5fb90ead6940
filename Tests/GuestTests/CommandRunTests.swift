// SPDX-License-Identifier: Apache-2.0
// heaptap run: a command under the tracer from its first allocation, by the real tracer.

import Foundation
import HeapModel
import Testing

extension CommandTests {
  @Suite struct Run {
    private let box: DumpBox

    init() throws { box = try DumpBox() }

    private func traced(
      _ command: [String], options: [String] = [], environment: [String: String] = [:],
      input: String? = nil
    ) throws -> Finished {
      try heaptap(
        ["run", "-o", box.directory.path] + options + ["--"] + command, environment: environment,
        input: input)
    }

    /// An obedient guest below `heaptap run`: the guest is the command, the pid its child's.
    private func obedient(_ options: [String] = []) throws -> Obedient {
      try Obedient(
        nil, ["LD_PRELOAD": ""], box: box,
        prefix: [Workshop.command, "run", "-o", box.directory.path] + options + ["--"])
    }

    // MARK: Ends

    @Test(arguments: [0, 3, 255])
    func `the exit status is the command's own`(status: Int32) throws {
      let result = try traced(["sh", "-c", "exit \(status)"])
      #expect(result.status == status && result.output.isEmpty)
      #expect(box.dumps.count == 1)
      #expect(result.errors.contains("heaptap: wrote '\(box.dumps[0].path)'\n"))
    }

    @Test(arguments: ["return", "exit", "quick_exit", "_exit", "_Exit"])
    func `it dumps however the program ends by itself`(manner: String) throws {
      let guest = try obedient()
      try guest.tell("allocate 10 100")
      let result = guest.end(manner, status: 3)
      #expect(result.status == 3 && result.signal == nil)
      let snapshot = try box.snapshot()
      #expect(snapshot.header.trigger == "exit" && snapshot.header.isComplete)
      #expect(snapshot.liveBytes >= 1000 && snapshot.header.pid == Int(guest.pid))
    }

    @Test(arguments: [SIGTERM, SIGINT, SIGHUP])
    func `a signal to the child leaves a dump, and 128+n`(signal: Int32) throws {
      let guest = try obedient()
      try guest.tell("allocate 10 100")
      guest.signal(signal)
      #expect(guest.guest.finish().status == 128 + signal)
      let snapshot = try box.snapshot()
      #expect(snapshot.header.trigger == "terminated" && snapshot.liveBytes >= 1000)
    }

    @Test(arguments: [SIGTERM, SIGHUP])
    func `a signal to heaptap reaches the command`(signal: Int32) throws {
      let guest = try obedient()
      guest.guest.send(signal)
      let result = guest.guest.finish()
      #expect(result.status == 128 + signal && result.signal == nil)
      #expect(try box.snapshot().header.trigger == "terminated")
      #expect(result.errors.contains("heaptap: wrote '"))
    }

    @Test func `SIGINT from a terminal ends the command, and heaptap tells its dump`() throws {
      let guest = try obedient()
      // A terminal sends it to both.
      guest.guest.send(SIGINT)
      usleep(200_000)
      #expect(guest.guest.isRunning)
      guest.signal(SIGINT)
      let result = guest.guest.finish()
      #expect(result.status == 130 && result.errors.contains("heaptap: wrote '"))
    }

    @Test func `after SIGKILL there is no dump, and it says so`() throws {
      let result = try traced(["sh", "-c", "kill -KILL $$"])
      #expect(result.status == 137 && box.names.isEmpty)
      #expect(result.errors == "heaptap: killed by SIGKILL: nothing could be written\n")
    }

    @Test func `after a crash there is no dump, and it says when there is one`() throws {
      let result = try traced(["sh", "-c", "kill -SEGV $$"])
      #expect(result.status == 139 && box.names.isEmpty)
      #expect(
        result.errors == """
          heaptap: killed by SIGSEGV: no dump was written, since only an exit, SIGTERM, SIGINT and \
          SIGHUP leave one

          """)
    }

    @Test func `a command that is not there is 127, one that cannot be run 126`() throws {
      let missing = try traced(["no-such-command"])
      #expect(missing.status == 127)
      #expect(missing.errors == "heaptap: cannot run 'no-such-command': no such command\n")
      #expect(try traced(["/no/such/command"]).status == 127)
      let data = try traced(["/etc/passwd"])
      #expect(data.status == 126)
      #expect(data.errors == "heaptap: cannot run '/etc/passwd': permission denied\n")
      #expect(try traced(["/tmp"]).status == 126)
      #expect(box.names.isEmpty)
    }

    // MARK: Options

    @Test func `the directory may be relative, and is the current one if not given`() throws {
      let sub = box.directory.appendingPathComponent("below")
      try FileManager.default.createDirectory(at: sub, withIntermediateDirectories: false)
      _ = try heaptap(
        ["run", "-o", "below", "--", "sh", "-c", "cd /; exit 0"], directory: box.directory)
      #expect(try FileManager.default.contentsOfDirectory(atPath: sub.path).count == 1)
      #expect(box.dumps.isEmpty)
      let result = try heaptap(["run", "--", "true"], directory: box.directory)
      #expect(result.status == 0 && box.dumps.count == 1)
    }

    @Test func `a directory that is not there is told before the command runs`() throws {
      let flag = box.directory.appendingPathComponent("ran").path
      let result = try heaptap("run", "-o", "/no/where", "--", "touch", flag)
      #expect(result.status == 2 && box.names.isEmpty)
      #expect(
        result.errors == """
          heaptap: cannot write dumps to '/no/where': no such file or directory; create it, or name \
          another with -o

          """)
    }

    @Test func `--threads tells who allocates, and without it --by thread says how to`() throws {
      let program = try Programs.build("named_threads.c", ["-O2", "-g", "-fno-builtin"])
      _ = try traced([program])
      let plain = try heaptap("show", box.dumps[0].path, "--by", "thread")
      #expect(plain.status == 2 && plain.output.isEmpty)
      #expect(
        plain.errors == """
          heaptap: the dump does not say which thread allocated, record with HEAPTAP_THREADS=1 or \
          'heaptap run --threads'

          """)
      _ = try traced([program], options: ["--threads"])
      let told = try heaptap("show", box.dumps[1].path, "--by", "thread", "-n", "0")
      for number in 0..<6 {
        #expect(told.output.contains("worker-\(number): size=63.5 KiB, count=1010,"))
      }
      let json = try heaptap("show", box.dumps[1].path, "--by", "thread", "--json")
      #expect(json.output.contains(#""key":"worker-5","thread":"worker-5""#))
    }

    @Test func `--by type shows objects by what they are, and says where a dump has none`() throws {
      let program = try Programs.build(
        "kinds.swift",
        ["-O", "-no-static-stdlib", "-g", "-parse-as-library", "-module-name", "kinds"])
      _ = try traced([program])
      let told = try heaptap("show", box.dumps[0].path, "--by", "type", "-n", "0")
      #expect(told.output.contains("\nkinds.Counter: size=12.7 KiB, count=108, average=120 B\n"))
      _ = try traced([program], environment: ["HEAPTAP_TYPES": "0"])
      let refused = try heaptap("diff", box.dumps[0].path, box.dumps[1].path, "--by", "type")
      #expect(refused.status == 2)
      #expect(
        refused.errors == """
          heaptap: the dump does not say what blocks are (HEAPTAP_TYPES=0), group by something else \
          or take another one

          """)
    }

    @Test func `--depth is how many frames of a stack are kept`() throws {
      _ = try traced([try Programs.build("family.c")], options: ["--depth", "2"])
      let snapshot = try box.snapshot()
      #expect(snapshot.header.depthLimit == 2)
      #expect(snapshot.samples.allSatisfy { snapshot.stack(of: $0).count <= 2 })
    }

    // MARK: Other programs

    @Test func `children are not traced, and lose only our entry of LD_PRELOAD`() throws {
      let other = "/lib/x86_64-linux-gnu/libm.so.6"
      let program = try Programs.build("family.c")
      let result = try traced(
        [
          "sh", "-c", "printenv LD_PRELOAD; \(program) > /dev/null; \(program) > /dev/null; exit 5",
        ],
        environment: ["LD_PRELOAD": other])
      #expect(result.status == 5)
      #expect(result.output == "\(other)\n")
      let names = box.dumps.map(\.lastPathComponent)
      #expect(names.count == 1 && !names[0].contains("family"), "\(names)")
    }

    @Test func `with --children each of them dumps, and every dump is told`() throws {
      let program = try Programs.build("family.c")
      let result = try traced(
        ["sh", "-c", "\(program) > /dev/null; \(program) > /dev/null; exit 5"],
        options: ["--children"])
      #expect(result.status == 5 && box.dumps.count == 3)
      #expect(Set(try box.snapshots().compactMap(\.header.pid)).count == 3)
      for dump in box.dumps { #expect(result.errors.contains("heaptap: wrote '\(dump.path)'\n")) }
    }

    @Test func `the program that a command becomes is traced under its pid`() throws {
      let before = Date()
      let guest = try Obedient(
        nil, ["LD_PRELOAD": ""], box: box,
        prefix: [
          Workshop.command, "run", "-o", box.directory.path, "--", "sh", "-c",
          "echo $$ >&2; sleep 0.5; exec \"$@\"", "sh",
        ])
      #expect(guest.guest.errorsSoFar.contains("\(guest.pid)\n"))
      _ = guest.end("exit")
      let header = try box.snapshot().header
      #expect(header.pid == Int(guest.pid) && header.program?.hasPrefix("obedient") == true)
      // Its own start: the shell had slept by then.
      let start = Double(try #require(header.startWallNanoseconds)) / 1e9
      #expect(start >= before.timeIntervalSince1970 + 0.5)
    }

    @Test func `a static program is explained`() throws {
      let source = box.directory.appendingPathComponent("still.c")
      try "int main(void) { return 7; }".write(to: source, atomically: true, encoding: .utf8)
      let program = box.directory.appendingPathComponent("still").path
      let compiled = try run(["/usr/bin/env", "gcc", "-static", source.path, "-o", program])
      try #require(compiled.status == 0, "\(compiled.errors)")
      let result = try traced([program])
      #expect(result.status == 7 && box.dumps.isEmpty)
      #expect(
        result.errors == """
          heaptap: no dump: '\(program)' was not traced: it is statically linked, so nothing can be \
          preloaded into it

          """)
    }

    @Test(.enabled(if: geteuid() == 0, "only root can give a file away"))
    func `a program that gains privileges is explained`() throws {
      let program = box.directory.appendingPathComponent("privileged").path
      try copyProgram(try Programs.build("family.c"), to: program)
      try #require(chown(program, 65534, 65534) == 0 && chmod(program, 0o4755) == 0)
      let result = try traced([program])
      #expect(box.dumps.isEmpty)
      #expect(
        result.errors.hasSuffix(
          "was not traced: it is set-user-ID or set-group-ID, or has file capabilities, for which the"
            + " loader ignores LD_PRELOAD\n"))
    }

    @Test func `standard input, output and error pass through`() throws {
      let result = try traced(["sh", "-c", "cat; echo complaint >&2"], input: "a\nb")
      #expect(result.output == "a\nb")
      #expect(result.errors.hasPrefix("complaint\n"))
    }

    @Test func `arguments arrive as they were typed`() throws {
      let result = try traced(["printf", "[%s]", "--depth", "-o", "", "a b", "--", "*"])
      #expect(result.output == "[--depth][-o][][a b][--][*]")
    }
  }
}
