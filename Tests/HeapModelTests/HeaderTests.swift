// SPDX-License-Identifier: Apache-2.0
// What a dump says of itself, read back.

import HeapModel
import Testing

@Suite struct HeaderTests {
  @Test func `comments become pairs and comments again`() {
    for comment in ["pid=12", "unit=a=b.service", "empty=", "a remark", "", "=odd"] {
      #expect(Header.Entry(comment: comment).comment == comment)
    }
    #expect(Header.Entry(comment: "unit=a=b").value == "a=b")
    #expect(Header.Entry(comment: "a remark").key == "")
    #expect(Header.Entry(comment: "=odd").value == "=odd")
  }

  @Test func `setting keeps the place, and removes`() {
    var header: Header = ["a": "1", "b": "2"]
    header["a"] = "3"
    header["c"] = "4"
    #expect(header.entries.map(\.comment) == ["a=3", "b=2", "c=4"])
    header["b"] = nil
    #expect(header.entries.map(\.comment) == ["a=3", "c=4"])
    #expect(header["b"] == nil)
  }

  @Test func `a damaged value is absent, not zero`() {
    let header: Header = ["pid": "12x", "live_bytes": "", "depth": "-1", "peak_bytes": "1e9"]
    #expect(header.pid == nil)
    #expect(header.liveBytes == nil)
    #expect(header.peakBytes == nil)
    #expect(header.depthLimit == -1)
  }

  @Test func `a duration is by the clock that nobody sets`() {
    #expect(
      Header(dictionaryLiteral: ("start_monotonic_ns", "5"), ("dump_monotonic_ns", "12"))
        .durationNanoseconds == 7)
    #expect(
      Header(
        dictionaryLiteral: ("start_monotonic_ns", "\(Int.min)"), ("dump_monotonic_ns", "12")
      ).durationNanoseconds == nil)
  }

  @Test func `generations have the times they began`() {
    let header: Header = ["generation.1": "10,20", "generation.x": "1,2", "generation.2": "11"]
    #expect(header.generationStarts.map(\.number) == [1])
    #expect(header.generationStarts.map(\.monotonicNanoseconds) == [20])
  }

  @Test func `the histogram's last row has no end`() {
    let header: Header = ["histogram": "16:2:20,32:x:1,more:1:5000"]
    #expect(
      header.histogram == [
        .init(limitBytes: 16, blocks: 2, bytes: 20),
        .init(limitBytes: nil, blocks: 1, bytes: 5000),
      ])
    #expect(Header().histogram.isEmpty)
  }

  @Test func `the reconciliation says what it leaves unexplained`() {
    let header: Header = [
      "usage_bytes": "100", "usage_source": "/proc/self/statm", "reconcile.traced_bytes": "60",
      "reconcile.before_bytes": "45", "reconcile.other_bytes": "-6",
    ]
    #expect(header.reconciliation?.parts.map(\.name) == ["traced", "before", "other"])
    #expect(header.reconciliation?.unexplainedBytes == 1)
    #expect(Header().reconciliation == nil)
  }

  @Test func `losses are found by name, unknown ones too`() {
    let header: Header = [
      "lost.sites": "3", "lost.newly_invented": "1", "truncated_stacks": "0",
      "broken_stacks": "2", "sites": "9", "sites_omitted": "4",
    ]
    #expect(
      header.losses == [
        .init(key: "lost.sites", count: 3), .init(key: "lost.newly_invented", count: 1),
        .init(key: "truncated_stacks", count: 0), .init(key: "broken_stacks", count: 2),
        .init(key: "sites_omitted", count: 4),
      ])
  }
}

@Suite struct ByteCountTests {
  @Test(arguments: [
    // tracemalloc's own.
    (0, "0 B"), (10, "10 B"), (10239, "10239 B"), (10240, "10.0 KiB"), (100 << 10, "100 KiB"),
    (10 << 20, "10.0 MiB"), (-66, "-66 B"), (-10240, "-10.0 KiB"),
    // Python 3.11's answers, where rounding is close.
    (102_348, "99.9 KiB"), (102_349, "100.0 KiB"), (102_399, "100.0 KiB"),
    (10_485_759, "10240 KiB"),
    (10752, "10.5 KiB"), (10496, "10.2 KiB"), (11008, "10.8 KiB"), (10_291, "10.0 KiB"),
    (10_292, "10.1 KiB"), (1 << 40, "1024 GiB"), (10 << 40, "10.0 TiB"),
    (20_000 << 40, "20000 TiB"), (.max, "8388608 TiB"), (.min, "-8388608 TiB"),
  ])
  func `as tracemalloc prints it`(bytes: Int, text: String) {
    #expect(ByteCount(bytes).description == text)
  }

  @Test(arguments: [(0, "+0 B"), (5000, "+5000 B"), (-66, "-66 B"), (10240, "+10.0 KiB")])
  func `with a sign for differences`(bytes: Int, text: String) {
    #expect(ByteCount(bytes).signed == text)
  }

  @Test func `an average is rounded to the even byte`() {
    #expect(ByteCount(2.5).description == "2 B")
    #expect(ByteCount(3.5).description == "4 B")
    #expect(ByteCount(0.4).description == "0 B")
  }
}
