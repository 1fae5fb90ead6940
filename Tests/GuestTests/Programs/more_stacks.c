/* SPDX-License-Identifier: Apache-2.0
 * Allocates from stacks that `stacks.c` does not have: at every instruction of a leaf, of a jump to
 * another library, of lazy binding, of the vDSO; beyond the end of a function; while a longjmp and a
 * thread's end are under way; on stacks that a program has made by hand. */
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#define SHAPE __attribute__((noinline, noclone)) static
#define AFTER_CALL() __asm__ volatile("" ::: "memory")

static void *volatile kept;
static volatile long sink;

__attribute__((noinline, noclone)) void allocate(size_t size) {
  kept = malloc(size);
  AFTER_CALL();
}
SHAPE void use(void *bytes) { __asm__ volatile("" ::"r"(bytes) : "memory"); }

/* MARK: At every instruction: the processor traps after each, and the handler allocates. */

static volatile long steps;
static void on_step(int number, siginfo_t *info, void *context) {
  (void)number, (void)info, (void)context;
  steps++;
  kept = malloc(24);
  free(kept);
}
/* By a macro: what is stepped through is what follows, and not the way out of a function. */
#define TRAP_FLAG(operation)                                                                       \
  __asm__ volatile("lea -128(%%rsp), %%rsp\n pushfq\n " operation "\n popfq\n lea 128(%%rsp), %%rsp" \
                   ::: "memory", "cc")
#define STEP_THROUGH(what)                                                                         \
  do {                                                                                             \
    TRAP_FLAG("orq $0x100, (%%rsp)");                                                              \
    what;                                                                                          \
    TRAP_FLAG("andq $~0x100, (%%rsp)");                                                            \
  } while (0)

SHAPE long leaf(long a) { /* in the red zone, where it is left to the compiler */
  volatile long words[8] = {a, a + 1, a + 2};
  return words[a & 7] * 3 + words[1];
}
SHAPE long saves_registers(long a, long b, long c, long d) {
  long sum = leaf(a) + leaf(b);
  sum = sum * leaf(c) + a;
  return sum * leaf(d) + b + c + d;
}
SHAPE long aligned_locals(long a) {
  _Alignas(64) volatile char bytes[192];
  bytes[a & 127] = 1;
  return leaf(bytes[3]) + a;
}
SHAPE long variable_locals(size_t count) {
  volatile char bytes[count];
  bytes[count / 2] = 3;
  char *more = alloca(count * 2);
  use(more);
  return leaf(bytes[count / 2]);
}
SHAPE long jumps_on(long a) { return leaf(a + 1); } /* a tail call where compilers make one */

SHAPE void stepping(const char *text) {
  static char copy[64];
  struct timespec now;
  STEP_THROUGH(sink = leaf(3));
  STEP_THROUGH(sink = saves_registers(1, 2, 3, 4));
  STEP_THROUGH(sink = aligned_locals(5));
  STEP_THROUGH(sink = variable_locals(100));
  STEP_THROUGH(sink = jumps_on(7));
  /* Bound by the first call, if lazily; called by the second. */
  STEP_THROUGH(sink = atoi(text));
  STEP_THROUGH(sink = atoi(text));
  STEP_THROUGH(memcpy(copy, text, strnlen(text, 60)));
  STEP_THROUGH(clock_gettime(CLOCK_MONOTONIC, &now));
  STEP_THROUGH(sink = (long)getppid());
}

static void step_all(void) {
  sigset_t none; /* whatever started this program may have had signals blocked */
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  struct sigaction action = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
  sigaction(SIGTRAP, &action, NULL);
  stepping("1234 and more");
  stack_t stack = {.ss_sp = malloc(256 << 10), .ss_size = 256 << 10};
  sigaltstack(&stack, NULL);
  action.sa_flags |= SA_ONSTACK;
  sigaction(SIGTRAP, &action, NULL);
  stepping("5678 and more");
}

/* MARK: Beyond the end of a function, and back by longjmp */

static jmp_buf place;
__attribute__((noinline, noclone, noreturn)) static void leave_for_good(int value) {
  allocate(100);
  longjmp(place, value);
}
/* The call is the last instruction, and the return address another function's. */
__attribute__((noinline, noclone, noreturn)) static void last_call(int a, int b) {
  leave_for_good(a + b);
}
SHAPE void no_return(void) {
  if (setjmp(place) == 0)
    last_call(1, 2);
  allocate(101);
}
static void on_signal(int number) {
  (void)number;
  allocate(102);
  siglongjmp(place, 1);
}
SHAPE void out_of_a_handler(void) {
  signal(SIGUSR2, on_signal);
  if (sigsetjmp(place, 1) == 0)
    raise(SIGUSR2);
  allocate(103);
}

/* MARK: The ends of threads */

static pthread_key_t key;
static void destroy(void *value) {
  allocate(104);
  AFTER_CALL();
  if ((uintptr_t)value > 1)
    pthread_setspecific(key, (char *)value - 1);
}
static void clean_up(void *value) {
  (void)value;
  allocate(105);
}
static void *in_thread(void *value) {
  pthread_setspecific(key, (void *)3);
  pthread_cleanup_push(clean_up, NULL);
  allocate(106);
  if (value)
    pthread_exit(NULL);
  pthread_cleanup_pop(1);
  return NULL;
}
static void *waits(void *value) {
  pthread_cleanup_push(clean_up, NULL);
  for (;;)
    pause();
  pthread_cleanup_pop(1);
  return value;
}
SHAPE void thread_ends(void) {
  pthread_t thread;
  pthread_key_create(&key, destroy);
  for (uintptr_t i = 0; i < 2; i++) {
    pthread_create(&thread, NULL, in_thread, (void *)i);
    pthread_join(thread, NULL);
  }
  pthread_create(&thread, NULL, waits, NULL);
  pthread_cancel(thread);
  pthread_join(thread, NULL);
}

/* MARK: Stacks made by hand */

/* As libraries of coroutines do it: registers are pushed, the stack pointer is exchanged. A new
 * stack begins in its entry, or in a piece of code that calls it and is never returned from. */
__asm__("  .text\n"
        "  .type switch_stacks, @function\n"
        "switch_stacks:\n"
        "  .cfi_startproc\n"
        "  pushq %rbp\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  pushq %rbx\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  pushq %r12\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  popq %r12\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  popq %rbx\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  popq %rbp\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size switch_stacks, . - switch_stacks\n"
        "  .type begin_stack, @function\n"
        "begin_stack:\n"
        "  .cfi_startproc\n"
        "  .cfi_undefined rip\n"
        "  nop\n"
        "begin_stack_here:\n"
        "  call *%rbx\n"
        "  ud2\n"
        "  .cfi_endproc\n"
        "  .size begin_stack, . - begin_stack\n");
extern void switch_stacks(void **from, void *to);
extern char begin_stack_here[];

static void *main_stack, *own_stack;
SHAPE void allocate_there(int depth) {
  if (depth)
    allocate_there(depth - 1);
  allocate(107);
}
static void on_own_stack(void) {
  for (int i = 0;; i++) {
    allocate_there(i);
    switch_stacks(&own_stack, main_stack);
  }
}
SHAPE void by_hand(void) {
  for (int has_beginning = 0; has_beginning < 2; has_beginning++) {
    size_t size = 64 << 10;
    uintptr_t *top = (uintptr_t *)((char *)aligned_alloc(64, size) + size);
    /* A function is entered at 8 below a multiple of 16, where its return address is: none. */
    *--top = 0;
    if (has_beginning)
      *--top = 0;
    *--top = has_beginning ? (uintptr_t)begin_stack_here : (uintptr_t)on_own_stack;
    *--top = 0;                       /* rbp */
    *--top = (uintptr_t)on_own_stack; /* rbx */
    *--top = 0;                       /* r12 */
    own_stack = top;
    for (int i = 0; i < 3; i++) {
      switch_stacks(&main_stack, own_stack);
      allocate(108);
    }
  }
}

static ucontext_t outside, inside;
static void context_body(int depth) {
  for (int i = 0; i < 3; i++) {
    allocate_there(depth + i);
    swapcontext(&inside, &outside);
  }
}
SHAPE void by_context(void) {
  getcontext(&inside);
  inside.uc_stack.ss_size = 64 << 10;
  inside.uc_stack.ss_sp = malloc(inside.uc_stack.ss_size);
  inside.uc_link = &outside;
  makecontext(&inside, (void (*)(void))context_body, 1, 2);
  for (int i = 0; i < 4; i++) {
    swapcontext(&outside, &inside);
    allocate(109);
  }
}

int main(void) {
  step_all();
  no_return();
  out_of_a_handler();
  thread_ends();
  by_hand();
  by_context();
  printf("%ld\n", steps);
  return steps < 1000;
}
