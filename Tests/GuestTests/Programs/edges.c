// SPDX-License-Identifier: Apache-2.0
// The edges of the malloc family: each behaves as documented, and leaves errno as it found it.
// Prints `FAILED what` for whatever does not.

#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *volatile kept;
static volatile size_t huge = PTRDIFF_MAX;
static volatile size_t zero = 0;

static void check(int holds, const char *what) {
  if (!holds)
    printf("FAILED %s\n", what);
}

/* Does something that must not touch errno. */
#define QUIETLY(what, action)                                                                      \
  do {                                                                                             \
    errno = 1234;                                                                                  \
    action;                                                                                        \
    check(errno == 1234, "errno after " what);                                                     \
  } while (0)

/* Does something that must fail for want of memory. */
#define FAILS(what, call)                                                                          \
  do {                                                                                             \
    errno = 0;                                                                                     \
    check((call) == NULL, what " answered a block");                                               \
    check(errno == ENOMEM, "ENOMEM after " what);                                                  \
  } while (0)

static void keep_errno(void) {
  void *block, *other = NULL;
  QUIETLY("malloc", block = malloc(100));
  QUIETLY("realloc", block = realloc(block, 300000));
  QUIETLY("free", free(block));
  QUIETLY("free(NULL)", free(NULL));
  QUIETLY("calloc", block = calloc(10, 10));
  QUIETLY("reallocarray", block = reallocarray(block, 20, 10));
  QUIETLY("malloc_usable_size", (void)malloc_usable_size(block));
  QUIETLY("free", free(block));
  QUIETLY("posix_memalign", check(posix_memalign(&other, 64, 100) == 0, "posix_memalign"));
  QUIETLY("free", free(other));
  QUIETLY("aligned_alloc", other = aligned_alloc(64, 128));
  QUIETLY("free", free(other));
  QUIETLY("memalign", other = memalign(64, 128));
  QUIETLY("free", free(other));
  QUIETLY("valloc", other = valloc(128));
  QUIETLY("free", free(other));
  QUIETLY("pvalloc", other = pvalloc(128));
  QUIETLY("free", free(other));
  QUIETLY("a large malloc", other = malloc(64 << 20));
  QUIETLY("a large free", free(other));
}

static void fail(void) {
  void *block;
  FAILS("malloc", malloc(huge));
  FAILS("malloc(-1)", malloc(huge * 2 + 1));
  FAILS("calloc", calloc(huge, 1));
  FAILS("calloc overflow", calloc(huge, 8));
  FAILS("realloc(NULL)", realloc(NULL, huge));
  FAILS("reallocarray overflow", reallocarray(NULL, huge, 8));
  FAILS("aligned_alloc", aligned_alloc(64, huge));
  FAILS("memalign", memalign(64, huge));
  FAILS("valloc", valloc(huge));
  FAILS("pvalloc", pvalloc(huge * 2 + 1));
  block = (void *)&huge;
  check(posix_memalign(&block, 64, huge) == ENOMEM, "posix_memalign of everything");
  check(posix_memalign(&block, 3, 10) == EINVAL, "posix_memalign by 3");
  check(block == &huge, "posix_memalign wrote its result on failure");
}

int main(void) {
  keep_errno();
  fail();
  /* Live at the end: blocks of nothing, and one whose realloc failed. */
  kept = malloc(zero);
  check(kept != NULL, "malloc(0)");
  kept = calloc(zero, 5);
  check(kept != NULL, "calloc(0, 5)");
  kept = malloc(3001);
  memset(kept, 7, 3001);
  FAILS("a realloc that cannot be", realloc(kept, huge));
  FAILS("a reallocarray that cannot be", reallocarray(kept, huge, 2));
  check(((char *)kept)[3000] == 7, "the old block after a failed realloc");
  kept = malloc(20 << 20);
  FAILS("a realloc of a large block that cannot be", realloc(kept, huge));
  void *gone = malloc(3011);
  QUIETLY("realloc(p, 0)", check(realloc(gone, zero) == NULL, "realloc(p, 0) answered a block"));
  puts("done");
  return 0;
}
