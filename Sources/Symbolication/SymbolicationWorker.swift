// SPDX-License-Identifier: Apache-2.0
// The process that reads other people's ELF files, so that nobody else has to.

import Glibc

/// Answers a symbolicator's questions on standard input and output until input ends.
///
/// The body of the executable that `Symbolicator.Worker.subprocess` names: call it first thing,
/// and exit after. It lowers the process's own limits for good: no core files, 4 GiB of address
/// space, the first place among those that the kernel kills for want of memory, and for each question the processor time that the question allows.
public func runSymbolicationWorker() {
  WorkerLimit.setUp()
  guard write(bytes: Array(workerGreeting.utf8)) else { return }
  while let message = readMessage() {
    guard let request = try? ModuleRequest(message: message) else { return }
    WorkerLimit.allow(seconds: request.secondsLimit)
    guard write(bytes: ModuleLookup.answer(to: request).message) else { return }
  }
}

/// What a worker says first, so that an executable that is none is known by its silence.
///
/// Ends in the version of the messages: the two sides may be of different builds.
let workerGreeting = "heaptap symbols 2\n"

private enum WorkerLimit {
  /// Debug information is mapped, and a browser's may have 2 GiB; beyond twice that, it is more
  /// likely that a damaged file asks for memory than that an honest one needs it.
  static let addressSpaceByteCount: rlim_t = 4 << 30

  static func setUp() {
    lower(RLIMIT_CORE, to: 0)
    lower(RLIMIT_AS, to: addressSpaceByteCount)
    bePreferredVictim()
  }

  /// Where there is less memory than that, the kernel is to kill this process and nobody's daemon.
  private static func bePreferredVictim() {
    let descriptor = unsafe open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC)
    guard descriptor >= 0 else { return }
    _ = unsafe Glibc.write(descriptor, "1000", 4)
    close(descriptor)
  }

  /// Raised for each question: the kernel counts from the start of the process.
  static func allow(seconds: UInt32) {
    var usage = rusage()
    guard unsafe getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 else { return }
    let used = rlim_t(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) + 1
    lower(RLIMIT_CPU, to: used + rlim_t(seconds))
  }

  /// Sets the soft limit, within the hard one.
  private static func lower(_ resource: __rlimit_resource, to value: rlim_t) {
    var limit = rlimit()
    let resource = __rlimit_resource_t(resource.rawValue)
    guard unsafe getrlimit(resource, &limit) == 0 else { return }
    limit.rlim_cur = min(value, limit.rlim_max)
    unsafe setrlimit(resource, &limit)
  }
}

// MARK: Standard input and output

private func readMessage() -> [UInt8]? {
  guard let prefix = read(byteCount: MessageReader.prefixByteCount),
    let byteCount = MessageReader.byteCount(prefix: prefix)
  else { return nil }
  return read(byteCount: byteCount)
}

/// - Returns: `nil` at the end of input.
private func read(byteCount: Int) -> [UInt8]? {
  var bytes = [UInt8](repeating: 0, count: byteCount)
  var filled = 0
  while filled < byteCount {
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe Glibc.read(
        STDIN_FILENO, buffer.baseAddress! + filled, byteCount - filled)
    }
    if count < 0, errno == EINTR { continue }
    guard count > 0 else { return nil }
    filled += count
  }
  return bytes
}

private func write(bytes: [UInt8]) -> Bool {
  var written = 0
  while written < bytes.count {
    let count = unsafe bytes.withUnsafeBytes { buffer in
      unsafe Glibc.write(
        STDOUT_FILENO, buffer.baseAddress! + written, bytes.count - written)
    }
    if count < 0, errno == EINTR { continue }
    guard count > 0 else { return false }
    written += count
  }
  return true
}
