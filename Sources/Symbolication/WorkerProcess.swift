// SPDX-License-Identifier: Apache-2.0
// The worker as its parent sees it: started, asked, given up on.

import Glibc

/// A symbolication worker that is running.
///
/// One socket is both its standard input and its standard output. A worker reads a whole question
/// before it answers, so neither side can wait for the other for ever; and a socket, unlike a
/// pipe, can be written to without risking SIGPIPE in a process whose signals are not ours.
struct WorkerProcess: ~Copyable {
  private let socket: Descriptor
  /// `nil` once it has been waited for: its number may be another's by then.
  private(set) var process: pid_t?

  private init(socket: consuming Descriptor, process: pid_t) {
    self.socket = socket
    self.process = process
  }

  deinit { _ = Self.end(process) }

  /// Starts a worker and hears its greeting.
  static func start(
    executable: String, arguments: [String], secondsLimit: UInt32
  ) throws(WorkerFailure) -> WorkerProcess {
    var ends: [CInt] = [-1, -1]
    let kind = CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    guard unsafe socketpair(AF_UNIX, kind, 0, &ends) == 0 else {
      throw .cannotStart(SystemError(errno))
    }
    let ours = Descriptor(ends[0])
    let low = Descriptor(ends[1])
    // In a host that closed its standard streams the number may be 0 or 1, and the duplicates
    // that the child makes would run into each other.
    let theirs = Descriptor(fcntl(low.number, F_DUPFD_CLOEXEC, 3))
    guard theirs.number >= 0 else { throw .cannotStart(SystemError(errno)) }
    let process = try spawn(executable, arguments, socket: theirs.number)
    var worker = WorkerProcess(socket: ours, process: process)
    // Open here, they would keep the death of the worker from showing on our end.
    _ = consume low
    _ = consume theirs

    let greeting = Array(workerGreeting.utf8)
    let heard = try? worker.receive(
      byteCount: greeting.count, until: Deadline(secondsFromNow: secondsLimit))
    guard heard == greeting else { throw .notAWorker }
    return worker
  }

  /// Asks one question. After a failure the worker is of no more use.
  mutating func answer(to request: ModuleRequest) throws(WorkerFailure) -> ModuleAnswer {
    let deadline = Deadline(secondsFromNow: request.secondsLimit)
    try send(request.message, until: deadline)
    let prefix = try receive(byteCount: MessageReader.prefixByteCount, until: deadline)
    guard let byteCount = MessageReader.byteCount(prefix: prefix) else { throw .garbled }
    let message = try receive(byteCount: byteCount, until: deadline)
    guard let answer = try? ModuleAnswer(message: message),
      answer.calls.count == request.offsets.count
    else { throw .garbled }
    return answer
  }

  // MARK: Bytes

  private mutating func send(_ bytes: [UInt8], until deadline: Deadline) throws(WorkerFailure) {
    var sent = 0
    while sent < bytes.count {
      try wait(for: POLLOUT, until: deadline)
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe Glibc.send(
          socket.number, buffer.baseAddress! + sent, bytes.count - sent,
          CInt(MSG_NOSIGNAL | MSG_DONTWAIT))
      }
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count > 0 else { throw ended() }
      sent += count
    }
  }

  private mutating func receive(
    byteCount: Int, until deadline: Deadline
  ) throws(WorkerFailure) -> [UInt8] {
    // Grows with what comes and not with what was announced: the worker may be lying.
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: min(byteCount, 1 << 16))
    while bytes.count < byteCount {
      try wait(for: POLLIN, until: deadline)
      let wanted = min(chunk.count, byteCount - bytes.count)
      let count = unsafe recv(socket.number, &chunk, wanted, CInt(MSG_DONTWAIT))
      if count < 0, errno == EINTR || errno == EAGAIN { continue }
      guard count > 0 else { throw ended() }
      bytes.append(contentsOf: chunk[..<count])
    }
    return bytes
  }

  private func wait(for events: CInt, until deadline: Deadline) throws(WorkerFailure) {
    var descriptor = pollfd(fd: socket.number, events: CShort(events), revents: 0)
    while true {
      let status = unsafe poll(&descriptor, 1, deadline.remainingMilliseconds)
      if status > 0 { return }
      if status < 0, errno == EINTR { continue }
      throw .timedOut
    }
  }

  // MARK: The process

  private mutating func ended() -> WorkerFailure {
    defer { process = nil }
    return Self.end(process)
  }

  /// Ends a process, if it has not ended by itself, and says how it did.
  ///
  /// One that has closed its socket by dying has its status already; killing it changes nothing.
  private static func end(_ process: pid_t?) -> WorkerFailure {
    guard let process else { return .ended }
    kill(process, SIGKILL)
    var status: CInt = 0
    var result: pid_t
    repeat { result = unsafe waitpid(process, &status, 0) } while result < 0 && errno == EINTR
    // A host may ignore SIGCHLD or reap everyone's children: then nobody knows.
    guard result == process else { return .ended }
    let signal = status & 0x7f
    return signal == 0 ? .ended : .crashed(signal: signal)
  }

  private static func spawn(
    _ executable: String, _ arguments: [String], socket: CInt
  ) throws(WorkerFailure) -> pid_t {
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    unsafe posix_spawn_file_actions_adddup2(&actions, socket, STDIN_FILENO)
    unsafe posix_spawn_file_actions_adddup2(&actions, socket, STDOUT_FILENO)
    // What a crashing worker says is not for the user: the parent has a sentence about it.
    unsafe posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0)

    // A host's blocked and ignored signals would be inherited.
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe posix_spawnattr_setsigmask(&attributes, &signals)
    unsafe sigfillset(&signals)
    unsafe posix_spawnattr_setsigdefault(&attributes, &signals)
    unsafe posix_spawnattr_setflags(
      &attributes, CShort(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    var words = unsafe ([executable] + arguments).map { unsafe strdup($0) } + [nil]
    var settings = unsafe environmentSettings().map { unsafe strdup($0) } + [nil]
    defer { unsafe (words + settings).forEach { unsafe free($0) } }

    var process: pid_t = 0
    let status = unsafe posix_spawn(
      &process, executable, &actions, &attributes, &words, &settings)
    guard status == 0 else { throw .cannotStart(SystemError(status)) }
    return process
  }

  /// What a worker needs of the host's environment, and not the rest: a host under a heap tracer
  /// does not want its worker traced.
  private static func environmentSettings() -> [String] {
    let names = [
      "PATH", "HOME", "XDG_CACHE_HOME", "TMPDIR", "LD_LIBRARY_PATH",
      "DEBUGINFOD_URLS", "DEBUGINFOD_CACHE_PATH", "DEBUGINFOD_TIMEOUT", "DEBUGINFOD_MAXTIME",
      "DEBUGINFOD_MAXSIZE", "DEBUGINFOD_RETRY_LIMIT", "DEBUGINFOD_HEADERS_FILE", "SSL_CERT_FILE",
      "SSL_CERT_DIR", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTPS_PROXY",
      "ALL_PROXY", "NO_PROXY",
    ]
    let settings = names.compactMap { name in
      unsafe getenv(name).map { "\(name)=" + (unsafe String(cString: $0)) }
    }
    // A crash is expected now and then, and its backtrace would take longer than the symbols.
    return settings + ["SWIFT_BACKTRACE=enable=no"]
  }
}

/// Why a worker gave no answer.
enum WorkerFailure: Error, Equatable {
  case cannotStart(SystemError)
  /// It ran, and was something else.
  case notAWorker
  case crashed(signal: CInt)
  /// It exited, or how it ended is not known.
  case ended
  case timedOut
  case garbled
}

/// A moment of the monotonic clock by which an answer has to be there.
struct Deadline {
  private let nanoseconds: UInt64

  init(secondsFromNow seconds: UInt32) {
    nanoseconds = Self.now + UInt64(seconds) * 1_000_000_000
  }

  /// Rounded up, so that waiting for it does not turn into spinning before it.
  var remainingMilliseconds: CInt {
    let now = Self.now
    return now >= nanoseconds ? 0 : CInt(clamping: (nanoseconds - now + 999_999) / 1_000_000)
  }

  private static var now: UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
