// SPDX-License-Identifier: Apache-2.0
// Which drop-in a unit takes, what the operator is told, and which units are refused.

import ProcessControl
import Testing

@testable import UnitControl

@Suite struct PlanTests {
  private let library = "/usr/local/lib/libheaptap.so"

  /// A unit that is loaded and runs one program, and what else is said of it.
  private func picture(
    _ properties: String = "", program: PreloadObstacle? = nil, files: [String] = []
  ) -> UnitPicture {
    var picture = UnitPicture(
      facts: UnitFacts("Id=myd.service\nLoadState=loaded\n\(properties)"))
    picture.obstacles = [("/usr/bin/myd", program)]
    picture.files = files
    return picture
  }

  private func plan(
    _ picture: UnitPicture, named name: String = "myd",
    settings: [TracerSetting: String] = [:], lifetime: Lifetime = .untilDisabled
  ) throws -> Plan {
    try Plan(
      arming: UnitName(name), picture, library: library, settings: settings, lifetime: lifetime)
  }

  /// The text of the drop-in.
  private func dropIn(_ picture: UnitPicture, settings: [TracerSetting: String] = [:]) throws
    -> String
  {
    for change in try plan(picture, settings: settings).changes {
      if case .write("/etc/systemd/system/myd.service.d/zz-heaptap.conf", let text) = change {
        return text
      }
    }
    throw Missing()
  }

  private struct Missing: Error {}

  @Test func `a plain unit takes three variables`() throws {
    #expect(
      try dropIn(picture()) == """
        # Written by 'heaptap enable'; 'heaptap disable' removes it.
        [Service]
        Environment=HEAPTAP=1
        Environment=LD_PRELOAD=/usr/local/lib/libheaptap.so
        Environment=HEAPTAP_DIR=/var/lib/heaptap

        """)
    #expect(try plan(picture()).changes.first == .makeDirectory(path: "/var/lib/heaptap"))
    #expect(try plan(picture()).warnings.isEmpty)
  }

  @Test func `settings become variables, and their percents are not specifiers`() throws {
    let text = try dropIn(picture(), settings: [.limit: "70%,512M", .depth: "128"])
    #expect(
      text.hasSuffix("\nEnvironment=HEAPTAP_DEPTH=128\nEnvironment=HEAPTAP_LIMIT=70%%,512M\n"))
  }

  @Test func `the way to the dumps is opened where it is closed, and nowhere else`() throws {
    #expect(
      try dropIn(picture("ProtectSystem=strict")).hasSuffix("ReadWritePaths=-/var/lib/heaptap\n"))
    #expect(
      try dropIn(picture("TemporaryFileSystem=/var")).hasSuffix("\nBindPaths=-/var/lib/heaptap\n"))
    for open in ["ProtectSystem=full", "ProtectSystem=yes", "PrivateTmp=yes"] {
      #expect(!(try dropIn(picture(open)).contains("Paths=")))
    }
    // Done again, what was opened the first time is not taken for the unit's own.
    let again = picture("ProtectSystem=strict\nReadWritePaths=-/var/lib/heaptap /srv")
    #expect(try dropIn(again) == dropIn(picture("ProtectSystem=strict")))
  }

  @Test func `a unit whose user changes has a directory of its own, which is watched`() throws {
    let changes = try plan(picture("DynamicUser=yes\nProtectSystem=strict")).changes
    let directory = "/var/lib/heaptap/myd.service"
    #expect(changes.contains(.makeDirectory(path: directory)))
    let watch = "/etc/systemd/system/heaptap-report.path.d/myd.service.conf"
    #expect(
      changes.contains(
        .write(path: watch, text: DropIn.head + "[Path]\nPathChanged=\(directory)\n")))
    let text = try dropIn(picture("DynamicUser=yes\nProtectSystem=strict"))
    #expect(text.contains("\nEnvironment=HEAPTAP_DIR=\(directory)\n"))
    #expect(text.hasSuffix("\nReadWritePaths=-\(directory)\n"))
  }

  @Test func `the unit's own preload stays, after ours, and ours comes once`() throws {
    let own = """
      [Service]
      Environment=A=1 LD_PRELOAD=/old.so
      Environment=
      Environment="LD_PRELOAD=/opt/%i/a.so /opt/b.so"
      [Install]
      Environment=LD_PRELOAD=/not-here.so
      """
    let expected = "\nEnvironment=LD_PRELOAD=\(library):/opt/%i/a.so:/opt/b.so\n"
    #expect(try dropIn(picture(files: [own])).contains(expected))
    // A later file wins; one that we have written says nothing about the unit.
    let ours = DropIn(library: library, preloaded: "/stale.so", directory: "/d").text
    let dropped = "[Service]\nEnvironment=LD_PRELOAD=\(library):/c.so\n"
    #expect(
      try dropIn(picture(files: [own, dropped, ours]))
        .contains("\nEnvironment=LD_PRELOAD=\(library):/c.so\n"))
  }

  @Test func `what the manager preloads everywhere stays unless the unit has its own`() throws {
    var everywhere = picture()
    everywhere.managerPreload = "/100%/all.so"
    #expect(try dropIn(everywhere).contains("LD_PRELOAD=\(library):/100%%/all.so\n"))
    everywhere.files = ["[Service]\nEnvironment=LD_PRELOAD="]
    #expect(try dropIn(everywhere).contains("LD_PRELOAD=\(library)\n"))
  }

  @Test func `the library is let in where code is not mapped from everywhere`() throws {
    let line = "\nExecPaths=-\(library)\n"
    #expect(try dropIn(picture("NoExecPaths=/\nExecPaths=/usr/bin /usr/lib")).hasSuffix(line))
    #expect(try dropIn(picture("NoExecPaths=/\nExecPaths=/usr/bin -\(library)")).hasSuffix(line))
    #expect(!(try dropIn(picture("NoExecPaths=/\nExecPaths=/usr")).contains("ExecPaths")))
  }

  @Test func `a directory that the operator has chosen stays, and is opened`() throws {
    let chosen = picture(
      "DynamicUser=yes\nProtectSystem=strict",
      files: ["[Service]\nEnvironment=HEAPTAP_DIR=/srv/%N HEAPTAP_DEPTH=9"])
    let text = try dropIn(chosen)
    #expect(text.contains("\nEnvironment=HEAPTAP_DIR=/srv/%N\n") && !text.contains("DEPTH"))
    #expect(text.hasSuffix("\nReadWritePaths=-/srv/%N\n"))
    #expect(try plan(chosen).changes.count == 1)
  }

  @Test func `until the next boot it is below run`() throws {
    let changes = try plan(picture(), lifetime: .untilReboot).changes
    guard case .write(let path, _) = changes.last else { throw Missing() }
    #expect(path == "/run/systemd/system/myd.service.d/zz-heaptap.conf")
  }

  @Test func `an alias leads to its unit, and a template to itself`() throws {
    #expect(try plan(picture(), named: "alias").unit.description == "myd.service")
    let template = picture("Id=x@heaptap.service").facts
    var instance = picture()
    instance.facts = UnitFacts("LoadState=loaded\nId=x@heaptap.service")
    #expect(template.loadState == "loaded")
    #expect(try plan(instance, named: "x@").unit.description == "x@.service")
    #expect(try plan(instance, named: "x@heaptap").unit.description == "x@heaptap.service")
  }

  @Test func `an environment file that overrides the drop-in is named, with what to do`() throws {
    var picture = picture()
    picture.environmentFiles = [
      ("/etc/default/myd", ["LD_PRELOAD": "/a.so", "HEAPTAP_DEPTH": "9", "OTHER": "x"])
    ]
    let warnings = try plan(picture).warnings
    #expect(warnings.count == 2)
    #expect(warnings[0].hasPrefix("'/etc/default/myd' sets HEAPTAP_DEPTH"))
    #expect(warnings[1].contains("LD_PRELOAD") && warnings[1].contains("'\(library):'"))
  }

  @Test func `a unit without unix sockets is armed, and will say nothing`() throws {
    let warnings = try plan(picture("RestrictAddressFamilies=AF_INET")).warnings
    #expect(warnings.count == 1 && warnings[0].contains("leaves AF_UNIX out"))
  }

  @Test func `of several programs those that cannot be traced are named`() throws {
    var several = picture(program: .staticallyLinked)
    several.obstacles.append(("/usr/bin/other", nil))
    #expect(try plan(several).warnings.first?.contains("'/usr/bin/myd' cannot be traced") == true)
  }

  @Test(arguments: [
    ("LoadState=not-found", "there is no unit 'myd.service'"),
    ("LoadState=masked", "'myd.service' is masked; 'systemctl unmask myd.service' first"),
    (
      #"LoadState=bad-setting"# + "\nLoadError=x \"Bad thing.\"",
      "cannot load 'myd.service': Bad thing."
    ),
    ("LoadState=loaded\nTransient=yes", "--setenv=HEAPTAP=1"),
    ("LoadState=loaded\nRootDirectory=/srv/root", "(RootDirectory=/srv/root)"),
    ("LoadState=loaded\nRootImage=/srv/i.raw", "(RootImage=/srv/i.raw)"),
    ("LoadState=loaded\nUnsetEnvironment=LD_PRELOAD", "LD_PRELOAD in its UnsetEnvironment="),
    ("LoadState=loaded\nInaccessiblePaths=/var/lib", "InaccessiblePaths=/var/lib hides"),
    (
      "LoadState=loaded\nInaccessiblePaths=/usr/local", "cannot load '/usr/local/lib/libheaptap.so'"
    ),
  ])
  func `a unit that cannot work is refused with the reason and the way out`(
    properties: String, sentence: String
  ) {
    var picture = picture()
    picture.facts = UnitFacts("Id=myd.service\n\(properties)")
    #expect {
      try plan(picture)
    } throws: {
      "\($0)".contains(sentence)
    }
  }

  @Test(arguments: [
    PreloadObstacle.staticallyLinked, .privileged, .foreignLoader("/lib/ld-musl-x86_64.so.1"),
    .oldLoader("/lib64/ld-linux-x86-64.so.2"), .foreignMachine,
  ])
  func `a unit whose program cannot be traced is refused`(obstacle: PreloadObstacle) {
    #expect {
      try plan(picture(program: obstacle))
    } throws: {
      "\($0)" == "'myd.service' cannot be traced: it runs '/usr/bin/myd', and \(obstacle.words)"
    }
  }

  @Test func `a unit that starts nothing is refused`() {
    var empty = picture()
    empty.obstacles = []
    #expect {
      try plan(empty)
    } throws: {
      "\($0)".contains("has no ExecStart=")
    }
  }

  @Test(arguments: TracerSetting.allCases)
  func `a setting takes what the tracer takes`(setting: TracerSetting) {
    let values: [TracerSetting: (good: [String], bad: [String])] = [
      .limit: (
        ["off", "80%", "1%,100%", "70%,80%,90%,512M", "1g"],
        ["", "0%", "101%", "80", "80%,", "%", "x", "off,80%", "1%,1%,1%,1%,1%,1%,1%,1%,1%", "5X"]
      ),
      .start: (["off", "60%", "400M"], ["", "0", "60", "60%,70%", "lots"]),
      .keep: (["off", "16", "256M", "16,256M", "256M,16"], ["", "0", "1,2", "1M,2M", "1,2M,3"]),
      .depth: (["1", "1024"], ["0", "1025", "-1", "ten", ""]),
      .sample: (
        ["off", "0", "512K", "1K", "1G", "65536"], ["", "100", "2G", "512KB", "-1", "50%", "1T"]
      ),
      .signals: (
        ["none", "USR1,USR2", "SIGUSR2,SIGUSR1", "RTMIN+3,RTMIN+4", "RTMIN,USR1"],
        ["USR1", "USR1,USR1", "HUP,TERM", "RTMIN+31,USR1", "USR1,USR2,USR1", "RTMIN,RTMIN+0"]
      ),
      .log: (["auto", "journal", "stderr", "off"], ["", "file"]),
    ]
    for value in values[setting]!.good { #expect(setting.accepts(value), "\(value)") }
    for value in values[setting]!.bad { #expect(!setting.accepts(value), "\(value)") }
  }
}
