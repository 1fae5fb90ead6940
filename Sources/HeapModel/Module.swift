// SPDX-License-Identifier: Apache-2.0
// A file that was mapped into the traced process: where it lay, and which build of it.

/// An executable mapping of the traced process.
///
/// The build ID, and not the path, says whether a file found later is the one that ran: packages
/// are upgraded under running daemons.
public struct Module: Hashable, Sendable {
  /// The first address of the mapping in the traced process.
  public var start: UInt64
  /// The address after the mapping's last.
  public var limit: UInt64
  /// Where in the file the mapping begins, in bytes.
  public var fileOffset: UInt64
  /// The path by which the traced process had loaded the file.
  public var path: String
  /// The GNU build ID in lower-case hexadecimal; empty where the file has none.
  public var buildID: String

  /// A mapping by its place in memory and what lay there.
  public init(start: UInt64, limit: UInt64, fileOffset: UInt64, path: String, buildID: String) {
    self.start = start
    self.limit = limit
    self.fileOffset = fileOffset
    self.path = path
    self.buildID = buildID
  }

  /// The last component of the path: the name that reports show.
  public var name: Substring {
    path.split(separator: "/", omittingEmptySubsequences: true).last ?? Substring(path)
  }

  /// Whether there was ever a file: not for `[vdso]`, `//anon`, or code made at run time, which
  /// the kernel may show as a path that nothing can be opened by.
  public var isBackedByFile: Bool {
    path.hasPrefix("/")
      && !["//", "/dev/", "/memfd:", "/SYSV", "/anon_hugepage"].contains { path.hasPrefix($0) }
  }

  /// The offset in the file of the byte that lay at an address of the traced process.
  ///
  /// Wraps instead of trapping: the address may come from a damaged dump.
  public func fileOffset(of address: UInt64) -> UInt64 { address &- start &+ fileOffset }
}
