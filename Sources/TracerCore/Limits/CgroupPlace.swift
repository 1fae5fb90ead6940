// SPDX-License-Identifier: Apache-2.0
// Where the files of the process's own memory cgroup are, whatever the layout.

// The process's path is in /proc/self/cgroup, the mounts in /proc/self/mountinfo. On a hybrid host both
// versions are there, and the one that has the memory controller counts: version 1's, if it has a line.
// (cgroups(7), Documentation/admin-guide/cgroup-v2.rst, proc(5) on mountinfo)

import CTracerPlatform

package enum CgroupVersion: UInt8 {
  /// No memory cgroup, or none whose files can be seen from here.
  case none = 0
  case one, two
}

/// The directory of the process's memory cgroup. All zero is none.
package struct CgroupPlace {
  package private(set) var version = CgroupVersion.none
  /// Of the directory, and of the mount point that it begins with.
  private(set) var byteCount = 0
  private var mountByteCount = 0
  private var path = InlineArray<1024, UInt8>(repeating: 0)

  package init() {}

  /// Finds the place by the kernel's own lists.
  package static func find(_ files: KernelFiles) -> CgroupPlace {
    var place = CgroupPlace()
    var own = InlineArray<1024, UInt8>(repeating: 0)
    withUnsafeMutableBytes(of: &own) {
      var path = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 1024)
      let version = ownPath(files, into: &path)
      guard version != .none, !path.isFull else { return }
      // To the end: a later mount may lie upon an earlier one, as a container's does on its host's.
      _ = files.forEachLine("/proc/self/mountinfo") { line in
        var found = CgroupPlace()
        if found.take(line, version, path.bytes), found.isThere(files) { place = found }
        return true
      }
    }
    return place
  }

  /// What tells that the process was moved to another cgroup.
  package static func fingerprint(_ files: KernelFiles) -> UInt64 {
    var fingerprint = Fingerprint()
    _ = files.forEachLine("/proc/self/cgroup") { line in
      for byte in line { fingerprint.add(byte) }
      return true
    }
    return fingerprint.value
  }

  /// The line `N:memory:/path`, or else `0::/path`.
  private static func ownPath(_ files: KernelFiles, into path: inout TextBuffer) -> CgroupVersion {
    var version = CgroupVersion.none
    _ = files.forEachLine("/proc/self/cgroup") { line in
      let rest = line.dropping(line.number().byteCount)
      if let unified = rest.after("::") {
        path.clear()
        path.append(unified)
        version = .two
        return true
      }
      guard let listed = rest.after(":") else { return true }
      var end = 0
      while end < listed.count, listed[end] != 0x3a { end &+= 1 }
      guard
        UnsafeRawBufferPointer(rebasing: listed[..<end]).containsBetweenCommas("memory")
      else { return true }
      path.clear()
      path.append(listed.dropping(end &+ 1))
      version = .one
      return false
    }
    return version
  }

  /// Takes a mount of mountinfo, if it is the one that shows the path.
  ///
  /// `id parent major:minor root mountpoint options optional… - type source superoptions`
  private mutating func take(
    _ line: UnsafeRawBufferPointer, _ wanted: CgroupVersion, _ own: UnsafeRawBufferPointer
  ) -> Bool {
    var separator = 6
    while line.field(separator).count > 0, !line.field(separator).isEqual("-") {
      separator &+= 1
    }
    let type = line.field(separator &+ 1)
    switch wanted {
    case .one:
      guard type.isEqual("cgroup"), line.field(separator &+ 3).containsBetweenCommas("memory")
      else { return false }
    default: guard type.isEqual("cgroup2") else { return false }
    }
    // What the mount shows begins at its root: the path below that is the path below the mount point. A
    // mount of outside the process's namespace (its root begins with /..) shows nothing of ours.
    guard let below = Self.path(own, below: line.field(3)) else { return false }
    return set(wanted, mount: line.field(4), below)
  }

  /// Whether the directory can be seen: one under another mount cannot.
  private func isThere(_ files: KernelFiles) -> Bool {
    withUnsafeBytes(of: path) {
      files.isDirectory(UnsafeRawBufferPointer(rebasing: $0[..<byteCount]))
    }
  }

  private static func path(
    _ path: UnsafeRawBufferPointer, below root: UnsafeRawBufferPointer
  ) -> UnsafeRawBufferPointer? {
    guard path.after("/..") == nil else { return nil }
    if root.isEqual("/") { return path.isEqual("/") ? path.dropping(1) : path }
    guard root.count > 0, path.count >= root.count else { return nil }
    for position in 0..<root.count where root[position] != path[position] { return nil }
    let rest = path.dropping(root.count)
    return rest.isEmpty || rest[0] == 0x2f ? rest : nil
  }

  private mutating func set(
    _ wanted: CgroupVersion, mount: UnsafeRawBufferPointer, _ below: UnsafeRawBufferPointer
  ) -> Bool {
    let (place, mounted): (TextBuffer, Int) = withUnsafeMutableBytes(of: &path) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 1024)
      Self.appendUnescaped(mount, to: &text)
      let mounted = text.count
      text.append(below)
      return (text, mounted)
    }
    guard !place.isFull else { return false }
    version = wanted
    byteCount = place.count
    mountByteCount = mounted
    return true
  }

  /// Blanks and the like are `\040` in mountinfo.
  private static func appendUnescaped(
    _ bytes: UnsafeRawBufferPointer, to text: inout TextBuffer
  ) {
    var position = 0
    while position < bytes.count {
      if bytes[position] == 0x5c, position &+ 3 < bytes.count {
        let digits = UnsafeRawBufferPointer(rebasing: bytes[(position &+ 1)...(position &+ 3)])
        text.append(UInt8(truncatingIfNeeded: digits.number(radix: 8).value))
        position &+= 4
      } else {
        text.append(bytes[position])
        position &+= 1
      }
    }
  }

  /// Calls the body with each directory from the process's own up to the mount point.
  func forEachLevel(_ body: (_ directory: UnsafeRawBufferPointer, _ isOwn: Bool) -> Void) {
    guard version != .none else { return }
    withUnsafeBytes(of: path) { bytes in
      var end = byteCount
      while true {
        body(UnsafeRawBufferPointer(rebasing: bytes[..<end]), end == byteCount)
        guard end > mountByteCount else { return }
        end &-= 1
        while end > mountByteCount, bytes[end] != 0x2f { end &-= 1 }
      }
    }
  }
}

/// A number for bytes by which to see that they are others. (FNV-1a, by Fowler, Noll and Vo.)
struct Fingerprint {
  private(set) var value: UInt64 = 0xcbf2_9ce4_8422_2325

  mutating func add(_ byte: UInt8) { value = (value ^ UInt64(byte)) &* 0x100_0000_01b3 }
}
