// SPDX-License-Identifier: Apache-2.0
// Blocks from very many stacks of 40 frames that stay allocated: what a comparison of two dumps fears.
// The stacks are a tree that parts all along, at 3,800 places in 390 functions; each place is in a
// function that was inlined.
// Usage: comparison [ROUNDS [STACKS]]; every stack allocates, and in each further round every third one.
#include <cstdint>
#include <cstdlib>

namespace {

constexpr unsigned ways = 10;
constexpr unsigned levels = 39;
// Every second level takes a bit of the stack's number.
constexpr unsigned bits = 17;

volatile int sink;

struct Path {
  std::uint32_t number;
  std::uint32_t state;

  unsigned step(unsigned level) {
    if (level % 2 == 0 && level / 2 < bits) state ^= (number >> level / 2 & 1) << 7;
    state = state * 1664525u + 1013904223u;
    return (state >> 16) % ways;
  }
};

template <unsigned level, unsigned way>
__attribute__((noinline)) void walk(Path path);

// Inlined, so that a return address has two lines, and a function of its own.
template <unsigned level, unsigned way>
__attribute__((always_inline)) inline void descend(Path path) {
  walk<level, way>(path);
  sink = int(way);  // after the call, so that it is no tail call
}

template <unsigned level, unsigned way>
void walk(Path path) {
  if constexpr (level == levels) {
    void *block = std::malloc(16 + path.number % 1000);
    asm volatile("" ::"r"(block) : "memory");
  } else {
    path.state += way;  // so that no two functions are one
    switch (path.step(level)) {
      case 0: descend<level + 1, 0>(path); break;
      case 1: descend<level + 1, 1>(path); break;
      case 2: descend<level + 1, 2>(path); break;
      case 3: descend<level + 1, 3>(path); break;
      case 4: descend<level + 1, 4>(path); break;
      case 5: descend<level + 1, 5>(path); break;
      case 6: descend<level + 1, 6>(path); break;
      case 7: descend<level + 1, 7>(path); break;
      case 8: descend<level + 1, 8>(path); break;
      default: descend<level + 1, 9>(path); break;
    }
  }
}

}  // namespace

int main(int count, char **arguments) {
  long rounds = count > 1 ? std::atol(arguments[1]) : 1;
  unsigned stacks = count > 2 ? unsigned(std::atol(arguments[2])) : 100000;
  for (long round = 0; round < rounds; round++)
    for (unsigned number = 0; number < stacks; number += round == 0 ? 1 : 3) walk<0, 0>({number, 1});
}
