// SPDX-License-Identifier: Apache-2.0
// Leaks one block by each form of operator new, each of a size of its own, and deletes by each form
// of operator delete. Prints `SIZE FUNCTION` for each block that must be left.

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <vector>

#define SITE __attribute__((noinline, noclone)) static void

static void *volatile kept;
static volatile std::size_t zero = 0;
static volatile std::size_t huge = PTRDIFF_MAX - 100;

static void left(std::size_t size, const char *function) { std::printf("%zu %s\n", size, function); }
#define LEAK(name, size, ...)                                                                      \
  SITE name() {                                                                                    \
    kept = __VA_ARGS__;                                                                            \
    left(size, #name);                                                                             \
  }

constexpr std::align_val_t wide{64};
struct alignas(128) Wide {
  char bytes[1152];
};
struct Thrower {
  char bytes[5003];
  Thrower() { throw 1; }
};

LEAK(leak_plain, 1001, ::operator new(1001))
LEAK(leak_array, 1003, ::operator new[](1003))
LEAK(leak_nothrow, 1007, ::operator new(1007, std::nothrow))
LEAK(leak_array_nothrow, 1009, ::operator new[](1009, std::nothrow))
LEAK(leak_aligned, 1013, ::operator new(1013, wide))
LEAK(leak_array_aligned, 1019, ::operator new[](1019, wide))
LEAK(leak_aligned_nothrow, 1021, ::operator new(1021, wide, std::nothrow))
LEAK(leak_array_aligned_nothrow, 1031, ::operator new[](1031, wide, std::nothrow))
LEAK(leak_wide, 1152, new Wide)
LEAK(leak_chars, 1033, new char[1033])
LEAK(leak_vector, 1039, (new (std::malloc(24)) std::vector<char>(1039))->data())
LEAK(leak_string, 1050, (new (std::malloc(40)) std::string(1049, 'x'))->data())
LEAK(leak_nothing, 0, ::operator new(zero))
LEAK(leak_array_of_nothing, 0, ::operator new[](zero))
LEAK(leak_nothing_nothrow, 0, ::operator new(zero, std::nothrow))
LEAK(leak_nothing_aligned, 0, ::operator new(zero, wide))

SITE delete_all() {
  ::operator delete(::operator new(2001));
  ::operator delete[](::operator new[](2003));
  ::operator delete(::operator new(2005), std::size_t(2005));
  ::operator delete[](::operator new[](2007), std::size_t(2007));
  ::operator delete(::operator new(2009, std::nothrow), std::nothrow);
  ::operator delete[](::operator new[](2011, std::nothrow), std::nothrow);
  ::operator delete(::operator new(2013, wide), wide);
  ::operator delete[](::operator new[](2015, wide), wide);
  ::operator delete(::operator new(2017, wide), std::size_t(2017), wide);
  ::operator delete[](::operator new[](2019, wide), std::size_t(2019), wide);
  ::operator delete(::operator new(2021, wide, std::nothrow), wide, std::nothrow);
  ::operator delete[](::operator new[](2023, wide, std::nothrow), wide, std::nothrow);
  ::operator delete(nullptr);
  ::operator delete[](nullptr, std::size_t(10));
  delete new Wide;
  delete[] new Wide[3];
  std::make_shared<std::vector<std::string>>(100, std::string(100, 'y'));
  try {
    kept = new Thrower;
  } catch (int) {
  }
}

static std::jmp_buf jump;
static int calls;
static void check(bool holds, const char *what) {
  if (!holds) std::printf("FAILED %s\n", what);
}

SITE run_out() {
  int caught = 0;
  try { kept = ::operator new(huge); } catch (const std::bad_alloc &) { caught++; }
  try { kept = ::operator new[](huge); } catch (const std::bad_alloc &) { caught++; }
  try { kept = ::operator new(huge, wide); } catch (const std::bad_alloc &) { caught++; }
  try { kept = ::operator new[](huge, wide); } catch (const std::bad_alloc &) { caught++; }
  try { kept = new std::vector<char>(huge / 2); } catch (const std::bad_alloc &) { caught++; }
  check(caught == 5, "bad_alloc");
  check(!::operator new(huge, std::nothrow), "nothrow");
  check(!::operator new[](huge, std::nothrow), "array nothrow");
  check(!::operator new(huge, wide, std::nothrow), "aligned nothrow");

  std::set_new_handler([] { throw 42; });
  int thrown = 0;
  try { kept = ::operator new(huge); } catch (int value) { thrown += value; }
  try { kept = ::operator new(huge, wide); } catch (int value) { thrown += value; }
  check(thrown == 84, "a handler that throws");

  std::set_new_handler([] { std::longjmp(jump, 1); });
  volatile int jumped = 0;
  if (setjmp(jump) == 0) kept = ::operator new(huge);
  else jumped = jumped + 1;
  if (setjmp(jump) == 0) kept = ::operator new(huge, wide);
  else jumped = jumped + 1;
  check(jumped == 2, "a handler that jumps");

  std::set_new_handler([] { if (++calls == 3) std::set_new_handler(nullptr); });
  try { kept = ::operator new(huge); } catch (const std::bad_alloc &) { calls += 10; }
  check(calls == 13, "a handler that is asked again");
}

int main() {
  leak_plain();
  leak_array();
  leak_nothrow();
  leak_array_nothrow();
  leak_aligned();
  leak_array_aligned();
  leak_aligned_nothrow();
  leak_array_aligned_nothrow();
  leak_wide();
  leak_chars();
  leak_vector();
  leak_string();
  leak_nothing();
  leak_array_of_nothing();
  leak_nothing_nothrow();
  leak_nothing_aligned();
  delete_all();
  run_out();
  std::puts("done");
}
