/* SPDX-License-Identifier: Apache-2.0
 * The cost of one malloc+free pair at a depth of frames: the smallest thing that a tracer can slow.
 * Usage: pair [PAIRS [DEPTH [STACKS]]]; prints nanoseconds a pair, by the thread's own clock. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile int sink;

__attribute__((noinline)) static void pair_a(void) {
  void *block = malloc(64);
  __asm__ volatile("" ::"r"(block) : "memory");
  free(block);
}
__attribute__((noinline)) static void pair_b(void) {
  void *block = malloc(96);
  __asm__ volatile("" ::"r"(block) : "memory");
  free(block);
}

__attribute__((noinline)) static void work(int depth, long pairs, int stacks) {
  if (depth > 0) {
    work(depth - 1, pairs, stacks);
    sink++; /* after the call, so that it is no tail call */
    return;
  }
  for (long i = 0; i < pairs; i++) {
    if (stacks > 1 && i & 1)
      pair_b();
    else
      pair_a();
  }
}

int main(int count, char **arguments) {
  long pairs = count > 1 ? atol(arguments[1]) : 10000000;
  int depth = count > 2 ? atoi(arguments[2]) : 20;
  int stacks = count > 3 ? atoi(arguments[3]) : 1;
  struct timespec start, end;
  if (pairs == 0) /* what a program costs that does nothing */
    return 0;
  work(depth, 10000, stacks);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &start);
  work(depth, pairs, stacks);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
  printf("%.2f\n", ((end.tv_sec - start.tv_sec) * 1e9 + (end.tv_nsec - start.tv_nsec)) / pairs);
  return 0;
}
