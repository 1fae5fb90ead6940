// SPDX-License-Identifier: Apache-2.0
// Why a process could not be found, asked or run: one sentence with its place and the way out.

/// Why a process could not be found, asked or run.
public struct ProcessControlError: Error, Sendable, CustomStringConvertible {
  public enum Code: Sendable {
    /// No process has this pid, program name or unit.
    case noSuchProcess
    /// The process is there, and nothing in it would answer: no signal was sent.
    case notArmed
    case notPermitted
    /// Something calls itself a control page and is not one that we would touch.
    case badControlPage
    /// The process ended, or became another program, before it answered.
    case ended
    case timedOut
    /// The process answered that it could not.
    case refused
    /// A snapshot was asked for where nothing is recorded.
    case dormant
    /// `run` found no tracer, directory or command to start.
    case cannotRun
    /// There are no dumps to choose from.
    case noDump
  }

  public let code: Code
  /// One sentence without its full stop, safe to print.
  public let description: String

  init(_ code: Code, _ description: String) {
    self.code = code
    self.description = description
  }
}
