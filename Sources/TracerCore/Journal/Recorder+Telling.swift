// SPDX-License-Identifier: Apache-2.0
// What is told of a dump.

import CTracerPlatform
import Synchronization

/// Where a dump is, or why it is nowhere.
enum DumpPlace {
  case path(UnsafeRawBufferPointer)
  case problem(UnsafeRawBufferPointer)

  var path: UnsafeRawBufferPointer {
    if case .path(let path) = self { return path }
    return UnsafeRawBufferPointer(start: nil, count: 0)
  }
}

extension UnsafeMutablePointer where Pointee == Core {
  /// Tells of the dump that was made last, in the memory that it was made in.
  func tell(_ trigger: DumpTrigger, _ event: NoticeEvent, _ place: DumpPlace) {
    guard pointee.settings.log != .off else { return }
    let figures = figures(trigger)
    let summary = makeSummary(nameMeans(trigger))
    var message = TextBuffer(pointee.dumps.text, capacity: DumpState.textByteCount)
    appendHeadline(figures, place, to: &message)
    append(summary, to: &message)
    notify(event, message.bytes, dump: place.path, figures: figures, sites: summary)
  }

  /// `12 MiB traced in 4711 blocks, +3 MiB since the snapshot before, 83 % of 64 MiB is used
  /// (/sys/fs/cgroup/memory.max); written to '/var/lib/heaptap/…'`; of samples, `about 12 MiB (±2 MiB)`.
  private func appendHeadline(
    _ figures: NoticeFigures, _ place: DumpPlace, to message: inout TextBuffer
  ) {
    if figures.sampleBytes != 0 { message.append("about ") }
    message.append(byteCount: figures.liveBytes)
    if figures.sampleBytes != 0 {
      message.append(" (±")
      message.append(byteCount: figures.liveErrorBytes)
      message.append(")")
    }
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
    switch place {
    case .path(let path):
      message.append("; written to '")
      message.append(printable: path)
      message.append("'")
    case .problem(let problem):
      message.append("; no dump: ")
      message.append(problem)
    }
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
      lost: counterValues().lost, leftOutBytes: pointee.dumps.leftOutBytes, trigger: trigger,
      sampleBytes: samplingByteCount, liveErrorBytes: last.errorBytes)
  }

  /// What may be done for names without harm.
  private func nameMeans(_ trigger: DumpTrigger) -> NameMeans {
    let reading = pointee.limits.reading
    let isShort =
      reading.isKnown
      && (reading.headroom < NameMeans.enoughHeadroom || reading.headroom < reading.rate / 4)
    switch trigger {
    case _ where isShort: return .mapped
    // A thread that is ending may have been interrupted inside malloc, and wait for this.
    case .exit, .terminated: return .files
    case .signal, .control, .stop, .api, .limit: return .all
    }
  }
}

extension NameMeans {
  /// With less than this below the limit, or less than a quarter of a second at the present rate, no
  /// file is read and nothing is allocated for a name.
  static var enoughHeadroom: UInt64 { 8 << 20 }
}
