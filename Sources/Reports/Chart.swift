// SPDX-License-Identifier: Apache-2.0
// A series of figures as a few characters.

/// A series of figures as a few characters: `▁▂▃▅▆█`.
struct Chart: CustomStringConvertible {
  /// More figures than that share characters.
  static let widthLimit = 24

  private static let blocks: [Character] = ["▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"]
  private static let letters: [Character] = ["_", ".", "-", "=", "+", "*", "%", "#"]

  let description: String

  /// - Parameter figures: Drawn between the smallest and the largest, which are at the bottom and at the
  ///   top; all in the middle where they are the same.
  init(_ figures: [Int], inASCII: Bool) {
    let levels = inASCII ? Self.letters : Self.blocks
    let cells = Self.condensed(figures)
    let (low, high) = (Double(cells.min() ?? 0), Double(cells.max() ?? 0))
    description = String(
      cells.map { figure in
        let share = high > low ? (Double(figure) - low) / (high - low) : 0.5
        return levels[min(Int(share * Double(levels.count)), levels.count - 1)]
      })
  }

  static func width(ofSeriesOf count: Int) -> Int { min(count, widthLimit) }

  /// The largest of the figures that share a character.
  private static func condensed(_ figures: [Int]) -> [Int] {
    let width = width(ofSeriesOf: figures.count)
    return (0..<width).map { cell in
      let (start, end) = (cell * figures.count / width, (cell + 1) * figures.count / width)
      return figures[start..<end].max()!
    }
  }
}
