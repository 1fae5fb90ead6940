/* SPDX-License-Identifier: Apache-2.0
 * Gives blocks back by an allocator's own call, which no tracer of malloc sees:
 *
 *     unseen FUNCTION
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) static char *make(size_t size) {
  char *block = malloc(size);
  __asm__ volatile("" : "+r"(block));
  return block;
}

int main(int count, char **arguments) {
  if (count != 2)
    return 64;
  /* sdallocx is told the size and flags, which the others overlook. */
  void (*give_back)(void *, size_t, int) =
      (void (*)(void *, size_t, int))dlsym(RTLD_DEFAULT, arguments[1]);
  if (!give_back)
    return 69;
  for (int round = 0; round < 1000; round++) {
    char *block = make(100);
    memset(block, 1, 100);
    give_back(block, 100, 0);
  }
  make(777);
  return 0;
}
