// SPDX-License-Identifier: Apache-2.0
// How the worker becomes another user with the process, and stays as mighty as that is.

import CTracerPlatform
import Synchronization

/// A thread's capabilities, as capget(2) has them.
package struct ThreadCapabilities: Equatable {
  package var effective: UInt64
  package var permitted: UInt64
  package var inheritable: UInt64

  /// The layout of two sets of 32 bits each. (_LINUX_CAPABILITY_VERSION_3)
  private static var version: UInt32 { 0x2008_0522 }

  package init(effective: UInt64, permitted: UInt64, inheritable: UInt64) {
    self.effective = effective
    self.permitted = permitted
    self.inheritable = inheritable
  }

  /// Those of a thread, 0 for the calling one; nil where the kernel does not tell.
  package init?(of thread: Int32) {
    var header = (Self.version, thread)
    var data = (UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0), UInt32(0))
    let answer = withUnsafeMutablePointer(to: &header) { header in
      withUnsafeMutablePointer(to: &data) {
        System.call(SYS_capget, Int(bitPattern: header), Int(bitPattern: $0))
      }
    }
    guard answer == 0 else { return nil }
    effective = UInt64(data.3) << 32 | UInt64(data.0)
    permitted = UInt64(data.4) << 32 | UInt64(data.1)
    inheritable = UInt64(data.5) << 32 | UInt64(data.2)
  }

  /// Makes them the calling thread's.
  package func adopt() {
    var header = (Self.version, Int32(0))
    var data = (
      UInt32(truncatingIfNeeded: effective), UInt32(truncatingIfNeeded: permitted),
      UInt32(truncatingIfNeeded: inheritable), UInt32(truncatingIfNeeded: effective >> 32),
      UInt32(truncatingIfNeeded: permitted >> 32), UInt32(truncatingIfNeeded: inheritable >> 32)
    )
    withUnsafeMutablePointer(to: &header) { header in
      withUnsafeMutablePointer(to: &data) {
        _ = System.call(SYS_capset, Int(bitPattern: header), Int(bitPattern: $0))
      }
    }
  }

  /// What a thread that has these may do of what another does. `raising` what it may and does not yet.
  package func following(_ other: Self, raising: Bool) -> Self {
    var result = self
    result.permitted &= other.permitted
    result.effective &= result.permitted
    if raising { result.effective = other.effective & result.permitted }
    return result
  }
}

/// setuid(2) and its like change one thread. glibc has all threads make the same call, by a signal of its
/// own and the caller last, and ends the process where one gets another answer than the others. Whether a
/// thread may is told by its capabilities, which no library changes in all threads: a program with one
/// thread of its own raises and drops them, or has setuid leave them (PR_SET_KEEPCAPS), and expects no more.
extension UnsafeMutablePointer where Pointee == Core {
  /// Before the worker makes such a call, in its signal handler: it must get the answer that the caller gets.
  package func willChangeIdentity() {
    // So that what the process keeps, if it does, is not lost to the worker: it could not get it back.
    // Given up again below. Not where a filter of system calls might be why it is not.
    if !System.isFiltered { _ = System.call(SYS_prctl, Int(PR_SET_KEEPCAPS), 1) }
    follow(raising: true)
  }

  package func didChangeIdentity() {
    guard !System.isFiltered else { return }
    // The caller comes last, and its capabilities when it likes.
    pointee.requests.capabilityLooks.store(Self.soonLooks, ordering: .relaxed)
    wakeWorker()
  }

  /// How many looks, one each millisecond, come right after such a call.
  private static var soonLooks: UInt32 { 100 }

  /// Gives up what the process has given up, and answers in how many nanoseconds to look again.
  ///
  /// Within a millisecond in the usual case, and within a second in any.
  func followCapabilities() -> Int {
    let looks = pointee.requests.capabilityLooks.load(ordering: .relaxed)
    guard looks > 0 else { return .max }
    follow(raising: false)
    guard looks > 1 else { return 1_000_000_000 }
    _ = pointee.requests.capabilityLooks.compareExchange(
      expected: looks, desired: looks &- 1, ordering: .relaxed)
    return 1_000_000
  }

  /// The process's first thread stands for the one that calls: where there are others of the program's
  /// own, they have all the same capabilities, or it would end so without the worker too.
  private func follow(raising: Bool) {
    guard let own = ThreadCapabilities(of: 0),
      let other = ThreadCapabilities(of: pointee.processID)
    else { return }
    let wanted = own.following(other, raising: raising)
    // Most have none, or all and keep them.
    if wanted != own { wanted.adopt() }
  }
}

/// A thread's real, effective and saved user and group, and its further groups.
private struct ThreadIdentity {
  var users = (UInt32(0), UInt32(0), UInt32(0))
  var groups = (UInt32(0), UInt32(0), UInt32(0))
  var others = InlineArray<256, UInt32>(repeating: 0)
  /// `nil` of more than there is room for.
  var otherCount: Int? = 0

  /// The calling thread's.
  init() {
    withUnsafeMutableBytes(of: &users) { Self.read(SYS_getresuid, $0) }
    withUnsafeMutableBytes(of: &groups) { Self.read(SYS_getresgid, $0) }
    let room = others.count
    let count = withUnsafeMutableBytes(of: &others) {
      System.call(SYS_getgroups, room, Int(bitPattern: $0.baseAddress))
    }
    otherCount = count >= 0 ? count : nil
  }

  private static func read(_ call: Int32, _ ids: UnsafeMutableRawBufferPointer) {
    let base = Int(bitPattern: ids.baseAddress)
    _ = System.call(call, base, base &+ 4, base &+ 8)
  }

  /// That of a thread of the process; `nil` where the kernel does not tell. (proc_pid_status(5))
  init?(ofThread thread: Int32) {
    self.init()
    var bytes = InlineArray<4096, UInt8>(repeating: 0)
    let isWhole = withUnsafeMutableBytes(of: &bytes) {
      let base = $0.baseAddress.unsafelyUnwrapped
      var path = TextBuffer(base, capacity: 64)
      ThreadFile.appendPath(of: UInt32(bitPattern: thread), "/status", to: &path)
      guard var file = ProcFile(path: path.cString(), base + 64, capacity: 4032) else {
        return false
      }
      defer { file.close() }
      while let line = file.nextLine() {
        if let text = line.after("Uid:") { users = Self.firstThree(text) }
        if let text = line.after("Gid:") { groups = Self.firstThree(text) }
        guard let text = line.after("Groups:") else { continue }
        readOthers(text)
        return true
      }
      return false
    }
    guard isWhole else { return nil }
  }

  private static func firstThree(_ text: UnsafeRawBufferPointer) -> (UInt32, UInt32, UInt32) {
    let first = text.number()
    let second = text.dropping(first.byteCount).number()
    let third = text.dropping(first.byteCount &+ second.byteCount).number()
    return (
      UInt32(truncatingIfNeeded: first.value), UInt32(truncatingIfNeeded: second.value),
      UInt32(truncatingIfNeeded: third.value)
    )
  }

  private mutating func readOthers(_ text: UnsafeRawBufferPointer) {
    var count = 0
    var rest = text
    while true {
      while rest.count > 0, rest[0] == 0x20 || rest[0] == 0x09 { rest = rest.dropping(1) }
      let (value, byteCount) = rest.number()
      if byteCount == 0 { break }
      guard count < others.count else { return otherCount = nil }
      others[count] = UInt32(truncatingIfNeeded: value)
      count &+= 1
      rest = rest.dropping(byteCount)
    }
    otherCount = count
  }

  func isSame(as other: Self) -> Bool {
    guard users == other.users, groups == other.groups, otherCount == other.otherCount else {
      return false
    }
    for position in 0..<(otherCount ?? 0) where others[position] != other.others[position] {
      return false
    }
    return true
  }

  /// Makes it the calling thread's alone. Of groups for which there was no room it needs none.
  mutating func adopt() {
    let count = otherCount ?? 0
    withUnsafeMutableBytes(of: &others) {
      _ = System.call(SYS_setgroups, count, Int(bitPattern: $0.baseAddress))
    }
    _ = System.call(SYS_setresgid, Int(groups.0), Int(groups.1), Int(groups.2))
    _ = System.call(SYS_setresuid, Int(users.0), Int(users.1), Int(users.2))
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Becomes who the program's one thread is, where that believes itself alone and glibc has no other thread
  /// make its calls: those that come by us end this belief, so that only ways around us are left.
  ///
  /// Cost: a file of the kernel's.
  func followIdentity() {
    guard isLeftAlone,
      var wanted = ThreadIdentity(ofThread: pointee.processID), !wanted.isSame(as: ThreadIdentity())
    else { return }
    wanted.adopt()
    tracer_services.note_identity?()
    pointee.requests.capabilityLooks.store(Self.soonLooks, ordering: .relaxed)
  }

  /// Has the worker do so at once.
  package func askToFollow() {
    pointee.requests.identityLook.store(1, ordering: .releasing)
    wakeWorker()
  }
}
