// SPDX-License-Identifier: Apache-2.0
// Allocates from stacks of every shape that C has, each by a size of its own.

#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "capture.h"

#define SHAPE __attribute__((noinline, noclone)) static

static volatile size_t sink;
static void use(void *bytes) {
  __asm__ volatile("" ::"r"(bytes) : "memory");
}

SHAPE int inner(size_t size, int a) {
  capture(size);
  return a + 1;
}
SHAPE int middle(size_t size, int a, int b) {
  char bytes[333];
  use(bytes);
  return inner(size, a * b) + bytes[b & 1];
}
SHAPE void nested(void) { sink = (size_t)middle(10001, 3, 4); }

SHAPE void on_alloca(size_t count) {
  char *bytes = alloca(count);
  use(bytes);
  capture(10003);
  use(bytes);
}

SHAPE long variadic(int count, ...) {
  va_list list;
  va_start(list, count);
  long sum = 0;
  for (int i = 0; i < count; i++)
    sum += va_arg(list, long);
  capture(10005);
  va_end(list);
  return sum;
}

/* Realigns its stack: the frame is found by a saved pointer. */
SHAPE void realigned(int a, int b, int c, int d, int e, int f, int g, int h) {
  _Alignas(64) char bytes[128];
  use(bytes);
  use(&h);
  capture(10007);
  sink = (size_t)(a + b + c + d + e + f + g + h);
}
SHAPE void realigned_alloca(size_t count, int a, int b, int c, int d, int e, int f, int g) {
  _Alignas(128) char bytes[128];
  char *more = alloca(count);
  use(bytes);
  use(more);
  middle(10009, 1, 2);
  sink = (size_t)(a + b + c + d + e + f + g);
}

SHAPE int recursive(int depth) {
  if (depth == 0) {
    capture(10011);
    return 1;
  }
  int result = recursive(depth - 1);
  AFTER_CALL();
  return result + 1;
}

static int has_compared;
static int compare(const void *left, const void *right) {
  if (!has_compared++)
    capture(10013);
  return *(const int *)left - *(const int *)right;
}
SHAPE void sort(void) {
  int items[] = {5, 3, 1, 4, 2, 9, 8};
  qsort(items, 7, sizeof *items, compare);
  sink = (size_t)items[0];
}

static volatile size_t handler_size;
static void handle(int number) {
  (void)number;
  capture(handler_size);
}
static void handle_fault(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)info;
  capture(handler_size);
  ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2; /* ud2 */
}
SHAPE void raised(void) {
  handler_size = 10015;
  raise(SIGWINCH);
  AFTER_CALL();
}
SHAPE void faulted(int a) {
  handler_size = 10017;
  if (a)
    __asm__ volatile("ud2" ::: "memory");
  AFTER_CALL();
}
/* The interrupted instruction is the first of its function: rules of the function before it do not
 * hold. */
__asm__("  .text\n"
        "  .type fault_at_once, @function\n"
        "fault_at_once:\n"
        "  .cfi_startproc\n"
        "  ud2\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size fault_at_once, . - fault_at_once\n");
extern void fault_at_once(void);
/* The frame pointer is another one already, and the old one not yet saved where it will be. */
__asm__("  .text\n"
        "  .type fault_in_prologue, @function\n"
        "fault_in_prologue:\n"
        "  .cfi_startproc\n"
        "  pushq %rbp\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset rbp, -16\n"
        "  ud2\n"
        "  movq %rsp, %rbp\n"
        "  .cfi_def_cfa_register rbp\n"
        "  popq %rbp\n"
        "  .cfi_def_cfa rsp, 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size fault_in_prologue, . - fault_in_prologue\n");
extern void fault_in_prologue(void);

SHAPE void signals(void) {
  sigset_t none; /* whatever started this program may have had signals blocked */
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  struct sigaction action = {.sa_handler = handle};
  sigaction(SIGWINCH, &action, NULL);
  raised();
  handler_size = 10019;
  stack_t stack = {.ss_sp = malloc(64 << 10), .ss_size = 64 << 10};
  sigaltstack(&stack, NULL);
  action.sa_flags = SA_ONSTACK;
  sigaction(SIGWINCH, &action, NULL);
  raise(SIGWINCH);
  struct sigaction fault = {.sa_sigaction = handle_fault, .sa_flags = SA_SIGINFO};
  sigaction(SIGILL, &fault, NULL);
  faulted(1);
  handler_size = 10021;
  fault_at_once();
  handler_size = 10023;
  fault_in_prologue();
}

/* Hand-written functions that call `capture_for(size)` from frames that compilers do not make. */
__asm__("  .text\n"
        /* The CFA by rbx, with the stack realigned. */
        "  .type by_rbx, @function\n"
        "by_rbx:\n"
        "  .cfi_startproc\n"
        "  pushq %rbx\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset rbx, -16\n"
        "  movq %rsp, %rbx\n"
        "  .cfi_def_cfa_register rbx\n"
        "  andq $-256, %rsp\n"
        "  movl $10025, %edi\n"
        "  call capture\n"
        "  movq %rbx, %rsp\n"
        "  .cfi_def_cfa_register rsp\n"
        "  popq %rbx\n"
        "  .cfi_def_cfa_offset 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size by_rbx, . - by_rbx\n"
        /* The CFA by an expression of the stack pointer: rsp + 24. */
        "  .type by_expression, @function\n"
        "by_expression:\n"
        "  .cfi_startproc\n"
        "  subq $16, %rsp\n"
        "  .cfi_escape 0x0f, 5, 0x77, 8, 0x40, 0x22, 0x96\n"
        "  pushq %rbp\n"
        "  .cfi_escape 0x0f, 5, 0x77, 16, 0x40, 0x22, 0x96\n"
        "  .cfi_offset rbp, -32\n"
        "  movq $12345, %rbp\n"
        "  movl $10027, %edi\n"
        "  call capture\n"
        "  popq %rbp\n"
        "  addq $16, %rsp\n"
        "  .cfi_def_cfa rsp, 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size by_expression, . - by_expression\n"
        /* rbp is kept in r12, and holds a number. */
        "  .type rbp_in_register, @function\n"
        "rbp_in_register:\n"
        "  .cfi_startproc\n"
        "  pushq %r12\n"
        "  .cfi_def_cfa_offset 16\n"
        "  .cfi_offset r12, -16\n"
        "  movq %rbp, %r12\n"
        "  .cfi_register rbp, r12\n"
        "  movq $77, %rbp\n"
        "  movl $10029, %edi\n"
        "  call capture\n"
        "  movq %r12, %rbp\n"
        "  .cfi_restore rbp\n"
        "  popq %r12\n"
        "  .cfi_def_cfa_offset 8\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size rbp_in_register, . - rbp_in_register\n"
        /* No table, and a frame pointer. */
        "  .type without_table, @function\n"
        "without_table:\n"
        "  pushq %rbp\n"
        "  movq %rsp, %rbp\n"
        "  subq $112, %rsp\n"
        "  movl $10031, %edi\n"
        "  call capture\n"
        "  leave\n"
        "  ret\n"
        "  .size without_table, . - without_table\n");
extern void by_rbx(void), by_expression(void), rbp_in_register(void), without_table(void);

/* Code made at run time, with a frame pointer. */
SHAPE void generated(void) {
  static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48,
                                       0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};
  void *page =
      mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(page, code, sizeof code);
  ((void (*)(void (*)(size_t), size_t))page)(capture, 10033);
  AFTER_CALL();
}

static void *in_thread(void *argument) {
  middle((size_t)argument, 2, 3);
  return NULL;
}
SHAPE void threads(void) {
  pthread_t thread;
  pthread_create(&thread, NULL, in_thread, (void *)10035);
  pthread_join(thread, NULL);
}
static void once(void) { capture(10037); }

static ucontext_t main_context, coroutine_context;
static void coroutine(void) {
  middle(10039, 5, 6);
  swapcontext(&coroutine_context, &main_context);
}
SHAPE void switches(void) {
  static char stack[256 << 10];
  getcontext(&coroutine_context);
  coroutine_context.uc_stack.ss_sp = stack;
  coroutine_context.uc_stack.ss_size = sizeof stack;
  coroutine_context.uc_link = &main_context;
  makecontext(&coroutine_context, coroutine, 0);
  swapcontext(&main_context, &coroutine_context);
  capture(10041);
}

__attribute__((constructor)) static void construct(void) { capture(10043); }
static void at_exit(void) {
  capture(10045);
  fflush(stdout);
}

int main(void) {
  setvbuf(stdout, NULL, _IOFBF, 1 << 20);
  nested();
  on_alloca(sink + 1000);
  sink = (size_t)variadic(3, 1L, 2L, 3L);
  realigned(1, 2, 3, 4, 5, 6, 7, 8);
  realigned_alloca(500, 1, 2, 3, 4, 5, 6, 7);
  sink = (size_t)recursive(60);
  sort();
  signals();
  by_rbx();
  by_expression();
  rbp_in_register();
  without_table();
  generated();
  threads();
  pthread_once_t control = PTHREAD_ONCE_INIT;
  pthread_once(&control, once);
  switches();
  atexit(at_exit);
  return 0;
}
