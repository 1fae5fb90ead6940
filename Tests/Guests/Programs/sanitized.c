// SPDX-License-Identifier: Apache-2.0
// Allocates in threads, and does what a sanitizer is there for where it is asked to.
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile int shared;

static void *work(void *unused) {
  long sum = 0;
  for (int i = 0; i < 20000; i++) {
    char *block = malloc((size_t)(1 + i % 500));
    memset(block, i, (size_t)(1 + i % 500));
    sum += block[i % (1 + i % 500)];
    block = realloc(block, 600);
    free(block);
  }
  (void)unused;
  return (void *)sum;
}

static void *count(void *unused) {
  shared++;
  return unused;
}

int main(int argc, char **argv) {
  const char *what = argc > 1 ? argv[1] : "";
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    pthread_create(&threads[i], NULL, work, NULL);
  for (int i = 0; i < 4; i++) {
    void *sum;
    pthread_join(threads[i], &sum);
    printf("%ld\n", (long)sum);
  }
  fflush(stdout);
  if (!strcmp(what, "address")) {
    volatile char *block = malloc(10);
    free((void *)block);
    return block[3];
  }
  if (!strcmp(what, "thread")) {
    for (int i = 0; i < 2; i++)
      pthread_create(&threads[i], NULL, count, NULL);
    for (int i = 0; i < 2; i++)
      pthread_join(threads[i], NULL);
  }
  if (!strcmp(what, "undefined")) {
    volatile int large = 2147483647;
    printf("%d\n", large + 1 < 0);
  }
  if (!strcmp(what, "leak")) {
    void *volatile lost = malloc(4321);
    lost = NULL;
    (void)lost;
  }
  return 0;
}
