// SPDX-License-Identifier: Apache-2.0
// What dumps need, set aside when recording starts.

import CTracerPlatform
import Synchronization

/// Why a dump is made.
package enum DumpTrigger {
  case signal, control, stop, exit, terminated, api, limit

  var name: StaticString {
    switch self {
    case .signal: "signal"
    case .control: "control"
    case .stop: "stop"
    case .exit: "exit"
    case .terminated: "terminated"
    case .api: "api"
    case .limit: "limit"
    }
  }
}

/// What a scan found alive; all zero before the first.
struct ScanTotals {
  var bytes: UInt64 = 0
  var blocks: UInt64 = 0
  /// The standard error of the bytes, where they are an estimate.
  var errorBytes: UInt64 = 0
  /// Sites in `sortedSites`, largest first.
  var siteCount = 0
}

/// Memory for dumps, and what the last one came to. All zero is a valid, closed state.
package struct DumpState: ~Copyable {
  static var outputByteCount: Int { 128 << 10 }
  static var inputByteCount: Int { 64 << 10 }
  static var textByteCount: Int { 16 << 10 }
  /// A bit for each row: whether its location is in the dump already.
  static var writtenByteCount: Int { Int(RowTable.limit) / 8 }
  static var workspaceByteCount: Int {
    outputByteCount + inputByteCount + textByteCount + writtenByteCount
  }
  static var orderByteCount: Int { Int(BlockWord.siteLimit) * 4 }
  static var generatedAddressLimit: Int { Int(RowTable.limit) }
  private static var generatedByteCount: Int {
    generatedAddressLimit * MemoryLayout<GeneratedAddress>.stride
  }

  private let workspace: Atomic<UInt>
  private let order: Atomic<UInt>
  private let generated: Atomic<UInt>
  /// Per site: what the scan found, and where its generations begin.
  let scratch: ChunkedArena
  /// Per site, generation and type.
  let born: ChunkedArena
  var types: TypeTable
  /// 1 while a dump is made: there is one workspace.
  package let isBusy: Atomic<UInt32>
  /// Dumps tried since the process began: the number in the name.
  package var sequence: UInt64
  package let written: Atomic<UInt64>
  /// What a tally takes of `born`: more where blocks are sampled.
  var tallyWordCount: UInt32
  /// For how many sites the pages that a dump needs are there.
  private var preparedSites: UInt32
  /// For how many addresses of generated code there are.
  private(set) var preparedAddresses: Int
  /// What the dump that is being made knows of generated code.
  var code: GeneratedCode
  /// The file of a dump that is under its name and not yet on disk, plus one; 0 for none.
  var unsynced: Int32
  /// What the sites had alive that the last dump had no room for.
  var leftOutBytes: UInt64
  /// What was alive at the last snapshot of the recording, and what is at this one.
  var previous: ScanTotals
  var last: ScanTotals

  func open() -> Bool {
    workspace.map(Self.workspaceByteCount) && order.map(Self.orderByteCount)
      && generated.map(Self.generatedByteCount) && scratch.open(reserving: 0)
      && born.open(reserving: 2)
  }

  /// Gives the pages back, and forgets what the recording's snapshots found.
  mutating func discard() {
    preparedSites = 0
    preparedAddresses = 0
    generated.discard(Self.generatedByteCount)
    previous = ScanTotals()
    last = ScanTotals()
    workspace.discard(Self.workspaceByteCount)
    order.discard(Self.orderByteCount)
    scratch.discard(reserving: 0)
    born.discard(reserving: 2)
    types.discard()
  }

  /// Takes the pages for a dump of so many sites now, while there is memory. Costs 68 bytes a site, and
  /// 24 for each address of generated code.
  mutating func prepare(sites: UInt32, _ rows: borrowing RowTable) {
    guard sites >= preparedSites, preparedSites < BlockWord.siteLimit,
      let base = workspace.mapped, let order = order.mapped
    else { return }
    if preparedSites == 0 { System.touch(base, Self.workspaceByteCount) }
    // A quarter more than there are, and some: the next call is then some way off.
    let wanted = min(sites &+ sites / 4 &+ 1024, BlockWord.siteLimit)
    System.touch(order, Int(wanted) &* 4)
    scratch.prepare(words: wanted &* SiteSummary.wordCount)
    born.prepare(words: max(wanted &* tallyWordCount, UInt32(born.usedByteCount / 4)))
    preparedSites = wanted
    prepareAddresses(rows)
  }

  private mutating func prepareAddresses(_ rows: borrowing RowTable) {
    guard let base = generatedAddresses else { return }
    var count = 0
    rows.forEachGeneratedAddress { _ in count &+= 1 }
    guard count > preparedAddresses else { return }
    preparedAddresses = min(count &+ count / 4, Self.generatedAddressLimit)
    System.touch(base, preparedAddresses &* MemoryLayout<GeneratedAddress>.stride)
  }

  /// What a fork's child does not have: the parent's file, in a table of descriptors of its own.
  mutating func leaveParents() {
    unsynced = 0
    code = GeneratedCode()
    // It may have been in the middle of one.
    types.discard()
  }

  /// What dumps have touched, for so many sites: their summaries, their order, the buffers.
  package func usedByteCount(sites: UInt32) -> Int {
    guard workspace.load(ordering: .relaxed) != 0, preparedSites > 0 else { return 0 }
    let perSite = (SiteSummary.wordCount &+ tallyWordCount &+ 1) &* 4
    return Self.workspaceByteCount + Int(max(sites, preparedSites)) * Int(perSite)
      + preparedAddresses * MemoryLayout<GeneratedAddress>.stride + types.usedByteCount
  }

  var generatedAddresses: UnsafeMutablePointer<GeneratedAddress>? {
    UnsafeMutablePointer(bitPattern: generated.load(ordering: .relaxed))
  }
  var output: UnsafeMutableRawPointer {
    UnsafeMutableRawPointer(bitPattern: workspace.load(ordering: .relaxed)).unsafelyUnwrapped
  }
  var input: UnsafeMutableRawPointer { output + Self.outputByteCount }
  var text: UnsafeMutableRawPointer { input + Self.inputByteCount }
  var writtenRows: UnsafeMutablePointer<UInt8> {
    (text + Self.textByteCount).assumingMemoryBound(to: UInt8.self)
  }
  var sortedSites: UnsafeMutablePointer<UInt32> {
    UnsafeMutablePointer<UInt32>(bitPattern: order.load(ordering: .relaxed)).unsafelyUnwrapped
  }
}
