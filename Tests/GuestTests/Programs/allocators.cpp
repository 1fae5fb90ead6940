// SPDX-License-Identifier: Apache-2.0
// Small blocks by every entry, under whatever allocator is preloaded. `record`: from the start, and
// `SIZE COUNT` is printed for what is left. `switch`: recording starts and stops between the halves.
// `shrink`: blocks are reallocated to nothing.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <malloc.h>
#include <new>

#define SITE __attribute__((noinline, noclone))

namespace {
constexpr int count = 3000;
constexpr std::align_val_t aligned{16};
volatile std::size_t zero = 0;

struct Block {
  unsigned char *bytes;
  std::size_t size;
  int way;
};

SITE unsigned char *allocate(int way, std::size_t size) {
  void *block = nullptr;
  switch (way) {
  case 0: block = std::malloc(size); break;
  case 1: block = std::calloc(1, size); break;
  case 2: block = std::realloc(nullptr, size); break;
  case 3: block = std::realloc(std::malloc(100), size); break;
  case 4: if (posix_memalign(&block, 8, size)) std::abort(); break;
  case 5: block = aligned_alloc(8, size); break;
  case 6: block = memalign(16, size); break;
  case 7: block = reallocarray(nullptr, 1, size); break;
  case 8: block = ::operator new(size); break;
  case 9: block = ::operator new[](size); break;
  case 10: block = ::operator new(size, std::nothrow); break;
  case 11: block = ::operator new[](size, std::nothrow); break;
  case 12: block = ::operator new(size, aligned); break;
  case 13: block = ::operator new[](size, aligned); break;
  case 14: block = ::operator new(size, aligned, std::nothrow); break;
  case 15: block = ::operator new[](size, aligned, std::nothrow); break;
  }
  return static_cast<unsigned char *>(block);
}
constexpr int ways = 16;

void give(const Block &block, int variant) {
  using Free = void (*)(void *, std::size_t);
  static Free free_sized = reinterpret_cast<Free>(dlsym(RTLD_DEFAULT, "free_sized"));
  void *bytes = block.bytes;
  bool even = variant % 2 == 0;
  switch (block.way) {
  case 8: even ? ::operator delete(bytes, block.size) : ::operator delete(bytes); break;
  case 9: even ? ::operator delete[](bytes, block.size) : ::operator delete[](bytes); break;
  case 10: ::operator delete(bytes, std::nothrow); break;
  case 11: ::operator delete[](bytes, std::nothrow); break;
  case 12: even ? ::operator delete(bytes, block.size, aligned)
                : ::operator delete(bytes, aligned); break;
  case 13: even ? ::operator delete[](bytes, block.size, aligned)
                : ::operator delete[](bytes, aligned); break;
  case 14: ::operator delete(bytes, aligned, std::nothrow); break;
  case 15: ::operator delete[](bytes, aligned, std::nothrow); break;
  default: even && free_sized ? free_sized(bytes, block.size) : std::free(bytes);
  }
}

/* `count` blocks of each way and of sizes from 1 to 40, filled so that an overlap shows. */
constexpr int total = ways * count;
Block *make() {
  Block *blocks = static_cast<Block *>(std::malloc(total * sizeof(Block)));
  for (int i = 0; i < total; i++) {
    std::size_t size = 1 + static_cast<std::size_t>(i / ways) % 40;
    blocks[i] = {allocate(i % ways, size), size, i % ways};
    std::memset(blocks[i].bytes, i % 251, size);
  }
  return blocks;
}

void check(const Block *blocks, int from, int step) {
  for (int i = from; i < total; i += step)
    for (std::size_t at = 0; at < blocks[i].size; at++)
      if (blocks[i].bytes[at] != i % 251) {
        std::printf("FAILED block %d of way %d and %zu bytes\n", i, i % ways, blocks[i].size);
        std::exit(1);
      }
}

void call(const char *name) {
  auto function = reinterpret_cast<int (*)(unsigned)>(dlsym(RTLD_DEFAULT, name));
  if (function && function(0) != 0) std::printf("FAILED %s\n", name);
}

int record() {
  Block *blocks = make();
  check(blocks, 0, 1);
  int left[41] = {};
  for (int i = 0; i < total; i++) {
    if (i / ways % 3 == 0) left[blocks[i].size]++;
    else give(blocks[i], i / ways);
  }
  check(blocks, 0, total);
  for (int size = 1; size <= 40; size++) std::printf("%d %d\n", size, left[size]);
  std::fflush(stdout);
  _Exit(0);
}

int switched() {
  Block *before = make();
  call("heaptap_start");
  Block *during = make();
  for (int i = 0; i < total; i += 2) give(before[i], i / ways), before[i] = {allocate(i % ways, 8), 0, i % ways};
  for (int i = 0; i < total; i += 2) give(during[i], i / ways / 2), during[i].size = 0;
  check(before, 0, 1);
  check(during, 0, 1);
  call("heaptap_stop");
  for (int i = 1; i < total; i += 4) give(before[i], i / ways / 2), before[i].size = 0;
  for (int i = 1; i < total; i += 4) give(during[i], i / ways / 2), during[i].size = 0;
  check(before, 0, 1);
  check(during, 0, 1);
  Block *after = make();
  check(before, 0, 1);
  check(during, 0, 1);
  check(after, 0, 1);
  for (int i = 0; i < total; i++) give(after[i], i);
  std::puts("done");
  return 0;
}

/* realloc to nothing gives a block or frees one, as the allocator likes. */
SITE void *shrink_to_nothing() { return std::realloc(std::malloc(10), zero); }

int shrink() {
  static void *blocks[1000];
  int left = 0;
  for (void *&block : blocks) left += (block = shrink_to_nothing()) != nullptr;
  std::printf("%d left\n", left);
  std::fflush(stdout);
  _Exit(0);
}
} // namespace

int main(int arguments, char **argument) {
  if (arguments > 1 && !std::strcmp(argument[1], "shrink")) return shrink();
  return arguments > 1 && !std::strcmp(argument[1], "switch") ? switched() : record();
}
