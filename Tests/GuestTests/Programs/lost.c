/* SPDX-License-Identifier: Apache-2.0
 * Leaves blocks in every way, each way with sizes of its own, and ends: lost MANNER WAY… */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

struct node {
  struct node *next;
  void *data;
};

static void *volatile global, *volatile other_global;
static uintptr_t volatile hidden;
static __thread void *volatile own;
static pthread_key_t key;
static pthread_barrier_t ready;
static int busy_threads;

__attribute__((noinline)) static void *get(size_t size) {
  void *block = malloc(size);
  memset(block, 0, size);
  return block;
}

/* What calls have left in registers and below the stack pointer is not to hold anything. */
__attribute__((noinline)) static void scrub(void) {
  volatile char bytes[1 << 16];
  for (size_t i = 0; i < sizeof bytes; i++)
    bytes[i] = 0;
  __asm__ volatile("" ::: "memory", "rbx", "r12", "r13", "r14", "r15");
}

__attribute__((noinline)) static void lose_some(void) {
  for (int i = 0; i < 10; i++)
    get(104);
}

/* The block before the rest of the heap: the allocator's pointer to that lies in its last eight bytes. */
__attribute__((noinline)) static void lose_last(void) {
  for (int i = 0; i < 3; i++)
    get(24);
}

__attribute__((noinline)) static void lose_list(void) {
  struct node *head = NULL;
  for (int i = 0; i < 20; i++) {
    struct node *made = get(200);
    made->next = head;
    head = made;
  }
}

__attribute__((noinline)) static void lose_circle(void) {
  struct node *first = get(304), *second = get(304), *third = get(304);
  first->next = second;
  second->next = third;
  third->next = first;
  first->data = get(312);
}

__attribute__((noinline)) static void lose_to_freed(void) {
  struct node *holders[4];
  for (int i = 0; i < 4; i++) {
    holders[i] = get(2000);
    ((void **)holders[i])[100] = get(904);
  }
  for (int i = 0; i < 4; i++)
    free(holders[i]);
}

__attribute__((noinline)) static void hide(void) { hidden = (uintptr_t)get(1000) ^ 0x5555; }

__attribute__((noinline)) static void hold(void) {
  struct node *made = get(400);
  made->next = get(408);
  made->next->data = (char *)get(416) + 300;
  global = (char *)made + 8;
}

__attribute__((noinline)) static void hold_apart(void) {
  void **mapped =
      mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mapped[1000] = get(504);
  void **shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  shared[10] = get(512);
}

/* Reading behind the end of the file is a signal, and so is reading the second page of the block. */
__attribute__((noinline)) static void hold_beside_holes(void) {
  char name[] = "/tmp/lost-XXXXXX";
  int file = mkstemp(name);
  unlink(name);
  if (file < 0 || ftruncate(file, 4096))
    abort();
  void **mapped = mmap(NULL, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  mapped[10] = get(520);
  char *protected = aligned_alloc(4096, 3 * 4096);
  memset(protected, 0, 3 * 4096);
  *(void **)(protected + 2 * 4096) = get(528);
  mprotect(protected + 4096, 4096, PROT_NONE);
  other_global = protected;
}

__attribute__((noinline)) static void hold_in_large(void) {
  void **large = calloc(1, (size_t)1 << 31);
  large[(1 << 27) + 5] = get(536);
  global = (char *)large + (1 << 30);
}

static void *sleeping(void *unused) {
  (void)unused;
  void *volatile on_stack = get(600);
  own = get(608);
  pthread_setspecific(key, get(616));
  register void *in_register __asm__("rbx") = get(624);
  __asm__ volatile("" : "+r"(in_register));
  pthread_barrier_wait(&ready);
  /* pause(2), with nothing else on the stack. */
  __asm__ volatile("syscall" : "+r"(in_register) : "a"(34) : "rcx", "r11", "memory");
  return on_stack;
}

/* A block is under no address for much of the time. */
static void *moving(void *unused) {
  (void)unused;
  size_t size = 8 * 64;
  void **table = malloc(size);
  for (int i = 0; i < 64; i++)
    table[i] = get(704);
  pthread_barrier_wait(&ready);
  for (;;) {
    size = size % 200000 + 512;
    table = realloc(table, size);
    free(malloc(size));
  }
  return NULL;
}

static void *losing(void *unused) {
  (void)unused;
  void *volatile last = NULL;
  for (int i = 0; i < 7; i++)
    last = get(808);
  last = NULL;
  return NULL;
}

static void start(void *(*run)(void *)) {
  pthread_t thread;
  if (pthread_create(&thread, NULL, run, NULL))
    abort();
}

__attribute__((noinline)) static void lose_in_thread(void) {
  pthread_t thread;
  void *result;
  if (pthread_create(&thread, NULL, losing, NULL) || pthread_join(thread, &result))
    abort();
}

int main(int argc, char **argv) {
  pthread_key_create(&key, NULL);
  for (int i = 2; i < argc; i++) {
    busy_threads += strcmp(argv[i], "sleeping") == 0;
    busy_threads += strcmp(argv[i], "moving") == 0;
  }
  pthread_barrier_init(&ready, NULL, busy_threads + 1);
  for (int i = 2; i < argc; i++) {
    const char *way = argv[i];
    if (!strcmp(way, "some")) lose_some();
    if (!strcmp(way, "last")) lose_last();
    if (!strcmp(way, "list")) lose_list();
    if (!strcmp(way, "circle")) lose_circle();
    if (!strcmp(way, "freed")) lose_to_freed();
    if (!strcmp(way, "hidden")) hide();
    if (!strcmp(way, "held")) hold();
    if (!strcmp(way, "apart")) hold_apart();
    if (!strcmp(way, "holes")) hold_beside_holes();
    if (!strcmp(way, "large")) hold_in_large();
    if (!strcmp(way, "thread")) lose_in_thread();
    if (!strcmp(way, "sleeping")) start(sleeping);
    if (!strcmp(way, "moving")) start(moving);
    scrub();
  }
  pthread_barrier_wait(&ready);
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  printf("%ld\n", usage.ru_maxrss);
  fflush(stdout);
  if (!strcmp(argv[1], "_exit")) _exit(3);
  if (!strcmp(argv[1], "quick_exit")) quick_exit(3);
  if (!strcmp(argv[1], "exit")) exit(3);
  if (!strcmp(argv[1], "SIGTERM")) raise(SIGTERM);
  return 3;
}
