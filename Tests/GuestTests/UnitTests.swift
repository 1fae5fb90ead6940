// SPDX-License-Identifier: Apache-2.0
// Services under a real systemd: armed by `heaptap enable`, asked as operators ask, disarmed.

import Foundation
import HeapModel
import Pprof
import Testing

@Suite(.enabled(if: SystemdBed.isAvailable, SystemdBed.obstacle)) struct UnitTests {
  // MARK: Sandboxes

  /// A sandbox that services are found in.
  struct Sandbox: CustomTestStringConvertible, Sendable {
    let testDescription: String
    let lines: [String]
    var isSilent = false

    init(_ lines: String..., isSilent: Bool = false) {
      self.lines = lines
      self.isSilent = isSilent
      testDescription = lines.isEmpty ? "none" : lines.joined(separator: " ")
    }
  }

  @Test(arguments: [
    Sandbox(),
    Sandbox("User=daemon"),
    Sandbox("DynamicUser=yes"),
    Sandbox("DynamicUser=yes", "StateDirectory=myd", "LogsDirectory=myd"),
    Sandbox("User=daemon", "NoNewPrivileges=yes", "PrivateTmp=yes"),
    Sandbox("MemoryDenyWriteExecute=yes"),
    Sandbox("User=daemon", "SystemCallFilter=@system-service"),
    Sandbox("RestrictAddressFamilies=AF_INET", isSilent: true),
    // What it is not allowed, it is killed for; and there is nobody to tell.
    Sandbox(
      "User=daemon", "SystemCallFilter=@system-service", "RestrictAddressFamilies=AF_INET AF_INET6",
      isSilent: true),
    Sandbox("User=daemon", "ProtectSystem=strict", "ProtectHome=yes"),
    Sandbox("ProtectSystem=strict", "ReadOnlyPaths=/var", "ProtectHome=tmpfs"),
    Sandbox("User=daemon", "TemporaryFileSystem=/var"),
    Sandbox("NoExecPaths=/", "ExecPaths=/usr/local/bin/grower /usr/lib /lib"),
    Sandbox("User=daemon", "PrivateUsers=yes", "ProtectSystem=strict"),
    Sandbox("User=daemon", "AmbientCapabilities=CAP_NET_BIND_SERVICE"),
    Sandbox(
      "DynamicUser=yes", "PrivateUsers=yes", "PrivateDevices=yes", "PrivateNetwork=yes",
      "ProtectProc=invisible", "ProcSubset=pid", "ProtectKernelTunables=yes", "ProtectClock=yes",
      "ProtectControlGroups=yes", "RestrictNamespaces=yes", "LockPersonality=yes",
      "MemoryDenyWriteExecute=yes", "RestrictRealtime=yes", "SystemCallArchitectures=native",
      "SystemCallFilter=@system-service", "SystemCallFilter=~@privileged @resources",
      "CapabilityBoundingSet=", "UMask=0077"),
  ])
  func `a service is armed by one command and one restart, and dumps inside of its sandbox`(
    sandbox: Sandbox
  ) throws {
    let bed = try SystemdBed()
    try bed.add(program: "grower.c", as: "usr/local/bin/grower")
    try bed.add(service: "myd", sandbox.lines)
    let result = try bed.succeed(
      """
      systemctl start myd
      heaptap enable myd
      systemctl restart myd
      record myd
      sleep 0.1
      snapshot myd
      wait_for '[ -n "$(find /var/lib/heaptap -name "*.pb")" ]'
      systemctl is-active myd
      systemctl show --property=NRestarts myd
      cp "$(find /var/lib/heaptap -name '*.pb')" /out/dump.pb
      journalctl --sync
      journalctl --output=cat SYSLOG_IDENTIFIER=heaptap
      """)
    #expect(result.output.contains("\nactive\nNRestarts=0\n"), "\(result.output)")
    #expect(result.output.contains("armed") && result.output.contains("traced") != sandbox.isSilent)
    #expect(result.errors.contains("leaves AF_UNIX out") == sandbox.isSilent)
    let dump = bed.output.appendingPathComponent("dump.pb")
    let snapshot = try Snapshot(profile: [UInt8](Data(contentsOf: dump)))
    #expect(snapshot.header["unit"] == "myd.service")
    #expect(snapshot.samples(ofSize: 1024).contains { $0.liveBlocks >= 5 })
  }

  @Test func `services as Debian hardens them are armed like others`() throws {
    let bed = try SystemdBed()
    let result = try bed.succeed(
      """
      mkdir -p /run/redis
      heaptap enable redis-server nginx
      systemctl start redis-server nginx
      wait_for '[ "$(heaptap list | grep -c -e "redis-server *dormant" -e "nginx *dormant")" -gt 1 ]'
      record redis-server
      redis-cli set key value
      systemctl kill --kill-whom=main -s USR2 redis-server
      wait_for '[ -n "$(find /var/lib/heaptap -name "*-redis-server-*.pb")" ]'
      heaptap snapshot redis-server | grep '^/var/lib/heaptap/[0-9]*/'
      heaptap start "$(systemctl show --property=MainPID --value nginx)"
      heaptap snapshot "$(systemctl show --property=MainPID --value nginx)"
      systemctl is-active redis-server nginx
      """)
    #expect(result.output.contains("-nginx-") && result.output.hasSuffix("\nactive\nactive\n"))
  }

  @Test func `the dump stays when the service and its private directories are gone`() throws {
    let bed = try SystemdBed()
    try bed.add(program: "grower.c", as: "usr/local/bin/grower")
    try bed.add(service: "myd", ["DynamicUser=yes"])
    let result = try bed.succeed(
      """
      heaptap enable myd
      systemctl start myd
      record myd
      systemctl kill --kill-whom=main -s USR1 myd
      wait_for '[ "$(state myd)" = dormant ]'
      systemctl stop myd
      find /var/lib/heaptap -name '*.pb' -printf '%h\\n'
      """)
    let place = try #require(result.output.split(separator: "\n").last)
    #expect(place.wholeMatch(of: /\/var\/lib\/heaptap\/myd\.service\/[0-9]+/) != nil)
  }

  // MARK: What is written, and taken back

  @Test func `disabling leaves the machine as it was before enabling, file by file`() throws {
    let bed = try SystemdBed()
    try bed.add(program: "grower.c", as: "usr/local/bin/grower")
    try bed.add(service: "plain")
    try bed.add(service: "dynamic", ["DynamicUser=yes"])
    try bed.add(service: "many@", ["DynamicUser=yes"])
    try bed.add("[Service]\nNice=5\n", as: "etc/systemd/system/plain.service.d/override.conf")
    let result = try bed.succeed(
      """
      picture() {
        find /etc /run/systemd/system /usr/local /var/lib/heaptap \
          -printf '%p %y %m %u %l\\n' -type f -execdir sha256sum {} + | sort
      }
      ln -s plain.service /etc/systemd/system/alias.service
      systemd-tmpfiles --create heaptap.conf
      systemctl daemon-reload
      picture > /tmp/before
      heaptap enable --limit 70% alias dynamic many@ many@1
      heaptap enable --runtime --depth 9 plain 2> /tmp/refused && exit 1
      picture > /tmp/armed
      heaptap enable --limit 70% plain dynamic.service many@ many@1
      picture | cmp - /tmp/armed
      ls /etc/systemd/system/*/*heaptap.conf /etc/systemd/system/heaptap-report.path.d/
      systemctl start 'many@1' 'many@2'
      wait_for '[ "$(heaptap list | grep -c many@)" = 2 ]'
      systemctl stop 'many@*'
      # What dumps and directories there are by now are the services' own.
      find /var/lib/heaptap -mindepth 2 -delete
      heaptap disable plain dynamic many@ many@1
      picture | diff /tmp/before - >&2
      heaptap enable --runtime dynamic
      systemctl cat dynamic | grep '# /run/systemd/system/dynamic.service.d/zz-heaptap.conf'
      heaptap disable dynamic
      heaptap disable dynamic
      picture | diff /tmp/before - >&2
      cat /tmp/refused
      """)
    for name in ["plain", "dynamic", "many@", "many@1"] {
      #expect(result.output.contains("\n/etc/systemd/system/\(name).service.d/zz-heaptap.conf"))
      #expect(result.output.contains("'\(name).service' is armed already"))
    }
    #expect(result.output.contains("'dynamic.service' is disarmed already"))
    #expect(result.output.contains("now: systemctl restart plain.service dynamic.service 'many@*"))
    #expect(result.output.contains("which comes before --runtime"))
  }

  @Test func `a dry run shows the drop-in and writes nothing`() throws {
    let bed = try SystemdBed()
    try bed.add(service: "myd", ["DynamicUser=yes"], command: "/bin/sleep 100")
    let result = try bed.succeed(
      """
      heaptap enable --dry-run --keep 4,1G myd
      [ ! -e /etc/systemd/system/myd.service.d ]; [ ! -e /var/lib/heaptap ]
      heaptap enable myd
      heaptap disable --dry-run myd
      cat /etc/systemd/system/myd.service.d/zz-heaptap.conf
      """)
    #expect(
      result.output.contains("would write '/etc/systemd/system/myd.service.d/zz-heaptap.conf'"))
    #expect(result.output.contains("\nEnvironment=HEAPTAP_KEEP=4,1G\n"))
    #expect(result.output.contains("would make '/var/lib/heaptap/myd.service' (mode 1733)"))
    #expect(result.output.contains("would run 'systemctl daemon-reload'"))
    #expect(
      result.output.contains("would remove '/etc/systemd/system/myd.service.d/zz-heaptap.conf"))
    #expect(result.output.contains("\nEnvironment=HEAPTAP=1\n"))
  }

  @Test func `a drop-in that is not ours any more is neither replaced nor removed`() throws {
    let bed = try SystemdBed()
    try bed.add(service: "myd", command: "/bin/sleep 100")
    let result = try bed.succeed(
      """
      heaptap enable myd
      file=/etc/systemd/system/myd.service.d/zz-heaptap.conf
      sed -i '1s/.*/# Mine now./' $file
      cp $file /tmp/before
      heaptap disable myd 2>&1 && exit 1
      heaptap enable --depth 9 myd 2>&1 && exit 1
      cmp $file /tmp/before
      """)
    #expect(
      result.output.components(separatedBy: "does not begin as 'heaptap enable' wrote it").count
        == 3)
  }

  // MARK: The unit's own environment

  @Test func `the unit's own preload is loaded after ours, wherever the unit sets it`() throws {
    let bed = try SystemdBed()
    let zlib = "/lib/x86_64-linux-gnu/libz.so.1"
    try bed.add(service: "myd", ["Environment=LD_PRELOAD=/nowhere.so"], command: "/bin/sleep 100")
    // A name that sorts after 'heaptap'.
    try bed.add(
      "[Service]\nEnvironment=\"LD_PRELOAD=\(zlib)\" 'SAID=a \"b\" 100%%'\n",
      as: "etc/systemd/system/myd.service.d/override.conf")
    let result = try bed.succeed(
      """
      heaptap enable myd
      systemctl restart myd
      wait_for '[ "$(state myd)" = dormant ]'
      pid=$(systemctl show --property=MainPID --value myd)
      tr '\\0' '\\n' < /proc/$pid/environ | grep -e LD_PRELOAD -e SAID
      grep -c libz.so /proc/$pid/maps
      """)
    #expect(result.output.contains("\nLD_PRELOAD=/usr/local/lib/libheaptap.so:\(zlib)\n"))
    #expect(result.output.contains("\nSAID=a \"b\" 100%\n"))
    #expect(result.errors.isEmpty, "\(result.errors)")
  }

  @Test func `settings that do not reach the unit are named`() throws {
    let bed = try SystemdBed()
    try bed.add(
      service: "myd", ["EnvironmentFile=-/etc/default/myd*", "EnvironmentFile=-/nowhere"],
      command: "/bin/sleep 100")
    try bed.add(
      "# HEAPTAP=0\nLD_PRELOAD='/lib/x86_64-linux-gnu/libz.so.1'\n", as: "etc/default/myd")
    try bed.add(service: "late", command: "/bin/sleep 100")
    try bed.add(
      "[Service]\nEnvironment=HEAPTAP=0\n", as: "etc/systemd/system/late.service.d/zzz.conf")
    let result = try bed.succeed("heaptap enable myd late")
    let lines = result.errors.split(separator: "\n")
    #expect(lines.count == 2)
    #expect(
      lines.first?.hasPrefix("heaptap: '/etc/default/myd' sets LD_PRELOAD, and an Env") == true)
    #expect(lines.last?.contains("'systemctl cat late.service' shows which") == true)
  }

  // MARK: Units that cannot work

  @Test func `units that cannot work are refused with the reason, and nothing is written`() throws {
    let bed = try SystemdBed()
    let programs = "usr/local/bin"
    try bed.add(program: "before.c", as: "\(programs)/static", options: ["-static"])
    for name in ["setuid", "setgid", "capable"] {
      try bed.add(program: "grower.c", as: "\(programs)/\(name)")
    }
    let loader = "-Wl,--dynamic-linker=/opt"
    try bed.add(
      program: "grower.c", as: "\(programs)/musl", options: ["\(loader)/ld-musl-x86_64.so.1"])
    try bed.add(
      program: "grower.c", as: "\(programs)/old", options: ["\(loader)/ld-linux-old.so.2"])
    try bed.add("GLIBC_2.31\0", as: "opt/ld-linux-old.so.2")
    try bed.add("#!/usr/local/bin/static\n", as: "\(programs)/script")
    let user = ["User=daemon"]
    for name in ["static", "setuid", "setgid", "capable", "musl", "old", "script"] {
      try bed.add(service: name, user, command: "/\(programs)/\(name) 1 1")
    }
    try bed.add(service: "root", ["RootDirectory=/srv"], command: "/bin/sleep 1")
    try bed.add(service: "broken", command: "")
    try bed.add(service: "fine", command: "/bin/sleep 100")
    try bed.add(
      service: "spared", ["User=daemon", "NoNewPrivileges=yes"], command: "/\(programs)/setuid 1 1")
    let result = try bed.succeed(
      """
      chmod 4755 /\(programs)/setuid; chown root:adm /\(programs)/setgid; chmod 2755 /\(programs)/setgid
      python3 -c 'import os; os.setxattr("/\(programs)/capable", "security.capability",
        bytes([1, 0, 0, 2, 0, 4, 0, 0]) + bytes(12))'
      chmod 755 /\(programs)/script
      ln -s /dev/null /etc/systemd/system/masked.service
      systemd-run --quiet --unit=transient sleep 100
      systemctl daemon-reload
      find /etc/systemd -newer /etc/machine-id | sort > /tmp/before
      for unit in static setuid setgid capable musl old script root broken nowhere masked transient \\
        basic.target '../fine'; do
        status=0; said=$(heaptap enable fine "$unit" 2>&1) || status=$?
        echo "$unit: $status: $said"
      done
      find /etc/systemd -newer /etc/machine-id | sort | diff /tmp/before -
      heaptap enable spared
      """)
    for (unit, reason) in [
      ("static", "it is statically linked"), ("setuid", "it is set-user-ID"),
      ("setgid", "set-group-ID"), ("capable", "has file capabilities"),
      ("musl", "its loader is '/opt/ld-musl-x86_64.so.1'"), ("old", "of a glibc before 2.35"),
      ("script", "it is statically linked"), ("root", "(RootDirectory=/srv)"),
      ("broken", "systemd cannot load 'broken.service'"), ("nowhere", "there is no unit"),
      ("masked", "'systemctl unmask masked.service' first"), ("transient", "--setenv=HEAPTAP=1"),
      ("basic.target", "is a target, and only a service"), ("../fine", "is no name of a unit"),
    ] {
      let line = result.output.split(separator: "\n").first { $0.hasPrefix("\(unit): ") } ?? ""
      #expect(line.hasPrefix("\(unit): 2: heaptap: ") && line.contains(reason), "\(unit): \(line)")
    }
    #expect(result.output.contains("now: systemctl restart spared.service"))
  }

  // MARK: The files of systemd/

  @Test func `dumps age, and the directories that services need stay`() throws {
    let bed = try SystemdBed()
    try bed.add(service: "myd", ["DynamicUser=yes"], command: "/bin/sleep 100")
    let result = try bed.succeed(
      """
      heaptap enable myd > /dev/null
      systemd-tmpfiles --create heaptap.conf
      mkdir /var/lib/heaptap/1 /var/lib/heaptap/myd.service/2
      touch /var/lib/heaptap/{1,myd.service/2}/dump.pb
      systemd-tmpfiles --clean heaptap.conf
      find /var/lib/heaptap -type f | wc -l
      # The same, where everything is old.
      sed 's/ 30d$/ 0/' /usr/local/lib/tmpfiles.d/heaptap.conf > /etc/tmpfiles.d/heaptap.conf
      systemd-tmpfiles --clean heaptap.conf
      find /var/lib/heaptap
      """)
    #expect(result.output == "2\n/var/lib/heaptap\n/var/lib/heaptap/myd.service\n")
  }

  @Test func `systemd has nothing to say about the unit files, nor about armed units`() throws {
    let bed = try SystemdBed()
    try bed.add(service: "myd", ["DynamicUser=yes"], command: "/bin/sleep 100")
    let result = try bed.succeed(
      """
      systemd-analyze verify heaptap-report.path heaptap-report.service 2>&1
      systemd-tmpfiles --create heaptap.conf 2>&1
      [ "$(stat -c '%a %U:%G' /var/lib/heaptap)" = '1733 root:root' ]
      heaptap enable --limit 70%,512M myd > /dev/null
      systemd-analyze verify heaptap-report.path myd.service 2>&1
      """)
    #expect(result.output.isEmpty && result.errors.isEmpty, "\(result.output)\(result.errors)")
  }
}
