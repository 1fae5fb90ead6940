// SPDX-License-Identifier: Apache-2.0
// A service that tells of the process's heap for as long as the process serves.

#if Service
  import Heaptap
  import Logging
  import ServiceLifecycle

  /// A service that logs how large the heap is, and which lines have grown once it has grown by so much.
  ///
  ///     let services = ServiceGroup(
  ///       services: [server, HeapReporter(logger: logger, metrics: HeapMetrics())],
  ///       gracefulShutdownSignals: [.sigterm], logger: logger)
  ///     try await services.run()
  ///
  /// Every interval it reads the figures, sets the gauges and logs one entry. When the heap has grown by
  /// `growthByteCount` since the last comparison, it takes a snapshot, logs the lines that grew, and
  /// compares with that one from there on. When it is asked to shut down it looks a last time, and stops
  /// recording if it had begun it.
  ///
  /// Where somebody else has stopped recording it waits until recording begins again, and then starts from
  /// there.
  public struct HeapReporter: Service {
    /// What to do in a process that has no tracer, or whose tracer is off.
    public enum MissingTracer: Hashable, Sendable {
      /// Logs a warning that says how to get one, and does nothing until shutdown: a service that ends
      /// would end the others with it.
      case stayIdle
      /// Throws the `HeapTracerError`, so that the group of services does what it does on errors.
      case fail
    }

    /// When and how to tell of the heap.
    public struct Configuration: Sendable {
      /// The time from one look to the next.
      public var interval: Duration = .seconds(60)
      /// By how much the heap has to grow for its lines to be looked at, in bytes; `nil` for never. A
      /// snapshot stays in memory for the next comparison: some 100 bytes for each distinct stack.
      public var growthByteCount: Int? = 16 << 20
      /// How many lines that grew to log.
      public var lineLimit = 5
      /// Whether to start recording where nothing is recorded; otherwise it waits for somebody to do so.
      public var startsRecording = true
      /// How many frames of a stack a recording keeps that it starts; `nil` for what `HEAPTAP_DEPTH`
      /// says, or 64.
      public var depth: Int?
      /// The level of entries that tell of size.
      public var level: Logger.Level = .info
      /// The level of entries that tell of growth.
      public var growthLevel: Logger.Level = .notice
      /// What to do where nothing can be recorded.
      public var missingTracer: MissingTracer = .stayIdle

      /// A look a minute, and the lines after every 16 MiB.
      public init() {}
    }

    private let logger: Logger
    private let metrics: HeapMetrics?
    private let configuration: Configuration

    /// - Parameters:
    ///   - logger: What is told. Figures are in the metadata.
    ///   - metrics: Gauges to be set at each look.
    ///   - configuration: When, and what of.
    public init(
      logger: Logger, metrics: HeapMetrics? = nil, configuration: Configuration = Configuration()
    ) {
      self.logger = logger
      self.metrics = metrics
      self.configuration = configuration
    }

    /// Looks until the service is shut down or its task is cancelled.
    ///
    /// Throws a `HeapTracerError` where there is no tracer and the configuration says so; what goes wrong
    /// later is logged.
    public func run() async throws {
      var isOurs = false
      do throws(HeapTracerError) {
        isOurs = try !HeapTracer.figures().isRecording && configuration.startsRecording
        if isOurs { try HeapTracer.start(depth: configuration.depth) }
      } catch {
        if configuration.missingTracer == .fail { throw error }
        logger.warning("the heap is not reported, \(error)")
        try? await gracefulShutdown()
        return
      }
      var watch = HeapWatch(growthByteCount: configuration.growthByteCount)
      repeat {
        await look(with: &watch)
        try? await cancelWhenGracefulShutdown { try await Task.sleep(for: configuration.interval) }
      } while !Task.isCancelled && !Task.isShuttingDownGracefully
      await look(with: &watch)
      // Whoever has stopped and started it meanwhile will stop it.
      if isOurs && !watch.wasInterrupted { try? HeapTracer.stop() }
    }

    private func look(with watch: inout HeapWatch) async {
      do throws(HeapTracerError) {
        let figures = try HeapTracer.figures()
        metrics?.update(with: figures)
        let growth = try await watch.look(at: figures)
        guard figures.isRecording else {
          logger.log(level: configuration.level, "the heap is not recorded")
          return
        }
        logger.log(
          level: configuration.level,
          "heap: \(ByteCount(figures.liveBytes)) in \(figures.liveBlocks) blocks, peak \(ByteCount(figures.peakBytes)), tracer \(ByteCount(figures.tracerBytes))",
          metadata: [
            "heap.live_bytes": "\(figures.liveBytes)", "heap.live_blocks": "\(figures.liveBlocks)",
            "heap.peak_bytes": "\(figures.peakBytes)",
            "heap.tracer_bytes": "\(figures.tracerBytes)",
            "heap.lost_blocks": "\(figures.lostBlocks)",
          ])
        guard let growth else { return }
        let lines = growth.lines.prefix(configuration.lineLimit)
        logger.log(
          level: configuration.growthLevel,
          "heap grew by \(ByteCount(growth.addedBytes))\(lines.map { "\n  \($0)" }.joined())",
          metadata: [
            "heap.added_bytes": "\(growth.addedBytes)",
            "heap.lines": .array(lines.map { "\($0)" }),
          ])
      } catch {
        logger.warning("the heap is not reported this time, \(error)")
      }
    }
  }
#else
  /// The product's sources are compiled for who asks for them.
  @available(
    *, unavailable,
    message: "ask for the trait: .package(url: …/heaptap, from: …, traits: [\"Service\"])"
  )
  public struct HeapReporter {}

  /// The product's sources are compiled for who asks for them.
  @available(
    *, unavailable,
    message: "ask for the trait: .package(url: …/heaptap, from: …, traits: [\"Service\"])"
  )
  public struct HeapMetrics {}
#endif
