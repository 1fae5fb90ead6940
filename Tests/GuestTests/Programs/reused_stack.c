/* SPDX-License-Identifier: Apache-2.0
 * Runs on a stack, gives its upper part back, and runs on the rest: the same code at the same place,
 * below frames that lead out of what is left at another place than those before. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* on_stack(top, function): the outermost frame. */
__asm__("  .text\n"
        "  .type on_stack, @function\n"
        "on_stack:\n"
        "  .cfi_startproc\n"
        "  .cfi_undefined rip\n"
        "  pushq %rbp\n"
        "  pushq %rbx\n"
        "  pushq %rbx\n"
        "  movq %rsp, %rbx\n"
        "  movq %rdi, %rsp\n"
        "  xorl %ebp, %ebp\n"
        "  call *%rsi\n"
        "  movq %rbx, %rsp\n"
        "  popq %rbx\n"
        "  popq %rbx\n"
        "  popq %rbp\n"
        "  ret\n"
        "  .cfi_endproc\n"
        "  .size on_stack, . - on_stack\n");
extern void on_stack(void *top, void (*function)(void));

#define KEEP __attribute__((noinline, noclone))
#define AFTER_CALL() __asm__ volatile("" ::: "memory")
enum { SIZE = 1 << 20 };
static uintptr_t place;
static void *volatile kept;

/* Often enough to be remembered. */
KEEP static void allocate(void) {
  for (int i = 0; i < 1000; i++) {
    kept = malloc(10);
    free(kept);
  }
  __asm__ volatile("movq %%rsp, %0" : "=r"(place));
  AFTER_CALL();
}

#define BY(name, size, next)                                                                       \
  KEEP static void name(void) {                                                                    \
    char bytes[size];                                                                              \
    __asm__ volatile("" ::"r"(bytes) : "memory");                                                  \
    next();                                                                                        \
    AFTER_CALL();                                                                                  \
  }
BY(small, 2000, allocate)
BY(large, 4000, allocate)
BY(huge, 600000, large)

/* Two stacks that differ in one word, near the end. */
KEEP static void outermost(void) {
  huge();
  AFTER_CALL();
  huge();
  AFTER_CALL();
}

static char *map(void) {
  return mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

int main(void) {
  char *measure = map(), *stack = map();
  on_stack(measure + SIZE, small);
  uintptr_t distance = (uintptr_t)(measure + SIZE) - place;
  on_stack(stack + SIZE, outermost);
  uintptr_t before = place, top = before + distance, border = (top + 4095) & ~(uintptr_t)4095;
  munmap((void *)border, (size_t)((uintptr_t)stack + SIZE - border));
  on_stack((void *)top, small);
  puts(place == before ? "still here" : "elsewhere");
  return 0;
}
