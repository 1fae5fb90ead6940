/* SPDX-License-Identifier: Apache-2.0
 * Wanders at random through functions with every kind of frame, and allocates at every step: on the
 * stacks of threads, coroutines, handlers and their successors at the same addresses, out of frames
 * by longjmp, and through libraries that take each other's place. What a tracer remembers of the last
 * stack is nearly true all the time. The arguments are a seed, the number of steps, and two libraries
 * (this file, with -DLIBRARY=1 and 2). */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define KEEP __attribute__((noinline, noclone))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")
static inline void use(void *bytes) { __asm__ volatile("" ::"r"(bytes) : "memory"); }

typedef void step(void *state, int depth);
typedef void through(void *state, int depth, step *next);

#ifdef LIBRARY

/* The same addresses hold frames of another size in the other library. */
KEEP void through_library(void *state, int depth, step *next) {
  char bytes[LIBRARY == 1 ? 40 : 104];
  use(bytes);
  next(state, depth);
  AFTER_CALL();
}
#if LIBRARY == 2
KEEP void also_through_library(void *state, int depth, step *next) {
  char bytes[200];
  use(bytes);
  next(state, depth);
  AFTER_CALL();
}
#endif

#else

/* What one line of wandering needs; every thread has one, every coroutine another. */
struct wanderer {
  uint64_t random;
  long steps;
  int is_inner;
  jmp_buf *escape;
  char *coroutine_stack;
  char *paths[2];
};

static uint64_t draw(struct wanderer *state) {
  state->random ^= state->random << 13;
  state->random ^= state->random >> 7;
  state->random ^= state->random << 17;
  return state->random >> 16;
}

static void wander(struct wanderer *state, int depth);

/* From several places, so that a stack differs from the last in one address or two. */
KEEP static void allocate(struct wanderer *state) {
  void *block;
  switch (draw(state) % 4) {
  case 0: block = malloc(24); break;
  case 1: block = calloc(3, 11); break;
  case 2: block = realloc(malloc(7), 70); break;
  default: block = malloc(draw(state) % 1000);
  }
  use(block);
  free(block);
}

/* MARK: Frames */

KEEP static void plain(struct wanderer *state, int depth) {
  wander(state, depth);
  AFTER_CALL();
}
KEEP static void jumps(struct wanderer *state, int depth) { plain(state, depth); }
KEEP static void large(struct wanderer *state, int depth) {
  char bytes[3000]; /* never written: what older frames left is in it */
  use(bytes);
  wander(state, depth);
  use(bytes);
}
KEEP static void by_alloca(struct wanderer *state, int depth) {
  char *bytes = alloca(draw(state) % 500);
  use(bytes);
  wander(state, depth);
  use(bytes);
}
KEEP static void realigned(struct wanderer *state, int depth) {
  _Alignas(64) char bytes[64];
  use(bytes);
  wander(state, depth);
  use(bytes);
}
KEEP __attribute__((optimize("no-omit-frame-pointer"))) static void
by_frame_pointer(struct wanderer *state, int depth) {
  char bytes[50];
  use(bytes);
  wander(state, depth);
  use(bytes);
}
KEEP static long saving(struct wanderer *state, int depth, long a, long b, long c, long d) {
  long sum = a;
  for (int i = 0; i < 2; i++) {
    sum += b * (long)draw(state);
    wander(state, depth + i);
    sum ^= c + d;
  }
  return sum + a + b + c + d;
}
KEEP static void twice(struct wanderer *state, int depth) {
  wander(state, depth);
  AFTER_CALL();
  wander(state, depth + 2);
  AFTER_CALL();
}
/* rbp holds a number. */
extern void with_rbp_in_use(struct wanderer *state, int depth, void (*)(struct wanderer *, int));
__asm__("  .text\n"
        "  .type with_rbp_in_use, @function\n"
        "with_rbp_in_use:\n"
        "  .cfi_startproc\n"
        "  pushq %rbp\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset rbp, -16\n"
        "  movq $12345, %rbp\n"
        "  call *%rdx\n"
        "  popq %rbp\n"
        "  .cfi_def_cfa_offset 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size with_rbp_in_use, . - with_rbp_in_use\n"
        /* The CFA by rbx, which only the walk with all registers knows. */
        "  .type found_by_rbx, @function\n"
        "found_by_rbx:\n"
        "  .cfi_startproc\n"
        "  pushq %rbx\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset rbx, -16\n"
        "  movq %rsp, %rbx\n"
        "  .cfi_def_cfa_register rbx\n"
        "  andq $-256, %rsp\n"
        "  call *%rdx\n"
        "  movq %rbx, %rsp\n"
        "  .cfi_def_cfa_register rsp\n"
        "  popq %rbx\n"
        "  .cfi_def_cfa_offset 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size found_by_rbx, . - found_by_rbx\n");
extern void found_by_rbx(struct wanderer *state, int depth, void (*)(struct wanderer *, int));

/* MARK: Ways that are not calls */

KEEP static void escapes(struct wanderer *state, int depth) {
  jmp_buf place, *outer = state->escape;
  state->escape = &place;
  if (setjmp(place) == 0) {
    wander(state, depth);
    allocate(state);
  }
  state->escape = outer;
  allocate(state);
}

static __thread struct wanderer *interrupted;
static void handle(int number) {
  (void)number;
  struct wanderer *state = interrupted;
  interrupted = NULL;
  if (state)
    wander(state, 12);
}
KEEP static void is_interrupted(struct wanderer *state, int depth) {
  jmp_buf *outer = state->escape;
  state->escape = NULL; /* not out of a handler, whose signal would stay blocked */
  interrupted = state;
  raise(depth & 1 ? SIGWINCH : SIGURG);
  interrupted = NULL;
  state->escape = outer;
  allocate(state);
}

static __thread ucontext_t outside, inside;
static __thread struct wanderer *wanderer_inside;
static void coroutine(void) {
  struct wanderer *state = wanderer_inside;
  for (int i = 0; i < 3; i++) {
    wander(state, 6);
    swapcontext(&inside, &outside);
  }
}
KEEP static void on_another_stack(struct wanderer *state, int depth) {
  if (state->is_inner)
    return plain(state, depth);
  struct wanderer inner = *state;
  inner.is_inner = 1;
  inner.escape = NULL;
  inner.steps = 60;
  wanderer_inside = &inner;
  getcontext(&inside);
  inside.uc_stack.ss_sp = state->coroutine_stack;
  inside.uc_stack.ss_size = 1 << 20;
  inside.uc_link = &outside;
  makecontext(&inside, coroutine, 0);
  for (int i = 0; i < 3; i++) {
    swapcontext(&outside, &inside);
    allocate(state);
  }
  state->random ^= inner.random;
}

static void *in_thread(void *argument) {
  wander(argument, 5);
  return NULL;
}
KEEP static void in_another_thread(struct wanderer *state, int depth) {
  if (state->is_inner)
    return plain(state, depth);
  struct wanderer inner = *state;
  inner.is_inner = 1;
  inner.escape = NULL;
  inner.steps = 60;
  pthread_t thread;
  pthread_create(&thread, NULL, in_thread, &inner);
  pthread_join(thread, NULL);
  state->random ^= inner.random;
}

static void from_library(void *state, int depth) {
  wander(state, depth);
  AFTER_CALL();
}
KEEP static void by_library(struct wanderer *state, int depth) {
  if (state->is_inner || !state->paths[0])
    return plain(state, depth);
  jmp_buf *outer = state->escape;
  state->escape = NULL;
  void *library = dlopen(state->paths[draw(state) % 2], RTLD_NOW | RTLD_LOCAL);
  through *function = (through *)dlsym(library, "through_library");
  if (draw(state) % 2) {
    through *other = (through *)dlsym(library, "also_through_library");
    function = other ? other : function;
  }
  state->is_inner++;
  function(state, depth, from_library);
  state->is_inner--;
  dlclose(library);
  state->escape = outer;
}

static void wander(struct wanderer *state, int depth) {
  if (--state->steps < 0 || depth > 40)
    return allocate(state);
  if (draw(state) % 3 == 0)
    allocate(state);
  depth++;
  switch (draw(state) % 48) {
  case 0 ... 6: return plain(state, depth);
  case 7 ... 9: return jumps(state, depth);
  case 10 ... 12: return large(state, depth);
  case 13 ... 15: return by_alloca(state, depth);
  case 16 ... 18: return realigned(state, depth);
  case 19 ... 22: return by_frame_pointer(state, depth);
  case 23 ... 26: use((void *)saving(state, depth, 1, 2, 3, 4)); return;
  case 27 ... 31: return twice(state, depth);
  case 32 ... 34: return with_rbp_in_use(state, depth, wander);
  case 35: return found_by_rbx(state, depth, wander);
  case 36 ... 37: return escapes(state, depth);
  case 38: return is_interrupted(state, depth);
  case 39: return on_another_stack(state, depth);
  case 40: return in_another_thread(state, depth);
  case 41: return by_library(state, depth);
  case 42:
    if (state->escape)
      longjmp(*state->escape, 1);
    return allocate(state);
  default: return allocate(state);
  }
}

static void *begin(void *argument) {
  struct wanderer *state = argument;
  long left = state->steps;
  while (left > 0) {
    state->steps = 500;
    wander(state, 0);
    left -= 500 - (state->steps < 0 ? 0 : state->steps);
  }
  return NULL;
}

int main(int count, char **arguments) {
  sigset_t none; /* whatever started this program may have had signals blocked */
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  stack_t stack = {.ss_sp = malloc(1 << 20), .ss_size = 1 << 20};
  sigaltstack(&stack, NULL);
  struct sigaction action = {.sa_handler = handle};
  sigaction(SIGURG, &action, NULL);
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGWINCH, &action, NULL);
  struct wanderer states[3];
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    states[i] = (struct wanderer){.random = (strtoul(arguments[1], NULL, 10) + (size_t)i) * 7919,
                                  .steps = strtol(arguments[2], NULL, 10),
                                  .coroutine_stack = malloc(1 << 20)};
    if (i == 0 && count > 4)
      memcpy(states[i].paths, arguments + 3, sizeof states[i].paths);
  }
  for (int i = 1; i < 3; i++)
    pthread_create(&threads[i], NULL, begin, &states[i]);
  begin(&states[0]);
  for (int i = 1; i < 3; i++)
    pthread_join(threads[i], NULL);
  puts("there");
  return 0;
}

#endif
