// SPDX-License-Identifier: Apache-2.0
// Why bytes are not a heap profile, and where.

/// Why bytes are not a heap profile, and where.
public struct ProfileError: Error, Hashable, Sendable {
  public enum Code: Hashable, Sendable {
    /// There is not one byte.
    case empty
    /// The end came before anything that could be kept.
    case truncated
    /// A field is longer than the message that it is in.
    case fieldOverrun
    case malformedVarint
    case malformedTag
    case unsupportedWireType
    /// A field of the right number and the wrong kind.
    case unexpectedWireType
    /// A string, function, mapping or location is referred to that is not there.
    case danglingReference
    case duplicateID
    /// A profile, but of something else.
    case notHeapProfile
    /// A sample with more or fewer values than there are sample types.
    case valueCount
    case negativeValue
    /// More than the reader's limits, or than an honest file of this size could hold.
    case tooLarge
    case damagedCompression
  }

  public let code: Code
  /// Where in the profile, after decompression, the trouble begins; `nil` where it has no place.
  public let byteOffset: Int?
  /// What exactly, in words to be put into the sentence.
  public let detail: String?

  public init(_ code: Code, at byteOffset: Int? = nil, _ detail: String? = nil) {
    self.code = code
    self.byteOffset = byteOffset
    self.detail = detail
  }
}

extension ProfileError: CustomStringConvertible {
  /// One sentence. The file's name is the caller's to put in front.
  public var description: String {
    let cause =
      switch code {
      case .empty: "profile is empty"
      case .truncated: "profile ends inside a field"
      case .fieldOverrun: "field runs past the end of its message"
      case .malformedVarint: "integer is longer than 64 bits"
      case .malformedTag: "field has the number 0"
      case .unsupportedWireType: "wire type \(detail ?? "?") is not used by profile.proto"
      case .unexpectedWireType: "\(detail ?? "a field") which profile.proto does not give it"
      case .danglingReference: "\(detail ?? "something") is referred to but is not in the profile"
      case .duplicateID: "\(detail ?? "an ID") is defined twice"
      case .notHeapProfile: "not a heap profile: \(detail ?? "it has no sample types")"
      case .valueCount: "sample has \(detail ?? "more or fewer") values than there are sample types"
      case .negativeValue: "sample has a negative value, is this a difference of two profiles?"
      case .tooLarge: "profile is too large: \(detail ?? "beyond the reader's limits")"
      case .damagedCompression: "compressed profile is damaged: \(detail ?? "gzip cannot read it")"
      }
    return byteOffset.map { "\(cause) (byte \($0))" } ?? cause
  }
}
