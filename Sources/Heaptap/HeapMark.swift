// SPDX-License-Identifier: Apache-2.0
// A number on the stack: how what a piece of work allocates is told from what others allocate.

import HeapModel
import Synchronization

/// The number of a piece of work, which is on the stack of whatever it does, spelled by functions.
///
/// Work is called through `inside`, and that through a chain of `zero` and `one`. Stacks lead through
/// `await` and into who made a task, and so the number is found from the work's child tasks, from the
/// tasks that it made otherwise, and after each hop between actors: wherever a stack leads. Two tasks that
/// run the same function are told apart, which its name alone would not do.
package struct HeapMark: Hashable, Sendable {
  /// Its digits below the highest one, which only says how many there are.
  let number: UInt32

  init(number: UInt32) { self.number = number }

  package func around<Value, Failure: Error>(
    _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value { try Self.spell(number, body) }

  package func around<Value, Failure: Error>(
    isolation: isolated (any Actor)?, _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    try await Self.spell(number, isolation: isolation, body)
  }
}

// MARK: Who has which number

extension HeapMark {
  /// A place that measures. Its numbers are its own for good, so that what a later run of the place finds
  /// of an earlier one is compared with its like.
  private struct Lane {
    var mark: HeapMark
    var isTaken: Bool
  }

  private struct Lanes {
    var ofPlace: [String: [Lane]] = [:]
    var next: UInt32 = 2
  }

  private static let lanes = Mutex(Lanes())

  /// Gives a place a number that no other place ever gets and that nobody else at the place has now.
  package static func take(by place: String) -> HeapMark {
    lanes.withLock { lanes in
      if let free = lanes.ofPlace[place]?.firstIndex(where: { !$0.isTaken }) {
        lanes.ofPlace[place]![free].isTaken = true
        return lanes.ofPlace[place]![free].mark
      }
      let mark = HeapMark(number: lanes.next)
      lanes.next += 1
      lanes.ofPlace[place, default: []].append(Lane(mark: mark, isTaken: true))
      return mark
    }
  }

  package func giveBack(by place: String) {
    Self.lanes.withLock { lanes in
      guard let index = lanes.ofPlace[place]?.firstIndex(where: { $0.mark == self }) else { return }
      lanes.ofPlace[place]![index].isTaken = false
    }
  }
}

// MARK: Writing

extension HeapMark {
  /// How often a digit's call has come back.
  private static let returns = Atomic<UInt>(0)

  /// What a digit has left to do, lest its call be its last act and take its place on the stack.
  @inline(never) private static func hold() { returns.wrappingAdd(1, ordering: .relaxed) }

  private static func spell<Value, Failure: Error>(
    _ rest: UInt32, _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    switch (rest, rest & 1) {
    case (...1, _): try inside(body)
    case (_, 0): try zero(rest >> 1, body)
    default: try one(rest >> 1, body)
    }
  }

  @inline(never) private static func inside<Value, Failure: Error>(
    _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    defer { hold() }
    return try body()
  }

  // These two differ in more than a constant, or the optimizer would make one of them.

  @inline(never) private static func zero<Value, Failure: Error>(
    _ rest: UInt32, _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    defer { hold() }
    return try spell(rest, body)
  }

  @inline(never) private static func one<Value, Failure: Error>(
    _ rest: UInt32, _ body: () throws(Failure) -> Value
  ) throws(Failure) -> Value {
    hold()
    defer { hold() }
    return try spell(rest, body)
  }

  private static func spell<Value, Failure: Error>(
    _ rest: UInt32, isolation: isolated (any Actor)?, _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    switch (rest, rest & 1) {
    case (...1, _): try await inside(isolation: isolation, body)
    case (_, 0): try await zero(rest >> 1, isolation: isolation, body)
    default: try await one(rest >> 1, isolation: isolation, body)
    }
  }

  @inline(never) private static func inside<Value, Failure: Error>(
    isolation: isolated (any Actor)?, _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    defer { hold() }
    return try await body()
  }

  @inline(never) private static func zero<Value, Failure: Error>(
    _ rest: UInt32, isolation: isolated (any Actor)?, _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    defer { hold() }
    return try await spell(rest, isolation: isolation, body)
  }

  @inline(never) private static func one<Value, Failure: Error>(
    _ rest: UInt32, isolation: isolated (any Actor)?, _ body: () async throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    hold()
    defer { hold() }
    return try await spell(rest, isolation: isolation, body)
  }
}

// MARK: Reading

extension HeapMark {
  /// A frame as part of a number.
  enum Part {
    case inside, zero, one
    /// Between two digits, where it was not inlined.
    case spell

    init?(_ frame: Frame) {
      guard let function = frame.function, let type = function.firstRange(of: "HeapMark.") else {
        return nil
      }
      switch function[type.upperBound...].prefix(while: \.isLetter) {
      case "inside": self = .inside
      case "zero": self = .zero
      case "one": self = .one
      case "spell": self = .spell
      default: return nil
      }
    }
  }

  /// Whether a stack has this number, be it within another's or around it.
  ///
  /// - Parameter parts: Of the stack's frames, innermost first.
  func isSpelled(by parts: some Sequence<Part?>) -> Bool {
    var spelled: UInt32?
    for part in parts {
      switch part {
      case .inside:
        if spelled == number { return true }
        spelled = 1
      // A stack that repeats the digits without end would be no stack of ours.
      case .zero: spelled = spelled.map { $0 << 1 }
      case .one: spelled = spelled.map { $0 << 1 | 1 }
      case .spell: continue
      case nil:
        if spelled == number { return true }
        spelled = nil
      }
    }
    return spelled == number
  }
}
