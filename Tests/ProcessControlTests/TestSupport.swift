// SPDX-License-Identifier: Apache-2.0
// A stand-in for the tracer in this process, and children to be left alone or asked.

import CControlPage
import Glibc
import Synchronization

@testable import ProcessControl

/// How long a test waits for what is to come: long enough for a machine with much else to do.
let patience = Duration.seconds(120)

/// A control page as the worker sees it.
@safe struct StandInPage: @unchecked Sendable {
  // Unchecked: both sides write it at once, by design.
  fileprivate let pointer: UnsafeMutablePointer<tracer_control_page>

  subscript<Value>(field: WritableKeyPath<tracer_control_page, Value>) -> Value {
    get { unsafe pointer.pointee[keyPath: field] }
    nonmutating set { unsafe pointer.pointee[keyPath: field] = newValue }
  }

  func write<Characters>(
    _ text: String, to field: WritableKeyPath<tracer_control_page, Characters>
  ) {
    fill(field, with: Array(text.utf8) + [0])
  }

  func fill<Characters>(
    _ field: WritableKeyPath<tracer_control_page, Characters>, with bytes: [UInt8]
  ) {
    unsafe withUnsafeMutableBytes(of: &pointer.pointee[keyPath: field]) { field in
      unsafe field.copyBytes(from: bytes.prefix(field.count))
    }
  }

  fileprivate func atomic(
    _ field: KeyPath<tracer_control_page, UInt32>
  ) -> UnsafeMutablePointer<Atomic<UInt32>> {
    let offset = MemoryLayout<tracer_control_page>.offset(of: field)!
    return unsafe (UnsafeMutableRawPointer(pointer) + offset)
      .assumingMemoryBound(to: Atomic<UInt32>.self)
  }
}

/// A thread named as the tracer's worker, with a control page in its descriptor table, that
/// answers requests as the test says.
final class StandInTracer: @unchecked Sendable {
  // Unchecked: only `thread` is written after `init`, before anyone else has the object.
  let page: StandInPage
  let descriptor: Int32
  private let quit = Atomic<Bool>(false)
  private var thread = pthread_t()
  private let answer: Answer

  /// Carries out commands: reads and writes the page as the worker does.
  typealias Answer = @Sendable (UInt32, StandInPage) -> Void

  enum Seals: Int32 {
    case none = 0
    case shrinkOnly = 2
    case all = 6
  }

  init(
    seals: Seals = .all, byteCount: Int = 8192, program: String = "stand-in",
    answer: @escaping Answer = { _, _ in }
  ) {
    self.answer = answer
    typealias Create = @convention(c) (UnsafePointer<CChar>, UInt32) -> Int32
    let create = unsafe unsafeBitCast(dlsym(nil, "memfd_create"), to: Create.self)
    // MFD_CLOEXEC | MFD_ALLOW_SEALING
    descriptor = unsafe create("heaptap-control", 3)
    ftruncate(descriptor, off_t(byteCount))
    if seals != .none { _ = fcntl(descriptor, 1033 /* F_ADD_SEALS */, seals.rawValue) }
    let address = unsafe mmap(nil, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)!
    page = unsafe StandInPage(
      pointer: address.assumingMemoryBound(to: tracer_control_page.self))
    guard byteCount >= 8192 else {
      startThread()
      return
    }
    page[\.magic] = TRACER_CONTROL_MAGIC
    page[\.version] = TRACER_CONTROL_VERSION
    page[\.byte_count] = TRACER_CONTROL_BYTE_COUNT
    page[\.pid] = UInt32(getpid())
    page[\.state] = TRACER_STATE_DORMANT.rawValue
    page.write(program, to: \.program)
    startThread()
  }

  private func startThread() {
    let context = unsafe Unmanaged.passRetained(self).toOpaque()
    _ = unsafe pthread_create(
      &thread, nil,
      { context in
        unsafe Unmanaged<StandInTracer>.fromOpaque(context!).takeRetainedValue().work()
        return nil
      }, context)
    while ProcessFacts(pid: getpid()).workerThreads.isEmpty { usleep(1000) }
  }

  private func work() {
    let name = unsafe open("/proc/thread-self/comm", O_WRONLY)
    _ = unsafe Glibc.write(name, "heaptap", 7)
    close(name)
    while !quit.load(ordering: .acquiring) {
      // A test's worker may poll; the real one sleeps on `wake`.
      usleep(2000)
      guard word(\.requested) != word(\.handled) else { continue }
      let requested = word(\.requested)
      let commands = unsafe page.atomic(\.commands).pointee
        .exchange(0, ordering: .sequentiallyConsistent)
      answer(commands, page)
      unsafe page.atomic(\.handled).pointee.store(requested, ordering: .sequentiallyConsistent)
      unsafe futexWakeAll(UnsafeMutableRawPointer(page.atomic(\.handled)))
    }
  }

  private func word(_ field: KeyPath<tracer_control_page, UInt32>) -> UInt32 {
    unsafe page.atomic(field).pointee.load(ordering: .sequentiallyConsistent)
  }

  /// Ends the worker and takes the page away.
  func end() {
    quit.store(true, ordering: .releasing)
    pthread_join(thread, nil)
    close(descriptor)
    unsafe munmap(page.pointer, 8192)
  }
}

/// A child process that ends with its test.
final class Child {
  let pid: pid_t

  init(_ arguments: [String], environment: [String: String] = [:]) {
    var child: pid_t = 0
    let all = environment.merging(["PATH": "/usr/bin:/bin"]) { mine, _ in mine }
    var argv = unsafe arguments.map { unsafe strdup($0) }
    unsafe argv.append(nil)
    var envp = unsafe all.map { unsafe strdup("\($0.key)=\($0.value)") }
    unsafe envp.append(nil)
    unsafe posix_spawnp(&child, arguments[0], nil, nil, argv, envp)
    unsafe (argv + envp).forEach { unsafe free($0) }
    pid = child
  }

  deinit {
    kill(pid, SIGKILL)
    waitpid(pid, nil, 0)
  }

  var isAlive: Bool {
    var status: Int32 = 0
    return unsafe waitpid(pid, &status, WNOHANG) == 0
  }
}

/// A directory that goes with its test.
final class TemporaryDirectory {
  let path: String

  init() {
    var template = Array("/tmp/heaptap-test-XXXXXX".utf8CString)
    path = unsafe String(cString: mkdtemp(&template))
  }

  deinit {
    for name in (try? names(inDirectory: path)) ?? [] { unsafe unlink("\(path)/\(name)") }
    unsafe rmdir(path)
  }

  func file(_ name: String, _ bytes: [UInt8] = [], mode: mode_t = 0o600) -> String {
    let file = "\(path)/\(name)"
    let descriptor = unsafe open(file, O_WRONLY | O_CREAT | O_TRUNC, mode)
    _ = unsafe write(descriptor, bytes, bytes.count)
    close(descriptor)
    return file
  }

  /// A harmless shared library by the tracer's name.
  func decoyLibrary() throws -> String {
    let places = ["/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/lib64", "/usr/lib64"]
    let library = try places.map { "\($0)/libutil.so.1" }
      .first { isAccessible($0, R_OK) }
      .map { try contents(ofFile: $0) }
    return file("libheaptap.so", library ?? [], mode: 0o755)
  }
}

/// Waits for what another process is about to do.
func eventually(within seconds: Int = 10, _ condition: () -> Bool) -> Bool {
  for _ in 0..<(seconds * 100) {
    if condition() { return true }
    usleep(10_000)
  }
  return condition()
}
