// SPDX-License-Identifier: Apache-2.0
// Work that waits for files or for other threads, away from the threads that tasks share.

import Dispatch

enum Background {
  /// Runs the body on a thread that may block, and has the task wait.
  ///
  /// The threads of the cooperative pool are as many as there are processors: one that waits for a
  /// disk is one that no other task gets.
  static func run<Value: Sendable, Failure: Error>(
    _ body: @escaping @Sendable () throws(Failure) -> Value
  ) async throws(Failure) -> Value {
    let result: Result<Value, Failure> = await withCheckedContinuation { continuation in
      DispatchQueue.global(qos: .utility).async {
        do throws(Failure) {
          continuation.resume(returning: .success(try body()))
        } catch {
          continuation.resume(returning: .failure(error))
        }
      }
    }
    return try result.get()
  }
}
