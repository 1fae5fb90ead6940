/* SPDX-License-Identifier: Apache-2.0
 * Threads that each keep some blocks and replace one after the other, in no order: what they write that others
 * write too is counted in the dump.
 * Usage: replacing PAIRS BLOCKS SIZE THREADS: pairs and blocks of each thread, sizes from 1 to SIZE. */
#include <pthread.h>
#include <stdlib.h>

enum { THREAD_LIMIT = 64 };
static long pair_count, block_count, size_limit;

static void *replace(void *argument) {
  unsigned long random = *(unsigned *)argument;
  void **blocks = calloc((size_t)block_count, sizeof *blocks);
  for (long i = 0; i < pair_count; i++) {
    random = random * 6364136223846793005ul + 1442695040888963407ul;
    void **place = &blocks[(long)(random >> 33) % block_count];
    free(*place);
    *place = malloc((size_t)(1 + (long)(random >> 20) % size_limit));
  }
  for (long i = 0; i < block_count; i++)
    free(blocks[i]);
  free(blocks);
  return NULL;
}

int main(int count, char **arguments) {
  if (count < 5)
    return 64;
  pair_count = atol(arguments[1]);
  block_count = atol(arguments[2]);
  size_limit = atol(arguments[3]);
  int threads = atoi(arguments[4]);
  pthread_t started[THREAD_LIMIT];
  unsigned seeds[THREAD_LIMIT];
  if (block_count < 1 || size_limit < 1 || threads > THREAD_LIMIT)
    return 64;
  for (int i = 0; i < threads; i++) {
    seeds[i] = (unsigned)i + 1;
    pthread_create(&started[i], NULL, replace, &seeds[i]);
  }
  for (int i = 0; i < threads; i++)
    pthread_join(started[i], NULL);
  return 0;
}
