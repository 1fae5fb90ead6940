/* SPDX-License-Identifier: Apache-2.0
 * The oracle of the stack tests: libunwind's walk from the very activation that then allocates.
 * Prints `SIZE ADDRESS…`, where the addresses are the return addresses above `capture` itself, as a
 * dump has them: of an instruction that a signal interrupted, the address after its first byte, and
 * without the tracer's own. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#define UNW_LOCAL_ONLY
#include <dlfcn.h>
#include <libunwind.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *volatile captured;

__attribute__((noinline, noclone)) void capture(size_t size) {
  static char line[64 << 10];
  unw_context_t context;
  unw_cursor_t cursor;
  unw_getcontext(&context);
  unw_init_local(&cursor, &context);
  int length = snprintf(line, sizeof line, "%zu", size);
  while (unw_step(&cursor) > 0) {
    unw_word_t counter;
    unw_get_reg(&cursor, UNW_REG_IP, &counter);
    if (counter == 0)
      break;
    Dl_info module;
    if (dladdr((void *)counter, &module) && strstr(module.dli_fname, "libheaptap.so"))
      continue;
    length += snprintf(line + length, sizeof line - (size_t)length, " %lx",
                       (unsigned long)counter + (unw_is_signal_frame(&cursor) > 0));
  }
  captured = malloc(size);
  puts(line);
}

/* Keeps a call from becoming a jump. */
#define AFTER_CALL() __asm__ volatile("" ::: "memory")
