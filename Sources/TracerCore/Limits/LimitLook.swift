// SPDX-License-Identifier: Apache-2.0
// One look at every limit that the process may run into.

import CTracerPlatform

/// What a limit is of, which decides who it is that must dump.
package enum LimitScope {
  /// The process's own cgroup, whose memory is the daemon's.
  case cgroup
  /// A cgroup above it, which others share.
  case sharedCgroup
  /// RLIMIT_AS or RLIMIT_DATA.
  case process
  case host

  /// What share of the limit the process must hold itself, in hundredths, for the limit to be its
  /// affair: one hog must not make every daemon of the host dump.
  var ownPercent: UInt64 {
    switch self {
    case .cgroup, .process: 0
    case .sharedCgroup: 10
    case .host: 25
    }
  }
}

/// The process's own memory, in bytes.
package struct OwnMemory {
  /// Anonymous and shared pages, swapped ones too: what only its end gives back.
  package var unreclaimable: UInt64 = 0
  package var data: UInt64 = 0
  package var addressSpace: UInt64 = 0

  /// Reads `/proc/self/status`; or, where the main thread has ended before the others and has no memory
  /// any more, the calling thread's. (proc(5))
  package static func read(_ files: KernelFiles) -> OwnMemory {
    let own = read(files, "/proc/self/status")
    return own.isEmpty ? read(files, "/proc/thread-self/status") : own
  }

  private var isEmpty: Bool { unreclaimable == 0 && addressSpace == 0 }

  private static func read(_ files: KernelFiles, _ path: StaticString) -> OwnMemory {
    var own = OwnMemory()
    _ = files.forEachLine(path) { line in
      if let value = line.value(of: "VmSize") { own.addressSpace = value &* 1024 }
      if let value = line.value(of: "VmData") { own.data = value &* 1024 }
      if let value = line.value(of: "RssAnon") ?? line.value(of: "RssShmem")
        ?? line.value(of: "VmSwap")
      {
        own.unreclaimable = own.unreclaimable &+ value &* 1024
      }
      return true
    }
    return own
  }
}

/// The limits of one moment: the one with the least headroom, and the fullest.
package struct LimitLook {
  /// Limits from here on are none: version 1 says "none" as the largest multiple of a page.
  private static var none: UInt64 { 1 << 60 }

  package private(set) var nearest = LimitReading()
  package private(set) var fullest = LimitReading()
  package private(set) var own = OwnMemory()
  private var exactFrom: UInt64 = 0
  /// Where the nearest limit and the fullest come from.
  package private(set) var nearestSource = LimitSource()
  package private(set) var fullestSource = LimitSource()

  package init() {}

  /// Looks at everything. Cost: about ten small files of the kernel's.
  ///
  /// - Parameter exactFrom: Of a cgroup's limit: below so many hundredths its usage may be too high.
  package static func all(
    _ files: KernelFiles, _ place: CgroupPlace, exactFrom: UInt64 = CgroupUsage.exactFrom
  ) -> LimitLook {
    var look = LimitLook()
    look.exactFrom = exactFrom
    look.own = OwnMemory.read(files)
    place.forEachLevel { directory, isOwn in
      look.addCgroup(files, place.version, directory, isOwn ? .cgroup : .sharedCgroup)
    }
    look.addResourceLimits()
    look.addHost(files)
    return look
  }

  // MARK: cgroups

  private mutating func addCgroup(
    _ files: KernelFiles, _ version: CgroupVersion, _ directory: UnsafeRawBufferPointer,
    _ scope: LimitScope
  ) {
    var limit: UInt64?
    var name: StaticString
    if version == .one {
      name = "/memory.limit_in_bytes"
      limit = files.number(directory, name)
    } else {
      name = "/memory.max"
      limit = files.number(directory, name)
      // Above memory.high a cgroup is slowed down until it hardly moves: it is no less a limit.
      if let high = files.number(directory, "/memory.high"), high < limit ?? UInt64.max {
        name = "/memory.high"
        limit = high
      }
    }
    guard let limit, limit < Self.none,
      let usage = CgroupUsage.read(
        files, version, directory, limit, exactFrom: exactFrom)
    else { return }
    add(scope, limit: limit, usage: usage) { source in
      source.append(directory)
      source.append(name)
    }
  }

  // MARK: The process and the host

  private mutating func addResourceLimits() {
    if let limit = Self.softLimit(9) {  // RLIMIT_AS
      add(.process, limit: limit, usage: own.addressSpace) { $0.append("RLIMIT_AS") }
    }
    if let limit = Self.softLimit(2) {  // RLIMIT_DATA
      add(.process, limit: limit, usage: own.data) { $0.append("RLIMIT_DATA") }
    }
  }

  private static func softLimit(_ resource: Int) -> UInt64? {
    var limits: (soft: UInt64, hard: UInt64) = (UInt64.max, UInt64.max)
    let answer = withUnsafeMutableBytes(of: &limits) {
      System.call(SYS_prlimit64, 0, resource, 0, Int(bitPattern: $0.baseAddress))
    }
    return answer == 0 && limits.soft < none ? limits.soft : nil
  }

  private mutating func addHost(_ files: KernelFiles) {
    var (total, available): (UInt64, UInt64) = (0, UInt64.max)
    _ = files.forEachLine("/proc/meminfo") { line in
      if let value = line.value(of: "MemTotal") { total = value &* 1024 }
      if let value = line.value(of: "MemAvailable") { available = value &* 1024 }
      return available == UInt64.max
    }
    guard total > 0, available <= total else { return }
    add(.host, limit: total, usage: total &- available) { $0.append("/proc/meminfo") }
  }

  // MARK: Which counts

  private mutating func add(
    _ scope: LimitScope, limit: UInt64, usage: UInt64, _ name: (inout TextBuffer) -> Void
  ) {
    guard limit > 0, own.unreclaimable >= limit / 100 &* scope.ownPercent else { return }
    var reading = LimitReading()
    reading.limit = limit
    reading.usage = usage
    if !nearest.isKnown || reading.headroom < nearest.headroom {
      nearest = reading
      nearestSource.set(name)
    }
    if !fullest.isKnown || reading.thousandths > fullest.thousandths {
      fullest = reading
      fullestSource.set(name)
    }
  }
}

/// The name of a limit: a file's path, or what the manuals call it. All zero is no name.
package struct LimitSource {
  private var byteCount = 0
  private var bytes = InlineArray<1088, UInt8>(repeating: 0)

  package init() {}

  mutating func set(_ body: (inout TextBuffer) -> Void) {
    byteCount = withUnsafeMutableBytes(of: &bytes) {
      var text = TextBuffer($0.baseAddress.unsafelyUnwrapped, capacity: 1088)
      body(&text)
      return text.count
    }
  }

  package func append(to text: inout TextBuffer) {
    withUnsafeBytes(of: bytes) {
      text.append(printable: UnsafeRawBufferPointer(rebasing: $0[..<min(byteCount, 1088)]))
    }
  }

  /// A number that another name hardly has.
  var fingerprint: UInt64 {
    var fingerprint = Fingerprint()
    for position in 0..<min(byteCount, 1088) { fingerprint.add(bytes[position]) }
    return fingerprint.value
  }
}

/// What a cgroup uses that the kernel cannot take back.
package enum CgroupUsage {
  /// From where on usage is exact if nobody needs it to be below, in hundredths of the limit.
  package static var exactFrom: UInt64 { 50 }

  /// Reads the usage of a cgroup; `nil` where it has none to read, as the root of version 2.
  ///
  /// It is all that is charged but for what can be taken back: page cache, and slabs that shrink. The
  /// sum of what cannot (anonymous, shared, the kernel's own) would miss what the kernel has charged
  /// ahead for each processor, and with a small limit never come near it.
  ///
  /// - Parameter exactFrom: Where not even all that is charged comes to so many hundredths of the limit,
  ///   that is the answer: `memory.stat` is the dearer file of the two.
  package static func read(
    _ files: KernelFiles, _ version: CgroupVersion, _ directory: UnsafeRawBufferPointer,
    _ limit: UInt64, exactFrom: UInt64 = exactFrom
  ) -> UInt64? {
    let name: StaticString = version == .one ? "/memory.usage_in_bytes" : "/memory.current"
    guard let charged = files.number(directory, name) else { return nil }
    if charged < limit / 100 &* exactFrom { return charged }
    return charged &- min(charged, reclaimable(files, version, directory))
  }

  /// Pages of files on the lists that are reclaimed from; shared memory is on others. Version 1 has the
  /// cgroups below in the keys that begin with `total_`.
  private static func reclaimable(
    _ files: KernelFiles, _ version: CgroupVersion, _ directory: UnsafeRawBufferPointer
  ) -> UInt64 {
    var sum: UInt64 = 0
    files.forEachLine(directory, "/memory.stat") { line in
      let value =
        version == .one
        ? line.value(of: "total_inactive_file") ?? line.value(of: "total_active_file")
        : line.value(of: "inactive_file") ?? line.value(of: "active_file")
          ?? line.value(of: "slab_reclaimable")
      sum = sum &+ (value ?? 0)
      return true
    }
    return sum
  }
}
