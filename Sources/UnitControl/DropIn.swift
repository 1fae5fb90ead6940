// SPDX-License-Identifier: Apache-2.0
// The drop-in that arms a unit: its text, and how it is known again.

/// The drop-in that arms a unit.
public struct DropIn: Equatable, Sendable {
  /// It sorts after what people call their own, so that its settings win.
  static let fileName = "zz-heaptap.conf"
  /// The line that makes a file ours to replace and remove.
  static let head = "# Written by 'heaptap enable'; 'heaptap disable' removes it.\n"

  /// libheaptap.so.
  var library: String
  /// What the unit preloads without us, as its files have it.
  var preloaded: String?
  /// Where dumps go, with specifiers as they are written.
  var directory: String
  /// How the unit gets to write there.
  var access: Access = .asItIs
  /// Whether code may be mapped only from paths that the unit names.
  var opensCode = false
  /// Variables of the tracer, by name.
  var settings: [String: String] = [:]

  enum Access { case asItIs, writable, bound }

  var text: String {
    // Ours first: an allocator that comes before it would not be traced.
    let others = (preloaded ?? "").split { $0 == ":" || $0 == " " }.filter { $0 != library }
    var lines = [
      "[Service]", "Environment=HEAPTAP=1",
      Quoting.assignment(
        "LD_PRELOAD",
        ([library.replacing("%", with: "%%")] + others.map(String.init)).joined(separator: ":"),
        specifiers: .expanded),
      Quoting.assignment("HEAPTAP_DIR", directory, specifiers: .expanded),
    ]
    lines += settings.sorted { $0.key < $1.key }.map { Quoting.assignment($0.key, $0.value) }
    switch access {
    case .asItIs: break
    // With the dash: where the directory is gone, the service starts all the same.
    case .writable: lines.append("ReadWritePaths=-\(directory)")
    case .bound: lines.append("BindPaths=-\(directory)")
    }
    if opensCode { lines.append("ExecPaths=-\(library.replacing("%", with: "%%"))") }
    return Self.head + lines.joined(separator: "\n") + "\n"
  }

  /// The drop-in that has the reporter watch a directory of a unit's own.
  static func watching(_ directory: String) -> String {
    head + "[Path]\nPathChanged=\(directory.replacing("%", with: "%%"))\n"
  }

  static func isOurs(_ text: String) -> Bool { text.hasPrefix(head) }
}
