// SPDX-License-Identifier: Apache-2.0
// Services run under filters of system calls: what the tracer calls must not be what they are killed for.

import Foundation
import Testing

@Suite struct SystemCallTests {
  @Test func `the tracer makes the calls of a system service, and some that it does without`()
    throws
  {
    // Many services leave these out, too.
    let left = try calls(of: "@privileged").union(calls(of: "@resources"))
    let allowed = try calls(of: "@system-service").subtracting(left)
    #expect(allowed.count > 200)
    let root = Workshop.package.appendingPathComponent("Sources")
    var made: Set<String> = []
    for target in ["TracerCore", "Tracer", "CTracerPlatform", "CTracerHooks"] {
      let directory = root.appendingPathComponent(target)
      for name in try FileManager.default.subpathsOfDirectory(atPath: directory.path)
      where [".swift", ".c", ".h", ".S"].contains(where: name.hasSuffix) {
        let path = directory.appendingPathComponent(name)
        let text = try String(contentsOf: path, encoding: .utf8)
        made.formUnion(text.matches(of: /SYS_([a-z0-9_]+)/).map { String($0.1) })
      }
    }
    #expect(made.count > 25)
    // Not where there is a filter: those are the tests below. Capabilities are set only where the
    // process has set its own, and so are users and groups, where it has done so around the library's names.
    #expect(
      made.subtracting(allowed) == [
        "capset", "pidfd_getfd", "ptrace", "setgroups", "setpriority", "setresuid",
      ])
  }

  @Test func `under a filter that kills for it, standard error is reached by another way`() throws {
    let filtered = try Programs.build("filtered.c")
    let box = try DumpBox()
    let result = try run([filtered, "/bin/sleep", "0.5"], environment: box.environment("1"))
    #expect(result.status == 0, "\(result)")
    #expect(result.errors.contains("armed"))
  }

  @Test func `under a filter that kills for it, a dump at a limit is not hurried`() throws {
    let filtered = try Programs.build("filtered.c")
    let box = try DumpBox()
    let result = try run(
      [filtered, "/bin/sleep", "1"],
      environment: box.environment("record", ["HEAPTAP_LIMIT": "16K", "HEAPTAP_EXIT": ""]))
    #expect(result.status == 0, "\(result)")
    #expect(try box.snapshot().header.trigger == "limit")
  }

  /// The names of a group of systemd's, with those of the groups in it.
  private func calls(of group: String) throws -> Set<String> {
    let result = try run(["/usr/bin/env", "systemd-analyze", "syscall-filter", group])
    guard result.status == 0 else { throw GuestError(result.errors) }
    var names: Set<String> = []
    for line in result.output.split(separator: "\n").dropFirst() {
      let name = line.trimmingCharacters(in: .whitespaces)
      if name.hasPrefix("@") { names.formUnion(try calls(of: name)) }
      if !name.isEmpty && !name.hasPrefix("#") { names.insert(name) }
    }
    return names
  }
}
