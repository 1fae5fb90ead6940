// SPDX-License-Identifier: Apache-2.0
// Names as linkers write them, and as people do.

import Symbolication
import Testing

@Suite struct DemanglerTests {
  @Test(arguments: [
    ("$s4main7SessionV4openyyAA3KeyVySiGSgFZ", "static Session.open(_:)"),
    ("$sSa6appendyyxnFSi_Tg5", "specialized Array.append(_:)"),
    ("$s4main3fooyyFyycfU_", "closure #1 in foo()"),
    ("$s11LeakyServeryyYaKcfU2_", "closure #4 in main"), ("$S4main3fooyyF", "foo()"),
    ("$s4main3fooyyYaFTQ0_", "foo()"),
  ])
  func `a Swift name loses its modules and types`(mangled: String, name: String) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test func `a full Swift name keeps them`() {
    let demangler = Demangler(style: .full)
    #expect(
      demangler.demangled("$s4main3fooyyFyycfU_") == "closure #1 () -> () in main.foo() -> ()")
  }

  @Test(arguments: [
    ("_ZN5Cache6insertEi", "Cache::insert(int)"),
    (
      "_ZNSt6vectorIiSaIiEE9push_backEOi",
      "std::vector<int, std::allocator<int> >::push_back(int&&)"
    ),
    ("_Znwm", "operator new(unsigned long)"),
  ])
  func `a C++ name gets its types`(mangled: String, name: String) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test(arguments: [
    ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
    (
      "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h1a2b3c4d5e6f7a8bE",
      "<T as core::convert::Into<U>>::into"
    ),
  ])
  func `a Rust name loses its hash and its escapes`(mangled: String, name: String) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test(arguments: [
    ("grow.part.0", "grow"), ("grow.cold", "grow"), ("grow.constprop.0.isra.0", "grow"),
    ("_ZN5Cache6insertEi.cold", "Cache::insert(int)"), ("malloc@@GLIBC_2.2.5", "malloc"),
    ("$s4main3fooyyF.resume.0", "foo()"), ("grow.llvm.18446744073709551615", "grow"),
  ])
  func `what was cut out of a function has the function's name`(symbol: String, name: String) {
    #expect(Demangler().demangled(symbol) == name)
  }

  @Test(arguments: [
    "main", "", ".", "..", "@", "_", "$", "$s", "_Z", "_T", "_Tfoo", "_ZN", "$sfoo", "a.b",
    "_start.something", "_RNvC6_123foo3bar", ".LC0",
  ])
  func `a name that is not mangled is left alone`(symbol: String) {
    #expect(Demangler().demangled(symbol) == symbol)
    #expect(Demangler(style: .full).demangled(symbol) == symbol)
  }
}
