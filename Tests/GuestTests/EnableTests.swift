// SPDX-License-Identifier: Apache-2.0
// `heaptap enable` where there is no systemd to ask: what it takes, and how it fails.

import Foundation
import Testing

@Suite struct EnableTests {
  @Test(arguments: [
    (
      "limit", ["off", "80%", "1%,100%", "70%,512M", "4096", "1g", "0%", "101%", "80%,", "x", "5X"]
    ),
    ("limit", ["1%,2%,3%,4%,5%,6%,7%,8%", "1%,2%,3%,4%,5%,6%,7%,8%,9%", "off,80%", "80 %", "-1"]),
    ("start", ["off", "60%", "400M", "0", "60%,70%", "lots", "4t", "9999999999999999999"]),
    ("keep", ["off", "16", "256M", "16,256M", "256M,16", "0", "1,2", "1M,2M", "1,2M,3", "M"]),
    ("depth", ["1", "64", "1024", "0", "1025", "-1", "ten", "1 ", "0x10"]),
    ("signals", ["none", "USR1,USR2", "SIGUSR2,SIGUSR1", "RTMIN+3,RTMIN+4", "RTMIN,USR1"]),
    ("signals", ["USR1", "USR1,USR1", "HUP,TERM", "RTMIN+99,USR1", "USR1,USR2,USR1", "usr1,usr2"]),
    ("log", ["auto", "journal", "stderr", "off", "file", "OFF"]),
  ])
  func `a setting is taken if and only if the tracer takes it`(
    setting: String, values: [String]
  ) throws {
    for value in values {
      let traced = try run(
        ["/bin/true"],
        environment: DumpBox().environment("1", ["HEAPTAP_\(setting.uppercased())": value]))
      let result = try heaptap("enable", "--dry-run", "--\(setting)=\(value)", "no-such")
      #expect((result.status == 64) == traced.errors.contains(" takes "), "\(setting)=\(value)")
    }
  }

  @Test func `without systemd it says so`() throws {
    let result = try heaptap(["enable", "--dry-run", "myd"], environment: ["PATH": "/nowhere"])
    #expect(result.status == 2)
    #expect(
      result.errors == "heaptap: cannot run 'systemctl': no such file or directory; arming a"
        + " unit needs systemd\n")
  }

  @Test func `a library that is not there is found out before anything is written`() throws {
    let result = try heaptap(
      ["enable", "--dry-run", "myd"], environment: ["HEAPTAP_LIBRARY": "/no/such.so"])
    #expect(result.status == 2 && result.errors.contains("'/no/such.so', which cannot be opened"))
  }
}
