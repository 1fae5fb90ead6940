/* SPDX-License-Identifier: Apache-2.0
 * Leaks at a rate, for as long as it is let.
 *
 *     leak RATE STEP [LIMIT [mmap|THREADS]]
 *
 * RATE in MB/s, STEP in bytes; after LIMIT steps (0: none) it says "leaked" and waits for a line
 * before it goes on with as many again. With `mmap` it maps pages instead. THREADS more leak beside it,
 * each at that rate.
 */
#define _GNU_SOURCE
#include <pthread.h>
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

static double rate;
static size_t step;
static long limit;
static int maps;

static void leak_all(void) {
  double start = now();
  for (long done = 1; limit == 0 || done <= limit; done++) {
    maps ? map_one(step) : leak_one(step);
    double early = start + (double)done * (double)step / rate - now();
    if (early > 0) usleep((useconds_t)(early * 1e6));
  }
}

static void *leak_beside(void *unused) {
  leak_all();
  return unused;
}

int main(int argc, char **argv) {
  rate = atof(argv[1]) * 1e6;
  step = strtoul(argv[2], NULL, 0);
  limit = argc > 3 ? atol(argv[3]) : 0;
  maps = argc > 4 && strcmp(argv[4], "mmap") == 0;
  for (int threads = argc > 4 ? atoi(argv[4]) : 0; threads > 0; threads--) {
    pthread_t thread;
    pthread_create(&thread, NULL, leak_beside, NULL);
  }
  puts("ready");
  fflush(stdout);
  for (;;) {
    leak_all();
    puts("leaked");
    fflush(stdout);
    if (getchar() == EOF) return 0;
  }
}
