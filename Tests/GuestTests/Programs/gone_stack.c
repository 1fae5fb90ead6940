/* SPDX-License-Identifier: Apache-2.0
 * Runs on a stack whose outermost frame leads on to another stack, by a frame pointer alone: what a
 * scheduler of fibers leaves behind that was begun by a thread which has ended. The other stack goes
 * away between two allocations of the same stack; or before, having been one with this stack.
 * Usage: gone_stack [DISTANCE [before]] */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

/* on_stack(top, function, frame): no table, and a frame pointer. */
__asm__("  .text\n"
        "  .type on_stack, @function\n"
        "on_stack:\n"
        "  pushq %rbp\n"
        "  pushq %rbx\n"
        "  pushq %rbx\n"
        "  movq %rsp, %rbx\n"
        "  movq %rdi, %rsp\n"
        "  leaq returned(%rip), %rax\n"
        "  pushq %rax\n"
        "  pushq %rdx\n"
        "  movq %rsp, %rbp\n"
        "  call *%rsi\n"
        "returned:\n"
        "  movq %rbx, %rsp\n"
        "  popq %rbx\n"
        "  popq %rbx\n"
        "  popq %rbp\n"
        "  ret\n"
        "  .size on_stack, . - on_stack\n");
extern void on_stack(void *top, void (*function)(void), void *frame);

enum { HALF = 1 << 20 };
static char *stacks;
static void *volatile kept;

__attribute__((noinline)) static void allocate(void) {
  kept = malloc(10);
  __asm__ volatile("" ::: "memory");
}

/* Often enough to be remembered. */
static void allocate_often(void) {
  for (int i = 0; i < 1000; i++)
    allocate();
}

static uintptr_t place;
/* Has a frame on every page of both halves. */
__attribute__((noinline)) static void descend(void) {
  char bytes[3000];
  __asm__ volatile("" ::"r"(bytes) : "memory");
  place = (uintptr_t)bytes;
  if (bytes > stacks + HALF / 2)
    descend();
  else
    allocate_often();
  __asm__ volatile("" ::: "memory");
}

static void fiber(void) {
  allocate_often();
  munmap(stacks + HALF, HALF);
  allocate_often();
  puts("still here");
}

int main(int count, char **arguments) {
  stacks = mmap(NULL, 2 * HALF, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  /* How far the two frames are from the border, in bytes. */
  size_t distance = count > 1 ? strtoul(arguments[1], NULL, 10) : 65536;
  uintptr_t *frame = (uintptr_t *)(stacks + HALF + distance);
  frame[0] = 0; /* the outermost one */
  frame[1] = 0;
  char *top = stacks + HALF - distance;
  if (count > 2) {
    uintptr_t *first = (uintptr_t *)(stacks + 2 * HALF - 64);
    on_stack(stacks + 2 * HALF - 128, descend, first);
    munmap(stacks + HALF, HALF);
    top = (char *)(place & ~(uintptr_t)15) + 8192;
  }
  on_stack(top, fiber, frame);
  return 0;
}
