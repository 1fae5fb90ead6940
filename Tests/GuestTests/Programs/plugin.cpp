// SPDX-License-Identifier: Apache-2.0
// A plug-in in C++ for a host in C. `SALT` makes two builds of it that differ in nothing else.

#include <cstddef>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#ifndef SALT
#define SALT 1
#endif

extern "C" __attribute__((noinline)) void *plugin_allocate(std::size_t size) {
  char *bytes = new char[size];
  std::memset(bytes, SALT, size);
  return bytes;
}

#ifdef MANY
static void *kept[8000];
extern "C" __attribute__((noinline)) void plugin_many() {
  for (void *&block : kept)
    if (!block)
      block = ::operator new(100);
}
#endif

extern "C" void *plugin_run(std::size_t size) {
#ifdef MANY
  plugin_many();
#endif
  std::string text(500, 'p');
  void *wide = ::operator new(size + 1, std::align_val_t{64});
  ::operator delete(wide, std::align_val_t{64});
  volatile std::size_t huge = PTRDIFF_MAX - 10;
  try {
    delete[] static_cast<char *>(plugin_allocate(huge));
  } catch (const std::bad_alloc &) {
    text += '!';
  }
  try {
    throw std::runtime_error(text);
  } catch (const std::exception &) {
    return plugin_allocate(size);
  }
}

extern "C" void plugin_free(void *block) { ::operator delete[](block); }

#ifdef RESOLVER
/* Chosen by the loader's lazy binding, in the middle of the first call. */
extern "C" void capture(std::size_t);
static void chosen() {}
extern "C" void (*choose())() {
  capture(20001);
  return chosen;
}
extern "C" void lazily() __attribute__((ifunc("choose")));
extern "C" void call_lazily() {
  lazily();
  __asm__ volatile("" ::: "memory");
}
#endif
