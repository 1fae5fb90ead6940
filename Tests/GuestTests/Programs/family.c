// SPDX-License-Identifier: Apache-2.0
// Leaks one block by each entry of the malloc family, each of a size of its own; frees the rest.
// Prints `SIZE FUNCTION` for each block that must be left.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SITE __attribute__((noinline, noclone)) static void

static void *volatile kept;

static void left(size_t size, const char *function) { printf("%zu %s\n", size, function); }
#define LEFT(size) left(size, __func__)

SITE leak_malloc(void) {
  kept = malloc(1001);
  LEFT(1001);
}
SITE leak_calloc(void) {
  kept = calloc(3, 337);
  LEFT(1011);
}
SITE leak_realloc_of_nothing(void) {
  kept = realloc(NULL, 1013);
  LEFT(1013);
}
SITE leak_realloc_growing(void) {
  kept = malloc(1019);
  kept = realloc(kept, 1000021);
  LEFT(1000021);
}
SITE leak_realloc_shrinking(void) {
  kept = malloc(200003);
  kept = realloc(kept, 1021);
  LEFT(1021);
}
SITE leak_reallocarray(void) {
  kept = reallocarray(NULL, 3, 341);
  LEFT(1023);
}
SITE leak_reallocarray_again(void) {
  kept = malloc(11);
  kept = reallocarray(kept, 5, 205);
  LEFT(1025);
}
SITE leak_posix_memalign(void) {
  void *block;
  if (posix_memalign(&block, 256, 1031) == 0)
    kept = block;
  LEFT(1031);
}
SITE leak_aligned_alloc(void) {
  kept = aligned_alloc(64, 1033);
  LEFT(1033);
}
SITE leak_memalign(void) {
  kept = memalign(128, 1039);
  LEFT(1039);
}
SITE leak_valloc(void) {
  kept = valloc(1049);
  LEFT(1049);
}
SITE leak_pvalloc(void) {
  kept = pvalloc(1051);
  LEFT(1051);
}
SITE leak_strdup(void) {
  static char text[1061];
  memset(text, 'x', sizeof text - 1);
  kept = strdup(text);
  LEFT(1061);
}
SITE leak_strndup(void) {
  static char text[5000];
  memset(text, 'x', sizeof text - 1);
  kept = strndup(text, 1062);
  LEFT(1063);
}
SITE leak_getline(void) {
  char *line = NULL;
  size_t capacity = 0;
  if (getline(&line, &capacity, stdin) > 0)
    kept = line;
  LEFT(capacity);
}
SITE leak_asprintf(void) {
  char *text;
  if (asprintf(&text, "%1068d", 1) > 0)
    kept = text;
  LEFT(1069);
}
SITE free_by_size(void) {
  void (*free_sized)(void *, size_t) = dlsym(RTLD_DEFAULT, "free_sized");
  void (*free_aligned_sized)(void *, size_t, size_t) = dlsym(RTLD_DEFAULT, "free_aligned_sized");
  kept = malloc(2003);
  free_sized ? free_sized(kept, 2003) : free(kept);
  kept = aligned_alloc(64, 2011);
  free_aligned_sized ? free_aligned_sized(kept, 64, 2011) : free(kept);
  kept = malloc(2017);
  free(kept);
  kept = malloc(2027);
  free(reallocarray(kept, 1, 2029));
}
SITE ask_sizes(void) {
  void *block = malloc(2039);
  if (malloc_usable_size(block) < 2039 || malloc_usable_size(NULL) != 0)
    abort();
  free(block);
}

int main(void) {
  leak_malloc();
  leak_calloc();
  leak_realloc_of_nothing();
  leak_realloc_growing();
  leak_realloc_shrinking();
  leak_reallocarray();
  leak_reallocarray_again();
  leak_posix_memalign();
  leak_aligned_alloc();
  leak_memalign();
  leak_valloc();
  leak_pvalloc();
  leak_strdup();
  leak_strndup();
  leak_getline();
  leak_asprintf();
  free_by_size();
  ask_sizes();
  return 0;
}
