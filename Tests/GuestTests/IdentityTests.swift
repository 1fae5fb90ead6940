// SPDX-License-Identifier: Apache-2.0
// Daemons that become another user: the tracer's thread goes with them, and never stands in the way.

import Foundation
import HeapModel
import Testing

@Suite struct IdentityTests {
  @Test(arguments: ["1", "record"])
  func `a daemon that keeps some capabilities becomes another user as it would alone`(
    mode: String
  ) throws {
    try #require(getuid() == 0, "only root can become another user")
    let program = try Programs.build("identity.c")
    let plain = try run([program])
    #expect(plain.status == 0 && plain.output.hasSuffix("too mighty: 0\n"), "\(plain)")
    let box = try DumpBox()
    // At once, and when the worker has settled: another loop of its own.
    for delay in [[], ["/bin/sh", "-c", "sleep 0.4; exec \"$@\"", "sh"]] {
      let traced = try run(delay + [program], environment: box.environment(mode))
      #expect(traced.status == 0, "\(traced)")
      #expect(traced.output == plain.output)
    }
  }

  @Test func `commands that give up root and capabilities do so under the tracer`() throws {
    try #require(getuid() == 0, "only root can become another user")
    let box = try DumpBox()
    for options in [
      ["--reuid=12345", "--regid=12345", "--clear-groups"],
      [
        "--reuid=12345", "--regid=12345", "--clear-groups", "--inh-caps=-all",
        "--bounding-set=-all",
      ],
    ] {
      let result = try run(
        ["/usr/bin/setpriv"] + options + ["/usr/bin/id"], environment: box.environment("1"))
      #expect(result.status == 0, "\(result.errors)")
      #expect(result.output == "uid=12345 gid=12345 groups=12345\n")
    }
  }

  @Test
  func
    `a program of one thread stays alone for glibc, and each change of its user is the worker's too`()
    throws
  {
    try #require(getuid() == 0, "only root can become another user")
    let program = try Programs.build("alone.c", ["-O1"])
    let plain = try run([program])
    #expect(plain.status == 0 && plain.output.hasSuffix("after a thread: not alone\n"), "\(plain)")
    #expect(plain.output.components(separatedBy: ", 1\n").count == 22)
    #expect(plain.output.components(separatedBy: ": alone\n").count == 14)
    let box = try DumpBox()
    for delay in [[], ["/bin/sh", "-c", "sleep 0.4; exec \"$@\"", "sh"]] {
      for mode in ["1", "record"] {
        let traced = try run(delay + [program], environment: box.environment(mode))
        #expect(traced.status == 0 && traced.output == plain.output, "\(traced)")
      }
    }
  }

  @Test func `of more groups than the worker has room for, both threads keep all`() throws {
    try #require(getuid() == 0, "only root can become another user")
    let box = try DumpBox()
    let groups = (50_000..<50_300).map(String.init)
    let result = try run(
      [
        "/usr/bin/setpriv", "--groups=\(groups.joined(separator: ","))", "/bin/sh", "-c",
        "sleep 2.5; grep -h Groups: /proc/$$/task/*/status",
      ], environment: box.environment("1"))
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 2 && Set(lines).count == 1)
    #expect(
      lines.first?.split(whereSeparator: \.isWhitespace).dropFirst().map(String.init) == groups)
  }

  /// The program's copy of the variable is not the one that glibc sets when a thread is made.
  @Test
  func `a program that has its own copy of what glibc believes is never told that it is alone`()
    throws
  {
    try #require(getuid() == 0, "only root can become another user")
    let program = try Programs.build("alone.c", ["-O1", "-DCOPY", "-fno-pic", "-no-pie"])
    #expect(try run([program]).output.contains("at first: alone\n"))
    let box = try DumpBox()
    let traced = try run([program], environment: box.environment("1"))
    #expect(traced.status == 0 && !traced.output.contains(", 0\n"), "\(traced)")
    for moment in ["at first", "in a child", "beside a thread", "after a thread"] {
      #expect(traced.output.contains("\(moment): not alone\n"))
    }
  }
}
