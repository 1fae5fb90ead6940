/* SPDX-License-Identifier: Apache-2.0
 * A program that asks where its blocks came from, also while recording stops and starts. */
#include <heaptap.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;
#define CHECK(condition)                                                                           \
  do {                                                                                             \
    if (!(condition) && ++failures)                                                                \
      printf("line %d: %s\n", __LINE__, #condition);                                               \
  } while (0)

static int is_over;
static size_t found_count;

/* Asks for as long as the program runs: what is found is a whole stack, or nothing. */
static void *ask(void *block) {
  uintptr_t first[64], again[64];
  while (!__atomic_load_n(&is_over, __ATOMIC_ACQUIRE)) {
    size_t count = heaptap_traceback(block, again, 64, NULL);
    if (count == 0)
      continue;
    if (found_count++ == 0)
      for (size_t i = 0; i < count; i++)
        first[i] = again[i];
    for (size_t i = 0; i < count; i++)
      CHECK(first[i] == again[i]);
  }
  return NULL;
}

__attribute__((noinline)) static void *from_here(uintptr_t *ret_here) {
  void *block = malloc(10);
  *ret_here = (uintptr_t)__builtin_return_address(0);
  return block;
}

int main(void) {
  uintptr_t addresses[64], here = 0, few[2];
  size_t total = 77;
  void *early = calloc(1, 10);
  CHECK(heaptap_traceback(early, addresses, 64, &total) == 0 && total == 0);
  CHECK(heaptap_start(0) == 0);
  void *block = from_here(&here);
  size_t count = heaptap_traceback(block, addresses, 64, &total);
  CHECK(count > 2 && count == total && addresses[1] == here);
  CHECK(heaptap_traceback(block, few, 2, &total) == 2 && total == count && few[1] == here);
  CHECK(heaptap_traceback(block, few, 0, &total) == 0 && total == count);
  CHECK(heaptap_traceback(block, NULL, 64, NULL) == 0);
  CHECK(heaptap_traceback((char *)block + 8, addresses, 64, NULL) == 0);
  CHECK(heaptap_traceback(early, addresses, 64, NULL) == 0);
  CHECK(heaptap_traceback(NULL, addresses, 64, NULL) == 0);
  CHECK(heaptap_traceback(&total, addresses, 64, NULL) == 0);
  CHECK(heaptap_traceback((void *)~(uintptr_t)0, addresses, 64, NULL) == 0);

  pthread_t thread;
  pthread_create(&thread, NULL, ask, block);
  while (!__atomic_load_n(&found_count, __ATOMIC_ACQUIRE))
    ;
  for (int i = 0; i < 5; i++) {
    CHECK(heaptap_stop() == 0);
    CHECK(heaptap_traceback(block, addresses, 64, &total) == 0 && total == 0);
    CHECK(heaptap_start(0) == 0);
    void *volatile other = from_here(&here);
    CHECK(heaptap_traceback(block, addresses, 64, NULL) == 0);
    free(other);
    CHECK(heaptap_traceback(other, addresses, 64, NULL) == 0);
  }
  __atomic_store_n(&is_over, 1, __ATOMIC_RELEASE);
  pthread_join(thread, NULL);
  CHECK(heaptap_stop() == 0);
  puts(failures ? "wrong" : "right");
  return failures != 0;
}
