// SPDX-License-Identifier: Apache-2.0
// Names of units as people type them.

import ProcessControl

/// The name of a service: `myd.service`, a template `getty@.service` or its instance
/// `getty@tty1.service`.
public struct UnitName: Hashable, Sendable, CustomStringConvertible {
  /// With its suffix.
  public let description: String

  /// Reads a name; `.service` is assumed where it has no suffix of a unit.
  public init(_ text: String) throws(UnitControlError) {
    let suffix = text.split(separator: ".", omittingEmptySubsequences: false).last.map(String.init)
    let name = Self.suffixes.contains(suffix ?? "") && text.contains(".") ? text : text + ".service"
    let isGood = !text.isEmpty && name.utf8.count < 256 && name.utf8.allSatisfy(Self.isAllowed)
    guard isGood, !name.hasPrefix("."), !name.hasPrefix("@"), name.filter({ $0 == "@" }).count < 2
    else {
      throw UnitControlError(
        "'\(text.plainText)' is no name of a unit; 'systemctl list-units --type=service' lists them"
      )
    }
    guard name.hasSuffix(".service") else {
      throw UnitControlError(
        "'\(name)' is a \(suffix ?? "unit"), and only a service can be armed: name the service that"
          + " it belongs to")
    }
    description = name
  }

  /// Kinds of units, which are their suffixes.
  private static let suffixes: Set = [
    "service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice",
    "scope",
  ]

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5a, 0x61...0x7a: true
    default: ":-_.\\@".utf8.contains(byte)
    }
  }

  /// Whether this stands for all units that are made of it.
  public var isTemplate: Bool { description.hasSuffix("@.service") }

  /// What systemd can be asked about: a template has no properties, and an instance of it has.
  var asked: String {
    isTemplate ? description.replacing("@.service", with: "@heaptap.service") : description
  }

  /// The template of an instance.
  var template: UnitName? {
    guard !isTemplate, let at = description.firstIndex(of: "@") else { return nil }
    return UnitName(checked: description[...at] + ".service")
  }

  /// What 'systemctl restart' takes for all units of this name.
  public var restarted: String {
    isTemplate ? "'\(description.replacing("@.service", with: "@*.service"))'" : description
  }

  init(checked name: some StringProtocol) { description = String(name) }
}
