// SPDX-License-Identifier: Apache-2.0
// Rows of short words and figures under a heading.

/// Rows of short words and figures, each column as wide as its widest cell.
public enum TextColumns {
  /// The lines, without line ends.
  ///
  /// - Parameter figures: The columns of figures, which end under one another; words begin so.
  public static func lines(_ rows: [[String]], figures: Set<Int>) -> [String] {
    guard let first = rows.first else { return [] }
    let widths = first.indices.map { column in rows.map { $0[column].count }.max()! }
    return rows.map { row in
      let cells = zip(row, widths).enumerated().map { column, cell in
        figures.contains(column)
          ? cell.0.rightAligned(to: cell.1)
          : column == row.count - 1 ? cell.0 : cell.0.padded(to: cell.1)
      }
      return cells.joined(separator: "  ")
    }
  }
}
