// SPDX-License-Identifier: Apache-2.0
// Threads that leave known blocks behind: some have a name, some get one late, some have ended by then.

#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_barrier_t named;

__attribute__((noinline)) static void leave(int count, size_t size) {
  for (int i = 0; i < count; i++) {
    void *volatile block = malloc(size);
    (void)block;
  }
}

/* Allocates before it has its name and after, and often enough to have a memory of stacks. */
static void *work(void *argument) {
  long number = (long)argument;
  leave(10, 100 + number);
  char name[16];
  snprintf(name, sizeof name, "worker-%ld", number);
  pthread_setname_np(pthread_self(), name);
  leave(1000, 64);
  pthread_barrier_wait(&named);
  if (number >= 4) pause();
  return NULL;
}

static void *work_unnamed(void *argument) {
  leave(20, 200);
  return argument;
}

int main(void) {
  pthread_t threads[6], other;
  pthread_barrier_init(&named, NULL, 7);
  for (long i = 0; i < 6; i++) pthread_create(&threads[i], NULL, work, (void *)i);
  pthread_barrier_wait(&named);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  /* They come one after the other, and each is given what the one before has left. */
  for (int i = 0; i < 50; i++) {
    pthread_create(&other, NULL, work_unnamed, NULL);
    pthread_join(other, NULL);
  }
  leave(30, 300);
  return 0;
}
