/* SPDX-License-Identifier: Apache-2.0
 * A heap of known size: BLOCKS live blocks of SIZE bytes from 10,000 distinct stacks, and THREADS
 * threads that go on allocating while it waits.
 * Usage: heap BLOCKS SIZE THREADS SECONDS; prints `ready`, and at the end the slowest single
 * allocation of the threads in microseconds. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ways.h"

static size_t size;
static atomic_int done;
static atomic_long slowest;

/* Four levels of ten functions each: ten thousand ways to one malloc. */
__attribute__((noinline)) static void *leaf(void) {
  void *block = malloc(size);
  if (block)
    memset(block, 1, size < 64 ? size : 64);
  return block;
}
LEVEL(ones, (((void)rest), leaf()))
LEVEL(tens, ones[rest % 10](rest / 10))
LEVEL(hundreds, tens[rest % 10](rest / 10))
LEVEL(thousands, hundreds[rest % 10](rest / 10))

static void *churn(void *unused) {
  unsigned seed = (unsigned)(size_t)&unused;
  void *blocks[256] = {0};
  while (!atomic_load(&done)) {
    struct timespec start, end;
    seed = seed * 1103515245 + 12345;
    int slot = seed >> 16 & 255;
    clock_gettime(CLOCK_MONOTONIC, &start);
    free(blocks[slot]);
    blocks[slot] = malloc(16 + (seed >> 8 & 511));
    clock_gettime(CLOCK_MONOTONIC, &end);
    long took = (end.tv_sec - start.tv_sec) * 1000000 + (end.tv_nsec - start.tv_nsec) / 1000;
    if (took > atomic_load(&slowest))
      atomic_store(&slowest, took);
  }
  for (int i = 0; i < 256; i++)
    free(blocks[i]);
  return unused;
}

int main(int count, char **arguments) {
  if (count < 5)
    return 64;
  long blocks = atol(arguments[1]);
  size = (size_t)atol(arguments[2]);
  int threads = atoi(arguments[3]);
  pthread_t started[64];
  for (long i = 0; i < blocks; i++)
    if (!thousands[i % 10]((int)(i / 10 % 1000)))
      return 1;
  for (int i = 0; i < threads && i < 64; i++)
    pthread_create(&started[i], NULL, churn, NULL);
  puts("ready");
  fflush(stdout);
  unsigned left = (unsigned)atoi(arguments[4]);
  while (left)
    left = sleep(left);
  atomic_store(&done, 1);
  for (int i = 0; i < threads && i < 64; i++)
    pthread_join(started[i], NULL);
  printf("%ld\n", atomic_load(&slowest));
  return 0;
}
