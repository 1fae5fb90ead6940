// SPDX-License-Identifier: Apache-2.0
// What is told of a dump that was written.

import CTracerPlatform
import Synchronization

extension UnsafeMutablePointer where Pointee == Core {
  /// Tells of the dump that was written last, in the memory that it was made in.
  func tellWritten(
    _ trigger: DumpTrigger, _ event: NoticeEvent, _ path: UnsafeRawBufferPointer
  ) {
    guard pointee.settings.log != .off else { return }
    let figures = figures(trigger)
    let summary = makeSummary(nameMeans(trigger))
    var message = TextBuffer(pointee.dumps.text, capacity: DumpState.textByteCount)
    appendHeadline(figures, path, to: &message)
    append(summary, to: &message)
    notify(event, message.bytes, dump: path, figures: figures, sites: summary)
  }

  /// `12 MiB traced in 4711 blocks, +3 MiB since the snapshot before, 83 % of 64 MiB is used
  /// (/sys/fs/cgroup/memory.max); written to '/var/lib/heaptap/…'`
  private func appendHeadline(
    _ figures: NoticeFigures, _ path: UnsafeRawBufferPointer, to message: inout TextBuffer
  ) {
    message.append(byteCount: figures.liveBytes)
    message.append(" traced in ")
    message.append(decimal: figures.liveBlocks)
    message.append(figures.liveBlocks == 1 ? " block" : " blocks")
    if !figures.isFirst {
      message.append(", ")
      append(signedByteCount: figures.grownBytes, to: &message)
      message.append(" since the snapshot before")
    }
    if pointee.limits.reading.isKnown {
      message.append(", ")
      appendFullness(to: &message)
    }
    if figures.leftOutBytes > 0 {
      message.append("; there was no room for sites with ")
      message.append(byteCount: figures.leftOutBytes)
    }
    message.append("; written to '")
    message.append(printable: path)
    message.append("'")
  }

  /// What the dump came to that was written last.
  func figures(_ trigger: DumpTrigger) -> NoticeFigures {
    let (last, previous) = (pointee.dumps.last, pointee.dumps.previous)
    return NoticeFigures(
      liveBytes: last.bytes, liveBlocks: last.blocks,
      peakBytes: max(
        last.bytes, UInt64(max(0, pointee.peakBytes.load(ordering: .relaxed)))),
      grownBytes: Int64(bitPattern: last.bytes &- previous.bytes),
      // The recording's first dump has begun its second generation.
      isFirst: pointee.generation.load(ordering: .relaxed) <= 2,
      lost: counterValues().lost, leftOutBytes: pointee.dumps.leftOutBytes, trigger: trigger)
  }

  /// What may be done for names without harm.
  private func nameMeans(_ trigger: DumpTrigger) -> NameMeans {
    let reading = pointee.limits.reading
    let isShort = reading.isKnown && reading.headroom < NameMeans.enoughHeadroom
    switch trigger {
    case _ where isShort: return .mapped
    // A thread that is ending may have been interrupted inside malloc, and wait for this.
    case .exit, .terminated: return .files
    case .signal, .control, .stop, .api, .limit: return .all
    }
  }
}

extension NameMeans {
  /// With less than this below the limit, no file is read and nothing is allocated for a name.
  static var enoughHeadroom: UInt64 { 16 << 20 }
}
