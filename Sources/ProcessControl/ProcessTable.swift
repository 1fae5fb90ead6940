// SPDX-License-Identifier: Apache-2.0
// Finds the processes that would answer, and says of the others why they would not.

import CControlPage
import Glibc

/// What a person names when asking: a pid, a program or a systemd unit.
public enum Target: Hashable, Sendable, CustomStringConvertible {
  case pid(Int32)
  /// A program's or a unit's name; a unit with or without its `.service`.
  case name(String)

  public init(_ text: String) {
    if let pid = Int32(text), pid > 0 { self = .pid(pid) } else { self = .name(text) }
  }

  public var description: String {
    switch self {
    case .pid(let pid): "\(pid)"
    case .name(let name): name
    }
  }
}

/// The processes of this machine that heaptap may look at.
public struct ProcessTable: Sendable {
  public init() {}

  /// Every armed process, by pid. Those that may not be asked are there too, closed.
  public func armedProcesses() -> [ArmedProcess] {
    pids.compactMap { armedProcess($0) }
  }

  /// The armed processes that a target names, at least one.
  ///
  /// A name may stand for several processes: workers of one server, or the processes of a unit.
  /// Those that are not armed are passed over as long as one is; where none is, the error says why.
  public func processes(_ target: Target) throws(ProcessControlError) -> [ArmedProcess] {
    switch target {
    case .pid(let pid): return [try process(pid)]
    case .name(let name):
      let candidates = pids.filter { $0 != getpid() && matches(ProcessFacts(pid: $0), name) }
      var armed = candidates.compactMap { armedProcess($0) }
      // A program that renamed itself is still known by the name that its tracer noted.
      let known = Set(armed.map(\.pid))
      armed += armedProcesses().filter { $0.program == name && !known.contains($0.pid) }
      if !armed.isEmpty { return armed.sorted { $0.pid < $1.pid } }
      guard let candidate = candidates.first else {
        throw ProcessControlError(
          .noSuchProcess,
          "no program or unit '\(name.plainText)' is running; 'heaptap list' shows what is armed")
      }
      return [try process(candidate)]
    }
  }

  private var pids: [Int32] {
    ((try? names(inDirectory: "/proc")) ?? []).compactMap { Int32($0) }.sorted()
  }

  private func matches(_ facts: ProcessFacts, _ name: String) -> Bool {
    facts.name == name || facts.executableName == name || facts.controlGroups.isInside(unit: name)
  }

  /// A process by pid, or the reason why it would not answer.
  func process(_ pid: Int32) throws(ProcessControlError) -> ArmedProcess {
    let handle = try ProcessHandle(pid)
    let facts = ProcessFacts(pid: pid)
    let program = (facts.executableName ?? facts.name ?? "?").plainText
    let place = "'\(program)' (pid \(pid))"
    let way = try way(into: facts, place)
    let unit = facts.controlGroups.unit?.plainText
    guard handle.isAlive else { throw ProcessControlError(.ended, "\(place) has ended") }
    var name = program
    if case .page(let page, _) = way, case let noted = page.text(\.program), !noted.isEmpty {
      name = noted
    }
    return ArmedProcess(pid: pid, program: name, unit: unit, handle: handle, way: way)
  }

  /// A process if it is armed, and cheaply `nil` for the many that are not.
  private func armedProcess(_ pid: Int32) -> ArmedProcess? {
    let facts = ProcessFacts(pid: pid)
    // Its mappings are read last: that takes a lock of the process, where a name takes none.
    guard !facts.workerThreads.isEmpty || (try? facts.environment())?["HEAPTAP"] != nil,
      let process = try? process(pid)
    else { return nil }
    return process
  }

  private func way(
    into facts: ProcessFacts, _ place: String
  ) throws(ProcessControlError) -> ArmedProcess.Way {
    for worker in facts.workerThreads {
      switch searchForPage(in: worker, of: facts, place) {
      case .found(let page): return .page(page, worker: worker)
      case .forbidden: return .closed(.notPermitted(place, owner: facts.status.userID))
      case .refused(let error): return .closed(error)
      case .nothing: continue
      }
    }
    return .signals(try signalSettings(of: facts, place))
  }

  private enum PageSearch {
    case found(ControlPage)
    /// Something has the name and is no page to be trusted.
    case refused(ProcessControlError)
    /// We may not look.
    case forbidden
    case nothing
  }

  /// Looks for the page in a worker thread's descriptor table.
  private func searchForPage(
    in worker: Int32, of facts: ProcessFacts, _ place: String
  ) -> PageSearch {
    let directory = "/proc/\(facts.pid)/task/\(worker)/fd"
    do throws(SystemError) {
      for name in try names(inDirectory: directory) {
        let path = "\(directory)/\(name)"
        // A file elsewhere may carry this name: `openFile` does not wait for it, the page's own
        // checks refuse it.
        guard let link = try? destination(ofLink: path),
          link == Self.pageLink || link == Self.pageLink + ProcessFacts.deleted
        else { continue }
        let descriptor = try openFile(path, O_RDWR)
        defer { close(descriptor) }
        let innerPID = facts.status.innermostPID ?? facts.pid
        let result = Result { () throws(ProcessControlError) in
          try ControlPage(descriptor: descriptor, pid: innerPID, place: place)
        }
        switch result {
        case .success(let page): return .found(page)
        case .failure(let error): return .refused(error)
        }
      }
      return .nothing
    } catch {
      return error.code == EACCES || error.code == EPERM ? .forbidden : .nothing
    }
  }

  private static let pageLink = "/memfd:heaptap-control"

  /// How a process without a page listens. Throws unless a handler is certainly there.
  private func signalSettings(
    of facts: ProcessFacts, _ place: String
  ) throws(ProcessControlError) -> SignalSettings {
    func notArmed(_ why: String) -> ProcessControlError {
      ProcessControlError(.notArmed, "\(place) is not armed: \(why)")
    }
    let environment: ProcessEnvironment
    let isMapped: Bool
    do {
      isMapped = try facts.isTracerMapped()
      environment = try facts.environment()
    } catch {
      throw .notPermitted(place, owner: facts.status.userID)
    }
    guard isMapped else {
      throw notArmed(
        "libheaptap.so is not loaded; start it with HEAPTAP=1 and LD_PRELOAD=…, or see heaptap(7)")
    }
    switch environment["HEAPTAP"] {
    case nil:
      throw notArmed("libheaptap.so is loaded, and HEAPTAP is not set; restart it with HEAPTAP=1")
    case "0": throw notArmed("it was started with HEAPTAP=0; restart it with HEAPTAP=1")
    default: break
    }
    let named = environment["HEAPTAP_SIGNALS"]
    guard let settings = named.map({ SignalSettings($0) }) ?? .standard else {
      throw notArmed(
        "it has no control page, and HEAPTAP_SIGNALS is '\(named!.plainText)', so nothing reaches it"
      )
    }
    let status = facts.status
    guard status.hasHandler(for: settings.toggle), status.hasHandler(for: settings.snapshot) else {
      throw notArmed(
        "libheaptap.so is loaded, and has neither a control page nor its signal handlers;"
          + " what it logged when it started says why")
    }
    return settings
  }
}
