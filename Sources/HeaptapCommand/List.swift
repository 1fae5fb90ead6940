// SPDX-License-Identifier: Apache-2.0
// heaptap list

import ArgumentParser
import Glibc
import HeapModel
import ProcessControl
import Reports

struct List: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "List the armed processes: who would answer, and what they hold.",
    discussion: """
      STATE is 'dormant', 'recording', 'off', 'unknown' for a process that is reached by signals \
      only, or 'closed' for one that may not be asked: 'heaptap start' says why, and root may ask all. TRACED is what is allocated and \
      known now, PEAK the most that it has been. Where these are estimates, STATE is 'sampling'.

      Exit status: 0, also when no process is armed; 64 for bad usage.
      """)

  @Flag(help: "Print a JSON array.")
  var json = false

  func run() throws {
    let processes = ProcessTable().armedProcesses()
    for process in processes { process.refresh() }
    Output.write(json ? Self.json(processes).text + "\n" : Self.table(processes))
    if processes.isEmpty && !json {
      let rights = geteuid() == 0 ? "" : ", or not one that you may see"
      Output.writeError("heaptap: no process is armed\(rights); heaptap(7) says how to arm one\n")
    }
  }

  private static func table(_ processes: [ArmedProcess]) -> String {
    if processes.isEmpty { return "" }
    let rows =
      [["PID", "UNIT", "PROGRAM", "STATE", "TRACED", "PEAK"]]
      + processes.map { process in
        let counters = process.state == .recording ? process.counters : nil
        return [
          "\(process.pid)", process.unit ?? "-", process.program,
          counters.map { $0.sampleBytes != 0 } ?? false ? "sampling" : process.state.rawValue,
          counters.map { bytes($0.liveBytes) } ?? "-", counters.map { bytes($0.peakBytes) } ?? "-",
        ]
      }
    return TextColumns.lines(rows, figures: [0, 4, 5]).map { $0 + "\n" }.joined()
  }

  private static func bytes(_ count: UInt64) -> String {
    "\(ByteCount(Int(clamping: count)))"
  }

  private static func json(_ processes: [ArmedProcess]) -> JSON {
    .array(
      processes.map { process in
        var members = [
          JSON.Member("pid", .integer(Int(process.pid))),
          JSON.Member("unit", process.unit.map(JSON.string) ?? .null),
          JSON.Member("program", .string(process.program)),
          JSON.Member("state", .string(process.state.rawValue)),
        ]
        if let counters = process.counters {
          let figures: [(String, UInt64)] = [
            ("live_bytes", counters.liveBytes), ("live_blocks", counters.liveBlocks),
            ("peak_bytes", counters.peakBytes), ("tracer_bytes", counters.tracerBytes),
            ("lost", counters.lostRecords), ("snapshots", counters.snapshotCount),
            ("depth", UInt64(counters.depthLimit)), ("sample_bytes", counters.sampleBytes),
          ]
          members += figures.map { JSON.Member($0, .integer(Int(clamping: $1))) }
          members.append(JSON.Member("signals", .string(counters.signals)))
        }
        return .object(members)
      })
  }
}
