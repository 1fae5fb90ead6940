// SPDX-License-Identifier: Apache-2.0
// A snapshot on its way from the tracer to a value: a file that lives only for that.

import HeapModel
import Pprof

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The system's call, which a method of the same name hides.
private func writeBytes(
  _ descriptor: Int32, _ bytes: UnsafeRawPointer, _ byteCount: Int
) -> Int { unsafe write(descriptor, bytes, byteCount) }

/// A snapshot that the tracer has written to a directory of its own, which goes with this object.
///
/// Of two that are compared both are written before either is read: reading one allocates, which the
/// other would show.
final class SnapshotFile: Sendable {
  private let directory: String
  private var path: String { directory + "/snapshot.pb" }

  deinit {
    unsafe unlink(path)
    unsafe rmdir(directory)
  }

  private init(directory: String) { self.directory = directory }

  static func write() throws(HeapTracerError) -> SnapshotFile {
    // Before anything is made: the commonest errors need no file.
    _ = try HeapTracer.figures()
    let parent = unsafe getenv("TMPDIR").map { unsafe String(cString: $0) } ?? "/tmp"
    var template = Array("\(parent)/heaptap-XXXXXX".utf8CString)
    // For nobody else's eyes: mode 0700.
    guard unsafe mkdtemp(&template) != nil else {
      throw HeapTracerError(
        .file, errno: errno, "cannot make a directory in '\(parent)': \(words(for: errno))")
    }
    let name = template.dropLast().map { UInt8(bitPattern: $0) }
    let file = SnapshotFile(directory: String(decoding: name, as: UTF8.self))
    try HeapTracer.writeSnapshot(to: file.path)
    return file
  }

  func read() throws(HeapTracerError) -> Snapshot { try Snapshot(contentsOfFile: path) }

  /// What the system says of an error, as the end of a sentence.
  static func words(for error: Int32) -> String {
    guard let text = unsafe strerror(error) else { return "error \(error)" }
    let words = unsafe String(cString: text)
    return words.prefix(1).lowercased() + words.dropFirst()
  }
}

extension Snapshot {
  /// Reads a dump: one that a tracer wrote, or `write(toFile:)`, or another tool's heap profile.
  ///
  /// A dump that was cut short is read as far as it goes, which `warnings` says.
  public init(contentsOfFile path: String) throws(HeapTracerError) {
    let bytes = try Self.bytes(ofFile: path)
    do throws(ProfileError) {
      self = try Snapshot(profile: bytes)
    } catch {
      throw HeapTracerError(.file, "cannot read '\(path)': \(error)")
    }
  }

  /// Writes the snapshot as a pprof profile, in the place of a file that is there.
  ///
  /// The file has its name when it is whole; until then, and where it fails, `.partial` is behind it.
  public func write(toFile path: String) throws(HeapTracerError) {
    let partial = path + ".partial"
    func failure(_ error: Int32) -> HeapTracerError {
      HeapTracerError(
        .file, errno: error, "cannot write '\(path)': \(SnapshotFile.words(for: error))")
    }
    let descriptor = unsafe open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
    guard descriptor >= 0 else { throw failure(errno) }
    defer { close(descriptor) }
    var rest = profileBytes()[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes {
        unsafe writeBytes(descriptor, $0.baseAddress!, $0.count)
      }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw failure(count < 0 ? errno : EIO) }
      rest = rest.dropFirst(count)
    }
    guard unsafe rename(partial, path) == 0 else { throw failure(errno) }
  }

  private static func bytes(ofFile path: String) throws(HeapTracerError) -> [UInt8] {
    func failure(_ error: Int32) -> HeapTracerError {
      HeapTracerError(
        .file, errno: error, "cannot read '\(path)': \(SnapshotFile.words(for: error))")
    }
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure(errno) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    // Grows with what comes, since a pipe has no size.
    var chunk = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = unsafe read(descriptor, &chunk, chunk.count)
      if count == 0 { return bytes }
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw failure(errno) }
      bytes.append(contentsOf: chunk[..<count])
    }
  }
}
