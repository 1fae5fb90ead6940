// SPDX-License-Identifier: Apache-2.0
// What has become of a dump.

/// What has become of a dump.
public enum DumpPresence: String, Hashable, Sendable {
  /// It is there, and whole.
  case present
  /// The journal tells of it, and it is gone: aged, removed, or on a volume that is not there.
  case missing
  /// Being written, or left unfinished by a kill.
  case partial
  /// In a directory that we may not look into.
  case inaccessible
}
