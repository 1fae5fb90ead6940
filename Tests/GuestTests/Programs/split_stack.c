/* SPDX-License-Identifier: Apache-2.0
 * Threads whose stacks are in pieces, by -fsplit-stack: calls go on in memory of their own where one
 * is full. Says how many blocks it has left, and their bytes. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 4, ROUNDS = 20 };

struct left {
  long blocks, bytes;
};

static __attribute__((noinline)) int descend(int depth, size_t size, struct left *left) {
  /* As large as the pieces' slack, so that there are many pieces. */
  volatile char room[200];
  memset((void *)room, depth, sizeof room);
  char *block = malloc(size + depth % 7);
  if (!block)
    abort();
  block[0] = 1;
  int sum = depth > 0 ? descend(depth - 1, size, left) : 0;
  sum += block[0] + room[depth % 200];
  if (depth % 3) {
    free(block);
  } else {
    left->blocks++;
    left->bytes += size + depth % 7;
  }
  return sum;
}

static void *run(void *argument) {
  struct left *left = argument;
  int start = 60 + 50 * (int)left->blocks;
  *left = (struct left){0, 0};
  for (int round = 0; round < ROUNDS; round++)
    descend(start + round, 24 + round, left);
  return NULL;
}

int main(void) {
  pthread_t threads[THREADS];
  struct left left[THREADS + 1];
  for (int i = 0; i <= THREADS; i++)
    left[i] = (struct left){i, 0};
  for (int i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, run, &left[i]);
  run(&left[THREADS]);
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
    left[THREADS].blocks += left[i].blocks;
    left[THREADS].bytes += left[i].bytes;
  }
  printf("%ld %ld\n", left[THREADS].blocks, left[THREADS].bytes);
  return 0;
}
