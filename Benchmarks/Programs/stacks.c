/* SPDX-License-Identifier: Apache-2.0
 * A malloc+free pair from one of very many stacks, each time another, at random: what a tracer that
 * counts on stacks that come again fears. 22 frames, of which the last five differ.
 * Usage: stacks [PAIRS [STACKS]]; prints nanoseconds a pair, by the thread's own clock. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile int sink;

static void choose(int depth, unsigned path);

#define WAY(name)                                                        \
  __attribute__((noinline)) static void name(int depth, unsigned path) { \
    choose(depth - 1, path / 10);                                        \
    sink++; /* after the call, so that it is no tail call */             \
  }
WAY(a) WAY(b) WAY(c) WAY(d) WAY(e) WAY(f) WAY(g) WAY(h) WAY(i) WAY(j)

__attribute__((noinline)) static void pair(void) {
  void *block = malloc(64);
  __asm__ volatile("" ::"r"(block) : "memory");
  free(block);
}

static inline __attribute__((always_inline)) void choose(int depth, unsigned path) {
  static void (*const ways[])(int, unsigned) = {a, b, c, d, e, f, g, h, i, j};
  if (depth == 0)
    pair();
  else
    ways[path % 10](depth, path);
}

__attribute__((noinline)) static void work(int depth, long pairs, unsigned seed, unsigned stacks) {
  if (depth > 0) {
    work(depth - 1, pairs, seed, stacks);
    sink++;
    return;
  }
  for (long n = 0; n < pairs; n++) {
    seed = seed * 1664525u + 1013904223u;
    choose(5, (seed >> 8) % stacks);
  }
}

int main(int count, char **arguments) {
  long pairs = count > 1 ? atol(arguments[1]) : 400000;
  unsigned stacks = count > 2 ? (unsigned)atol(arguments[2]) : 100000;
  struct timespec start, end;
  work(15, 10L * stacks, 1, stacks); /* so that each was seen */
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  work(15, pairs, 7, stacks);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  printf("%.2f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / pairs);
  return 0;
}
