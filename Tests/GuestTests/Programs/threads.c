// SPDX-License-Identifier: Apache-2.0
// Threads that allocate known numbers of blocks of known sizes, one way for each argument.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITE __attribute__((noinline, noclone)) static

enum { THREADS = 64, BLOCKS = 500 };

static void *blocks[THREADS][BLOCKS];
static pthread_barrier_t barrier;

SITE void *allocate(size_t size) {
  void *volatile block = malloc(size);
  return block;
}

/* Each thread leaves half of its blocks, and frees the other half of its neighbour's. */
static void *cross(void *argument) {
  long mine = (long)argument;
  for (int i = 0; i < BLOCKS; i++)
    blocks[mine][i] = allocate(40 + (size_t)mine);
  pthread_barrier_wait(&barrier);
  long theirs = (mine + 1) % THREADS;
  for (int i = 0; i < BLOCKS; i += 2)
    free(blocks[theirs][i]);
  return NULL;
}

static void run_cross(void) {
  pthread_t threads[THREADS];
  pthread_barrier_init(&barrier, NULL, THREADS);
  for (long i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, cross, (void *)i);
  for (int i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
}

static void *leave_one(void *unused) {
  (void)unused;
  free(allocate(77));
  return allocate(51);
}

static void run_sequence(void) {
  for (int i = 0; i < 2000; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, leave_one, NULL);
    pthread_join(thread, NULL);
  }
}

/* Blocks made, grown and given back by the destructors of thread-specific data, in three rounds:
 * the fourth is the last, and what is allocated there is lost and counted. */
enum { KEYS = 40 };
static pthread_key_t keys[KEYS];
static void *kept_of_keys[20][KEYS];
static __thread int thread_number;

static void at_end(void *value) {
  size_t round = *(unsigned char *)value;
  int key = ((unsigned char *)value)[1];
  int number = thread_number;
  kept_of_keys[number][key] = realloc(kept_of_keys[number][key], 100 + round);
  free(value);
  if (round < 3) {
    unsigned char *next = allocate(64);
    next[0] = (unsigned char)(round + 1);
    next[1] = (unsigned char)key;
    pthread_setspecific(keys[key], next);
  }
}

static void *use_keys(void *argument) {
  thread_number = (int)(long)argument;
  for (int i = 0; i < KEYS; i++) {
    unsigned char *value = allocate(64);
    value[0] = 1;
    value[1] = (unsigned char)i;
    pthread_setspecific(keys[i], value);
  }
  return NULL;
}

static void run_keys(void) {
  for (int i = 0; i < KEYS; i++)
    pthread_key_create(&keys[i], at_end);
  for (long i = 0; i < 20; i++) {
    pthread_t thread;
    pthread_create(&thread, NULL, use_keys, (void *)i);
    pthread_join(thread, NULL);
  }
}

int main(int count, char **arguments) {
  const char *way = count > 1 ? arguments[1] : "";
  if (!strcmp(way, "cross"))
    run_cross();
  else if (!strcmp(way, "sequence"))
    run_sequence();
  else if (!strcmp(way, "keys"))
    run_keys();
  else
    return 2;
  puts("done");
  return 0;
}
