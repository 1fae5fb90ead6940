/* SPDX-License-Identifier: Apache-2.0
 * Leaks at a rate, for as long as it is let.
 *
 *     leak RATE STEP [LIMIT [mmap]]
 *
 * RATE in MB/s, STEP in bytes; after LIMIT steps (0: none) it says "leaked" and waits for a line
 * before it goes on with as many again. With `mmap` it maps pages instead.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static char *volatile kept;

__attribute__((noinline)) static void leak_one(size_t size) {
  char *block = malloc(size); /* LEAK */
  if (!block) exit(3);
  memset(block, 1, size);
  kept = block;
}

__attribute__((noinline)) static void map_one(size_t size) {
  char *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) exit(3);
  memset(pages, 1, size);
  kept = pages;
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  double rate = atof(argv[1]) * 1e6;
  size_t step = strtoul(argv[2], NULL, 0);
  long limit = argc > 3 ? atol(argv[3]) : 0;
  int maps = argc > 4 && strcmp(argv[4], "mmap") == 0;
  puts("ready");
  fflush(stdout);
  for (;;) {
    double start = now();
    for (long done = 1; limit == 0 || done <= limit; done++) {
      maps ? map_one(step) : leak_one(step);
      double early = start + (double)done * (double)step / rate - now();
      if (early > 0) usleep((useconds_t)(early * 1e6));
    }
    puts("leaked");
    fflush(stdout);
    if (getchar() == EOF) return 0;
  }
}
