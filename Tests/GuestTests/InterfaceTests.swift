// SPDX-License-Identifier: Apache-2.0
// heaptap.h: a program that traces itself.

import Foundation
import HeapModel
import Testing

@Suite struct InterfaceTests {
  private func guest(_ source: String = "interface.c") throws -> String {
    let headers = Workshop.package.appendingPathComponent("Sources/CHeaptap").path
    let products = Workshop.products.path
    return try Programs.build(
      source,
      ["-O1", "-g", "-I\(headers)", "-L\(products)", "-lheaptap", "-Wl,-rpath,\(products)"])
  }

  @Test func `a linked program starts, snapshots and stops by itself, unarmed`() throws {
    let box = try DumpBox()
    let result = try run(
      [guest()], environment: ["HEAPTAP_DIR": box.directory.path, "HEAPTAP_LOG": "stderr"])
    #expect(result.output == "\(ESRCH) 0 0 0 \(ESRCH)\n")
    let snapshots = try box.snapshots()
    #expect(snapshots.map { $0.header["trigger"] } == ["api", "stop"])
    for snapshot in snapshots {
      #expect(snapshot.liveBlocks == 10)
      #expect(snapshot.liveBytes == 7770)
    }
    #expect(!result.errors.contains("handler"), "it asked for no signal: \(result.errors)")
  }

  @Test func `a process that is off for good answers EPERM and writes nothing`() throws {
    let box = try DumpBox()
    let result = try run(
      [guest()], environment: ["HEAPTAP": "0", "HEAPTAP_DIR": box.directory.path])
    #expect(result.output == "\(EPERM) \(EPERM) \(EPERM) \(EPERM) \(EPERM)\n")
    #expect(box.names.isEmpty)
  }

  @Test func `linked and preloaded together there is one tracer`() throws {
    let box = try DumpBox()
    let result = try run([guest()], environment: box.environment("1"))
    #expect(result.output == "\(ESRCH) 0 0 0 \(ESRCH)\n")
    #expect(try box.snapshots().map { $0.liveBlocks } == [10, 10])
  }

  @Test func `a live block's stack is known, also to a thread that asks while recording stops`()
    throws
  {
    let box = try DumpBox()
    let result = try run(
      [guest("traceback.c")], environment: ["HEAPTAP_DIR": box.directory.path])
    #expect(result.output == "right\n", "\(result.errors)")
    #expect(result.status == 0)
  }
}
