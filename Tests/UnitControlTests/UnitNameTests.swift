// SPDX-License-Identifier: Apache-2.0
// Names of units as people type them.

import Testing

@testable import UnitControl

@Suite struct UnitNameTests {
  @Test(arguments: [
    ("myd", "myd.service"), ("myd.service", "myd.service"), ("my.d", "my.d.service"),
    ("x@", "x@.service"), ("x@1", "x@1.service"), ("x@a.b.service", "x@a.b.service"),
    ("dbus-org.freedesktop.login1", "dbus-org.freedesktop.login1.service"),
    (#"a\x2db"#, #"a\x2db.service"#), ("service", "service.service"),
  ])
  func `a name is that of a service, with or without its suffix`(
    typed: String, name: String
  ) throws {
    #expect(try UnitName(typed).description == name)
  }

  @Test(arguments: [
    ("", "'' is no name of a unit"), ("a b", "'a b' is no name"), ("../x", "'../x' is no name"),
    ("x/y.service", "is no name"), ("@x", "is no name"), ("a@b@c", "is no name"),
    (".service", "is no name"), ("e\u{1b}[1m", #"'e\u{1b}[1m' is no name"#),
    ("x.socket", "'x.socket' is a socket"), ("a@b.timer", "is a timer"), ("-.mount", "is a mount"),
    (String(repeating: "a", count: 250), "is no name"),
  ])
  func `what is no service is refused, and printed without harm`(typed: String, words: String) {
    #expect {
      try UnitName(typed)
    } throws: {
      "\($0)".contains(words)
    }
  }

  @Test func `a template is asked about by an instance, and restarted by all`() throws {
    let template = try UnitName("x@")
    #expect(template.isTemplate && template.template == nil)
    #expect(template.asked == "x@heaptap.service")
    #expect(template.restarted == "'x@*.service'")
    let instance = try UnitName("x@1")
    #expect(!instance.isTemplate && instance.template == template)
    #expect(instance.asked == "x@1.service" && instance.restarted == "x@1.service")
  }
}
