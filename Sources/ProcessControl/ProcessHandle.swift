// SPDX-License-Identifier: Apache-2.0
// A process that cannot turn into another one with the same number.

import Glibc

/// A pidfd: the process, and never a later one with the same pid.
///
/// What is read from /proc/PID between opening the handle and finding it alive is this process's.
final class ProcessHandle: Sendable {
  let pid: Int32
  private let descriptor: Int32

  init(_ pid: Int32) throws(ProcessControlError) {
    do {
      descriptor = try openProcessDescriptor(pid)
    } catch {
      if error.code == ENOSYS {
        throw ProcessControlError(
          .notPermitted, "cannot hold pid \(pid): the kernel has no pidfd_open (Linux 5.3 or newer)"
        )
      }
      throw ProcessControlError(.noSuchProcess, "there is no process \(pid)")
    }
    self.pid = pid
  }

  deinit { close(descriptor) }

  var isAlive: Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, 0) == 0
  }

  func queueSignal(_ signal: Int32, value: Int) throws(SystemError) {
    try ProcessControl.queueSignal(signal, value: value, to: descriptor)
  }
}
