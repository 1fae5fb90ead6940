// SPDX-License-Identifier: Apache-2.0
// Which dumps have been reported: remembered across runs of a service.

import Glibc
import HeapModel
import ProcessControl

/// Which dumps have been reported: a file with a line for each step, the last one for a dump counts.
///
/// Only one process has it open at a time; another one waits.
final class ReportedDumps {
  enum Step: String {
    /// Being read. Found so at the next run, it is what that run died of.
    case begun
    case done
    /// The journal did not take it.
    case notYet = "not-yet"
  }

  private let path: String
  private let descriptor: Int32
  private var steps: [String: Step] = [:]

  init(directory: String) throws {
    path = "\(directory)/reported"
    descriptor = unsafe open(
      path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, mode_t(0o600))
    guard descriptor >= 0 else { throw Self.failure("open", path) }
    while flock(descriptor, LOCK_EX) != 0 {
      guard errno == EINTR else { throw Self.failure("lock", path) }
    }
    let text = try DumpFile.contents(of: path, .found)
    for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
      let words = line.split(separator: " ", maxSplits: 1)
      // The last line may have been cut by a full disk or a kill.
      guard words.count == 2, let step = Step(rawValue: String(words[0])) else { continue }
      steps[String(words[1])] = step
    }
    for (dump, step) in steps where step == .begun {
      complain("'\(dump)' was begun before and not finished, so it is left out")
      try note(dump, .done)
    }
  }

  deinit { close(descriptor) }

  /// Whether a dump needs no report any more.
  func contains(_ dump: String) -> Bool {
    switch steps[dump.plainText] {
    case .done, .begun: true
    case .notYet, nil: false
    }
  }

  func note(_ dump: String, _ step: Step) throws {
    // On one line, whatever the path is made of.
    let name = dump.plainText
    steps[name] = step
    try write("\(step.rawValue) \(name)\n")
  }

  /// Forgets dumps that are gone.
  func keepOnly(_ dumps: [String]) throws {
    let names = Set(dumps.map(\.plainText))
    let kept = steps.filter { names.contains($0.key) }
    guard kept.count < steps.count else { return }
    steps = kept
    // In place, since whoever waits for the lock has this file open. Cut short by a kill it has too
    // few lines, and a few dumps are reported twice.
    guard ftruncate(descriptor, 0) == 0 else { throw Self.failure("shorten", path) }
    try write(kept.map { "\($0.value.rawValue) \($0.key)\n" }.sorted().joined())
  }

  private func write(_ text: String) throws {
    var rest = Array(text.utf8)[...]
    while !rest.isEmpty {
      let count = unsafe rest.withUnsafeBytes { bytes in
        unsafe Glibc.write(descriptor, bytes.baseAddress!, bytes.count)
      }
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else { throw Self.failure("write to", path) }
      rest = rest.dropFirst(count)
    }
  }

  private static func failure(_ what: String, _ path: String) -> Failure {
    let words = unsafe String(cString: strerror(errno))
    return Failure(
      "cannot \(what) '\(path.plainText)': \(words.prefix(1).lowercased() + words.dropFirst())")
  }
}
