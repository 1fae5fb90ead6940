// SPDX-License-Identifier: Apache-2.0
// Blocks that are freed before their thread's next allocation, and such as are not, in known numbers.

#include <cstdio>
#include <cstdlib>
#include <pthread.h>

#define SITE __attribute__((noinline, noclone)) static

static void *volatile kept;

SITE void *make(size_t size) {
  void *volatile block = malloc(size);
  return block;
}

/* All are temporary: more than a tally counts at once. */
SITE void direct() {
  for (int i = 0; i < 200000; i++)
    free(make(40));
}

/* As many of a size that the live map keeps in a word of its own. */
SITE void large() {
  for (int i = 0; i < 10; i++)
    free(make(32 << 20));
}

/* The outer block lives through an allocation, the inner one through a free only. */
SITE void *outer() {
  void *volatile block = malloc(50);
  return block;
}
SITE void *inner() {
  void *volatile block = malloc(60);
  return block;
}
SITE void nested() {
  for (int i = 0; i < 1000; i++) {
    void *a = outer();
    void *b = inner();
    free(a);
    free(b);
  }
}

/* Each step but the last gives back the block that the one before has made. */
SITE void grow() {
  void *volatile block = nullptr;
  for (int i = 1; i <= 100; i++)
    block = realloc(block, (size_t)i * 100);
  kept = block;
  free(make(70));
  free(block);
}

/* What a realloc that fails leaves is the block that it was. */
static volatile size_t everything = (size_t)-1 / 4;
SITE void refused() {
  for (int i = 0; i < 300; i++) {
    void *block = make(120);
    if (realloc(block, everything) != nullptr)
      abort();
    free(block);
  }
}

SITE void objects() {
  for (int i = 0; i < 500; i++) {
    int *volatile object = new int(i);
    delete object;
  }
}

/* More sites than a thread has tallies, each three times in a row. */
SITE void sites(int depth) {
  for (int i = 0; i < 3; i++)
    free(make(80));
  if (depth > 0)
    sites(depth - 1);
  kept = &depth;
}

/* What another thread gives back in time is still not this one's doing. */
SITE void *give_back(void *block) {
  free(block);
  return nullptr;
}
SITE void *hand_over() {
  void *volatile block = malloc(90);
  return block;
}
SITE void *leave(void *) {
  for (int i = 0; i < 20; i++) {
    free(make(100));
    kept = make(110);
  }
  return nullptr;
}
static pthread_barrier_t barrier;
SITE void *receive(void *place) {
  for (int i = 0; i < 20; i++) {
    pthread_barrier_wait(&barrier);
    give_back(*(void **)place);
    pthread_barrier_wait(&barrier);
  }
  return nullptr;
}

int main() {
  direct();
  large();
  nested();
  grow();
  refused();
  objects();
  sites(600);
  pthread_t thread;
  for (int i = 0; i < 5; i++) {
    pthread_create(&thread, nullptr, leave, nullptr);
    pthread_join(thread, nullptr);
  }
  void *block = nullptr;
  pthread_barrier_init(&barrier, nullptr, 2);
  pthread_create(&thread, nullptr, receive, &block);
  for (int i = 0; i < 20; i++) {
    block = hand_over();
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
  }
  pthread_join(thread, nullptr);
  puts("done");
  return 0;
}
