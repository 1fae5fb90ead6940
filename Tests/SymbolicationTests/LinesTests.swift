// SPDX-License-Identifier: Apache-2.0
// Functions, files and lines of programs that were compiled, run, and asked where they were.

import HeapModel
import Symbolication
import Testing

@Suite struct LinesTests {
  static let nested =
    ProgramReport.probeSource + """
      #line 100 "nested.c"
      static inline __attribute__((always_inline)) void inner(int n) {
        if (n) probe();
      }
      static inline __attribute__((always_inline)) void middle(int n) {
        printf("middle\\n");
        inner(n);
      }
      __attribute__((noinline)) void outer(int n) {
        middle(n);
        printf("outer\\n");
      }
      int main(int argc, char **argv) {
        probe();
        outer(argc);
        return 0;
      }

      """

  static let expected = [
    ["main nested.c:112"],
    ["inner nested.c:101 inlined", "middle nested.c:105 inlined", "outer nested.c:108"],
  ]

  @Test(arguments: [
    ["-gdwarf-5", "-pie", "-fPIE"], ["-gdwarf-4", "-pie", "-fPIE"], ["-gdwarf-4", "-no-pie"],
    ["-gdwarf-5", "-no-pie"], ["-gdwarf-5", "-gsplit-dwarf"], ["-gdwarf-5", "-ffunction-sections"],
  ])
  func `a C program's calls have function, file and line, inlined ones too`(
    options: [String]
  ) throws {
    for compiler in [Tool.gcc, .clang] where compiler.isInstalled {
      let scratch = try Scratch()
      try scratch.write("nested.c", Self.nested)
      // With one -O2 and no tail calls, so that the frames are there to be seen.
      try scratch.run(
        compiler.path,
        options + [
          "-O2", "-fno-optimize-sibling-calls", "-Wl,--build-id", "nested.c", "-o", "nested",
        ])
      let report = try ProgramReport(running: scratch.file("nested"), in: scratch)
      let outcome = Symbolicator(worker: .inProcess)
        .symbolicate(report.frames, modules: report.modules)
      #expect(outcome.frames.map { $0.map(\.summary) } == Self.expected, "\(compiler)")
      #expect(outcome.warnings == [], "\(compiler)")
      #expect(
        outcome.frames[1].allSatisfy {
          $0.address == report.frames[1].address && $0.module == report.frames[1].module
        })
    }
  }

  @Test(.enabled(if: Tool.gcc.isInstalled, "no gcc"))
  func `a file is the full path that the compiler saw`() throws {
    let scratch = try Scratch()
    try scratch.write("source/a.c", ProgramReport.probeSource + "int main() { probe(); return 0; }")
    try scratch.run(.gcc, "-g", "-O2", "source/a.c", "-o", "a", "-Wl,--build-id")
    let report = try ProgramReport(running: scratch.file("a"), in: scratch)
    let outcome = Symbolicator(worker: .inProcess)
      .symbolicate(report.frames, modules: report.modules)
    #expect(outcome.frames.first?.first?.file == scratch.file("source/a.c"))
  }

  @Test(.enabled(if: Tool.gcc.isInstalled, "no gcc"))
  func `a shared library's calls have function, file and line`() throws {
    let scratch = try Scratch()
    try scratch.write(
      "library.c",
      """
      void probe(void);
      void in_library(void) {
        probe();
        __asm__ volatile("");
      }
      """)
    try scratch.write(
      "main.c",
      ProgramReport.probeSource + "void in_library(void); int main() { in_library(); return 0; }")
    try scratch.run(
      .gcc, "-g", "-O2", "-shared", "-fPIC", "library.c", "-o", "library.so", "-Wl,--build-id")
    try scratch.run(
      .gcc, "-g", "-O2", "-rdynamic", "main.c", "./library.so", "-o", "main", "-Wl,--build-id",
      "-Wl,-rpath,\(scratch.path)")
    var report = try ProgramReport(running: scratch.file("main"), in: scratch)
    let library = scratch.file("library.so")
    for index in report.modules.indices where report.modules[index].path == library {
      report.modules[index].buildID = try MappedFile(path: library).buildID
    }
    let outcome = Symbolicator(worker: .inProcess)
      .symbolicate(report.frames, modules: report.modules)
    #expect(outcome.frames.map { $0.map(\.summary) } == [["in_library library.c:3"]])
  }

  @Test(.enabled(if: Tool.gcc.isInstalled, "no gcc"))
  func `frames outside files stay as they were, and nothing is said about them`() {
    let modules = ["[vdso]", "", "//anon", "/memfd:jit (deleted)", "/dev/zero (deleted)"].map {
      Module(start: 0x1000, limit: 0x2000, fileOffset: 0, path: $0, buildID: "")
    }
    let frames =
      modules.indices.map { Frame(address: 0x1234, module: $0) } + [
        Frame(), Frame(address: 0x1234), Frame(address: 0x1234, module: 99),
        Frame(address: 0x1234, module: -1), Frame(address: 0x1234, module: 0, function: "known"),
        Frame(address: 0, module: 1), Frame(address: .max, module: 1),
      ]
    let outcome = Symbolicator(worker: .inProcess).symbolicate(frames, modules: modules)
    #expect(outcome.frames == frames.map { [$0] })
    #expect(outcome.warnings == [])
  }
}
