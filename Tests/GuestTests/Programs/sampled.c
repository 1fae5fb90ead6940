/* SPDX-License-Identifier: Apache-2.0
 * Allocates what its functions are known to leave, in sizes around the mean of the samples, and looks at
 * what it gets: `sampled books`, `sampled sizes`, `sampled family`, `sampled fork`,
 * `sampled reallocated` or `sampled api`. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heaptap.h"

#define NEVER_INLINE __attribute__((noinline))

static void **kept;
static long kept_count;

static void keep(void *block) {
  if (!block)
    abort();
  kept[__atomic_fetch_add(&kept_count, 1, __ATOMIC_RELAXED)] = block;
}

NEVER_INLINE void small(long count) {
  for (long i = 0; i < count; i++)
    keep(malloc(48));
}

NEVER_INLINE void middling(long count) {
  for (long i = 0; i < count; i++)
    keep(calloc(4, 2048));
}

NEVER_INLINE void large(long count) {
  for (long i = 0; i < count; i++)
    keep(malloc(20 << 20));
}

NEVER_INLINE void grown(long count) {
  for (long i = 0; i < count; i++) {
    char *block = malloc(10);
    strcpy(block, "nine left");
    block = realloc(block, 700);
    if (strcmp(block, "nine left"))
      abort();
    keep(block);
  }
}

NEVER_INLINE void aligned(long count) {
  for (long i = 0; i < count; i++) {
    void *block = NULL;
    if (posix_memalign(&block, 256, 512) || (uintptr_t)block % 256)
      abort();
    keep(block);
  }
}

NEVER_INLINE void churned(long count) {
  for (long i = 0; i < count; i++) {
    void *block = malloc(100);
    __asm__ volatile("" ::"r"(block) : "memory");
    free(block);
  }
}

static void *free_kept(void *first) {
  for (void **place = first; place < kept + kept_count; place++)
    free(*place);
  return NULL;
}

/* Given back by another thread than the one that was given it. */
NEVER_INLINE void given_back(long count) {
  long first = kept_count;
  pthread_t thread;
  for (long i = 0; i < count; i++)
    keep(malloc(600));
  if (pthread_create(&thread, NULL, free_kept, kept + first))
    abort();
  pthread_join(thread, NULL);
}

NEVER_INLINE void *threaded(void *unused) {
  (void)unused;
  for (long i = 0; i < 50000; i++)
    keep(malloc(100));
  return NULL;
}

static void books(void) {
  pthread_t threads[4];
  for (int i = 0; i < 4; i++)
    if (pthread_create(&threads[i], NULL, threaded, NULL))
      abort();
  small(400000);
  middling(4000);
  large(3);
  grown(40000);
  aligned(40000);
  churned(500000);
  for (int i = 0; i < 4; i++)
    pthread_join(threads[i], NULL);
  given_back(40000);
}

/* Every size that an allocator treats in its own way, before and after realloc. */
static void sizes(void) {
  unsigned long sum = 0;
  for (size_t size = 1; size < 70000; size += size < 3000 ? 1 : 997) {
    unsigned char *block = malloc(size);
    sum = sum * 31 + malloc_usable_size(block);
    memset(block, (int)size, size);
    size_t larger = size * 2 + 5;
    block = realloc(block, larger);
    sum = sum * 31 + malloc_usable_size(block);
    for (size_t i = 0; i < size; i++)
      if (block[i] != (unsigned char)size)
        abort();
    if (malloc_usable_size(block) < larger)
      abort();
    block = realloc(block, size / 2 + 1);
    sum = sum * 31 + malloc_usable_size(block);
    if (size % 3)
      free(block);
    unsigned char *zeroed = calloc(size, 3);
    for (size_t i = 0; i < size * 3; i++)
      if (zeroed[i])
        abort();
    sum = sum * 31 + malloc_usable_size(zeroed);
    free(zeroed);
  }
  printf("%lx\n", sum);
}

/* What the names answer that few programs ask. */
static void family(void) {
  int last = 0;
  for (int round = 0; round < 2000; round++) {
    if (calloc(SIZE_MAX / 2, 3) || errno != ENOMEM)
      abort();
    errno = 0;
    void *block = malloc(5000);
    if (realloc(block, SIZE_MAX - 4096) || errno != ENOMEM)
      abort();
    errno = 0;
    if (reallocarray(block, SIZE_MAX / 2, 3) || errno != ENOMEM)
      abort();
    /* It is still there after a call that failed, and goes away once. */
    block = reallocarray(block, 3, 4000);
    memset(block, round, 12000);
    free(block);
    free(NULL);
    if (!malloc(0) || !realloc(NULL, 100) || !valloc(3000) || !pvalloc(3000) || !memalign(64, 900) ||
        !aligned_alloc(4096, 8192))
      abort();
    void *gone = malloc(600);
    if (realloc(gone, 0))
      abort();
    last = round;
  }
  printf("%d\n", last);
}

NEVER_INLINE void in_child(long count) {
  for (long i = 0; i < count; i++)
    keep(malloc(1000));
}

static void forked(void) {
  small(100000);
  for (int i = 0; i < 3; i++)
    if (fork() == 0) {
      in_child(20000);
      for (long j = 0; j < 50000; j++)
        free(kept[j]);
      exit(0);
    }
  while (wait(NULL) > 0)
    ;
}

/* Enlarged twice: by some steps in place, by others not. */
NEVER_INLINE void enlarged(long count) {
  for (long i = 0; i < count; i++) {
    void *block = malloc(100);
    block = realloc(block, 104);
    keep(realloc(block, 3000));
  }
}

NEVER_INLINE void lessened(long count) {
  for (long i = 0; i < count; i++)
    keep(realloc(malloc(9000), 200));
}

NEVER_INLINE void refused(long count) {
  for (long i = 0; i < count; i++) {
    void *block = malloc(1500);
    if (realloc(block, SIZE_MAX - 4096))
      abort();
    keep(block);
  }
}

NEVER_INLINE void emptied(long count) {
  for (long i = 0; i < count; i++)
    if (realloc(malloc(2000), 0))
      abort();
}

static void reallocated(void) {
  enlarged(20000);
  lessened(20000);
  refused(20000);
  emptied(20000);
}

#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      printf("line %d: not %s\n", __LINE__, #condition);                                           \
      exit(1);                                                                                     \
    }                                                                                              \
  } while (0)

/* A recording of samples, one of every block, and one of samples again. */
static void api(void) {
  struct heaptap_figures figures;
  CHECK(heaptap_start_sampling(0, 100) == EINVAL);
  CHECK(heaptap_start_sampling(0, 2ul << 30) == EINVAL);
  CHECK(heaptap_start_sampling(10, 4096) == 0);
  small(400000);
  CHECK(heaptap_read(&figures) == 0);
  CHECK(figures.sample_bytes == 4096 && figures.depth == 10);
  /* 19.2 MB by 4,700 samples, which are off by 280 KB or so. */
  CHECK(figures.live_error_bytes > 200000 && figures.live_error_bytes < 400000);
  CHECK(figures.live_bytes > 19200000 - 8 * 280000 && figures.live_bytes < 19200000 + 8 * 280000);
  /* It goes on as it was. */
  CHECK(heaptap_clear() == 0 && heaptap_read(&figures) == 0);
  CHECK(figures.sample_bytes == 4096 && figures.live_bytes < 100000);
  CHECK(heaptap_discard() == 0);
  CHECK(heaptap_start_sampling(0, 8192) == EBUSY);
  CHECK(heaptap_start_sampling(0, 0) == 0);
  void *known = malloc(777);
  CHECK(heaptap_read(&figures) == 0);
  CHECK(figures.sample_bytes == 0 && figures.live_error_bytes == 0);
  CHECK(figures.live_bytes >= 777 && figures.live_bytes < 10000);
  CHECK(heaptap_traceback(known, NULL, 0, NULL) == 0);
  size_t total = 0;
  heaptap_traceback(known, NULL, 0, &total);
  CHECK(total > 0);
  for (long i = 0; i < kept_count; i++)
    free(kept[i]);
  free(known);
  CHECK(heaptap_discard() == 0);
  CHECK(heaptap_start_sampling(0, 4096) == 0);
  /* A large block is a sample, and its stack is known. */
  void *large = malloc(1 << 20);
  total = 0;
  heaptap_traceback(large, NULL, 0, &total);
  CHECK(total > 0);
  free(large);
  total = 0;
  heaptap_traceback(large, NULL, 0, &total);
  CHECK(total == 0);
  CHECK(heaptap_discard() == 0);
}

int main(int count, char **arguments) {
  const char *what = count > 1 ? arguments[1] : "";
  /* Not of the heap, whose books are kept. */
  kept = mmap(NULL, 1 << 24, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!strcmp(what, "books"))
    books();
  else if (!strcmp(what, "sizes"))
    sizes();
  else if (!strcmp(what, "family"))
    family();
  else if (!strcmp(what, "fork"))
    forked();
  else if (!strcmp(what, "reallocated"))
    reallocated();
  else if (!strcmp(what, "api"))
    api();
  else
    return 2;
  return 0;
}
