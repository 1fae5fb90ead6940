/* SPDX-License-Identifier: Apache-2.0
 * State, and the few questions that only the C library can answer. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <malloc.h>
#include <signal.h>
#include <sys/auxv.h>

#include "tracer_platform.h"

struct tracer_originals tracer_originals;
size_t tracer_minimum_request;
struct tracer_services tracer_services;
_Alignas(64) unsigned char tracer_core_bytes[TRACER_CORE_BYTE_COUNT];
__thread void *tracer_thread_slot __attribute__((tls_model("initial-exec")));
__thread uint64_t tracer_countdown __attribute__((tls_model("initial-exec")));
__thread uint64_t tracer_random_state __attribute__((tls_model("initial-exec")));
unsigned char *tracer_sampled_pages;

/* Weak: a process whose glibc is older than 2.35 must load, and be told, rather than not start. */
extern int _dl_find_object(void *, struct dl_find_object *) __attribute__((weak));

int tracer_can_find_objects(void) { return _dl_find_object != NULL; }

int tracer_find_object(uint64_t address, struct tracer_object *ret_object) {
  struct dl_find_object found;
  if (!_dl_find_object || _dl_find_object((void *)address, &found) != 0)
    return -1;
  *ret_object = (struct tracer_object){
      .start = (uint64_t)found.dlfo_map_start,
      .end = (uint64_t)found.dlfo_map_end,
      .eh_frame_header = found.dlfo_eh_frame,
      .name = found.dlfo_link_map ? found.dlfo_link_map->l_name : NULL,
      .load_bias = found.dlfo_link_map ? (uint64_t)found.dlfo_link_map->l_addr : 0,
  };
  return 0;
}

const void *tracer_program_headers(size_t *ret_count) {
  *ret_count = getauxval(AT_PHNUM);
  return (const void *)getauxval(AT_PHDR);
}

const char *tracer_program_path(void) { return (const char *)getauxval(AT_EXECFN); }

int tracer_heap_figures(struct tracer_heap_figures *ret_figures) {
  struct mallinfo2 figures = mallinfo2();
  *ret_figures = (struct tracer_heap_figures){
      .in_use = figures.uordblks + figures.hblkhd,
      .free = figures.fordblks,
  };
  return 0;
}

/* The caller's stack pointer waits in rbx, which the function preserves. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl tracer_call_on_stack\n"
        ".hidden tracer_call_on_stack\n"
        ".type tracer_call_on_stack, @function\n"
        "tracer_call_on_stack:\n"
        ".cfi_startproc\n"
        "  endbr64\n"
        "  pushq %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_rel_offset rbx, 0\n"
        "  movq %rsp, %rbx\n"
        ".cfi_def_cfa_register rbx\n"
        "  movq %rdi, %rsp\n"
        "  movq %rdx, %rdi\n"
        "  callq *%rsi\n"
        "  movq %rbx, %rsp\n"
        ".cfi_def_cfa_register rsp\n"
        "  popq %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        ".cfi_restore rbx\n"
        "  retq\n"
        ".cfi_endproc\n"
        ".size tracer_call_on_stack, . - tracer_call_on_stack\n");

void tracer_demangle(void *argument) {
  struct tracer_demangling *call = argument;
  if (call->is_swift) {
    char *(*demangle)(const char *, size_t, char *, size_t *, uint32_t) = (void *)call->function;
    call->result = demangle(call->name, call->byte_count, NULL, NULL, 0);
  } else {
    char *(*demangle)(const char *, char *, size_t *, int *) = (void *)call->function;
    int status = 0;
    call->result = demangle(call->name, NULL, NULL, &status);
  }
}

/* The child finds its function and argument on its stack; 56 is SYS_clone, 231 SYS_exit_group. */
__asm__(".text\n"
        ".p2align 4\n"
        ".globl tracer_clone\n"
        ".hidden tracer_clone\n"
        ".type tracer_clone, @function\n"
        "tracer_clone:\n"
        ".cfi_startproc\n"
        "  endbr64\n"
        "  subq $16, %rsi\n"
        "  movq %rdx, (%rsi)\n"
        "  movq %rcx, 8(%rsi)\n"
        "  xorl %edx, %edx\n"
        "  xorl %r10d, %r10d\n"
        "  xorl %r8d, %r8d\n"
        "  movl $56, %eax\n"
        "  syscall\n"
        "  testq %rax, %rax\n"
        "  jz 1f\n"
        "  retq\n"
        ".cfi_endproc\n"
        "1:\n"
        ".cfi_startproc\n"
        ".cfi_undefined rip\n"
        "  xorl %ebp, %ebp\n"
        "  popq %rax\n"
        "  popq %rdi\n"
        "  callq *%rax\n"
        "  xorl %edi, %edi\n"
        "  movl $231, %eax\n"
        "  syscall\n"
        "  ud2\n"
        ".cfi_endproc\n"
        ".size tracer_clone, . - tracer_clone\n");

static void end_process(int number) { tracer_syscall(SYS_exit_group, 128 + number, 0, 0, 0, 0, 0); }

void tracer_end_on_faults(void) {
  /* As the kernel has it; the restorer is asked for and never reached. */
  struct {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(int);
    unsigned long mask;
  } action = {end_process, 0x04000000 /* SA_RESTORER */, end_process, 0};
  static const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS};
  unsigned long mask = 0;
  for (unsigned i = 0; i < sizeof faults / sizeof faults[0]; i++) {
    tracer_syscall(SYS_rt_sigaction, faults[i], (long)&action, 0, sizeof mask, 0, 0);
    mask |= 1ul << (faults[i] - 1);
  }
  tracer_syscall(SYS_rt_sigprocmask, SIG_UNBLOCK, (long)&mask, 0, sizeof mask, 0, 0);
}

__attribute__((noinline)) void tracer_call_with_saved_registers(void (*function)(void *),
                                                                void *argument) {
  __builtin_unwind_init();
  function(argument);
  /* Not a jump: the registers are in this frame while the function runs. */
  __asm__ volatile("" ::: "memory");
}
