/* SPDX-License-Identifier: Apache-2.0
 * Very many small blocks that stay, of 16 to 112 bytes from 2,000 stacks; then as many times one of them at
 * random is freed and another taken in its place. What a tracer's table of blocks costs.
 * Usage: living BLOCKS; a heap of some 80 bytes for each. */
#include <stdlib.h>
#include <string.h>

#include "ways.h"

static size_t byte_count;

__attribute__((noinline)) static void *odd(void) {
  void *block = malloc(byte_count);
  sink = 1;
  return block;
}
__attribute__((noinline)) static void *even(void) {
  void *block = malloc(byte_count);
  sink = 2;
  return block;
}
LEVEL(ones, (rest & 1 ? odd() : even()))
LEVEL(tens, ones[rest % 10](rest / 10))
LEVEL(hundreds, tens[rest % 10](rest / 10))

static char *take(unsigned long *seed) {
  int number = (int)(next_number(seed) >> 16 & 0x3fffffff) % 2000;
  byte_count = 16 + (size_t)(number % 13) * 8;
  char *block = hundreds[number % 10](number / 10);
  if (!block)
    abort();
  memset(block, 1, 16);
  return block;
}

int main(int count, char **arguments) {
  size_t blocks = count > 1 ? (size_t)atol(arguments[1]) : 5000000;
  char **kept = calloc(blocks, sizeof *kept);
  unsigned long seed = 88172645463325252;
  for (size_t i = 0; i < 2 * blocks; i++) {
    size_t place = i < blocks ? i : (next_number(&seed) >> 16) % blocks;
    free(kept[place]);
    kept[place] = take(&seed);
  }
  return 0;
}
