/* SPDX-License-Identifier: Apache-2.0
 * courses ROUNDS MILLISECONDS: takes a snapshot of itself so many times, so far apart, and has in
 * between something that leaks by time, a cache that is full after a third of the rounds, a buffer
 * that is large every other round, and a table that stays as it is. */
#include <heaptap.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096 };

static void *cache[64];
static char *buffer;
static void *table;
/* Volatile, so that the block escapes. */
static void *volatile lost;

static long milliseconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As much as time has gone by, so that its speed is the same however busy the machine is. */
__attribute__((noinline)) static void leak(long milliseconds) {
  static long leaked;
  for (; leaked < milliseconds; leaked++) {
    lost = malloc(100); /* LEAK */
  }
}

__attribute__((noinline)) static void fill_cache(int round) {
  for (int i = 0; i < 8; i++) {
    void **place = &cache[(round * 8 + i) % 64];
    free(*place);
    *place = malloc(BLOCK); /* CACHE */
  }
}

__attribute__((noinline)) static void refill_buffer(int round) {
  free(buffer);
  buffer = malloc(round % 2 ? 200000 : 1000); /* CHURN */
}

int main(int argc, char **argv) {
  if (argc != 3) return 64;
  int rounds = atoi(argv[1]);
  table = malloc(300000); /* TABLE */
  long start = milliseconds_now();
  for (int round = 0; round < rounds; round++) {
    leak(milliseconds_now() - start);
    fill_cache(round);
    refill_buffer(round);
    if (heaptap_snapshot() != 0) return 1;
    usleep((useconds_t)atoi(argv[2]) * 1000);
  }
  return table && buffer ? 0 : 1;
}
