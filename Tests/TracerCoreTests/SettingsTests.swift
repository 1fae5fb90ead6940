// SPDX-License-Identifier: Apache-2.0
// Settings: what is understood, and what is refused with one sentence.

import CTracerPlatform
import Glibc
import Testing

@testable import TracerCore

@Suite struct SettingsTests {
  /// Reads variables; the name of the one that was refused, or the settings.
  private func read(_ variables: String...) -> (settings: Settings, refused: String?) {
    var settings = Settings()
    var copies = variables.map { strdup($0).map { UnsafePointer($0) } }
    copies.append(nil)
    let problem = copies.withUnsafeMutableBufferPointer {
      settings.read($0.baseAddress!, signalRange: 34...64)
    }
    return (settings, problem.map { "\($0.variable)" })
  }

  @Test func `nothing asked for is nothing done`() {
    let (settings, refused) = read("PATH=/bin", "HEAPTAPX=1")
    #expect(refused == nil)
    #expect(settings.mode == .unset)
    #expect(settings.depth == 64)
    #expect(settings.startSignal == SIGUSR1)
    #expect(settings.snapshotSignal == SIGUSR2)
    #expect(settings.looksForTypes && !settings.tellsThreads)
  }

  @Test func `every variable is read`() {
    let (settings, refused) = read(
      "HEAPTAP=record", "HEAPTAP_DEPTH=10", "HEAPTAP_SIGNALS=RTMIN+3,SIGRTMIN+4",
      "HEAPTAP_DIR=/srv/dumps", "HEAPTAP_LOG=off", "HEAPTAP_EXIT=dump", "HEAPTAP_CHILDREN=0",
      "HEAPTAP_RUN=123", "HEAPTAP_LIMIT=70%,90%,512M", "HEAPTAP_START=60%",
      "HEAPTAP_KEEP=4,64M", "HEAPTAP_TYPES=0", "HEAPTAP_THREADS=1", "HEAPTAP_SAMPLE=512K")
    #expect(refused == nil)
    #expect(settings.mode == .recording)
    #expect(settings.depth == 10)
    #expect(settings.startSignal == 37)
    #expect(settings.snapshotSignal == 38)
    #expect(settings.directoryByteCount == 10)
    #expect(settings.log == .off)
    #expect(settings.dumpsAtExit)
    #expect(!settings.tracesChildren)
    #expect(settings.runner == 123)
    #expect(!settings.looksForTypes && settings.tellsThreads)
    #expect(settings.sampleByteCount == 512 << 10)
    #expect(settings.limitMarks.count == 3)
    #expect(settings.limitMarks[1].percent == 90)
    #expect(settings.limitMarks[2].bytes == 512 << 20)
    #expect(settings.startMark.percent == 60)
    #expect((settings.retention.count, settings.retention.bytes) == (4, 64 << 20))
  }

  @Test func `to look for leaks is to dump at the end`() {
    for variables in [["HEAPTAP_LEAKS=1", "HEAPTAP_EXIT="], ["HEAPTAP_EXIT=", "HEAPTAP_LEAKS=1"]] {
      let (settings, refused) = read(variables[0], variables[1])
      #expect(refused == nil && settings.looksForLeaks && settings.dumpsAtExit)
    }
    let (settings, _) = read("HEAPTAP_LEAKS=0")
    #expect(!settings.looksForLeaks && !settings.dumpsAtExit)
  }

  @Test(arguments: [
    "HEAPTAP_LEAKS=2", "HEAPTAP_LEAKS=", "HEAPTAP_TYPES=2", "HEAPTAP_TYPES=", "HEAPTAP_THREADS=yes",
    "HEAPTAP_THREADS=",
    "HEAPTAP=2", "HEAPTAP=yes", "HEAPTAP_DEPTH=0", "HEAPTAP_DEPTH=-1", "HEAPTAP_DEPTH=1073741824",
    "HEAPTAP_DEPTH=1025", "HEAPTAP_DEPTH=abc", "HEAPTAP_DEPTH=", "HEAPTAP_DEPTH=10x",
    "HEAPTAP_SIGNALS=USR1", "HEAPTAP_SIGNALS=USR1,USR1", "HEAPTAP_SIGNALS=KILL,USR1",
    "HEAPTAP_SIGNALS=RTMIN+31,USR1", "HEAPTAP_SIGNALS=USR1,USR2,USR1", "HEAPTAP_DIR=relative",
    "HEAPTAP_LOG=loud", "HEAPTAP_EXIT=yes", "HEAPTAP_CHILDREN=2", "HEAPTAP_RUN=me",
    "HEAPTAP_LIMIT=0%", "HEAPTAP_LIMIT=101%", "HEAPTAP_LIMIT=80%,", "HEAPTAP_LIMIT=80",
    "HEAPTAP_START=60", "HEAPTAP_LIMIT=80 %",
    "HEAPTAP_LIMIT=1%,2%,3%,4%,5%,6%,7%,8%,9%", "HEAPTAP_LIMIT=never",
    "HEAPTAP_LIMIT=9999999999999T", "HEAPTAP_START=60%,70%", "HEAPTAP_START=on",
    "HEAPTAP_KEEP=0", "HEAPTAP_KEEP=1,2", "HEAPTAP_KEEP=1M,2M", "HEAPTAP_KEEP=all",
  ])
  func `a bad value names its variable`(variable: String) {
    let (_, refused) = read("HEAPTAP_LOG=stderr", variable)
    #expect(refused == variable.split(separator: "=").first.map(String.init))
  }

  @Test func `a limit is watched unless that is switched off`() {
    #expect(read().settings.limitMarks.count == 1)
    #expect(read().settings.limitMarks[0].percent == 80)
    #expect(!read().settings.startMark.isSet)
    #expect(read("HEAPTAP_LIMIT=off").settings.limitMarks.count == 0)
    #expect(read("HEAPTAP_START=off").settings.startMark.isSet == false)
    #expect(read("HEAPTAP_KEEP=off").settings.retention.keepsAll)
    // Who names one of the two has the other without a bound.
    #expect(read("HEAPTAP_KEEP=3").settings.retention.bytes == UInt64.max)
    #expect(read("HEAPTAP_KEEP=1G").settings.retention.count == UInt64.max)
  }

  @Test func `signals can be left alone`() {
    #expect(read("HEAPTAP_SIGNALS=none").settings.startSignal == 0)
  }

  @Test func `signals are told as they are asked for`() {
    let settings = read("HEAPTAP_SIGNALS=RTMIN+3,USR2").settings
    #expect(text { settings.describeSignals(into: &$0, minimum: 34) } == "RTMIN+3,USR2")
  }

  @Test(arguments: [
    ("/a/libheaptap.so", ""), ("/a/libheaptap.so:/b/c.so", "/b/c.so"),
    ("/b/c.so:/a/libheaptap.so", "/b/c.so"), ("/b/c.so /a/libheaptap.so /d.so", "/b/c.so /d.so"),
    ("libheaptap.so:libheaptap.so", ""), ("/b/libheaptap.so.old", "/b/libheaptap.so.old"),
    ("/b/c.so", "/b/c.so"), ("", ""),
  ])
  func `our entry goes from LD_PRELOAD and the others stay`(list: String, left: String) {
    let copy = strdup(list)!
    Preload.removeOwnEntry(fromList: copy)
    #expect(String(cString: copy) == left)
    free(copy)
  }
}

/// What a body writes.
func text(_ body: (inout TextBuffer) -> Void) -> String {
  let bytes = UnsafeMutableRawPointer.allocate(byteCount: 256, alignment: 8)
  defer { bytes.deallocate() }
  var buffer = TextBuffer(bytes, capacity: 256)
  body(&buffer)
  return String(decoding: buffer.bytes, as: UTF8.self)
}
