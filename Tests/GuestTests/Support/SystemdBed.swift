// SPDX-License-Identifier: Apache-2.0
// A real systemd for a test, with Heaptap installed beside it.

import Foundation
import Testing

/// A real systemd as PID 1 of a container of the test's own, with what `make install` installs.
///
/// Tests say `@Suite(.enabled(if: SystemdBed.isAvailable, SystemdBed.obstacle))`.
struct SystemdBed {
  private static let script =
    Workshop.package.appendingPathComponent("Tests/Beds/with-systemd").path

  /// Why the bed can't be had on this machine; empty where it can.
  static let obstacle: Comment = {
    do {
      let result = try GuestTests.run([script, "--", "true"])
      return result.status == 0 ? "" : "no systemd: \(result.errors)"
    } catch {
      return "no systemd: \("\(error)")"
    }
  }()

  static var isAvailable: Bool { obstacle.rawValue.isEmpty }

  /// What `make install` puts on a machine.
  static let installed = Result {
    let tree = try Workshop.makeDirectory()
    let result = try GuestTests.run([
      "/usr/bin/env", "make", "-s", "-C", Workshop.package.path, "stage",
      "RELEASE=\(Workshop.products.path)", "DESTDIR=\(tree.path)", "PREFIX=/usr/local",
    ])
    guard result.status == 0 else { throw GuestError("nothing is staged: \(result.errors)") }
    return tree
  }

  /// Laid over the container's root: units, programs, files.
  private let tree: URL
  /// On the machine's own disk, and `/out` in the container.
  let output: URL

  init() throws {
    tree = try Workshop.makeDirectory()
    // It becomes the container's root, through which services of any user go.
    chmod(tree.path, 0o755)
    output = try Workshop.makeDirectory()
  }

  /// Puts a file into the container before it boots.
  func add(_ text: String, as path: String) throws {
    let file = tree.appendingPathComponent(path)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try text.write(to: file, atomically: false, encoding: .utf8)
  }

  /// Puts a program of `Programs/` into the container, where no sandbox hides it.
  func add(program source: String, as path: String, options: [String] = ["-O2", "-g"]) throws {
    let file = tree.appendingPathComponent(path)
    try FileManager.default.createDirectory(
      at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
    try copyProgram(try Programs.build(source, options), to: file.path)
  }

  /// Puts a service into the container that runs `grower`, by default in small steps.
  func add(
    service name: String, _ lines: [String] = [], command: String = "/usr/local/bin/grower 1024 10"
  ) throws {
    try add(
      (["[Service]", "ExecStart=\(command)"] + lines).joined(separator: "\n") + "\n",
      as: "etc/systemd/system/\(name).service")
  }

  /// Boots, and runs a script of bash in there that ends at its first failure.
  func run(_ script: String) throws -> Finished {
    let result = try GuestTests.run([
      Self.script, "--overlay", try Self.installed.get().path, "--overlay", tree.path, "--bind",
      "\(output.path):/out", "--", "/bin/bash", "-euc", "cd /\n\(Self.prelude)\n\(script)",
    ])
    return result
  }

  /// The same, where a failure is the test's.
  @discardableResult
  func succeed(_ script: String) throws -> Finished {
    let result = try run(script)
    guard result.status == 0 else {
      throw GuestError("status \(result.status)\n\(result.output)\n\(result.errors)")
    }
    return result
  }

  /// What scripts have in common.
  private static let prelude = #"""
    wait_for() {
      for ((i = 0; i < 400; i++)); do if eval "$1"; then return 0; fi; sleep 0.05; done
      echo "waited in vain for: $1" >&2; systemctl --no-pager status 'myd*' >&2
      journalctl --no-pager -n 40 >&2; exit 1
    }
    # As wait_for, for reports. systemd does not look for new dumps while the reporter ends, and one of
    # that moment is reported with the next (heaptap(7)): every two seconds this does what that would.
    wait_for_reports() {
      wait_for "$1 || { [ \$((i % 40)) -lt 39 ] || ring; false; }"
    }
    ring() { : > /var/lib/heaptap/.new-0; rm -f /var/lib/heaptap/.new-0; }
    state() { heaptap list | awk -v unit="${1%.service}.service" '$2 == unit { print $4 }'; }
    # By signals, as where no heaptap is on the machine: to the main process, and never without.
    record() {
      wait_for "[ \"\$(state $1)\" = dormant ]"
      systemctl kill --kill-whom=main -s USR1 "$1"
      wait_for "[ \"\$(state $1)\" = recording ]"
    }
    snapshot() { systemctl kill --kill-whom=main -s USR2 "$1"; }
    """#
}
