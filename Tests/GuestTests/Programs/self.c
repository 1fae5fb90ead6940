/* SPDX-License-Identifier: Apache-2.0
 * A program that asks of its own heap, by heaptap.h alone. Also compiled as C++. What is printed is
 * judged by SelfTests.swift. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <heaptap.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

void *volatile kept[64];

static struct heaptap_figures figures(void) {
  struct heaptap_figures now;
  heaptap_read(&now);
  return now;
}

static void print_traced(void) {
  struct heaptap_figures now = figures();
  printf("%llu %llu\n", (unsigned long long)now.live_bytes, (unsigned long long)now.peak_bytes);
}

/* Recursion that stays recursion. */
__attribute__((noinline)) static void *deep(int depth, size_t size) {
  void *block = depth ? deep(depth - 1, size) : malloc(size);
  __asm__ volatile("" : : "r"(block) : "memory");
  return block;
}

static void state(void) {
  printf("%d", heaptap_is_recording());
  printf(" %d", heaptap_start(0));
  printf(" %d", heaptap_start(5));
  printf(" %d", heaptap_is_recording());
  printf(" %d", heaptap_discard());
  printf(" %d", heaptap_is_recording());
  printf(" %d\n", heaptap_discard());
}

static void depth(const char *directory) {
  char path[256];
  printf("%d %d", heaptap_start(HEAPTAP_DEPTH_LIMIT + 1), heaptap_start((unsigned)-1));
  for (int limit = 10; limit > 0; limit -= 9) {
    heaptap_start((unsigned)limit);
    kept[0] = deep(30, 4321);
    snprintf(path, sizeof path, "%s/%d.pb", directory, limit);
    printf(" %d %d", (int)figures().depth, heaptap_snapshot_to(path));
    heaptap_discard();
  }
  printf(" %d\n", (int)figures().depth);
}

static void off(const char *path) {
  printf("%d %d %d %d %d %d %d\n", heaptap_snapshot(), heaptap_snapshot_to(path), heaptap_clear(),
         heaptap_mark(), heaptap_reset_peak(), heaptap_track(5, 64, 123), heaptap_untrack(5, 64));
}

static void counters(void) {
  heaptap_start(0);
  printf("counters\n"); /* its buffer is allocated here */
  heaptap_clear();
  print_traced();
  kept[0] = malloc(1 << 20);
  print_traced();
  free(kept[0]);
  print_traced();
  heaptap_clear();
  print_traced();
  kept[0] = malloc(1 << 20);
  heaptap_discard();
  print_traced();
}

static void peak(void) {
  heaptap_start(0);
  printf("peak\n");
  kept[0] = malloc(5 << 20);
  free(kept[0]);
  kept[1] = malloc(100);
  printf("%d ", heaptap_reset_peak());
  print_traced();
  kept[0] = malloc(1 << 20);
  print_traced();
  heaptap_snapshot_to("peak.pb");
}

static void clear(void) {
  heaptap_start(7);
  printf("clear\n");
  for (int i = 0; i < 60; i++)
    kept[i] = malloc(1000);
  unsigned long long before = figures().tracer_bytes;
  int error = heaptap_clear();
  unsigned long long after = figures().tracer_bytes;
  for (int i = 0; i < 60; i++)
    free(kept[i]);
  struct heaptap_figures now = figures();
  kept[0] = malloc(77);
  heaptap_snapshot_to("clear.pb");
  printf("%d %d %d %llu %llu %d %d\n", error, before > 0, after <= before,
         (unsigned long long)now.live_bytes, (unsigned long long)now.live_blocks, (int)now.depth,
         (int)now.generation);
}

static void generations(void) {
  heaptap_start(0);
  printf("generations\n");
  kept[0] = malloc(111);
  int first = heaptap_mark();
  kept[1] = malloc(222);
  int second = heaptap_mark();
  kept[2] = malloc(333);
  heaptap_snapshot_to("generations.pb");
  printf("%d %d %d\n", first, second, (int)figures().generation);
  int error = 0;
  for (int i = 0; i < 2000 && !error; i++)
    error = heaptap_mark();
  printf("%d %d\n", error, (int)figures().generation);
}

__attribute__((noinline)) static int track_here(unsigned domain, uintptr_t address, size_t size) {
  int error = heaptap_track(domain, address, size);
  __asm__ volatile("" : : : "memory");
  return error;
}

static void track(void) {
  heaptap_start(0);
  printf("track\n");
  int error = track_here(5, 0x1000, 123);
  /* Any address: beyond what programs have, unaligned, equal in another domain. */
  error |= track_here(6, 0x1000, 1) | track_here(6, UINTPTR_MAX, 2) | track_here(6, 0x1001, 3);
  printf("%d %d %d\n", error, (int)figures().tracked_bytes, (int)figures().tracked_blocks);
  heaptap_snapshot_to("track-1.pb");
  error = heaptap_track(5, 0x1000, 200);
  printf("%d %d %d\n", error, (int)figures().tracked_bytes, (int)figures().tracked_blocks);
  heaptap_snapshot_to("track-2.pb");
  error = heaptap_untrack(5, 0x1000) | heaptap_untrack(5, 0x1000) | heaptap_untrack(9, 0);
  printf("%d %d %d\n", error, (int)figures().tracked_bytes, (int)figures().tracked_blocks);
  heaptap_snapshot_to("track-3.pb");
  heaptap_clear();
  printf("%d %d\n", (int)figures().tracked_bytes, (int)figures().tracked_blocks);
}

/* 0 for as long as it is not over. */
static int rounds;
static volatile int is_over;

static void *tracking(void *argument) {
  uintptr_t mine = (uintptr_t)argument << 32;
  for (int i = 0; rounds ? i < rounds : !is_over; i++) {
    heaptap_track(1, mine + (uintptr_t)(i % 500), 10);
    if (i % 3)
      heaptap_untrack(1, mine + (uintptr_t)((i - 1) % 500));
  }
  return NULL;
}

static void *starting(void *unused) {
  for (int i = 0; i < 60; i++) {
    heaptap_start(0);
    usleep(500);
    if (i % 2)
      heaptap_clear();
    heaptap_discard();
  }
  is_over = 1;
  return unused;
}

static void *writing(void *unused) {
  while (!is_over)
    heaptap_snapshot_to("race.pb");
  return unused;
}

static pthread_t threads[6];

static void start_tracking(void) {
  for (uintptr_t i = 0; i < 4; i++)
    pthread_create(&threads[i], NULL, tracking, (void *)(i + 1));
}

static void join(int first, int count) {
  for (int i = first; i < first + count; i++)
    pthread_join(threads[i], NULL);
}

/* What is left is known: of each thread's 500 addresses those that its last rounds have not taken. */
static void many(void) {
  heaptap_start(0);
  rounds = 30000;
  start_tracking();
  join(0, 4);
  heaptap_snapshot_to("many.pb");
  printf("many\n%llu %llu\n", (unsigned long long)figures().tracked_blocks,
         (unsigned long long)figures().tracked_bytes);
}

static void race(void) {
  start_tracking();
  pthread_create(&threads[4], NULL, starting, NULL);
  pthread_create(&threads[5], NULL, writing, NULL);
  join(0, 6);
  printf("race\n%d %d\n", heaptap_discard(), heaptap_is_recording());
}

static void forks(void) {
  int failures = 0;
  heaptap_start(0);
  start_tracking();
  for (int i = 0; i < 100; i++) {
    pid_t child = fork();
    if (!child) {
      alarm(20); /* a lock that stayed locked */
      int error = 0;
      for (uintptr_t place = 0; place < 500; place++)
        error |= heaptap_track(7, place, 1) | heaptap_untrack(7, place);
      _exit(error != 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    failures += status != 0;
  }
  is_over = 1;
  join(0, 4);
  printf("forks\n%d\n", failures);
}

static void *calling(void *unused) {
  for (int i = 0; i < 30; i++) {
    if (heaptap_snapshot_to("calls.pb") || heaptap_mark() || heaptap_start(0))
      return (void *)1;
    kept[0] = NULL;
  }
  return unused;
}

static void calls(void) {
  int failures = 0;
  heaptap_start(0);
  for (int i = 0; i < 6; i++)
    pthread_create(&threads[i], NULL, calling, NULL);
  for (int i = 0; i < 6; i++) {
    void *result;
    pthread_join(threads[i], &result);
    failures += result != NULL;
  }
  printf("calls\n%d\n", failures);
}

static void paths(const char *directory) {
  char longest[8192], link[256];
  memset(longest, 'x', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  heaptap_start(0);
  int empty = heaptap_snapshot_to(""), tall = heaptap_snapshot_to(longest);
  int nowhere = heaptap_snapshot_to("/nonexistent/a.pb");
  /* A link in the place of the unfinished file is not followed. */
  snprintf(link, sizeof link, "%s/a.pb.partial", directory);
  int linked = symlink("target", link);
  int first = heaptap_snapshot_to("a.pb"), second = heaptap_snapshot_to("a.pb");
  errno = 77;
  heaptap_snapshot_to("/nonexistent/a.pb");
  printf("%d %d %d %d %d %d %d\n", empty, tall, nowhere, linked, first, second, errno);
}

int main(int count, char **arguments) {
  const char *mode = count > 1 ? arguments[1] : "", *directory = count > 2 ? arguments[2] : ".";
  if (chdir(directory))
    return 1;
  if (!strcmp(mode, "state"))
    state();
  else if (!strcmp(mode, "depth"))
    depth(directory);
  else if (!strcmp(mode, "off"))
    off("off.pb");
  else if (!strcmp(mode, "counters"))
    counters();
  else if (!strcmp(mode, "peak"))
    peak();
  else if (!strcmp(mode, "clear"))
    clear();
  else if (!strcmp(mode, "generations"))
    generations();
  else if (!strcmp(mode, "track"))
    track();
  else if (!strcmp(mode, "many"))
    many();
  else if (!strcmp(mode, "race"))
    race();
  else if (!strcmp(mode, "forks"))
    forks();
  else if (!strcmp(mode, "calls"))
    calls();
  else if (!strcmp(mode, "paths"))
    paths(directory);
  else
    return 64;
  return 0;
}
