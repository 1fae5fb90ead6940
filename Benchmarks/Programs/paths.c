/* SPDX-License-Identifier: Apache-2.0
 * Nothing but malloc+free pairs, of 16 to 512 bytes in steps of 16: one of 64 paths is taken at random, 20 to
 * 27 frames deep, and at its end four places allocate. What a tracer costs that has 256 stacks to tell apart in
 * a program that does nothing else.
 * Usage: paths PAIRS THREADS; the pairs are of all threads together. */
#include <pthread.h>
#include <stdlib.h>

#include "ways.h"

static long pairs_of_each;
static unsigned long paths[64];

__attribute__((noinline)) static void pair(size_t size) {
  void *block = malloc(size);
  __asm__ volatile("" ::"r"(block) : "memory");
  free(block);
  sink = (int)size;
}

/* Four places, by where each returns to. */
__attribute__((noinline)) static void pairs(unsigned number) {
  pair(16 + number % 32 * 16);
  pair(16 + number / 7 % 32 * 16);
  pair(16 + number / 49 % 32 * 16);
  pair(16 + number / 343 % 32 * 16);
  sink = 1;
}

typedef void (*way)(unsigned long path, int left, unsigned number);
static void go_on(unsigned long path, int left, unsigned number);

#define WAY(name, digit)                                                                           \
  __attribute__((noinline)) static void name(unsigned long path, int left, unsigned number) {      \
    go_on(path >> 2, left - 1, number);                                                            \
    sink = digit; /* after the call, so that it is no tail call */                                 \
  }
WAY(north, 1) WAY(east, 2) WAY(south, 3) WAY(west, 4)

static inline __attribute__((always_inline)) void go_on(unsigned long path, int left, unsigned number) {
  static const way ways[] = {north, east, south, west};
  if (left == 0)
    pairs(number);
  else
    ways[path & 3](path, left, number);
}

static void *run(void *argument) {
  unsigned long seed = (unsigned long)argument;
  for (long i = 0; i < pairs_of_each; i += 4) {
    unsigned long number = next_number(&seed) >> 16;
    go_on(paths[number & 63], 16 + (number & 7), (unsigned)(number >> 6));
  }
  return NULL;
}

int main(int count, char **arguments) {
  long threads = count > 2 ? atol(arguments[2]) : 1;
  unsigned long seed = 88172645463325252;
  pthread_t started[64];
  for (int i = 0; i < 64; i++)
    paths[i] = next_number(&seed);
  pairs_of_each = (count > 1 ? atol(arguments[1]) : 10000000) / threads;
  for (long i = 1; i < threads && i < 64; i++)
    if (pthread_create(&started[i], NULL, run, (void *)(i + 1)) != 0)
      return 1;
  run((void *)1);
  for (long i = 1; i < threads && i < 64; i++)
    pthread_join(started[i], NULL);
  return 0;
}
