// SPDX-License-Identifier: Apache-2.0
// Names as linkers write them, and as people do.

import Symbolication
import Testing

@Suite struct DemanglerTests {
  @Test(arguments: [
    ("$s4main7SessionV4openyyAA3KeyVySiGSgFZ", "static Session.open(_:)"),
    ("$sSa6appendyyxnFSi_Tg5", "specialized Array.append(_:)"),
    ("$S4main3fooyyF", "foo()"),
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
    ("_ZN5Cache6insertEi", "Cache::insert"),
    ("_ZNSt6vectorIiSaIiEE9push_backEOi", "std::vector<…>::push_back"),
    ("_Znwm", "operator new"), ("_ZdaPv", "operator delete[]"),
    ("_ZNK5store12_GLOBAL__N_16Square4areaEv", "store::(anonymous namespace)::Square::area"),
    // With the type of its result: `void f<int>(int)`, `std::vector<int> f<int>(int)`.
    ("_Z1fIiEvT_", "f<…>"), ("_Z1fIiESt6vectorIT_SaIS1_EES1_", "f<…>"),
    // A result that is spelled with brackets: `decltype ((g)({parm#1})) f<int>(int)`.
    ("_Z1fIiEDTcl1gfp_EET_", "f<…>"),
    ("_ZNSt7__cxx119to_stringB5cxx11Ei", "std::__cxx11::to_string"),
    ("_ZNK1AclEi", "A::operator()"), ("_ZN1AixEi", "A::operator[]"),
    ("_ZN1AltERKS_", "A::operator<"),
    ("_ZltIiEbRK1AIT_ES4_", "operator< <…>"), ("_ZlsIiERSoS0_T_", "operator<< <…>"),
    ("_ZeqIiEbRK1AIT_ES4_", "operator==<…>"), ("_ZN1AssERKS_", "A::operator<=>"),
    ("_ZNK1AptEv", "A::operator->"), ("_ZNK1ApmEi", "A::operator->*"),
    ("_ZN1AcmES_", "A::operator,"),
    ("_ZNK1AcvbEv", "A::operator bool"),
    ("_ZNK1AcvSt6vectorIiSaIiEEEv", "A::operator std::vector<…>"),
    ("_Zli3_kmd", "operator\"\" _km"),
    ("_ZN9operators3runEv", "operators::run"),
    ("_ZNSt8functionIFviEEclEi", "std::function<…>::operator()"),
    // A comparison and an operator's address among the arguments of a template.
    ("_ZN1AILb1EE3getEv", "A<…>::get"), ("_ZN1AIXadL_ZN1BltERKS0_EEE1fEv", "A<…>::f"),
    ("_ZN1AIXgtLi3ELi2EEE1fEv", "A<…>::f"),
    ("_ZN3BoxC2ERKS_", "Box::Box"), ("_ZN3BoxD0Ev", "Box::~Box"),
    ("_ZThn8_N3Box4openEv", "Box::open"),
    ("_ZZN3Box4openEvEN5Local3runEv", "Box::open::Local::run"),
    ("_ZNSt8functionIFvvEEC1IZ4mainEUlvE_vEEOT_", "std::function<…>::function<…>"),
  ])
  func `a C++ name loses its types`(mangled: String, name: String) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test(arguments: [
    ("_ZN5Cache6insertEi", "Cache::insert(int)"),
    (
      "_ZNSt6vectorIiSaIiEE9push_backEOi",
      "std::vector<int, std::allocator<int> >::push_back(int&&)"
    ),
    ("_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()() const"),
    ("_ZNSt8functionIFvvEEC1IZ4mainEUlvE_vEEOT_", "{lambda()#1}"),
  ])
  func `a full C++ name keeps them`(mangled: String, part: String) {
    #expect(Demangler(style: .full).demangled(mangled).contains(part))
  }

  @Test(arguments: [
    // By the older scheme.
    ("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad"),
    (
      "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h1a2b3c4d5e6f7a8bE",
      "<T as core::convert::Into<…>>::into"
    ),
    // By the newer one, as its specification and the compiler's own tests have them.
    ("_RNvC6_123foo3bar", "123foo::bar"),
    ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
    ("_RINvNtC3std3mem8align_ofjdE", "std::mem::align_of"),
    (
      "_RNqCs4fqI2P2rA04_11utf8_identsu30____7hkackfecea1cbdathfdh9hlq6y",
      "utf8_idents::საჭმელად_გემრიელი_სადილი"
    ),
    (
      "_RINbNbCskIICzLVDPPb_5alloc5alloc8box_freeDINbNiB4_5boxed5FnBoxuEp6OutputuEL_ECs1iopQbuBiw2_3std",
      "alloc::alloc::box_free"
    ),
    ("_RNvXs_C1aNtB4_1SNtNtCs1234_4core5clone5Clone5clone", "<a::S as core::clone::Clone>::clone"),
    ("_RMC0INtC8arrayvec8ArrayVechKj7b_E", "<arrayvec::ArrayVec<…>>"),
    ("_RNvC2aa1b.llvm.1234567890", "aa::b"),
  ])
  func `a Rust name loses its hashes, its escapes and the types it was made for`(
    mangled: String, name: String
  ) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test(arguments: [
    (
      "_ZN4core3fmt9Formatter3pad17h0123456789abcdefE",
      "core::fmt::Formatter::pad::h0123456789abcdef"
    ),
    ("_RINvNtC3std3mem8align_ofjdE", "std[0]::mem::align_of::<usize, f64>"),
    (
      "_RNCNCNgCs6DXkGYLi8lr_2cc5spawn00B5_",
      "cc[4d6468d6c9fd4bb3]::spawn::{closure#0}::{closure#0}"
    ),
  ])
  func `a full Rust name tells one copy of a function from another`(mangled: String, name: String) {
    #expect(Demangler(style: .full).demangled(mangled) == name)
  }

  @Test func `a Rust name that stands for megabytes is left alone`() {
    // Pairs of pairs, each level twice the one before: numbers in base 62 say where that began.
    func backReference(to place: Int) -> String {
      let digits = Array("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
      guard place > 0 else { return "B_" }
      var (rest, text) = (place - 1, "")
      repeat {
        text = String(digits[rest % 62]) + text
        rest /= 62
      } while rest > 0
      return "B\(text)_"
    }
    func name(levels: Int) -> String {
      var name = "INvC1a1f"
      var last = "u"
      for _ in 0..<levels {
        let place = name.utf8.count
        name += "T\(last)\(last)E"
        last = backReference(to: place)
      }
      return "_R\(name)E"
    }
    #expect(Demangler().demangled(name(levels: 2)) == "a::f")
    #expect(
      Demangler(style: .full).demangled(name(levels: 2))
        == "a[0]::f::<((), ()), (((), ()), ((), ()))>")
    #expect(Demangler().demangled(name(levels: 18)) == name(levels: 18))
  }

  @Test(arguments: [
    ("$s4main3fooyyFyycfU_", "foo()"), ("$s4main3fooyyFyycfU_yycfU0_", "foo()"),
    ("$s11LeakyServeryyYaKcfU2_", "main"),
    ("$s4main3fooyyFyycfU_TA", "foo()"),
    ("$s4main3fooyyFyycfU_Tf4n_n", "specialized foo()"),
    ("$s4main3fooyyYaFTQ0_", "foo()"), ("$s4main3fooyyYaFTY1_", "foo()"),
    ("$s4main3fooyyYaFyyYaYbcfU_TQ1_", "foo()"), ("$s4main3fooyyF6$deferL_yyF", "foo()"),
    ("async_Main", "main"), ("async_MainTY2_", "main"), ("async_MainTQ0_", "main"),
    ("_RNCNCNgCs6DXkGYLi8lr_2cc5spawn00B5_", "cc::spawn"),
    (
      "_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterhENuNgNoBb_4iter8iterator8Iterator9rpositionNCNgNpB9_6memchr7memrchrs_0E0Bb_",
      "<core::slice::Iter<…> as core::iter::iterator::Iterator>::rposition"
    ),
    ("_ZN4demo4main28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE", "demo::main"),
    ("_ZZ4mainENKUlvE_clEv", "main"), ("_ZZN5Cache6insertEiENKUliE_clEi", "Cache::insert"),
    ("_ZZNK5Cache4findEiENKUlvE_clEv", "Cache::find"),
    ("_ZZNSt6vectorIiSaIiEE4fillEvENKUlvE_clEv", "std::vector<…>::fill"),
  ])
  func `closures and the parts of asynchronous functions are the function`(
    mangled: String, name: String
  ) {
    #expect(Demangler().demangled(mangled) == name)
  }

  @Test func `what has a name of its own inside a function keeps it`() {
    #expect(Demangler().demangled("$s4main3fooyyF5innerL_yyF") == "inner #1 () in foo()")
  }

  @Test(arguments: [
    ("grow.part.0", "grow"), ("grow.cold", "grow"), ("grow.constprop.0.isra.0", "grow"),
    ("_ZN5Cache6insertEi.cold", "Cache::insert"), ("malloc@@GLIBC_2.2.5", "malloc"),
    ("$s4main3fooyyF.resume.0", "foo()"), ("grow.llvm.18446744073709551615", "grow"),
  ])
  func `what was cut out of a function has the function's name`(symbol: String, name: String) {
    #expect(Demangler().demangled(symbol) == name)
  }

  @Test(arguments: [
    "main", "", ".", "..", "@", "_", "$", "$s", "_Z", "_T", "_Tfoo", "_ZN", "$sfoo", "a.b",
    "_start.something", "_RNvC6_123foo", "_R", ".LC0",
    "async_MainLoop", "async_MainTYx_",
  ])
  func `a name that is not mangled is left alone`(symbol: String) {
    #expect(Demangler().demangled(symbol) == symbol)
    #expect(Demangler(style: .full).demangled(symbol) == symbol)
  }
}
