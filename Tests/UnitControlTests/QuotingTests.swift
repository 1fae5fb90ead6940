// SPDX-License-Identifier: Apache-2.0
// What systemd writes is read, and what is written is what systemd reads.

import Testing

@testable import UnitControl

@Suite struct QuotingTests {
  @Test(arguments: [
    ("A=1", "Environment=N=A=1"), ("", "Environment=N="),
    ("two words", #"Environment="N=two words""#),
    ("70%,80%", "Environment=N=70%%,80%%"), (#"a"b"#, #"Environment="N=a\"b""#),
    (#"back\slash"#, #"Environment="N=back\\slash""#), ("it's", #"Environment="N=it's""#),
    ("a\nb\tc", #"Environment="N=a\nb\tc""#), ("$HOME `x` #;", #"Environment="N=$HOME `x` #;""#),
    ("grün", "Environment=N=grün"),
  ])
  func `an assignment says its value and no more`(value: String, line: String) {
    #expect(Quoting.assignment("N", value) == line)
    let read = Quoting.assignments(Quoting.words(line.dropFirst("Environment=".count)))
    #expect(read == ["N": value.replacing("%", with: "%%")])
  }

  @Test func `specifiers that are a unit's own stay specifiers`() {
    #expect(
      Quoting.assignment("N", "/lib/%n.so", specifiers: .expanded) == "Environment=N=/lib/%n.so")
  }

  @Test func `words end at spaces that are neither quoted nor escaped`() {
    #expect(
      Quoting.words(##"A=1 "B=x y"  'C=a"b' D=p\x20q E="in "side "" F=\"g "##)
        == ["A=1", "B=x y", "C=a\"b", "D=p q", "E=in side", "", "F=\"g"])
    #expect(Quoting.words("  ").isEmpty)
    #expect(Quoting.words(#""never closed"#) == ["never closed"])
    #expect(Quoting.words("ends\\") == ["ends"])
  }

  @Test func `an environment file is read as systemd reads it`() {
    let text = """
      # LD_PRELOAD=/commented.so
      ; HEAPTAP=0
      LD_PRELOAD="/a.so"
      A=one \\
      two
      =x
      B = 'c d'
      not an assignment
      """
    #expect(
      Quoting.environmentFile(text) == ["LD_PRELOAD": "/a.so", "A": "one two", "": "x", "B": "c d"])
  }
}
