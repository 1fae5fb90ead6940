// SPDX-License-Identifier: Apache-2.0
// A dump in a few lines: what grew most, what is largest, and by which functions.

import CTracerPlatform

/// The sites that a message shows, and the names of their functions.
struct HeapSummary {
  static var siteLimit: Int { 5 }
  /// Frames that are shown of a stack.
  static var frameLimit: Int { 5 }
  /// Frames that are looked at: those of allocators come before the first that is shown.
  static var depthLimit: Int { 12 }

  /// Those that have grown, most first; and the largest.
  var grown = InlineArray<5, UInt32>(repeating: 0)
  var grownCount = 0
  var largest = InlineArray<5, UInt32>(repeating: 0)
  var largestCount = 0
  var names: FunctionNames

  // The buffer that dumps are written through, which is free by then: an entry, and the names.
  static var entryByteCount: Int { 64 << 10 }
  static func entryBuffer(_ dumps: borrowing DumpState) -> UnsafeMutableRawPointer { dumps.output }

  init(_ dumps: borrowing DumpState) {
    names = FunctionNames(dumps.output + Self.entryByteCount)
  }

  /// Puts a site where its growth belongs among those that have grown most.
  mutating func noteGrowth(_ site: UInt32, _ growth: (UInt32) -> Int64) {
    let own = growth(site)
    guard own > 0 else { return }
    var place = grownCount
    while place > 0, growth(grown[place &- 1]) < own { place &-= 1 }
    guard place < Self.siteLimit else { return }
    if grownCount < Self.siteLimit { grownCount &+= 1 }
    var position = grownCount &- 1
    while position > place {
      grown[position] = grown[position &- 1]
      position &-= 1
    }
    grown[place] = site
  }

  func hasGrown(_ site: UInt32) -> Bool {
    for position in 0..<grownCount where grown[position] == site { return true }
    return false
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Composes the summary of the dump that was written last.
  ///
  /// Cost: a pass over the sites, and one over the symbols of each module that the shown stacks lead
  /// through; ten milliseconds or so where libraries are large.
  func makeSummary(_ means: NameMeans) -> HeapSummary {
    var summary = HeapSummary(pointee.dumps)
    let sorted = pointee.dumps.sortedSites
    let count = pointee.dumps.last.siteCount
    for position in 0..<min(count, HeapSummary.siteLimit)
    where self.summary(sorted[position]).pointee.liveBytes > 0 {
      summary.largest[position] = sorted[position]
      summary.largestCount = position &+ 1
    }
    var position = 0
    while position < count {
      // Sorted by what is alive: no site further on can have grown by more than that.
      let live = self.summary(sorted[position]).pointee.liveBytes
      if summary.grownCount == HeapSummary.siteLimit,
        live
          <= UInt64(
            bitPattern: self.summary(summary.grown[HeapSummary.siteLimit &- 1]).pointee.grownBytes)
      {
        break
      }
      summary.noteGrowth(sorted[position]) { self.summary($0).pointee.grownBytes }
      position &+= 1
    }
    for position in 0..<summary.grownCount { want(summary.grown[position], &summary.names) }
    for position in 0..<summary.largestCount { want(summary.largest[position], &summary.names) }
    resolve(&summary.names, means)
    return summary
  }

  private func want(_ number: UInt32, _ names: inout FunctionNames) {
    let site = pointee.sites.site(number)
    guard site.pointee.frameCount > 0 else { return }
    let rows = pointee.sites.rows(of: site.pointee)
    for position in 0..<min(Int(site.pointee.frameCount), HeapSummary.depthLimit) {
      let row = pointee.rows.row(rows[position])
      // A return address may be the first byte of the next function: the call is before it.
      let isExact = row.pointee.key & Row.exactFlag != 0
      names.want(
        rows[position], address: row.pointee.address &- (isExact ? 0 : 1),
        module: UInt32(row.pointee.module))
    }
  }

  // MARK: As text

  /// Appends the lines of a message.
  func append(_ summary: HeapSummary, to text: inout TextBuffer) {
    if summary.grownCount > 0 { text.append("\ngrew most:") }
    for position in 0..<summary.grownCount {
      let site = summary.grown[position]
      let figures = self.summary(site).pointee
      text.append("\n  ")
      append(signedByteCount: figures.grownBytes, to: &text)
      text.append(" in ")
      let blocks = Self.grownBlocks(figures)
      text.append(signed: blocks)
      text.append(blocks == 1 ? " block: " : " blocks: ")
      appendFrames(of: site, summary.names, to: &text)
    }
    if summary.largestCount > 0 { text.append("\nlargest:") }
    for position in 0..<summary.largestCount {
      let site = summary.largest[position]
      let figures = self.summary(site).pointee
      text.append("\n  ")
      text.append(byteCount: figures.liveBytes)
      text.append(" in ")
      text.append(decimal: UInt64(figures.liveBlocks))
      text.append(figures.liveBlocks == 1 ? " block: " : " blocks: ")
      appendFrames(of: site, summary.names, to: &text)
    }
  }

  /// Adds `HEAPTAP_SITE_1` and so on: those that grew most, and those of the largest that did not.
  func appendSites(_ summary: HeapSummary, to entry: inout JournalEntry) {
    var number: UInt64 = 0
    for position in 0..<summary.grownCount {
      number &+= 1
      addSite(number, summary.grown[position], summary.names, to: &entry)
    }
    for position in 0..<summary.largestCount where !summary.hasGrown(summary.largest[position]) {
      number &+= 1
      addSite(number, summary.largest[position], summary.names, to: &entry)
    }
  }

  private func addSite(
    _ number: UInt64, _ site: UInt32, _ names: FunctionNames, to entry: inout JournalEntry
  ) {
    let figures = summary(site).pointee
    entry.add("HEAPTAP_SITE_", suffix: number) { text in
      if figures.grownBytes >= 0 { text.append("+") }
      text.append(signed: figures.grownBytes)
      text.append(" bytes in ")
      text.append(signed: Self.grownBlocks(figures))
      text.append(" blocks, ")
      text.append(decimal: figures.liveBytes)
      text.append(" bytes in ")
      text.append(decimal: UInt64(figures.liveBlocks))
      text.append(" blocks live: ")
      appendFrames(of: site, names, to: &text)
    }
  }

  private static func grownBlocks(_ figures: SiteSummary) -> Int64 {
    Int64(figures.liveBlocks) &- Int64(figures.previousBlocks)
  }

  func append(signedByteCount value: Int64, to text: inout TextBuffer) {
    text.append(value < 0 ? "-" : "+")
    text.append(byteCount: value.magnitude)
  }

  /// `inner < caller < its caller`, and `…` where frames are left out.
  private func appendFrames(
    of number: UInt32, _ names: FunctionNames, to text: inout TextBuffer
  ) {
    let site = pointee.sites.site(number)
    let count = Int(site.pointee.frameCount)
    guard count > 0 else { return text.append("(stack lost)") }
    let rows = pointee.sites.rows(of: site.pointee)
    var position = 0
    while position < min(count, HeapSummary.depthLimit) &- 1,
      names.find(rows[position])?.pointee.isAllocator == true
    {
      position &+= 1
    }
    if position > 0 { text.append("… < ") }
    let end = min(count, position &+ HeapSummary.frameLimit)
    let first = position
    while position < end {
      if position > first { text.append(" < ") }
      appendFrame(rows[position], names, to: &text)
      position &+= 1
    }
    if end < count || site.pointee.isTruncated || site.pointee.isBroken { text.append(" < …") }
  }

  private func appendFrame(
    _ number: UInt32, _ names: FunctionNames, to text: inout TextBuffer
  ) {
    if let wanted = names.find(number), wanted.pointee.textByteCount > 0 {
      return text.append(printable: names.name(wanted))
    }
    let row = pointee.rows.row(number)
    let address = row.pointee.address
    guard row.pointee.module != 0 else {
      text.append("0x")
      return text.append(hexadecimal: address)
    }
    let module = pointee.rows.modules.module(UInt32(row.pointee.module)).pointee
    let path = pointee.rows.modules.path(of: module)
    if path.isEmpty { appendProgram(to: &text) } else { text.append(printable: path.lastComponent) }
    // As the file has it, which is what tools take.
    text.append("+0x")
    text.append(hexadecimal: address &- module.loadBias)
  }
}
