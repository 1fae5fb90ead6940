// SPDX-License-Identifier: Apache-2.0
// The file that was mapped, found again: the right build of it, with its debug information.

import CElfutils
import Glibc

/// An ELF file, opened by libdwfl together with the files that its debug information lies in.
///
/// libdwfl gives the file a place in an address space of its own: addresses here are in that
/// space, and `address(ofFileOffset:)` is the way into it.
@safe final class ObjectFile {
  /// A segment of the file that is loaded into memory.
  struct Segment {
    var fileOffsets: Range<UInt64>
    /// In libdwfl's address space.
    var addresses: Range<UInt64>
    var isExecutable: Bool
  }

  /// The file's module in libdwfl.
  let module: OpaquePointer
  /// The GNU build ID in lower-case hexadecimal; empty where there is none.
  let buildID: String
  let segments: [Segment]
  /// Where the file's code is in libdwfl's address space: its executable sections. A segment may
  /// also have the headers, and whatever else the linker put there.
  let code: [Range<UInt64>]
  private let session: DwflSession

  /// The file at a path.
  ///
  /// - Parameter detail: With `.symbols`, no debug file is looked for, and none is read.
  convenience init(
    path: String, roots: [String], detail: ModuleRequest.Detail
  ) throws(OpenError) {
    let descriptor: Descriptor
    do { descriptor = try Descriptor.open(regularFile: path) } catch { throw .system(error) }
    // libdwfl would also unpack compressed files, however large they become.
    guard descriptor.begins(with: [0x7f, 0x45, 0x4c, 0x46]),
      let session = DwflSession(roots: roots, detail: detail)
    else { throw .notAnObjectFile }

    // libdwfl closes the descriptor, but only if it makes a module of it.
    let number = descriptor.release()
    guard let module = unsafe dwfl_report_offline(session.handle, path, path, number) else {
      close(number)
      throw .notAnObjectFile
    }
    try unsafe self.init(session: session, module: module)
  }

  /// The file with a build ID, from the debug directories or from debuginfod.
  convenience init(
    buildID: String, roots: [String], detail: ModuleRequest.Detail
  ) throws(OpenError) {
    let bytes = buildID.hexadecimalBytes
    // libdwfl puts the file at the module's start. How long it is, it finds out.
    guard !bytes.isEmpty, let session = DwflSession(roots: roots, detail: detail),
      let module = unsafe dwfl_report_module(session.handle, buildID, 1 << 32, 1 << 46),
      unsafe dwfl_module_report_build_id(module, bytes, bytes.count, 0) == 0
    else { throw .notAnObjectFile }
    try unsafe self.init(session: session, module: module)
  }

  private init(
    session: consuming DwflSession, module: OpaquePointer
  ) throws(OpenError) {
    unsafe dwfl_report_end(session.handle, nil, nil)
    var bias: GElf_Addr = 0
    guard let elf = unsafe dwfl_module_getelf(module, &bias) else { throw .notAnObjectFile }
    unsafe self.module = module
    buildID = unsafe Self.buildID(of: elf)
    segments = unsafe Self.segments(of: elf, bias: bias)
    let sections = unsafe Self.executableSections(of: elf, bias: bias)
    // A file can do without sections. Then the segments will have to do.
    code = sections.isEmpty ? segments.filter(\.isExecutable).map(\.addresses) : sections
    self.session = session
  }

  enum OpenError: Error {
    case system(SystemError)
    case notAnObjectFile

    var reason: String {
      switch self {
      case .system(let error): error.description
      case .notAnObjectFile: "not an ELF file"
      }
    }
  }

  // MARK: Facts

  /// Where the byte at an offset of the file is in memory; `nil` where no segment loads it.
  func address(ofFileOffset offset: UInt64) -> UInt64? {
    let candidates = segments.filter { $0.fileOffsets.contains(offset) }
    guard let segment = candidates.first(where: \.isExecutable) ?? candidates.first else {
      return nil
    }
    return segment.addresses.lowerBound &+ (offset - segment.fileOffsets.lowerBound)
  }

  /// The same for a debug file, whose segments no longer say where in the file they were.
  ///
  /// Needs the offset at which the executable mapping began, and that there is one executable
  /// segment: then the two began together, on a page.
  func address(ofFileOffset offset: UInt64, mappedFrom mappingOffset: UInt64) -> UInt64? {
    let executable = segments.filter(\.isExecutable)
    guard executable.count == 1, offset >= mappingOffset else { return nil }
    let addresses = executable[0].addresses
    // The kernel maps whole pages; 4096 is right for every linker's default on x86-64, and on
    // AArch64 for every kernel with pages of that size.
    let address = (addresses.lowerBound & ~4095) &+ (offset - mappingOffset)
    return addresses.contains(address) ? address : nil
  }

  /// Whether there is debug information, in the file or its debug file, that libdw takes for none
  /// because of how it is compressed.
  var hasUnreadableCompression: Bool {
    var path: UnsafePointer<CChar>?
    var debugPath: UnsafePointer<CChar>?
    unsafe dwfl_module_info(module, nil, nil, nil, nil, nil, &path, &debugPath)
    let paths = unsafe [path, debugPath].compactMap { unsafe $0.map { unsafe String(cString: $0) } }
    return paths.contains { path in
      guard let file = try? Descriptor.open(regularFile: path),
        let elf = unsafe elf_begin(file.number, ELF_C_READ_MMAP, nil)
      else { return false }
      defer { unsafe elf_end(elf) }
      return unsafe Self.hasUnreadableCompression(elf)
    }
  }

  // MARK: libelf

  private static func hasUnreadableCompression(_ elf: OpaquePointer) -> Bool {
    var names = 0
    guard unsafe elf_getshdrstrndx(elf, &names) == 0 else { return false }
    var section = unsafe elf_nextscn(elf, nil)
    while let current = unsafe section {
      var header = GElf_Shdr()
      var compression = GElf_Chdr()
      if unsafe gelf_getshdr(current, &header) != nil,
        let name = unsafe elf_strptr(elf, names, Int(header.sh_name)),
        unsafe strcmp(name, ".debug_info") == 0,
        unsafe gelf_getchdr(current, &compression) != nil
      {
        return compression.ch_type != UInt32(ELFCOMPRESS_ZLIB)
      }
      unsafe section = elf_nextscn(elf, current)
    }
    return false
  }

  private static func buildID(of elf: OpaquePointer) -> String {
    var bytes: UnsafeRawPointer?
    let byteCount = unsafe dwelf_elf_gnu_build_id(elf, &bytes)
    guard byteCount > 0, let bytes = unsafe bytes else { return "" }
    return unsafe UnsafeRawBufferPointer(start: bytes, count: byteCount).reduce(into: "") {
      $0 += ($1 < 16 ? "0" : "") + String($1, radix: 16)
    }
  }

  private static func segments(of elf: OpaquePointer, bias: UInt64) -> [Segment] {
    var count = 0
    guard unsafe elf_getphdrnum(elf, &count) == 0 else { return [] }
    return (0..<min(count, Int(CInt.max))).compactMap { index in
      var header = GElf_Phdr()
      guard unsafe gelf_getphdr(elf, CInt(index), &header) != nil, header.p_type == PT_LOAD else {
        return nil
      }
      // Saturated: the numbers are a stranger's.
      let start = header.p_vaddr &+ bias
      return Segment(
        fileOffsets: header.p_offset..<header.p_offset.saturatingSum(header.p_filesz),
        addresses: start..<start.saturatingSum(header.p_memsz),
        isExecutable: header.p_flags & UInt32(PF_X) != 0)
    }
  }

  private static func executableSections(
    of elf: OpaquePointer, bias: UInt64
  ) -> [Range<UInt64>] {
    var sections: [Range<UInt64>] = []
    var section = unsafe elf_nextscn(elf, nil)
    while let current = unsafe section {
      var header = GElf_Shdr()
      if unsafe gelf_getshdr(current, &header) != nil,
        header.sh_flags & UInt64(SHF_ALLOC | SHF_EXECINSTR) == UInt64(SHF_ALLOC | SHF_EXECINSTR)
      {
        let start = header.sh_addr &+ bias
        sections.append(start..<start.saturatingSum(header.sh_size))
      }
      unsafe section = elf_nextscn(elf, current)
    }
    return sections
  }
}

/// A session of libdwfl, with what it was begun with: that has to stay in place until its end.
@safe private struct DwflSession: ~Copyable {
  let handle: OpaquePointer
  private let callbacks: UnsafeMutablePointer<Dwfl_Callbacks>
  private let debugPath: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>

  init?(roots: [String], detail: ModuleRequest.Detail) {
    // As in libdwfl's own default: beside the file, in .debug beside it, in the debug directory
    // by path and by build ID. The standard callback asks debuginfod after these, and only if
    // DEBUGINFOD_URLS is set.
    // What dwz moved to a file of its own is named by its whole path, which libdwfl does not look for
    // below other roots: only for its name, in .dwz and where it is told.
    let directories =
      ["", ".debug"] + roots.map { $0.asRoot + "/usr/lib/debug" }
      + roots.map { $0.asRoot + "/usr/lib/debug/.dwz/\(Self.architecture)" }
    unsafe debugPath = .allocate(capacity: 1)
    unsafe debugPath.initialize(to: strdup(directories.joined(separator: ":")))

    unsafe callbacks = .allocate(capacity: 1)
    unsafe callbacks.initialize(to: Dwfl_Callbacks())
    unsafe callbacks.pointee.find_elf = dwfl_build_id_find_elf
    unsafe callbacks.pointee.section_address = dwfl_offline_section_address
    unsafe callbacks.pointee.debuginfo_path = debugPath
    switch detail {
    case .lines: unsafe callbacks.pointee.find_debuginfo = dwfl_standard_find_debuginfo
    case .symbols: unsafe callbacks.pointee.find_debuginfo = { _, _, _, _, _, _, _, _ in -1 }
    }
    guard let handle = unsafe dwfl_begin(callbacks) else {
      unsafe Self.free(callbacks, debugPath)
      return nil
    }
    unsafe self.handle = handle
  }

  /// As Debian names it in paths.
  private static let architecture: String = {
    #if arch(arm64)
      "aarch64-linux-gnu"
    #else
      "x86_64-linux-gnu"
    #endif
  }()

  deinit {
    unsafe dwfl_end(handle)
    unsafe Self.free(callbacks, debugPath)
  }

  private static func free(
    _ callbacks: UnsafeMutablePointer<Dwfl_Callbacks>,
    _ debugPath: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
  ) {
    unsafe callbacks.deallocate()
    unsafe Glibc.free(debugPath.pointee)
    unsafe debugPath.deallocate()
  }
}

extension String {
  /// Without the slash at the end, so that an absolute path can follow.
  var asRoot: String {
    var root = self
    while root.hasSuffix("/") { root.removeLast() }
    return root
  }

  /// The bytes that this spells; empty where it is not hexadecimal.
  fileprivate var hexadecimalBytes: [UInt8] {
    var bytes: [UInt8] = []
    var rest = self[...]
    while !rest.isEmpty {
      guard rest.utf8.count >= 2, let byte = UInt8(rest.prefix(2), radix: 16) else { return [] }
      bytes.append(byte)
      rest = rest.dropFirst(2)
    }
    return bytes
  }
}

extension UInt64 {
  func saturatingSum(_ other: UInt64) -> UInt64 {
    let (sum, overflow) = addingReportingOverflow(other)
    return overflow ? .max : sum
  }
}
