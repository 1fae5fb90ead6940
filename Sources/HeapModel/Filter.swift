// SPDX-License-Identifier: Apache-2.0
// What to keep of a snapshot and what to leave out.

/// Says which samples to keep, or with `!` which to leave out.
///
/// A snapshot keeps what at least one inclusive filter keeps, if there is any, and no exclusive
/// filter leaves out:
///
///     snapshot.filtered(.function("Session.*"), !.file("TestSupport.swift"))
public struct Filter: Hashable, Sendable {
  /// Which frames of a stack a filter looks at.
  public enum Scope: Hashable, Sendable {
    /// The innermost: where the allocation was made.
    case allocatingFrame
    /// All of them: one that matches is enough, also for leaving the stack out.
    case anyFrame
  }

  /// What of a frame or a sample is looked at.
  public enum Subject: Hashable, Sendable {
    /// The source file's path. Without a slash, a pattern may also match its last component.
    case file(Glob)
    /// The function's name. The pattern may also be the name itself, whatever brackets it has.
    case function(Glob)
    /// The module's path, or its last component as with files.
    case module(Glob)
    /// Any frame: for filters by line, domain or generation alone.
    case anything
  }

  /// What of a frame is looked at, and the pattern that it must match.
  public let subject: Subject
  /// The line that must match too; `nil` is any, but 0 is line 0.
  public let line: Int?
  /// The domain that a sample must be in; `nil` is any, and 0 is the heap.
  public let domain: Int?
  /// The generation that a sample must be of; `nil` is any.
  public let generation: Int?
  /// Which of a stack's frames may be the one that matches.
  public let scope: Scope
  /// Whether what matches is kept. Turn it around with `!`.
  public let isInclusive: Bool

  /// A filter of any form; the static functions read better.
  public init(
    _ subject: Subject, line: Int? = nil, domain: Int? = nil, generation: Int? = nil,
    scope: Scope = .allocatingFrame, isInclusive: Bool = true
  ) {
    self.subject = subject
    self.line = line
    self.domain = domain
    self.generation = generation
    self.scope = scope
    self.isInclusive = isInclusive
  }

  /// Keeps what was allocated in files whose path, or its last component, matches.
  public static func file(
    _ pattern: Glob, line: Int? = nil, domain: Int? = nil, in scope: Scope = .allocatingFrame
  ) -> Filter {
    Filter(.file(pattern), line: line, domain: domain, scope: scope)
  }

  /// Keeps what was allocated by functions whose name matches.
  public static func function(
    _ pattern: Glob, domain: Int? = nil, in scope: Scope = .allocatingFrame
  ) -> Filter {
    Filter(.function(pattern), domain: domain, scope: scope)
  }

  /// Keeps what was allocated in libraries or programs whose path, or its last component, matches.
  public static func module(
    _ pattern: Glob, domain: Int? = nil, in scope: Scope = .allocatingFrame
  ) -> Filter {
    Filter(.module(pattern), domain: domain, scope: scope)
  }

  /// Keeps one domain: 0 is the heap, others are what the program has told of. The same as tracemalloc's
  /// DomainFilter.
  public static func domain(_ domain: Int) -> Filter {
    Filter(.anything, domain: domain)
  }

  /// Keeps what was allocated between one snapshot, or mark, and the next. The first generation is 1.
  public static func generation(_ generation: Int) -> Filter {
    Filter(.anything, generation: generation)
  }

  /// Leaves out what the filter would keep.
  public static prefix func ! (filter: Filter) -> Filter {
    Filter(
      filter.subject, line: filter.line, domain: filter.domain, generation: filter.generation,
      scope: filter.scope, isInclusive: !filter.isInclusive)
  }

  /// Whether a frame is what the filter is about, kept or left out.
  ///
  /// A frame without a file matches as `<unknown>`, line 0.
  public func matches(_ frame: Frame, in module: Module?) -> Bool {
    let subjectMatches =
      switch subject {
      case .file(let glob): Self.path(frame.file ?? Frame.unknownFile, matches: glob)
      case .function(let glob):
        frame.function.map { glob.matches($0) || $0 == glob.pattern } ?? false
      case .module(let glob): Self.path(module?.path ?? Frame.unknownFile, matches: glob)
      case .anything: true
      }
    return subjectMatches && (line == nil || line == frame.line ?? 0)
  }

  private static func path(_ path: String, matches glob: Glob) -> Bool {
    if glob.matches(path) { return true }
    guard !glob.pattern.contains("/"), let slash = path.lastIndex(of: "/") else { return false }
    return glob.matches(path[path.index(after: slash)...])
  }
}

extension Snapshot {
  /// The samples that the filters keep; all of them, if there is no filter.
  public func filtered(_ filters: Filter...) -> Snapshot { filtered(by: filters) }

  /// The samples that the filters keep; all of them, if there is no filter.
  public func filtered(by filters: [Filter]) -> Snapshot {
    if filters.isEmpty { return self }
    let inclusive = filters.filter(\.isInclusive).map { Match($0, in: self) }
    let exclusive = filters.filter { !$0.isInclusive }.map { Match($0, in: self) }
    var result = self
    result.samples = samples.filter { sample in
      (inclusive.isEmpty || inclusive.contains { $0.matches(sample, in: self) })
        && !exclusive.contains { $0.matches(sample, in: self) }
    }
    return result
  }

  /// The samples whose blocks are held in one of these ways.
  public func filtered(reach: Set<Reach>) -> Snapshot {
    var result = self
    result.samples = samples.filter { reach.contains($0.reach) }
    return result
  }

  /// A filter with its answer for each distinct frame: patterns are matched once a frame, not once
  /// a stack.
  private struct Match {
    let filter: Filter
    let frameMatches: [Bool]

    init(_ filter: Filter, in snapshot: Snapshot) {
      self.filter = filter
      frameMatches = snapshot.distinctFrames.map { frame in
        filter.matches(frame, in: snapshot.module(of: frame))
      }
    }

    func matches(_ sample: Sample, in snapshot: Snapshot) -> Bool {
      if let domain = filter.domain, sample.domain != domain { return false }
      if let generation = filter.generation, sample.generation != generation { return false }
      let frames = snapshot.runs[sample.stack]
      guard let allocating = frames.first else { return filter.matches(Frame(), in: nil) }
      return switch filter.scope {
      case .allocatingFrame: frameMatches[Int(allocating)]
      case .anyFrame: frames.contains { frameMatches[Int($0)] }
      }
    }
  }
}
