// SPDX-License-Identifier: Apache-2.0
// Blocks that are very large, very many, or aligned as nobody aligns them.

#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITE __attribute__((noinline, noclone)) static

static void *volatile kept;

/* Around the size from which a block is kept in two words. */
SITE void leave_large(void) {
  kept = malloc((16 << 20) - 1);
  kept = malloc(16 << 20);
  kept = malloc((16 << 20) + 1);
  kept = calloc(1, 100 << 20);
  kept = memalign(1 << 20, 17 << 20);
  kept = malloc((size_t)5 << 30);
}
SITE void churn_large(void) {
  for (int i = 0; i < 50; i++) {
    void *block = malloc((size_t)(15 + i % 4) << 20);
    block = realloc(block, (size_t)(20 - i % 8) << 20);
    free(block);
  }
}
SITE void shrink_large(void) {
  kept = realloc(malloc(40 << 20), 3333333);
  kept = realloc(malloc(100), 44444444);
}

SITE void leave_many(void) {
  for (int i = 0; i < 1000000; i++)
    kept = malloc(24);
}
SITE void churn_many(void) {
  static void *blocks[4096];
  for (int i = 0; i < 1000000; i++) {
    void **slot = &blocks[(unsigned)i * 2654435761u >> 20];
    free(*slot);
    *slot = malloc((size_t)i % 64);
  }
  for (int i = 0; i < 4096; i++)
    free(blocks[i]);
}

/* The chunks that lie closest: 32 bytes apart. */
SITE int leave_close(void) {
  uintptr_t last = 0;
  int close = 0;
  for (int i = 0; i < 1000; i++) {
    void *block = malloc(17);
    close += (uintptr_t)block - last == 32;
    last = (uintptr_t)block;
  }
  return close;
}

SITE void leave_aligned(void) {
  for (size_t shift = 0; shift <= 21; shift++)
    for (size_t size = 1; size <= 33; size += 8)
      kept = memalign((size_t)1 << shift, size);
  for (size_t odd = 3; odd <= 99; odd += 6) /* memalign rounds up to a power of two */
    kept = memalign(odd, 10);
}

int main(int count, char **arguments) {
  const char *way = count > 1 ? arguments[1] : "";
  static char buffer[256];
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  if (!strcmp(way, "large")) {
    churn_large();
    leave_large();
    shrink_large();
  } else if (!strcmp(way, "many")) {
    leave_many();
    churn_many();
  } else {
    printf("close %d\n", leave_close() > 900);
    leave_aligned();
  }
  puts("done");
  return 0;
}
