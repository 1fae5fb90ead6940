// SPDX-License-Identifier: Apache-2.0
// What `systemctl show` prints, read; captured from systemd 252.

import Testing

@testable import UnitControl

@Suite struct UnitFactsTests {
  private let captured = UnitFacts(
    #"""
    ExecStart={ path=/bin/sleep ; argv[]=/bin/sleep 100 ; ignore_errors=no ; start_time=[n/a] ; stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
    ExecStart={ path=/usr/bin/my daemon ; argv[]=x ; ignore_errors=no ; pid=0 }
    Environment=A=1 "B=x y" "C=a\"b" D=p%q "E=back\\slash" LD_PRELOAD=/lib/foo.so "F=\$dollar"
    EnvironmentFiles=/etc/default/t* (ignore_errors=yes)
    EnvironmentFiles=/etc/hostname (ignore_errors=no)
    UnsetEnvironment=LD_PRELOAD A=1
    RootDirectory=
    RootImage=/var/lib/image.raw
    User=daemon
    DynamicUser=no
    NoNewPrivileges=yes
    ProtectSystem=strict
    RestrictAddressFamilies=~
    Id=t.service
    Names=t.service alias.service
    LoadState=loaded
    FragmentPath=/etc/systemd/system/t.service
    DropInPaths=/etc/systemd/system/t.service.d/a.conf /run/systemd/system/t.service.d/b.conf
    LoadError=org.freedesktop.systemd1.UnitMasked "Unit m.service is masked."
    Transient=no
    """#)

  @Test func `a unit's properties are found in what systemctl shows`() {
    #expect(captured.id == "t.service" && captured.loadState == "loaded")
    #expect(captured.loadError == "Unit m.service is masked.")
    #expect(captured.programs == ["/bin/sleep", "/usr/bin/my daemon"])
    #expect(
      captured.environment == [
        "A": "1", "B": "x y", "C": "a\"b", "D": "p%q", "E": #"back\slash"#,
        "LD_PRELOAD": "/lib/foo.so", "F": "$dollar",
      ])
    #expect(captured.environmentFiles == ["/etc/default/t*", "/etc/hostname"])
    #expect(captured.unsetVariables == ["LD_PRELOAD", "A=1"])
    #expect(captured.foreignRoot == "RootImage=/var/lib/image.raw")
    #expect(captured.user == "daemon" && !captured.hasDynamicUser && !captured.gainsPrivileges)
    #expect(
      captured.files == [
        "/etc/systemd/system/t.service", "/etc/systemd/system/t.service.d/a.conf",
        "/run/systemd/system/t.service.d/b.conf",
      ])
    #expect(!captured.isTransient)
  }

  @Test func `nothing is known of a unit that shows nothing`() {
    let facts = UnitFacts("")
    #expect(facts.id.isEmpty && facts.programs.isEmpty && facts.environment.isEmpty)
    #expect(facts.foreignRoot == nil && facts.mayUseUnixSockets && facts.gainsPrivileges)
    #expect(facts.sight(of: "/var/lib/heaptap") == .writable)
  }

  @Test(arguments: [
    ("~", true), ("AF_INET AF_UNIX", true), ("AF_INET AF_INET6", false), ("", false),
    ("~AF_UNIX AF_NETLINK", false), ("~AF_NETLINK", true), ("~AF_INET ~AF_UNIX", false),
  ])
  func `the families of sockets say whether the journal can be reached`(
    families: String, isAllowed: Bool
  ) {
    #expect(UnitFacts("RestrictAddressFamilies=\(families)").mayUseUnixSockets == isAllowed)
  }

  @Test(arguments: [
    ("", "writable"), ("ProtectSystem=full", "writable"), ("ProtectSystem=strict", "readOnly"),
    ("ProtectSystem=strict\nReadWritePaths=-/var/lib", "writable"),
    ("ReadOnlyPaths=/var", "readOnly"),
    ("ReadOnlyPaths=/var\nReadWritePaths=+/var/lib/", "writable"),
    ("ReadWritePaths=/var\nReadOnlyPaths=/var/lib", "readOnly"), ("ReadOnlyPaths=/va", "writable"),
    ("InaccessiblePaths=-/var", "InaccessiblePaths=/var"),
    ("TemporaryFileSystem=/var:ro", "TemporaryFileSystem="), ("PrivateTmp=yes", "writable"),
    ("ProtectHome=yes", "writable"),
  ])
  func `the sandbox says whether dumps can be written`(properties: String, expected: String) {
    let sight = UnitFacts(properties).sight(of: "/var/lib/heaptap")
    switch sight {
    case .writable: #expect(expected == "writable")
    case .readOnly: #expect(expected == "readOnly")
    case .covered(let setting), .hidden(let setting): #expect(expected == setting)
    }
  }

  @Test func `the sandbox says whether the library can be seen and run`() {
    let home = "/home/ci/lib/libheaptap.so"
    #expect(UnitFacts("ProtectHome=yes").sight(of: home) == .hidden(by: "ProtectHome=yes"))
    #expect(UnitFacts("ProtectHome=read-only").sight(of: home) == .readOnly)
    #expect(UnitFacts("ProtectHome=tmpfs").sight(of: home) == .covered(by: "ProtectHome=tmpfs"))
    #expect(UnitFacts("PrivateTmp=yes").sight(of: "/tmp/l.so") == .hidden(by: "PrivateTmp=yes"))
    let strict = UnitFacts("NoExecPaths=/\nExecPaths=/usr /opt/a")
    #expect(strict.mayExecute("/usr/local/lib/libheaptap.so"))
    #expect(!strict.mayExecute("/opt/b/libheaptap.so"))
    #expect(UnitFacts("NoExecPaths=").mayExecute(home))
  }
}
