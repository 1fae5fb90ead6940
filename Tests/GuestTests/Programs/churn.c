// SPDX-License-Identifier: Apache-2.0
// Some thousand allocations, the same in every run, of which every thirteenth is never freed.
// Prints the bytes and blocks that it leaves.

#include <stdio.h>
#include <stdlib.h>

enum { SLOTS = 257, ROUNDS = 20000 };

static unsigned long state = 12345;
static unsigned next(unsigned limit) {
  state = state * 6364136223846793005UL + 1442695040888963407UL;
  return (unsigned)(state >> 33) % limit;
}

static void *slots[SLOTS];
static void *kept[ROUNDS];

int main(void) {
  size_t bytes = 0, blocks = 0;
  for (int round = 0; round < ROUNDS; round++) {
    void **slot = &slots[next(SLOTS)];
    size_t size = 1 + next(round % 50 ? 2000 : 300000);
    switch (next(6)) {
    case 0: *slot = realloc(*slot, size); break;
    case 1:
      free(*slot);
      *slot = calloc(1 + next(9), size);
      break;
    case 2:
      free(*slot);
      if (posix_memalign(slot, 64, size))
        return 1;
      break;
    case 3:
      free(*slot);
      *slot = NULL;
      break;
    default:
      free(*slot);
      *slot = malloc(size);
    }
    if (round % 13 == 0) {
      kept[blocks++] = malloc(size);
      bytes += size;
    }
  }
  for (int i = 0; i < SLOTS; i++)
    free(slots[i]);
  static char buffer[256]; /* or the stream would allocate one, and leave it */
  setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
  printf("%zu %zu\n", bytes, blocks);
  return kept[0] ? 0 : 1;
}
