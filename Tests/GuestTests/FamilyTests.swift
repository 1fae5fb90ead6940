// SPDX-License-Identifier: Apache-2.0
// Each allocation is exactly one block of the requested size, whatever called it.

import HeapModel
import Testing

@Suite struct FamilyTests {
  @Test func `each entry of the malloc family gives one block of the size asked for`() throws {
    let box = try DumpBox()
    let program = try Programs.build("family.c", ["-O2", "-g", "-fno-builtin"])
    let result = try run([program], environment: box.environment("record"), input: "a line\n")
    #expect(result.status == 0, "\(result.errors)")
    let left = Left.read(result.output)
    #expect(left.count == 16)
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    expect(left, in: snapshot.named(), notFrom: ["free_by_size", "ask_sizes"])
  }

  @Test func `blocks of nothing, overflows and failures are booked as they happened`() throws {
    let box = try DumpBox()
    let program = try Programs.build("edges.c", ["-O2", "-g", "-fno-builtin"])
    let plain = try run([program])
    #expect(plain.output == "done\n")
    let result = try run([program], environment: box.environment("record"))
    #expect(result.output == plain.output)
    #expect(result.status == 0, "\(result.errors)")
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    let named = snapshot.named()
    let ofMain = named.samples.filter {
      $0.liveBlocks > 0 && named.functions(of: $0).first == "main"
    }
    #expect(ofMain.map(\.liveBytes).sorted() == [0, 0, 3001, 20 << 20])
    #expect(ofMain.allSatisfy { $0.liveBlocks == 1 })
    // Failed reallocs allocated nothing.
    #expect(snapshot.samples(ofSize: 3001).map(\.totalBlocks) == [1])
    #expect(named.samples(through: "fail").isEmpty)
    #expect(named.samples(through: "keep_errno").allSatisfy { $0.liveBlocks == 0 })
  }

  @Test func `errno and results are the same while dormant`() throws {
    let box = try DumpBox()
    let program = try Programs.build("edges.c", ["-O2", "-g", "-fno-builtin"])
    for mode in ["0", "1"] {
      let result = try run([program], environment: box.environment(mode))
      #expect(result.output == "done\n")
    }
    #expect(box.names.isEmpty)
  }

  @Test func `each form of operator new gives one block of the size asked for`() throws {
    let box = try DumpBox()
    let program = try Programs.build("operators.cpp", ["-O1", "-g", "-std=c++17", "-w"])
    let result = try run([program], environment: box.environment("record"))
    #expect(result.status == 0, "\(result.errors)")
    #expect(!result.output.contains("FAILED"), "\(result.output)")
    #expect(result.output.hasSuffix("done\n"))
    let left = Left.read(result.output)
    #expect(left.count == 16)
    let snapshot = try box.snapshot()
    snapshot.expectSound()
    expect(left, in: snapshot.named(), notFrom: ["delete_all", "run_out"])
  }

  @Test(arguments: [("PLAIN", 4000), ("ARRAY", 2000)])
  func `a program's own operator delete is called as often as without us`(form: String, count: Int)
    throws
  {
    let program = try Programs.build("replaced.cpp", ["-O1", "-std=c++17", "-w", "-D\(form)"])
    #expect(try run([program]).output == "\(count) calls\n")
    let box = try DumpBox()
    for mode in ["1", "record"] {
      for sample in ["off", "1K"] {
        var environment = box.environment(mode)
        environment["HEAPTAP_SAMPLE"] = sample
        #expect(try run([program], environment: environment).output == "\(count) calls\n")
      }
    }
    let snapshots = try box.snapshots()
    #expect(snapshots.count == 2)
    #expect(
      snapshots.allSatisfy { snapshot in
        [40, 41, 42, 43].allSatisfy {
          snapshot.samples(ofSize: $0).allSatisfy { $0.liveBlocks == 0 }
        }
      })
  }

  /// Each block that was left is one sample, from its function; nothing is left by the others.
  private func expect(_ left: [Left], in named: Snapshot, notFrom others: [String]) {
    for block in left {
      let found = named.samples(through: block.function).filter {
        $0.liveBlocks > 0 && $0.liveBytes == block.size
      }
      #expect(found.count == 1, "\(block.function)")
      #expect(found.first?.liveBlocks == 1, "\(block.function)")
      #expect(found.first?.totalBytes == block.size, "\(block.function)")
    }
    for function in others {
      let samples = named.samples(through: function)
      #expect(!samples.isEmpty, "\(function)")
      #expect(samples.allSatisfy { $0.liveBlocks == 0 }, "\(function)")
    }
  }
}
