// SPDX-License-Identifier: Apache-2.0
// What the symbolicator asks about one file, and what it is told: the values on the pipe.

/// A question about one file: what lies at these offsets?
struct ModuleRequest: Equatable {
  /// How far to look.
  enum Detail: UInt8 {
    /// Debug information for inlined calls and lines, else symbols.
    case lines
    /// The symbol tables alone: what is tried after debug information has crashed the reader.
    case symbols
  }

  var path: String
  /// Lower-case hexadecimal; empty where the dump has none.
  var buildID: String
  /// Directories that stand for `/`, the first first.
  var roots: [String]
  var style: Demangler.Style
  var detail: Detail
  /// How much processor time the worker may spend on the answer before the kernel ends it.
  var secondsLimit: UInt32
  /// Where in the file the executable mapping began, for when only its debug file is found.
  var mappingOffset: UInt64
  /// Offsets in the file, each inside a call instruction. Sorted, so that neighbours share work.
  var offsets: [UInt64]
}

/// One call at an offset.
struct Call: Equatable {
  var function: String?
  var file: String?
  var line: Int?
}

/// What was found in a file, and what to tell the user about it.
struct ModuleAnswer: Equatable {
  /// For each offset the calls there, innermost first; empty where nothing is known.
  var calls: [[Call]]
  var findings: [Finding] = []

  init(offsetCount: Int) {
    calls = Array(repeating: [], count: offsetCount)
  }
}

/// Why a file gave fewer names than it might have.
enum Finding: Hashable {
  /// Another build lies at the path. The build ID is empty where the file has none.
  case changed(buildID: String)
  /// Nothing lies at the path, and nothing was found by build ID.
  case missing
  case unreadable(reason: String)
  /// Neither the dump nor the file has a build ID, so the path was believed.
  case noBuildID
  /// The dump has no build ID though the file has one, so the path was believed.
  case buildIDNotRecorded
  case noDebugInformation
  /// Debug information ends in bytes that make no sense.
  case damagedDebugInformation
  /// Debug information was split off into `.dwo` files, of which this one at least is not there.
  case splitFileMissing(path: String)
  /// Debug information refers to this file, which it shares with others by dwz, and which is not there.
  case sharedFileMissing(path: String)
  /// Debug information is compressed in a way that elfutils does not read here.
  case unreadableCompression
}
