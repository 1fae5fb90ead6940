// SPDX-License-Identifier: Apache-2.0
// The number by which the journal knows each kind of event: the message catalog has an entry for each.

import HeapModel

extension HeapEvent.Kind {
  /// `MESSAGE_ID`. Chosen at random once, and never changed.
  public var messageID: String {
    switch self {
    case .armed: "4899c9ca97d4445da6d17da3a41d1d5b"
    case .started: "e38e56705c624673b3d6df1fe35bdf13"
    case .snapshot: "df410400cfe645f782a4aa451255e28e"
    case .limit: "09d472c1d6e944519f8a008c4ad11f8b"
    case .stopped: "7193ff597ca24f1bac42ae3a87112d65"
    case .trouble: "2aa88f8c6b734d918dd40d9334af4417"
    case .report: "18fa44eba8024acd8cbf9813ffac2de7"
    }
  }

  static let byMessageID: [String: Self] = Dictionary(
    uniqueKeysWithValues: allCases.map { ($0.messageID, $0) })
}
