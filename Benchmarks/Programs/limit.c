/* SPDX-License-Identifier: Apache-2.0
 * Leaks into a memory limit: a part at once, and from there at a rate.
 *
 *     limit RATE_MB_PER_SECOND STEP_BYTES FILL_BYTES
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char *volatile kept;

__attribute__((noinline)) static void leak_one(size_t size) {
  kept = malloc(size);
  if (!kept) _exit(3);
  memset(kept, 1, size);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
  if (argc != 4) return 64;
  double rate = atof(argv[1]) * 1e6;
  size_t step = strtoul(argv[2], NULL, 0), fill = strtoul(argv[3], NULL, 0);
  for (size_t filled = 0; filled < fill; filled += step) leak_one(step);
  double start = now();
  for (double leaked = (double)step;; leaked += (double)step) {
    leak_one(step);
    double early = start + leaked / rate - now();
    if (early > 0) usleep((useconds_t)(early * 1e6));
  }
}
