// SPDX-License-Identifier: Apache-2.0
// `heaptap run`: a command under the tracer from its first allocation to its last dump.

import Glibc

/// A command to be run with the tracer preloaded and recording.
public struct TracedCommand: Sendable {
  /// The program, looked up in PATH, and its arguments: bytes, since they need not be UTF-8.
  public var arguments: [[UInt8]]
  /// Where it dumps. Made absolute when the command starts.
  public var directory: String
  /// Frames kept of a stack; `nil` leaves the tracer's own limit.
  public var depthLimit: Int?
  /// Bytes for each sample, on average, as HEAPTAP_SAMPLE takes it; as the environment says if not given.
  public var sampling: String?
  /// Whether stacks of different threads are told apart; as the environment says if not.
  public var tellsThreads: Bool
  /// Whether dumps tell what was alive at the peak; as the environment says if not.
  public var keepsPeak: Bool
  /// Whether the last dump tells what is lost; as the environment says if not.
  public var looksForLeaks: Bool
  public var children: Children
  public var environment: ProcessEnvironment

  public enum Children: Sendable {
    /// Only the command itself, and the programs that it becomes by exec.
    case left
    /// Processes that it starts record and dump on their own.
    case traced
  }

  public init(
    _ arguments: [[UInt8]], directory: String, depthLimit: Int? = nil, sampling: String? = nil,
    tellsThreads: Bool = false, keepsPeak: Bool = false, looksForLeaks: Bool = false,
    children: Children, environment: ProcessEnvironment
  ) {
    self.arguments = arguments
    self.directory = directory
    self.depthLimit = depthLimit
    self.sampling = sampling
    self.tellsThreads = tellsThreads
    self.keepsPeak = keepsPeak
    self.looksForLeaks = looksForLeaks
    self.children = children
    self.environment = environment
  }

  /// How a command ended, and what it left.
  public struct Outcome: Sendable {
    public let ending: Ending
    /// The dumps that the command's pid wrote, oldest first. Where children are traced, all that came
    /// into the directory meanwhile: by then most of them have no parent to be known by.
    public let dumps: [DumpFile]
    /// Why there is no dump of the command itself, in a sentence; `nil` where there is one.
    public let reasonForNoDump: String?
  }

  public enum Ending: Equatable, Sendable {
    case exited(Int32)
    case killed(signal: Int32)

    /// As shells have it.
    public var exitStatus: Int32 {
      switch self {
      case .exited(let status): status
      case .killed(let signal): 128 + signal
      }
    }
  }

  /// The command could not be started; shells distinguish a name that is not found.
  public struct StartFailure: Error, CustomStringConvertible {
    public let description: String
    /// 127 where there is no such command, 126 where it cannot be run.
    public let exitStatus: Int32
  }

  /// Runs the command to its end.
  ///
  /// Meant for the main thread of a process that does nothing else: until the command ends, SIGINT
  /// and SIGQUIT are ignored, since a terminal sends them to the command as well, and SIGTERM and
  /// SIGHUP are passed on.
  public func run() throws -> Outcome {
    let library = try TracerLibrary.locate(environment: environment)
    let directory = try absoluteDirectory()
    let startTime = Self.nameTime()
    let signals = HeldSignals()
    defer { signals.release() }
    let child = try spawn(
      childEnvironment(library: library, directory: directory), under: signals)
    let ending = signals.waitPassingOn(to: child)
    let dumps = DumpFile.all(inDirectory: directory)
      .filter { $0.time >= startTime && (children == .traced || $0.pid == child) }.sorted()
    let isMissing = !dumps.contains { $0.pid == child }
    return Outcome(
      ending: ending, dumps: dumps,
      reasonForNoDump: isMissing ? reasonForNoDump(ending, directory) : nil)
  }

  func childEnvironment(library: String, directory: String) -> ProcessEnvironment {
    var result = environment
    let preloaded = environment["LD_PRELOAD"] ?? ""
    result["LD_PRELOAD"] = preloaded.isEmpty ? library : "\(library):\(preloaded)"
    result["HEAPTAP"] = "record"
    result["HEAPTAP_EXIT"] = "dump"
    result["HEAPTAP_DIR"] = directory
    if let depthLimit { result["HEAPTAP_DEPTH"] = "\(depthLimit)" }
    if let sampling { result["HEAPTAP_SAMPLE"] = sampling }
    if tellsThreads { result["HEAPTAP_THREADS"] = "1" }
    if keepsPeak { result["HEAPTAP_PEAK"] = "1" }
    if looksForLeaks { result["HEAPTAP_LEAKS"] = "1" }
    switch children {
    case .left:
      result["HEAPTAP_CHILDREN"] = "0"
      result["HEAPTAP_RUN"] = "\(getpid())"
    case .traced:
      result["HEAPTAP_CHILDREN"] = nil
      result["HEAPTAP_RUN"] = nil
    }
    return result
  }

  /// The tracer opens its directory without following links, so it is told the real path.
  private func absoluteDirectory() throws(ProcessControlError) -> String {
    func refusal(_ why: String) -> ProcessControlError {
      ProcessControlError(.cannotRun, "cannot write dumps to '\(directory.plainText)': \(why)")
    }
    let path: String
    do throws(SystemError) {
      path = try resolvedPath(directory)
    } catch {
      throw refusal("\(error.words); create it, or name another with -o")
    }
    guard let file = try? status(ofFile: path), file.st_mode & S_IFMT == S_IFDIR else {
      throw refusal("it is not a directory")
    }
    guard isAccessible(path, W_OK | X_OK) else { throw refusal(SystemError.last.words) }
    return path
  }

  // MARK: The child

  private func spawn(
    _ environment: ProcessEnvironment, under signals: HeldSignals
  ) throws(StartFailure) -> pid_t {
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    var mask = signals.originalMask
    var reset = signals.resetInChild
    unsafe posix_spawnattr_setsigmask(&attributes, &mask)
    unsafe posix_spawnattr_setsigdefault(&attributes, &reset)
    unsafe posix_spawnattr_setflags(
      &attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))

    guard let path = programPath else {
      throw StartFailure(
        description: "cannot run '\(name.plainText)': no such command", exitStatus: 127)
    }
    var child: pid_t = 0
    let code = unsafe withCStrings(arguments) { arguments in
      unsafe withCStrings(environment.entries) { entries in
        unsafe posix_spawn(&child, path, nil, &attributes, arguments, entries)
      }
    }
    guard code == 0 else {
      let words =
        code == ENOENT
        ? "the interpreter or loader that it names is missing" : SystemError(code).words
      throw StartFailure(
        description: "cannot run '\(name.plainText)': \(words)", exitStatus: 126)
    }
    return child
  }

  // MARK: What it left

  private func reasonForNoDump(_ ending: Ending, _ directory: String) -> String {
    if let path = programPath, let obstacle = PreloadObstacle(program: path) {
      return "no dump: '\(name.plainText)' was not traced: \(obstacle.words)"
    }
    switch ending {
    case .killed(signal: SIGKILL): return "killed by SIGKILL: nothing could be written"
    case .killed(let signal) where [SIGTERM, SIGINT, SIGHUP].contains(signal):
      return "killed by \(signalName(signal)): no dump was written in '\(directory.plainText)';"
        + " the command may have set the signal to its default itself, or libheaptap.so logged why"
    case .killed(let signal):
      return "killed by \(signalName(signal)): no dump was written, since only an exit, SIGTERM,"
        + " SIGINT and SIGHUP leave one"
    case .exited:
      return "no dump was written in '\(directory.plainText)': libheaptap.so logged why,"
        + " on standard error or in the journal"
    }
  }

  private var name: String { String(decoding: arguments[0], as: UTF8.self) }

  /// The file to be run: the first of its name in PATH that may be, or else the first that is there.
  ///
  /// Not left to posix_spawnp, which says EACCES for a name that is nowhere if one directory of PATH
  /// may not be entered; a shell says that there is no such command.
  private var programPath: String? {
    if name.contains("/") { return isAccessible(name) ? name : nil }
    let candidates = (environment["PATH"] ?? "/usr/bin:/bin")
      .split(separator: ":", omittingEmptySubsequences: false)
      .map { $0.isEmpty ? "./\(name)" : "\($0)/\(name)" }
      .filter { candidate in
        guard let file = try? status(ofFile: candidate) else { return false }
        return file.st_mode & S_IFMT != S_IFDIR
      }
    return candidates.first { isAccessible($0, X_OK) } ?? candidates.first
  }

  /// Now, as names of dumps have it.
  static func nameTime() -> String {
    var now = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &now)
    var parts = unsafe tm()
    unsafe gmtime_r(&now.tv_sec, &parts)
    func padded(_ number: some BinaryInteger, _ width: Int) -> String {
      let digits = String(number)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    let date = unsafe [parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday]
    let time = unsafe [parts.tm_hour, parts.tm_min, parts.tm_sec]
    return date.map { padded($0, 2) }.joined() + "T" + time.map { padded($0, 2) }.joined() + "."
      + padded(now.tv_nsec / 1000, 6) + "Z"
  }
}

/// The installed tracer.
public enum TracerLibrary {
  /// Finds libheaptap.so: `HEAPTAP_LIBRARY`, beside this executable, or in the `lib` beside its `bin`.
  public static func locate(
    environment: ProcessEnvironment
  ) throws(ProcessControlError) -> String {
    if let path = environment["HEAPTAP_LIBRARY"] {
      let resolved: String
      do throws(SystemError) {
        resolved = try resolvedPath(path)
      } catch {
        throw ProcessControlError(
          .cannotRun,
          "HEAPTAP_LIBRARY names '\(path.plainText)', which cannot be opened: \(error.words)")
      }
      return try checked(resolved)
    }
    let executable = (try? destination(ofLink: "/proc/self/exe")) ?? ""
    let directory = executable.split(separator: "/").dropLast().map { "/\($0)" }.joined()
    let parent = directory.split(separator: "/").dropLast().map { "/\($0)" }.joined()
    #if arch(x86_64)
      let multiarch = "x86_64-linux-gnu"
    #else
      let multiarch = "aarch64-linux-gnu"
    #endif
    let places = [
      "\(directory)/libheaptap.so", "\(parent)/lib/libheaptap.so",
      "\(parent)/lib/\(multiarch)/libheaptap.so",
    ]
    guard let found = places.first(where: { isAccessible($0, R_OK) }) else {
      throw ProcessControlError(
        .cannotRun,
        "libheaptap.so is neither beside '\(executable)' nor in '\(parent)/lib';"
          + " HEAPTAP_LIBRARY=PATH says where it is")
    }
    return try checked(found)
  }

  /// LD_PRELOAD has no way to write a path with a space or a colon in it.
  private static func checked(_ path: String) throws(ProcessControlError) -> String {
    guard !path.contains(where: { $0 == ":" || $0.isWhitespace }) else {
      throw ProcessControlError(
        .cannotRun,
        "'\(path.plainText)' has a space or a colon in its path, which LD_PRELOAD cannot express;"
          + " move the library, or link to it from elsewhere and name the link")
    }
    return path
  }
}

/// The signals of a process that waits for another one.
///
/// SIGINT and SIGQUIT are ignored. SIGTERM, SIGHUP and SIGCHLD are blocked and taken by
/// sigtimedwait: no handler runs, and none falls between the child's start and the wait.
struct HeldSignals {
  /// The mask from before, which the child gets.
  private(set) var originalMask = sigset_t()
  /// What only we ignore. What was ignored before (nohup, a shell's background job) stays so.
  private(set) var resetInChild = sigset_t()
  private var waited = sigset_t()
  private var handlers: [(signal: Int32, handler: (@convention(c) (Int32) -> Void)?)] = []

  private static let passedOn = [SIGTERM, SIGHUP]
  private static let leftToTheTerminal = [SIGINT, SIGQUIT]

  init() {
    unsafe sigemptyset(&waited)
    for signal in Self.passedOn + [SIGCHLD] { unsafe sigaddset(&waited, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &waited, &originalMask)
    // Were it ignored, the child would be reaped before we could ask how it ended.
    signal(SIGCHLD, SIG_DFL)
    unsafe sigemptyset(&resetInChild)
    for signal in Self.leftToTheTerminal {
      let before = Glibc.signal(signal, SIG_IGN)
      handlers.append((signal, before))
      // Swift's runtime may catch SIGQUIT to print a backtrace: exec would have undone that.
      let wasIgnored = unsafe unsafeBitCast(before, to: Int.self) == 1 /* SIG_IGN */
      if !wasIgnored { unsafe sigaddset(&resetInChild, signal) }
    }
  }

  /// Puts everything back.
  func release() {
    var mask = originalMask
    for (signal, handler) in handlers { Glibc.signal(signal, handler) }
    unsafe pthread_sigmask(SIG_SETMASK, &mask, nil)
  }

  func waitPassingOn(to child: pid_t) -> TracedCommand.Ending {
    var waited = waited
    // Limited, since another thread that does not block SIGCHLD may swallow it.
    var slice = timespec(tv_sec: 0, tv_nsec: 200_000_000)
    while true {
      var status: Int32 = 0
      if unsafe waitpid(child, &status, WNOHANG) == child {
        let signal = status & 0x7f
        return signal == 0 ? .exited(status >> 8 & 0xff) : .killed(signal: signal)
      }
      let signal = unsafe sigtimedwait(&waited, nil, &slice)
      if Self.passedOn.contains(signal) { kill(child, signal) }
    }
  }
}

/// The name of a signal as kill(1) has it, with `SIG`.
func signalName(_ signal: Int32) -> String {
  let names: [Int32: String] = [
    SIGHUP: "SIGHUP", SIGINT: "SIGINT", SIGQUIT: "SIGQUIT", SIGILL: "SIGILL", SIGTRAP: "SIGTRAP",
    SIGABRT: "SIGABRT", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGKILL: "SIGKILL", SIGUSR1: "SIGUSR1",
    SIGSEGV: "SIGSEGV", SIGUSR2: "SIGUSR2", SIGPIPE: "SIGPIPE", SIGALRM: "SIGALRM",
    SIGTERM: "SIGTERM", SIGXCPU: "SIGXCPU", SIGXFSZ: "SIGXFSZ", SIGSYS: "SIGSYS",
  ]
  return names[signal] ?? "signal \(signal)"
}

/// Calls with a NULL-terminated array of C strings, as exec and its kind want them.
package func withCStrings<Result>(
  _ strings: [[UInt8]], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
  var pointers = unsafe strings.map { string in
    unsafe (string + [0]).withUnsafeBytes { bytes in
      unsafe strdup(bytes.assumingMemoryBound(to: CChar.self).baseAddress!)
    }
  }
  unsafe pointers.append(nil)
  defer { unsafe pointers.forEach { unsafe free($0) } }
  return unsafe pointers.withUnsafeMutableBufferPointer { unsafe body($0.baseAddress!) }
}
