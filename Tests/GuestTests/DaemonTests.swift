// SPDX-License-Identifier: Apache-2.0
// Real daemons from the distribution: armed, recording and stopped, with the answers of the untraced.

import Foundation
import HeapModel
import Pprof
import ProcessControl
import Testing

@Suite(.serialized) struct DaemonTests {
  /// What a client gets to hear; the end of a client that fails ends the test.
  @discardableResult
  private static func ask(_ command: [String], input: String? = nil) throws -> String {
    let result = try run(command, input: input)
    guard result.status == 0 else {
      throw GuestError("\(command) ended with \(result.status): \(result.errors)")
    }
    return result.output
  }

  private static func snapshot(_ path: String) throws -> Snapshot {
    try Snapshot(profile: [UInt8](Data(contentsOf: URL(fileURLWithPath: path))))
  }

  /// Asks the same in three phases; a traced daemon is dormant, records and has stopped in them.
  private static func phases(
    _ processes: [ArmedProcess], _ dumps: inout [Snapshot], _ answers: () throws -> [String]
  ) throws -> [[String]] {
    var all = [try answers()]
    for process in processes { _ = try process.start(timeout: patience) }
    all.append(try answers())
    for process in processes {
      dumps.append(try snapshot(process.snapshot(timeout: patience)))
    }
    all.append(try answers())
    for process in processes {
      guard case .stopped(let last?, nil) = try process.stop(timeout: patience) else {
        throw GuestError("no last dump of \(process.place)")
      }
      dumps.append(try snapshot(last))
    }
    all.append(try answers())
    return all
  }

  // MARK: redis-server

  @Test(.enabled("needs redis-server") { Workshop.find("redis-server") != nil })
  func `redis answers the same, and saves from a child`() throws {
    var dumps: [Snapshot] = []
    let plain = try Self.redis(["LD_PRELOAD": ""], isTraced: false, &dumps)
    let traced = try Self.redis(DumpBox().environment("1"), isTraced: true, &dumps)
    #expect(traced == plain)
    #expect(dumps.count == 2)
    #expect(dumps.areSound)
    #expect(dumps.allSatisfy { $0.header.program == "redis-server" })
    #expect((dumps.first?.totalBlocks ?? 0) > 10000)
    // The keys that were set while it recorded.
    #expect((dumps.first?.liveBlocks ?? 0) > 100)
  }

  private static func redis(
    _ environment: [String: String], isTraced: Bool, _ dumps: inout [Snapshot]
  ) throws -> [[String]] {
    let port = "\(try freePort())"
    let directory = try Workshop.makeDirectory()
    let server = try Guest(
      [
        Workshop.find("redis-server")!, "--port", port, "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "no", "--dir", directory.path,
      ], environment: environment)
    defer {
      kill(server.pid, SIGKILL)
      try? FileManager.default.removeItem(at: directory)
    }
    let client = [Workshop.find("redis-cli")!, "-p", port]
    try server.wait(for: "redis") { try run(client + ["PING"]).output == "PONG\n" }
    let keys = (0..<500).map { "SET key:\($0) \(String(repeating: "v\($0)", count: 1 + $0 % 40))" }
    let questions = (0..<500).map { "GET key:\($0)" } + (0..<100).map { "APPEND key:\($0) x" }
    let all = try phases(isTraced ? [Obedient.armed(server.pid, server)] : [], &dumps) {
      try ask([
        Workshop.find("redis-benchmark")!, "-p", port, "-n", "20000", "-q", "-r", "1000", "-t",
        "set,lpush",
      ])
      try ask(client + ["FLUSHALL"])
      let answers = try ask(client, input: (keys + questions).joined(separator: "\n") + "\n")
      try ask(client + ["BGSAVE"])
      try server.wait(for: "the child that saves") {
        try ask(client + ["INFO", "persistence"]).contains("rdb_bgsave_in_progress:0")
      }
      let saved = try ask(client + ["INFO", "persistence"]).split(separator: "\r\n")
        .filter { $0.contains("rdb_last_bgsave_status") }.joined()
      return [answers, saved, try ask(client + ["DBSIZE"])]
    }
    kill(server.pid, SIGTERM)
    #expect(server.finish().status == 0)
    return all
  }

  // MARK: nginx

  @Test(
    .enabled("needs nginx, curl and ab") {
      ["nginx", "curl", "ab"].allSatisfy { Workshop.find($0) != nil }
    })
  func `nginx answers the same, and keeps the signals that it owns`() throws {
    var dumps: [Snapshot] = []
    let plain = try Self.nginx(["LD_PRELOAD": ""], isTraced: false, &dumps)
    let traced = try Self.nginx(DumpBox().environment("1"), isTraced: true, &dumps)
    #expect(traced == plain)
    // A master and two workers, which are its forks.
    #expect(dumps.count == 6)
    #expect(dumps.areSound)
    #expect(Set(dumps.compactMap(\.header.pid)).count == 3)
    #expect(dumps.map(\.totalBlocks).max()! > 1000)
  }

  private static func nginx(
    _ environment: [String: String], isTraced: Bool, _ dumps: inout [Snapshot]
  ) throws -> [[String]] {
    let port = try freePort()
    let directory = try Workshop.makeDirectory()
    chmod(directory.path, 0o755)
    let page = (0..<20000).map { "line \($0)\n" }.joined()
    try page.write(
      to: directory.appendingPathComponent("page.txt"), atomically: true, encoding: .utf8)
    chmod(directory.appendingPathComponent("page.txt").path, 0o644)
    try """
    daemon off; worker_processes 2; pid \(directory.path)/pid; error_log \(directory.path)/errors;
    events { worker_connections 256; }
    http {
      access_log \(directory.path)/access; gzip on; gzip_types text/plain; default_type text/plain;
      server { listen 127.0.0.1:\(port); root \(directory.path); }
    }
    """.write(
      to: directory.appendingPathComponent("conf"), atomically: true, encoding: .utf8)
    var environment = environment
    if let dumps = environment["HEAPTAP_DIR"] { chmod(dumps, 0o1733) }
    environment["HEAPTAP_LOG"] = isTraced ? "stderr" : nil
    let server = try Guest(
      [
        Workshop.find("nginx")!, "-p", directory.path, "-c", directory.path + "/conf", "-e",
        directory.path + "/errors",
      ], environment: environment)
    defer {
      if server.isRunning { kill(server.pid, SIGTERM) }
      _ = server.finish()
      try? FileManager.default.removeItem(at: directory)
    }
    let place = "http://127.0.0.1:\(port)/page.txt"
    let curl = [Workshop.find("curl")!, "-s", "--compressed", place]
    try server.wait(for: "nginx") { try run(curl).output == page }
    var processes: [ArmedProcess] = []
    if isTraced {
      let children = try String(
        contentsOfFile: "/proc/\(server.pid)/task/\(server.pid)/children", encoding: .utf8)
      let pids = children.split(separator: " ").compactMap { pid_t($0) }
      processes = try ([server.pid] + pids).map { try Obedient.armed($0, server) }
    }
    return try phases(processes, &dumps) {
      let load = try ask([
        Workshop.find("ab")!, "-q", "-n", "2000", "-c", "8", "-H", "Accept-Encoding: gzip", place,
      ])
      // Its own signal: the master opens its logs anew.
      let log = directory.appendingPathComponent("access")
      try? FileManager.default.removeItem(at: log)
      kill(server.pid, SIGUSR1)
      try server.wait(for: "a new log") { FileManager.default.fileExists(atPath: log.path) }
      let failures = load.split(separator: "\n").filter {
        $0.hasPrefix("Failed requests") || $0.hasPrefix("Complete requests")
      }
      return try failures.map(String.init) + [ask(curl) == page ? "the page" : "something else"]
    }
  }

  // MARK: python3

  private static let python = ["/usr/bin/python3", "/usr/local/bin/python3"].first {
    FileManager.default.isExecutableFile(atPath: $0)
  }

  @Test(.enabled("needs python3") { python != nil })
  func `python computes the same, and its leak shows`() throws {
    // Waits for a file between phases, so that what asks the tracer interrupts nothing.
    let script = """
      import hashlib, json, os, sys, threading, time
      kept = []
      def work(seed, results):
          rows = [{"n": i * seed, "text": str(i) * (i % 30)} for i in range(3000)]
          for _ in range(5):
              rows = json.loads(json.dumps(rows))
          results[seed] = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
      for phase in range(4):
          results = {}
          threads = [threading.Thread(target=work, args=(s, results)) for s in range(1, 5)]
          [t.start() for t in threads]
          [t.join() for t in threads]
          if phase == 2:
              kept += [bytearray(7777) for _ in range(1000)]
          print(phase, sorted(results.items()), flush=True)
          while not os.path.exists(f"{sys.argv[1]}/{phase}"):
              time.sleep(0.005)
      sys.exit(6)
      """
    var dumps: [Snapshot] = []
    func play(_ environment: [String: String], isTraced: Bool) throws -> [[String]] {
      let steps = try Workshop.makeDirectory()
      let guest = try Guest(
        [Self.python!, "-c", script, steps.path],
        environment: environment.merging(["PYTHONMALLOC": "malloc"]) { $1 })
      defer { kill(guest.pid, SIGKILL) }
      var phase = 0
      let process = isTraced ? [try Obedient.armed(guest.pid, guest)] : []
      let all = try Self.phases(process, &dumps) {
        if phase > 0 {
          _ = FileManager.default.createFile(
            atPath: steps.appendingPathComponent("\(phase - 1)").path, contents: nil)
        }
        try guest.wait(for: "phase \(phase)") {
          guest.outputSoFar.filter { $0 == "\n" }.count > phase
        }
        phase += 1
        return guest.outputSoFar.split(separator: "\n").map(String.init)
      }
      _ = FileManager.default.createFile(
        atPath: steps.appendingPathComponent("\(phase - 1)").path, contents: nil)
      #expect(guest.finish().status == 6)
      return all
    }
    let plain = try play(["LD_PRELOAD": ""], isTraced: false)
    let traced = try play(DumpBox().environment("1"), isTraced: true)
    // The untraced one is asked in the same way, with nobody to start and stop.
    #expect(traced == plain)
    #expect(dumps.count == 2)
    #expect(dumps.areSound)
    let leak = dumps[1].samples.filter { $0.generation == 2 }
    #expect(leak.map(\.liveBytes).reduce(0, +) >= 7_777_000)
    let largest = try #require(leak.max { $0.liveBytes < $1.liveBytes })
    #expect(largest.liveBlocks == 1000 && largest.liveBytes >= 7_777_000)
  }

  // MARK: sqlite3

  @Test(.enabled("needs sqlite3") { Workshop.find("sqlite3") != nil })
  func `sqlite computes the same, though signals come in between`() throws {
    func statements(_ step: (String) -> String) -> String {
      let work = """
        CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, x TEXT, y REAL);
        WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 20000)
          INSERT INTO t(x, y) SELECT printf('%08d-%s', i * 7919 % 10007, hex(i)), i / 3.0 FROM c;
        CREATE INDEX IF NOT EXISTS ix ON t(x);
        SELECT count(*), sum(length(x)), round(sum(y), 3) FROM t;
        SELECT substr(x, 1, 3) AS p, count(*), max(x) FROM t GROUP BY p ORDER BY p LIMIT 20;
        DELETE FROM t WHERE n % 3 = 0;

        """
      return work + step("USR1") + work + step("USR2") + work + step("USR1") + work
    }
    let program = [Workshop.find("sqlite3")!, ":memory:"]
    let plain = try run(program, environment: ["LD_PRELOAD": ""], input: statements { _ in "" })
    let box = try DumpBox()
    // A shell's parent is sqlite.
    let traced = try run(
      program, environment: box.environment("1"),
      input: statements { ".shell kill -\($0) $PPID; sleep 0.5\n" })
    #expect(plain.status == 0 && traced.status == 0)
    #expect(plain.output.count > 200)
    #expect(traced.output == plain.output)
    let dumps = try box.snapshots()
    #expect(dumps.map(\.header.trigger) == ["signal", "stop"])
    #expect(dumps.areSound)
    #expect(dumps.allSatisfy { $0.totalBlocks > 10000 })
  }
}
