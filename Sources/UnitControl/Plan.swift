// SPDX-License-Identifier: Apache-2.0
// What arming and disarming change: worked out first, shown or carried out afterwards.

import Glibc
import ProcessControl

/// One thing that changes on the machine.
public enum Change: Equatable, Sendable {
  case write(path: String, text: String)
  case remove(path: String)
  /// Root's, and everybody may leave something in it: mode 1733.
  case makeDirectory(path: String)
  /// Where it is there, and nothing is in it.
  case removeEmptyDirectory(path: String)
}

/// What arming or disarming a unit comes to.
public struct Plan: Sendable {
  public let unit: UnitName
  /// Empty where everything is as it should be.
  public internal(set) var changes: [Change] = []
  /// What the operator should know, a sentence each.
  public internal(set) var warnings: [String] = []
  /// The library that is to be in the unit's LD_PRELOAD; `nil` where it is taken out.
  let library: String?
}

extension Change {
  /// Carries it out. What is as it should be stays untouched.
  func apply() throws(UnitControlError) {
    switch self {
    case .write(let path, let text): try Self.write(text, to: path)
    case .remove(let path):
      guard unsafe unlink(path) == 0 || errno == ENOENT else { throw Self.failure("remove", path) }
    case .makeDirectory(let path):
      // The mode twice: the first is cut by the umask.
      guard unsafe mkdir(path, 0o755) == 0 || errno == EEXIST, unsafe chmod(path, 0o1733) == 0
      else { throw Self.failure("make", path) }
    case .removeEmptyDirectory(let path):
      guard unsafe rmdir(path) == 0 || [ENOENT, ENOTEMPTY, EEXIST].contains(errno) else {
        throw Self.failure("remove", path)
      }
    }
  }

  private static func write(_ text: String, to path: String) throws(UnitControlError) {
    let directory = String(path[..<path.lastIndex(of: "/")!])
    guard unsafe mkdir(directory, 0o755) == 0 || errno == EEXIST else {
      throw failure("make", directory)
    }
    // Whole or not at all: systemd may read it at any time. No suffix of its own means that it does
    // not read this one.
    let draft = path + ".new"
    let descriptor = unsafe open(
      draft, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o644)
    guard descriptor >= 0 else { throw failure("write", draft) }
    var text = text
    let count = text.utf8.count
    let written = text.withUTF8 { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
    fchmod(descriptor, 0o644)
    guard written == count, fsync(descriptor) == 0 else {
      let error = failure("write", draft)
      close(descriptor)
      unsafe unlink(draft)
      throw error
    }
    close(descriptor)
    guard unsafe rename(draft, path) == 0 else { throw failure("write", path) }
  }

  private static func failure(_ verb: String, _ path: String) -> UnitControlError {
    let error = SystemError.last
    let wayOut = error.code == EACCES || error.code == EPERM ? "; run heaptap as root" : ""
    return UnitControlError("cannot \(verb) '\(path.plainText)': \(error.words)\(wayOut)")
  }
}
