// SPDX-License-Identifier: Apache-2.0
// Allocates 4001 bytes below as many calls of one function as the argument says, and 4003 at once.

#include <stdio.h>
#include <stdlib.h>

static void *volatile kept;

__attribute__((noinline, noclone)) static int descend(int depth) {
  if (depth == 0) {
    kept = malloc(4001);
    return 0;
  }
  int result = descend(depth - 1);
  __asm__ volatile("" ::: "memory");
  return result + 1;
}

int main(int count, char **arguments) {
  int depth = count > 1 ? atoi(arguments[1]) : 10;
  kept = malloc(4003);
  if (descend(depth) != depth)
    return 1;
  puts("done");
  return 0;
}
