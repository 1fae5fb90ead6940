/* SPDX-License-Identifier: Apache-2.0
 * Eight threads that all end the process. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static pthread_barrier_t barrier;
static void *volatile sink;

static void *end(void *unused) {
  (void)unused;
  sink = malloc(100);
  pthread_barrier_wait(&barrier);
  _exit(3);
}

int main(void) {
  pthread_t thread;
  pthread_barrier_init(&barrier, NULL, 8);
  for (int i = 0; i < 7; i++)
    pthread_create(&thread, NULL, end, NULL);
  end(NULL);
}
