/* SPDX-License-Identifier: Apache-2.0
 * grower BYTES MILLISECONDS [COUNT]: leaks so many bytes, which it writes to, every so often; for
 * ever, or so many times and then waits. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Volatile, so that the block escapes and what is written to it counts. */
static char *volatile kept;

__attribute__((noinline)) static void leak_one(size_t byte_count) {
  char *block = malloc(byte_count); /* LEAK */
  if (!block) abort();
  memset(block, 1, byte_count);
  kept = block;
}

int main(int argc, char **argv) {
  if (argc < 3) return 64;
  size_t byte_count = strtoull(argv[1], NULL, 10);
  useconds_t pause = (useconds_t)strtoul(argv[2], NULL, 10) * 1000;
  long count = argc > 3 ? atol(argv[3]) : -1;
  for (;;) {
    if (count != 0) leak_one(byte_count);
    if (count > 0) count--;
    if (pause > 0) usleep(pause);
  }
}
