// SPDX-License-Identifier: Apache-2.0
// Folds stacks, by what was found out once about each of their frames.

/// What a folding makes of each of a list of frames.
///
/// Names are looked at here; the pass over all stacks compares numbers.
struct FoldingMarks {
  private struct Mark {
    var isFolded: Bool
    var isPassage: Bool
    /// Whether this may say no more than the frame that it called: the compiler's way into a function.
    var mayEcho: Bool
    /// Whether a caller of the same name says no more than this: only one of the two has lines.
    var mayBeEchoed: Bool
    /// The same for frames of one function in one module. Names leave out what tells two such apart.
    var function: UInt32
  }

  private var marks: [Mark] = []

  init(of frames: [Frame], in modules: [Module], by folding: FrameFolding) {
    struct Function: Hashable {
      var name: String?
      var module: Int?
    }
    var numbers: [Function: UInt32] = [:]
    marks.reserveCapacity(frames.count)
    for frame in frames {
      let module = frame.module.flatMap { modules.indices.contains($0) ? modules[$0] : nil }
      let name = FrameFolding.bareName(of: frame)
      let function = Function(name: frame.function, module: frame.module)
      let number = numbers[function] ?? UInt32(numbers.count)
      numbers[function] = number
      let isWritten = frame.file != nil && !frame.isDerived
      marks.append(
        Mark(
          isFolded: FrameFolding.isAny(
            of: folding.rules, matching: frame, named: name, in: module),
          isPassage: FrameFolding.isAny(
            of: folding.passages, matching: frame, named: name, in: module),
          mayEcho: frame.function != nil && !isWritten, mayBeEchoed: isWritten,
          function: number))
    }
  }

  /// Takes out of a stack, given innermost first by its frames' numbers, what is folded.
  ///
  /// One of nothing else keeps its innermost frame.
  func fold(_ stack: inout [UInt32]) {
    guard let innermost = stack.first else { return }
    var kept = 0
    var last: Mark?
    let start = stack.firstIndex { !marks[Int($0)].isFolded } ?? stack.count
    for position in start..<stack.count {
      let number = stack[position]
      let mark = marks[Int(number)]
      if mark.isPassage { continue }
      if mark.mayEcho, let last, last.mayBeEchoed, last.function == mark.function { continue }
      last = mark
      stack[kept] = number
      kept += 1
    }
    if kept == 0 {
      stack[0] = innermost
      kept = 1
    }
    stack.removeLast(stack.count - kept)
  }
}
