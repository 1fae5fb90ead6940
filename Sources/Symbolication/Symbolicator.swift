// SPDX-License-Identifier: Apache-2.0
// Turns addresses of a traced process into functions, files and lines.

import HeapModel

/// Names the frames of a snapshot, by the files that the traced process had mapped.
///
/// Works on any machine that has the files or can get them: they are found by path, by build ID
/// under `/usr/lib/debug`, or from a debuginfod server if `DEBUGINFOD_URLS` names one. A file of
/// another build than the one that was traced is refused, since its names would be believed.
public struct Symbolicator: Sendable {
  /// Where the files are read.
  ///
  /// They may come from anywhere, and libdw has crashed on less. Choose `.subprocess` for whatever
  /// must not die of a damaged file.
  public enum Worker: Sendable, Equatable {
    /// An executable that calls `runSymbolicationWorker()`. When it dies of a file, the names of
    /// that file are lost and a fresh one goes on with the next.
    case subprocess(executable: String, arguments: [String])
    /// Here and now, without limits.
    case inProcess
  }

  /// The frames with what is known of them, and what the user should know of the rest.
  public struct Outcome: Sendable, Equatable {
    /// For each frame asked about, in that order, the calls at its address, innermost first.
    ///
    /// There is always at least one: where nothing is known, the frame as it was.
    public var frames: [[Frame]]
    /// Sentences, each about files that gave less than they might have. Ordered and not repeated.
    public var warnings: [String]
  }

  public var worker: Worker
  /// Directories that stand for `/`, tried in order: containers' roots, unpacked sysroots. Debug
  /// files are looked for under each one's `/usr/lib/debug`.
  public var roots: [String]
  /// How much of a Swift name to show.
  public var style: Demangler.Style
  /// How long a worker may take over one file, downloads included. Not for `.inProcess`.
  public var secondsPerFile: UInt32
  /// Where findings are kept for the next time; `nil`: nowhere.
  public var cache: SymbolCache?

  public init(
    worker: Worker, roots: [String] = ["/"], style: Demangler.Style = .simplified,
    secondsPerFile: UInt32 = 120, cache: SymbolCache? = nil
  ) {
    self.worker = worker
    self.roots = roots
    self.style = style
    self.secondsPerFile = secondsPerFile
    self.cache = cache
  }

  /// Names frames. Never fails: what cannot be named stays an address, and a warning says why.
  ///
  /// Each file is opened once for a call of this, so pass the distinct frames of all snapshots
  /// together. Frames that have a function already, and those in no module or in memory that is
  /// not a file's (`[vdso]`, code made at run time), come back as they are, without a warning.
  ///
  /// - Parameter modules: What the frames' module numbers count.
  public func symbolicate(_ frames: [Frame], modules: [Module]) -> Outcome {
    var outcome = Outcome(frames: frames.map { [$0] }, warnings: [])
    var warnings = WarningList()
    var reader = FileReader(symbolicator: self)
    for file in FileOfFrames.grouped(frames, modules: modules) {
      let answer = reader.calls(in: file, warnings: &warnings)
      for (index, offset) in file.offsetByFrame {
        let calls = answer[file.position(of: offset)]
        guard !calls.isEmpty else { continue }
        outcome.frames[index] = calls.indices.map {
          Frame(frames[index], call: calls[$0], isInlined: $0 < calls.count - 1)
        }
      }
    }
    outcome.warnings = warnings.sentences
    return outcome
  }
}

extension Frame {
  fileprivate init(_ frame: Frame, call: Call, isInlined: Bool) {
    self.init(
      address: frame.address, module: frame.module, function: call.function, file: call.file,
      line: call.line, isInlined: isInlined)
  }
}

/// The frames that lie in one file: it may have been mapped several times, and at other addresses
/// in each process.
private struct FileOfFrames {
  var name: String
  var path: String
  var buildID: String
  /// Where the first executable mapping of the file began.
  var mappingOffset: UInt64
  /// Frames by their number, with the offset of a byte of the call instruction.
  var offsetByFrame: [(frame: Int, offset: UInt64)] = []
  /// Those offsets, sorted, each once.
  var offsets: [UInt64] = []

  static func grouped(_ frames: [Frame], modules: [Module]) -> [FileOfFrames] {
    struct Key: Hashable {
      var path: String
      var buildID: String
    }
    var files: [FileOfFrames] = []
    var numbers: [Key: Int] = [:]
    let numberByModule = modules.map { module -> Int? in
      guard module.isBackedByFile else { return nil }
      let key = Key(path: module.path, buildID: module.buildID)
      if let number = numbers[key] {
        files[number].mappingOffset = min(files[number].mappingOffset, module.fileOffset)
        return number
      }
      numbers[key] = files.count
      files.append(
        FileOfFrames(
          name: String(module.name), path: module.path, buildID: module.buildID,
          mappingOffset: module.fileOffset))
      return files.count - 1
    }
    for (index, frame) in frames.enumerated() {
      guard frame.function == nil, let number = frame.module, modules.indices.contains(number),
        let file = numberByModule[number]
      else { continue }
      let module = modules[number]
      // The return address may be the next function's first, after a call that never returns.
      let call = frame.address &- 1
      guard call >= module.start, call < module.limit else { continue }
      files[file].offsetByFrame.append((index, module.fileOffset(of: call)))
    }
    return files.filter { !$0.offsetByFrame.isEmpty }.map { file in
      var file = file
      file.offsets = Set(file.offsetByFrame.map(\.offset)).sorted()
      return file
    }
  }

  /// The answer that knows of no call.
  var nothing: [[Call]] { Array(repeating: [], count: offsets.count) }

  /// Where an offset is among the sorted ones.
  func position(of offset: UInt64) -> Int {
    var low = 0
    var high = offsets.count
    while low < high {
      let middle = (low + high) / 2
      if offsets[middle] < offset { low = middle + 1 } else { high = middle }
    }
    return low
  }
}

/// Reads files, in this process or in workers, one after the other.
private struct FileReader: ~Copyable {
  /// How long a worker may take to say anything. It has only itself to load.
  private static let greetingSecondsLimit: UInt32 = 30

  private let symbolicator: Symbolicator
  private var worker: WorkerProcess?
  /// A worker that cannot be had for one file cannot be had for the next.
  private var isHopeless = false

  init(symbolicator: Symbolicator) {
    self.symbolicator = symbolicator
  }

  /// The calls at each of a file's offsets, as far as they are known or can be found.
  mutating func calls(in file: FileOfFrames, warnings: inout WarningList) -> [[Call]] {
    guard let cache = symbolicator.cache, !file.buildID.isEmpty else {
      return found(in: file, at: file.offsets, &warnings)?.calls ?? file.nothing
    }
    let subject = SymbolCache.Subject(buildID: file.buildID, style: symbolicator.style)
    return calls(in: file, knowing: cache.known(about: subject), warnings: &warnings) {
      cache.keep($0, about: subject)
    }
  }

  private mutating func calls(
    in file: FileOfFrames, knowing known: KnownCalls?, warnings: inout WarningList,
    keep: (KnownCalls) -> Void
  ) -> [[Call]] {
    let circumstances = Circumstances.current(
      path: file.path, buildID: file.buildID, roots: symbolicator.roots)
    let valid = known.flatMap { $0.holds(under: circumstances) ? $0 : nil }
    let missing = valid?.missing(of: file.offsets) ?? file.offsets
    if let valid, missing.isEmpty {
      warnings.add(
        valid.answer.findings, about: file.path, name: file.name, buildID: file.buildID)
      return valid.calls(at: file.offsets)
    }
    let found = found(in: file, at: missing, &warnings)
    let fresh = found.flatMap {
      KnownCalls(offsets: missing, answer: $0, circumstances: circumstances)
    }
    if let fresh, valid.map({ $0.circumstances == fresh.circumstances }) ?? true {
      let all = valid?.merged(with: fresh) ?? fresh
      keep(all)
      return all.calls(at: file.offsets)
    }
    if let valid, !valid.isFinal, fresh?.isFinal == true {
      // There are lines by now, though nothing had changed where they were looked for.
      return calls(in: file, knowing: nil, warnings: &warnings, keep: keep)
    }
    // Another build lies at the path, or none, or it has lost its lines: what was known of the right
    // one is right still.
    guard let known else { return found?.calls ?? file.nothing }
    guard let found else { return known.calls(at: file.offsets) }
    return known.merged(with: KnownCalls(of: found, at: missing)).calls(at: file.offsets)
  }

  /// Has the file read, in this process or in a worker.
  private mutating func found(
    in file: FileOfFrames, at offsets: [UInt64], _ warnings: inout WarningList
  ) -> ModuleAnswer? {
    var request = ModuleRequest(
      path: file.path, buildID: file.buildID, roots: symbolicator.roots,
      style: symbolicator.style, detail: .lines, secondsLimit: symbolicator.secondsPerFile,
      mappingOffset: file.mappingOffset, offsets: offsets)
    guard !isHopeless else { return nil }
    do {
      let answer = try answer(to: request)
      warnings.add(answer.findings, about: file.path, name: file.name, buildID: file.buildID)
      return answer
    } catch {
      if let executable = symbolicator.worker.executable, error.isAboutEveryFile {
        isHopeless = true
        warnings.add(error, executable: executable)
        return nil
      }
      // It is nearly always the debug information, so the symbol table is worth another worker.
      request.detail = .symbols
      let answer = try? answer(to: request)
      warnings.add(
        error, name: file.name, hasSymbols: answer != nil,
        secondsLimit: symbolicator.secondsPerFile)
      // Not all that there is, so that it is not what is kept.
      return answer.map {
        var answer = $0
        answer.findings.append(.damagedDebugInformation)
        return answer
      }
    }
  }

  private mutating func answer(
    to request: ModuleRequest
  ) throws(WorkerFailure) -> ModuleAnswer {
    guard case .subprocess(let executable, let arguments) = symbolicator.worker else {
      return ModuleLookup.answer(to: request)
    }
    // Taken, so that a worker that fails is not asked again.
    var current: WorkerProcess
    if let running = worker.take() {
      current = running
    } else {
      current = try WorkerProcess.start(
        executable: executable, arguments: arguments,
        secondsLimit: min(request.secondsLimit, Self.greetingSecondsLimit))
    }
    let answer = try current.answer(to: request)
    worker = consume current
    return answer
  }
}

extension Symbolicator.Worker {
  fileprivate var executable: String? {
    if case .subprocess(let executable, _) = self { executable } else { nil }
  }
}

extension WorkerFailure {
  /// Whether the next worker would fail in the same way, whatever it is asked.
  fileprivate var isAboutEveryFile: Bool {
    switch self {
    case .cannotStart, .notAWorker: true
    case .crashed, .ended, .timedOut, .garbled: false
    }
  }
}
