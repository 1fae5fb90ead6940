// SPDX-License-Identifier: Apache-2.0
// Allocates from stacks of shapes that C++ adds, each by a size of its own.

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "capture.h"

#define SHAPE __attribute__((noinline, noclone)) static

SHAPE void use(void *bytes) { __asm__ volatile("" ::"r"(bytes) : "memory"); }

struct AtStart {
  AtStart() { capture(10101); }
} at_start;

/* A destructor that runs while an exception is on its way through its frame. */
struct Guard {
  std::size_t size;
  char bytes[200];
  ~Guard() {
    capture(size);
    AFTER_CALL();
  }
};
SHAPE void thrower(int a) {
  Guard guard{10103, {}};
  use(&guard);
  if (a) throw std::runtime_error("expected");
}
SHAPE void through(int a) {
  std::string text(static_cast<std::size_t>(a) + 100, 'x');
  Guard guard{10105, {}};
  thrower(a);
  use(&text);
}
SHAPE void catcher(int a) {
  try {
    through(a);
  } catch (const std::exception &error) {
    capture(10107);
    try {
      throw;
    } catch (...) {
      capture(10109);
    }
  }
  AFTER_CALL();
}

struct Base {
  virtual ~Base() = default;
  virtual int call(int depth) = 0;
};
struct Derived final : Base {
  alignas(64) char bytes[64];
  int call(int depth) override {
    alignas(64) char local[256];
    use(local);
    if (depth == 0) {
      capture(10111);
      return 1;
    }
    int result = call(depth - 1);
    AFTER_CALL();
    return result + local[3] * 0;
  }
};
SHAPE void call_virtual() {
  Derived derived;
  Base *base = &derived;
  use(base);
  base->call(40);
}

template <typename Number> SHAPE Number sum(Number first) {
  capture(10113 + sizeof(Number));
  return first;
}
template <typename Number, typename... Rest> SHAPE Number sum(Number first, Rest... rest) {
  Number result = first + static_cast<Number>(sum(rest...));
  AFTER_CALL();
  return result;
}

SHAPE void by_library() {
  std::vector<int> items(100);
  for (int i = 0; i < 100; i++) items[static_cast<std::size_t>(i)] = (i * 37) % 101;
  bool has_compared = false;
  std::sort(items.begin(), items.end(), [&](int a, int b) {
    if (!has_compared) capture(10131);
    has_compared = true;
    return a < b;
  });
  std::function<void(std::size_t)> function = [](std::size_t size) {
    capture(size);
    AFTER_CALL();
  };
  function(10133);
}

static std::size_t handler_size = 10135;
static void when_memory_ends() {
  std::set_new_handler(nullptr);
  capture(handler_size);
}
SHAPE void run_out() {
  volatile std::size_t huge = PTRDIFF_MAX - 64;
  std::set_new_handler(when_memory_ends);
  try {
    use(::operator new(huge));
  } catch (const std::bad_alloc &) {
    capture(10137);
  }
  handler_size = 10143;
  std::set_new_handler(when_memory_ends);
  try {
    use(::operator new(huge, std::align_val_t{64}));
  } catch (const std::bad_alloc &) {
  }
}

struct AtThreadEnd {
  int used = 0;
  ~AtThreadEnd() {
    capture(10139);
    AFTER_CALL();
  }
};
static thread_local AtThreadEnd at_thread_end;

int main() {
  setvbuf(stdout, nullptr, _IOFBF, 1 << 20);
  catcher(1);
  call_virtual();
  sum(1L, 2, 3.0, short(4));
  by_library();
  run_out();
  std::thread([] {
    at_thread_end.used = 1;
    capture(10141);
    AFTER_CALL();
  }).join();
}
