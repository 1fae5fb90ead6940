// SPDX-License-Identifier: Apache-2.0
// The recording's figures as gauges.

#if Service
  import Heaptap
  import Metrics

  /// The recording's figures as gauges of swift-metrics:
  ///
  /// | gauge | |
  /// | --- | --- |
  /// | `heap_traced_bytes` | asked of malloc since recording began, and not freed |
  /// | `heap_traced_blocks` | |
  /// | `heap_traced_peak_bytes` | the most that the first has been |
  /// | `heap_tracked_bytes` | what `HeapTracer.track` has told of; in none of the above |
  /// | `heap_tracer_bytes` | the tracer's own memory |
  /// | `heap_lost_blocks` | not recorded, or without their stack |
  ///
  /// They say 0 while nothing is recorded.
  public struct HeapMetrics: Sendable {
    private let gauges: [(gauge: Gauge, figure: @Sendable (HeapFigures) -> Int)]

    /// - Parameters:
    ///   - dimensions: Of each gauge.
    ///   - factory: Where the gauges are made; `nil` for the one that the process was bootstrapped with.
    public init(dimensions: [(String, String)] = [], factory: (any MetricsFactory)? = nil) {
      let figures: [(String, @Sendable (HeapFigures) -> Int)] = [
        ("heap_traced_bytes", { $0.liveBytes }),
        ("heap_traced_blocks", { $0.liveBlocks }),
        ("heap_traced_peak_bytes", { $0.peakBytes }),
        ("heap_tracked_bytes", { $0.trackedBytes }),
        ("heap_tracer_bytes", { $0.tracerBytes }),
        ("heap_lost_blocks", { $0.lostBlocks }),
      ]
      let factory = factory ?? MetricsSystem.factory
      gauges = figures.map { label, figure in
        (Gauge(label: label, dimensions: dimensions, factory: factory), figure)
      }
    }

    /// Sets the gauges to what is now. Costs some microseconds.
    ///
    /// Throws where the process has no tracer; the gauges stay as they are.
    public func update() throws(HeapTracerError) { update(with: try HeapTracer.figures()) }

    /// Sets the gauges to figures that were read before.
    public func update(with figures: HeapFigures) {
      for (gauge, figure) in gauges { gauge.record(figure(figures)) }
    }
  }
#endif
