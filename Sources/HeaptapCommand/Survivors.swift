// SPDX-License-Identifier: Apache-2.0
// heaptap survivors

import ArgumentParser
import HeapModel
import ProcessControl
import Reports

struct Survivors: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Show what was born before the last snapshot and is still alive.",
    discussion: """
      One dump is enough: each block has the generation that it was born in. Generation 1 begins with \
      the recording, and each snapshot opens the next one. Without --born the last generation is left \
      out, which was not there when a snapshot was taken, and where there are three or more the first, \
      which has what is made once and kept: the technique of the three snapshots. What leaks leaves \
      something in nearly every generation.

          heaptap survivors myd --born 2..3 --by stack

      Without a dump the newest one is read; the name of a program or systemd unit, or a pid, stands \
      for its newest dump. 'heaptap show --by generation' lists the generations and how old they are.


      """ + howItReads + "\n\n" + howReportsEnd)

  @Argument(
    help: ArgumentHelp("A dump, or a program, unit or pid.", valueName: "dump"),
    completion: .file(extensions: ["pb", "gz"]))
  var dump: String?

  @Option(
    help: ArgumentHelp(
      "The generations: 2..3, 2 for one, 2.. for it and later ones, ..3 for it and earlier ones.",
      valueName: "generations"))
  var born: String?

  @OptionGroup var options: ReportOptions

  func validate() throws {
    if let born, Self.bounds(born) == nil {
      throw ValidationError("--born takes generations as in '2..3', '2' or '2..', not '\(born)'")
    }
  }

  /// The first and the last generation, `nil` for none said; `nil` altogether for what is no range.
  private static func bounds(_ text: String) -> (first: Int?, last: Int?)? {
    func number(_ digits: Substring) -> Int? {
      digits.utf8.allSatisfy { (0x30...0x39).contains($0) } ? Int(digits) : nil
    }
    guard let dots = text.firstRange(of: "..") else {
      return number(text[...]).flatMap { $0 < 1 ? nil : ($0, $0) }
    }
    let (before, after) = (text[..<dots.lowerBound], text[dots.upperBound...])
    let (first, last) = (number(before), number(after))
    guard !text.isEmpty, before.isEmpty == (first == nil), after.isEmpty == (last == nil),
      !(before.isEmpty && after.isEmpty), first ?? 1 >= 1, last ?? .max >= first ?? 1
    else { return nil }
    return (first, last)
  }

  func run() throws {
    let reference = try DumpReference.found(for: dump)
    let read = try reference.read()
    let generations = try generations(of: read, reference.path.plainText)
    let snapshot = try options.prepared([read])[0]
    let rows = try snapshot.survivors(
      bornIn: generations, groupedBy: options.grouping, charging: options.charging)
    if options.json {
      let report = JSONReport.survivors(
        rows, of: snapshot, bornIn: generations, groupedBy: options.grouping,
        charging: options.charging, limit: options.rowLimit)
      return Output.write("\(report.text)\n")
    }
    options.print(
      TextTable(
        rows, of: generations, limit: options.rowLimit, header: snapshot.header,
        style: options.style),
      Summary(of: snapshot.withoutWarnings, bornIn: generations, style: options.style))
  }

  private func generations(of snapshot: Snapshot, _ path: String) throws -> ClosedRange<Int> {
    guard let all = snapshot.generations else {
      throw Failure(
        "'\(path)' says nothing of generations: no tracer of Heaptap has written it")
    }
    let count = all.upperBound == 1 ? "generation 1 only" : "generations 1 to \(all.upperBound)"
    guard let born else {
      guard all.upperBound > 1 else {
        throw Failure(
          "'\(path)' is the first dump of its recording, so nothing in it has outlived one; "
            + "take another, or pass --born 1")
      }
      return (all.upperBound > 2 ? 2 : 1)...(all.upperBound - 1)
    }
    // Checked by `validate`.
    let (first, last) = Self.bounds(born)!
    guard first ?? 1 <= all.upperBound, last ?? 1 <= all.upperBound else {
      throw Failure("'\(path)' has \(count), so there is nothing for --born \(born)")
    }
    return (first ?? 1)...(last ?? all.upperBound)
  }
}
