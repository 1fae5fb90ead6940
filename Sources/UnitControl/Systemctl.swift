// SPDX-License-Identifier: Apache-2.0
// systemd, asked and told through its own command: its bus is nobody's business here.

import Glibc
import ProcessControl

/// systemd's own command.
struct Systemctl {
  struct Answer {
    var status: Int32
    var output: String
    var errors: String
  }

  /// Runs a command to its end and answers what it wrote. Meant for what answers with a screen or two.
  static func run(_ arguments: [String]) throws(UnitControlError) -> Answer {
    var environment = ProcessEnvironment.current
    // What is read here is English, and without colours.
    environment["LC_ALL"] = "C"
    environment["SYSTEMD_COLORS"] = "0"
    environment["SYSTEMD_PAGER"] = ""
    let words = ["systemctl", "--no-ask-password"] + arguments
    do throws(SystemError) {
      return try captured(words, environment)
    } catch {
      throw UnitControlError(
        "cannot run 'systemctl': \(error.words); arming a unit needs systemd")
    }
  }

  /// The same, where anything but success is an error.
  @discardableResult
  static func succeed(_ arguments: [String]) throws(UnitControlError) -> String {
    let answer = try run(arguments)
    guard answer.status == 0 else {
      let line = answer.errors.split(separator: "\n").first ?? "it did not say why"
      let said = String(line.hasSuffix(".") ? line.dropLast() : line).plainText
      throw UnitControlError("'systemctl \(arguments[0])' failed: \(said)")
    }
    return answer.output
  }

  private static func captured(
    _ words: [String], _ environment: ProcessEnvironment
  ) throws(SystemError) -> Answer {
    let (output, errors) = (try makePipe(), try makePipe())
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0)
    unsafe posix_spawn_file_actions_adddup2(&actions, output.write, STDOUT_FILENO)
    unsafe posix_spawn_file_actions_adddup2(&actions, errors.write, STDERR_FILENO)
    var child: pid_t = 0
    let code = unsafe withCStrings(words.map { Array($0.utf8) }) { arguments in
      unsafe withCStrings(environment.entries) { entries in
        unsafe posix_spawnp(&child, words[0], &actions, nil, arguments, entries)
      }
    }
    close(output.write)
    close(errors.write)
    defer {
      close(output.read)
      close(errors.read)
    }
    guard code == 0 else { throw SystemError(code) }
    // One after the other: what it has to complain about fits into a pipe.
    let said = try bytes(behind: output.read, expected: 0, limit: 16 << 20)
    let complained = try bytes(behind: errors.read, expected: 0, limit: 1 << 20)
    var status: Int32 = 0
    while unsafe waitpid(child, &status, 0) < 0 && errno == EINTR {}
    return Answer(
      status: status & 0x7f == 0 ? status >> 8 & 0xff : 128 + status & 0x7f,
      output: String(decoding: said, as: UTF8.self),
      errors: String(decoding: complained, as: UTF8.self))
  }

  private static func makePipe() throws(SystemError) -> (read: Int32, write: Int32) {
    var ends: [Int32] = [-1, -1]
    guard unsafe pipe(&ends) == 0 else { throw .last }
    for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
    return (ends[0], ends[1])
  }
}
