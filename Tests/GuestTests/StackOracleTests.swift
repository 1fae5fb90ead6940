// SPDX-License-Identifier: Apache-2.0
// Stacks of real programs are libunwind's and gdb's, frame by frame.

import Foundation
import Testing

@Suite struct StackOracleTests {
  /// Why a stack may be another than an oracle's: docs/stacks.md.
  private enum Reason {
    case untabled, async
  }

  /// Has both oracles look at a program, prints the share of equal stacks, and expects all of them
  /// but for differences of known reasons.
  private func judge(
    _ name: String, _ command: [String], _ sampling: StackOracle.Sampling,
    underGDB debugged: StackOracle.Sampling?, allowing reasons: Set<Reason> = [],
    environment: [String: String] = [:], input: String? = nil,
    drive: ((Guest) throws -> Void)? = nil
  ) throws {
    var shares: [String] = []
    for oracle in StackOracle.allCases {
      guard let sampling = oracle == .gdb ? debugged : sampling else { continue }
      let verdict = try oracle.judge(
        command, sampling, environment: environment, input: input, drive: drive)
      #expect(verdict.compared >= 10, "\(name)")
      #expect(verdict.unexplained == 0, "\(name): \(verdict.differences)")
      #expect(verdict.unknown == 0, "\(name)")
      if !reasons.contains(.untabled) {
        #expect(verdict.untabled == 0, "\(name): \(verdict.differences)")
      }
      if !reasons.contains(.async) {
        #expect(verdict.async == 0, "\(name): \(verdict.differences)")
      }
      var share = "\(verdict.equal) of \(verdict.compared) equal \(oracle.rawValue)'s"
      if verdict.untabled > 0 { share += ", \(verdict.untabled) up to a function without a table" }
      if verdict.async > 0 { share += ", \(verdict.async) up to an await" }
      shares.append("\(share) (\(verdict.frames) frames)")
    }
    print("stacks of \(name): \(shares.joined(separator: "; "))")
  }

  // MARK: Programs made for it

  @Test(arguments: [
    ["-O2", "-fomit-frame-pointer"], ["-O2", "-fno-omit-frame-pointer"], ["-O0"],
    ["-O3", "-mavx2", "-fno-plt"],
  ])
  func `C's and C++'s stacks, also of what their libraries allocate`(_ options: [String]) throws {
    let all = StackOracle.Sampling(every: 1)
    for source in ["stacks.c", "stacks.cpp"] {
      let program = try Programs.build(source, options + ["-g", "-lunwind"])
      // C's has functions without a table, and generated code.
      try judge(
        "\(source) \(options.joined(separator: " "))", [program], all, underGDB: all,
        allowing: source == "stacks.c" ? [.untabled] : [])
    }
  }

  @Test func `an oracle sees what is not the same`() throws {
    let program = try Programs.build("stacks.c", ["-O2", "-fomit-frame-pointer", "-g", "-lunwind"])
    for oracle in StackOracle.allCases {
      let verdict = try oracle.judge([program], .init(every: 1))
      #expect(verdict.untabled > 0, "\(oracle)")
      #expect(verdict.differences.contains("after a function without a table"))
    }
  }

  /// Two libraries take each other's place at the same addresses.
  @Test(arguments: [["-O2"], ["-O2", "-fno-omit-frame-pointer"], ["-O0"]])
  func `stacks of a program that wanders through all of that at random`(_ options: [String]) throws
  {
    let libraries = try ["1", "2"].map {
      try Programs.build("wandering.c", ["-O2", "-g", "-shared", "-fPIC", "-DLIBRARY=\($0)"])
    }
    let program = try Programs.build("wandering.c", options + ["-g"])
    let seed = UInt16.random(in: 1...UInt16.max)
    try judge(
      "wandering.c \(options.joined(separator: " ")), seed \(seed)",
      [program, "\(seed)", "20000"] + libraries, .init(every: 31), underGDB: nil)
    try judge(
      "wandering.c, of 8 frames, seed \(seed)", [program, "\(seed)", "20000"] + libraries,
      .init(every: 61), underGDB: nil, environment: ["HEAPTAP_DEPTH": "8"])
  }

  @Test(arguments: [
    ["-O2", "-fomit-frame-pointer", "-Wl,-z,lazy"],
    ["-O2", "-fno-omit-frame-pointer", "-fcf-protection=full", "-Wl,-z,lazy"], ["-O0"],
    ["-O3", "-mavx2", "-fno-plt", "-no-pie"],
  ])
  func `stacks at every instruction, of stacks made by hand, of threads that end`(
    _ options: [String]
  ) throws {
    let program = try Programs.build("more_stacks.c", options + ["-g"])
    // The processor's trap is gdb's own way to step.
    try judge(
      "more_stacks.c \(options.joined(separator: " "))", [program], .init(every: 1), underGDB: nil)
  }

  @Test(arguments: [
    ["-O"], ["-Onone"], ["-O", "-static-stdlib"], ["-O", "-DSYNCHRONOUS"],
    ["-Onone", "-DSYNCHRONOUS"],
  ])
  func `Swift's stacks`(_ options: [String]) throws {
    // The static half of Foundation takes a linker a minute.
    let foundation = options.contains("-static-stdlib") ? [] : ["-DWITH_FOUNDATION"]
    let program = try Programs.build(
      "stacks.swift", options + ["-g", "-parse-as-library"] + foundation)
    try judge(
      "stacks.swift \(options.joined(separator: " "))", [program], .init(every: 211, new: 300),
      underGDB: .init(every: 997, new: 10, limit: 30),
      allowing: options.contains("-DSYNCHRONOUS") ? [.untabled] : [.untabled, .async])
  }

  @Test(
    .enabled("needs rustc") { Workshop.find("rustc") != nil },
    arguments: [["-O"], ["-Copt-level=0"]])
  func `Rust's stacks`(_ options: [String]) throws {
    let program = try Programs.build("stacks.rs", options + ["-g", "--edition", "2021"])
    try judge(
      "stacks.rs \(options.joined(separator: " "))", [program], .init(every: 1),
      underGDB: .init(every: 17, limit: 30))
  }

  // MARK: Programs of the distribution

  private func find(_ program: String) throws -> String {
    try #require(Workshop.find(program), "'\(program)' is not installed")
  }

  @Test(arguments: ["malloc", "pymalloc"])
  func `python3's stacks`(_ allocator: String) throws {
    let script = """
      import json, re, ast, threading
      def work(n):
          rows = [{"n": i * n, "text": str(i) * (i % 30)} for i in range(300)]
          return re.sub("[0-9]+", lambda m: m.group() * 2, json.dumps(json.loads(json.dumps(rows))))
      threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
      [t.start() for t in threads]; [t.join() for t in threads]
      def deep(n): return [0] * n if n == 0 else [deep(n - 1)]
      deep(60); print(len(ast.dump(ast.parse("a = [b for b in c if d]" * 1))))
      """
    try judge(
      "python3, \(allocator)", ["/usr/bin/python3", "-c", script], .init(every: 997, new: 400),
      underGDB: .init(every: 9973, new: 10, limit: 25), environment: ["PYTHONMALLOC": allocator])
  }

  @Test func `sqlite3's stacks`() throws {
    let query = """
      create table t (x, y); create index i on t (y);
      with recursive c(x) as (select 1 union all select x + 1 from c where x < 3000)
      insert into t select x, (x * 7919) % 10007 from c;
      select x, 'abc' || x as z, count(*) over (order by y) from t order by y, z limit 10;
      """
    try judge(
      "sqlite3", [find("sqlite3"), ":memory:"], .init(every: 97, new: 300),
      underGDB: .init(every: 199, new: 10, limit: 30), input: query)
  }

  @Test func `git's stacks`() throws {
    let git = try find("git")
    let directory = try Workshop.makeDirectory().path
    try run([git, "init", "-q", directory])
    var history = ""
    for commit in 0..<40 {
      let text = (0..<60).map { "line \($0 % (commit + 3))\n" }.joined()
      history += """
        commit refs/heads/trunk
        committer A <a@b> \(1_700_000_000 + commit * 1000) +0000
        data 7
        change

        M 644 inline file
        data \(text.utf8.count)
        \(text)

        """
    }
    let imported = try run([git, "-C", directory, "fast-import", "--quiet"], input: history)
    #expect(imported.status == 0, "\(imported.errors)")
    for arguments in [["log", "-p", "--stat", "trunk"], ["blame", "trunk", "--", "file"]] {
      try judge(
        "git \(arguments[0])", [git, "--no-pager", "-C", directory] + arguments,
        .init(every: 199, new: 200), underGDB: .init(every: 997, new: 10, limit: 20))
    }
  }

  @Test func `cc1plus's stacks`() throws {
    let source = try Workshop.makeDirectory().appendingPathComponent("input.cpp")
    try """
    #include <regex>
    int main() { return std::regex_match("abc", std::regex("a+(b|c)*")); }
    """.write(to: source, atomically: true, encoding: .utf8)
    let preprocessed = source.path + ".ii"
    try run([find("g++"), "-E", source.path, "-o", preprocessed])
    let compiler = try run([find("g++"), "-print-prog-name=cc1plus"]).output
      .trimmingCharacters(in: .newlines)
    try judge(
      "cc1plus", [compiler, "-quiet", preprocessed, "-o", "/dev/null"],
      .init(every: 9973, new: 300), underGDB: .init(every: 49999, new: 10, limit: 20))
  }

  /// Two that nobody has had in mind.
  @Test func `perl's and bash's stacks`() throws {
    let script = """
      my %h; for (1..3000) { $h{"k$_"} = [1..3]; } eval { die {a => 1} };
      my @s = sort { $h{$a}[0] <=> $h{$b}[0] or $a cmp $b } keys %h;
      (my $t = join ",", @s) =~ s/(k\\d+)/<$1>/g; print length $t;
      """
    try judge(
      "perl", [find("perl"), "-e", script], .init(every: 97, new: 300),
      underGDB: .init(every: 997, new: 10, limit: 20))
    let commands = """
      f() { local b=$1; [ $b -gt 0 ] && f $((b - 1)); }; f 30
      for i in {1..200}; do a[$i]="x$i"; done; echo ${a[@]} ${a[@]/x/y} | wc -c; echo $(f 10)
      """
    try judge(
      "bash", [find("bash"), "-c", commands], .init(every: 97, new: 300),
      underGDB: .init(every: 997, new: 10, limit: 20))
  }

  // MARK: Servers

  @Test func `redis's stacks`() throws {
    let server = try find("redis-server")
    let (client, load) = (try find("redis-cli"), try find("redis-benchmark"))
    let port = "\(try freePort())"
    let directory = try Workshop.makeDirectory().path
    try judge(
      "redis-server",
      [server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", directory],
      .init(every: 997, new: 300), underGDB: .init(every: 4999, new: 15, limit: 30)
    ) { guest in
      let client = [client, "-p", port]
      try guest.wait(for: "redis") { try run(client + ["PING"]).output == "PONG\n" }
      try run([load, "-p", port, "-n", "2000", "-q", "-r", "100", "-t", "set,lpush,hset,zadd"])
      try run(
        client + ["EVAL", "local t = {} for i = 1, 100 do t[i] = 'x' .. i end return t", "0"])
      try run(client + ["SAVE"])
      try run(client + ["SHUTDOWN", "NOSAVE"])
    }
  }

  @Test func `nginx's stacks`() throws {
    let (server, client) = (try find("nginx"), try find("curl"))
    let port = try freePort()
    let directory = try Workshop.makeDirectory()
    chmod(directory.path, 0o755)
    try (0..<2000).map { "line \($0)\n" }.joined().write(
      to: directory.appendingPathComponent("page.txt"), atomically: true, encoding: .utf8)
    // One process: gdb follows one.
    try """
    daemon off; master_process off; pid \(directory.path)/pid; error_log \(directory.path)/errors;
    events { worker_connections 64; }
    http {
      access_log \(directory.path)/access; gzip on; gzip_types text/plain; default_type text/plain;
      server { listen 127.0.0.1:\(port); root \(directory.path); autoindex on; }
    }
    """.write(to: directory.appendingPathComponent("conf"), atomically: true, encoding: .utf8)
    try judge(
      "nginx",
      [
        server, "-p", directory.path, "-c", "\(directory.path)/conf", "-e",
        "\(directory.path)/errors",
      ],
      .init(every: 13, new: 300), underGDB: .init(every: 23, new: 15, limit: 30)
    ) { guest in
      let place = "http://127.0.0.1:\(port)/"
      try guest.wait(for: "nginx") { try run([client, "-s", place]).status == 0 }
      for _ in 0..<20 {
        try run([client, "-s", "--compressed", place, "\(place)page.txt", "\(place)none"])
      }
      let pid = try String(contentsOf: directory.appendingPathComponent("pid"), encoding: .utf8)
      kill(try #require(pid_t(pid.trimmingCharacters(in: .newlines))), SIGQUIT)
    }
  }
}
