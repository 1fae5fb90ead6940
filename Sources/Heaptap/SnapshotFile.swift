// SPDX-License-Identifier: Apache-2.0
// A snapshot on its way from the tracer to a value: a file that lives only for that.

import HeapModel
import Pprof

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

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

  func read() throws(HeapTracerError) -> Snapshot {
    let bytes = try contents()
    do throws(ProfileError) {
      return try Snapshot(profile: bytes)
    } catch {
      throw HeapTracerError(.file, "cannot read '\(path)': \(error)")
    }
  }

  private func contents() throws(HeapTracerError) -> [UInt8] {
    let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw failure(errno) }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: max(0, Int(lseek(descriptor, 0, SEEK_END))))
    var count = 0
    while count < bytes.count {
      let read = unsafe bytes.withUnsafeMutableBytes {
        unsafe pread(descriptor, $0.baseAddress! + count, $0.count - count, off_t(count))
      }
      if read < 0, errno == EINTR { continue }
      guard read > 0 else { throw failure(read < 0 ? errno : EIO) }
      count += read
    }
    return bytes
  }

  private func failure(_ error: Int32) -> HeapTracerError {
    HeapTracerError(.file, errno: error, "cannot read '\(path)': \(Self.words(for: error))")
  }

  /// What the system says of an error, as the end of a sentence.
  static func words(for error: Int32) -> String {
    guard let text = unsafe strerror(error) else { return "error \(error)" }
    let words = unsafe String(cString: text)
    return words.prefix(1).lowercased() + words.dropFirst()
  }
}
