/* SPDX-License-Identifier: Apache-2.0
 * Allocates from as many different stacks as it is told, in an order that nobody can foresee.
 * Usage: wander ALLOCATIONS [STACKS] */
#include <stdlib.h>

static volatile int sink;

static void step(int depth, unsigned path);

__attribute__((noinline)) static void leaf(unsigned size) {
  void *block = malloc(size);
  __asm__ volatile("" ::"r"(block) : "memory");
  free(block);
}

/* Functions of different frames: one keeps registers, one has an array, one aligns its stack. */
#define WAY(name, keep)                                            \
  __attribute__((noinline)) static void name(int depth, unsigned path) { \
    keep;                                                          \
    step(depth - 1, path / 8);                                     \
    sink++; /* after the call, so that it is no tail call */       \
  }
WAY(plain, )
WAY(other, sink += depth)
WAY(array, volatile char text[200]; text[depth & 63] = 1)
WAY(aligned, volatile char text[64] __attribute__((aligned(64))); text[depth & 63] = 1)
WAY(variable, volatile char text[16 + depth * 8]; text[0] = 1)
WAY(busy, int a = sink; int b = a * 3; int c = b ^ depth; sink = c; __asm__ volatile("" ::"r"(a), "r"(b), "r"(c)))

__attribute__((noinline)) static void step(int depth, unsigned path) {
  if (depth == 0) {
    leaf(32 + path % 3);
    return;
  }
  switch (path % 8) {
    case 0: plain(depth, path); break;
    case 1: other(depth, path); break;
    case 2: array(depth, path); break;
    case 3: aligned(depth, path); break;
    case 4: variable(depth, path); break;
    case 5: busy(depth, path); break;
    case 6: plain(depth, path); break;
    default: array(depth, path); break;
  }
  sink++;
}

int main(int count, char **arguments) {
  long allocations = count > 1 ? atol(arguments[1]) : 100000;
  unsigned stacks = count > 2 ? (unsigned)atol(arguments[2]) : 5000;
  unsigned seed = 1;
  for (long i = 0; i < allocations; i++) {
    seed = seed * 1664525u + 1013904223u;
    step(7, (seed >> 8) % stacks);
  }
  return 0;
}
