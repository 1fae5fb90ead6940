/* SPDX-License-Identifier: Apache-2.0
 * A heap that is largest when it is half way through, and is told to forget that. */

#include <heaptap.h>
#include <stdio.h>
#include <stdlib.h>

static void *blocks[1000];

__attribute__((noinline)) static void top(int count) {
  for (int i = 0; i < count; i++)
    blocks[i] = malloc(1000);
}

__attribute__((noinline)) static void base(void) {
  for (int i = 0; i < 10; i++)
    blocks[i] = malloc(100);
}

static void release(void) {
  for (int i = 0; i < 1000; i++) {
    free(blocks[i]);
    blocks[i] = NULL;
  }
}

int main(void) {
  if (heaptap_start(0))
    return 1;
  top(1000);
  if (heaptap_snapshot())
    return 2;
  release();
  base();
  if (heaptap_snapshot())
    return 3;
  release();
  if (heaptap_reset_peak())
    return 4;
  top(20);
  if (heaptap_snapshot())
    return 5;
  release();
  puts("done");
  return 0;
}
