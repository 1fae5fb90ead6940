// SPDX-License-Identifier: Apache-2.0
// Answers a question about one file: find it, verify it, look its addresses up.

/// Finds the file of a request and names what lies at its offsets.
///
/// In order of what they tell: debug information (inlined calls and lines), then the symbol table,
/// then nothing. A file that is not the one that was traced tells nothing: names from another
/// build would be believed.
struct ModuleLookup {
  private let request: ModuleRequest
  private var findings: [Finding] = []

  private init(_ request: ModuleRequest) {
    self.request = request
  }

  static func answer(to request: ModuleRequest) -> ModuleAnswer {
    var lookup = ModuleLookup(request)
    var answer = ModuleAnswer(offsetCount: request.offsets.count)
    if let found = lookup.find() {
      answer.calls = lookup.calls(in: found)
    }
    answer.findings = lookup.findings
    return answer
  }

  // MARK: Finding

  private struct Found {
    var file: ObjectFile
    /// Whether this is the file that was mapped, or only its debug file.
    var isMappedFile: Bool

    func address(ofFileOffset offset: UInt64, request: ModuleRequest) -> UInt64? {
      isMappedFile
        ? file.address(ofFileOffset: offset)
        : file.address(ofFileOffset: offset, mappedFrom: request.mappingOffset)
    }
  }

  private mutating func find() -> Found? {
    var trouble = Finding.missing
    for root in request.roots {
      do {
        let path = root.asRoot + request.path.withoutDeletionMark
        let file = try ObjectFile(path: path, roots: request.roots, detail: request.detail)
        let buildID = file.buildID
        switch (request.buildID.isEmpty, buildID.isEmpty) {
        case (true, true): findings.append(.noBuildID)
        case (true, false): findings.append(.buildIDNotRecorded)
        case (false, _):
          guard buildID == request.buildID else {
            trouble = .changed(buildID: buildID)
            continue
          }
        }
        return Found(file: file, isMappedFile: true)
      } catch .system(let error) where error.isNotFound {
        continue
      } catch {
        // A later root may still have the file, and another build found says more than this.
        if trouble == .missing { trouble = .unreadable(reason: error.reason) }
      }
    }
    if let found = findByBuildID() { return found }
    findings.append(trouble)
    return nil
  }

  /// The file, or its debug file, from where files are kept by build ID.
  private func findByBuildID() -> Found? {
    guard request.buildID.utf8.count > 2 else { return nil }
    let name = "\(request.buildID.prefix(2))/\(request.buildID.dropFirst(2))"
    let debugFiles = request.roots.map { "\($0.asRoot)/usr/lib/debug/.build-id/\(name).debug" }
    let mappedFile = try? ObjectFile(
      buildID: request.buildID, roots: request.roots, detail: request.detail)
    if let mappedFile, mappedFile.buildID == request.buildID {
      return Found(file: mappedFile, isMappedFile: true)
    }
    for path in debugFiles {
      if let file = try? ObjectFile(path: path, roots: request.roots, detail: request.detail),
        file.buildID == request.buildID
      {
        return Found(file: file, isMappedFile: false)
      }
    }
    return nil
  }

  // MARK: Looking up

  private mutating func calls(in found: Found) -> [[Call]] {
    let debugInformation = request.detail == .lines ? DebugInformation(of: found.file) : nil
    var names = FunctionNames(of: found.file, demangler: Demangler(style: request.style))
    let calls = request.offsets.map { offset -> [Call] in
      guard let address = found.address(ofFileOffset: offset, request: request) else { return [] }
      var calls = debugInformation?.calls(at: address, names: &names) ?? []
      // Also where a line is known and its function is not: assembly.
      if calls.last?.function == nil, let function = names.symbol(at: address) {
        if calls.isEmpty { calls.append(Call()) }
        calls[calls.count - 1].function = function
      }
      return calls
    }
    if request.detail == .lines {
      if debugInformation?.isDamaged == true {
        findings.append(.damagedDebugInformation)
      } else if debugInformation?.isEmpty != false {
        let isCompressed = found.file.hasUnreadableCompression
        findings.append(isCompressed ? .unreadableCompression : .noDebugInformation)
      }
      if let path = debugInformation?.missingSplitFile {
        findings.append(.splitFileMissing(path: path))
      }
      if let path = debugInformation?.missingSharedFile {
        findings.append(.sharedFileMissing(path: path))
      }
    }
    return calls
  }
}

extension String {
  /// The path as it was before the kernel marked it in `/proc/PID/maps`.
  ///
  /// A package upgrade leaves this mark, and a new file at the path: the build ID tells.
  fileprivate var withoutDeletionMark: String {
    let mark = " (deleted)"
    return hasSuffix(mark) ? String(dropLast(mark.count)) : self
  }
}
