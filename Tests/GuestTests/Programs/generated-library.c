// SPDX-License-Identifier: Apache-2.0
// A library whose one function allocates, with a frame that only its unwind table describes.

#include <stddef.h>

__attribute__((noinline)) void *library_allocate(size_t size, void *(*allocator)(size_t)) {
  void *block = allocator(size);
  __asm__ volatile("" ::"r"(block) : "memory", "rbp", "rbx");
  return block;
}
