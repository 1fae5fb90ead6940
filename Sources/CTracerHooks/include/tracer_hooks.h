/* SPDX-License-Identifier: Apache-2.0
 *
 * The names that libc and libstdc++ own, and start-up. Each exported name is one instruction, a
 * jump through its entry; what the entry points to is the mode:
 *
 *   first      until the first call: finds the originals, then tries again
 *   dormant    the original itself: a load and a jump is all that an armed process pays
 *   recording  pushes the callee-saved registers and calls the hook of that name
 *   sampling   counts the bytes and looks at one byte of a table; few calls come to a hook
 *
 * Contract: what is declared here is for start-up and fork, where the C library may be called; a
 * hook uses none of it.
 */
#ifndef TRACER_HOOKS_H
#define TRACER_HOOKS_H

#include "tracer_platform.h"

/* Finds the original of each name, and says whether malloc's is glibc's and whether this copy of
 * the tracer is the first in the process. `bypassed_for` is the file whose malloc the process calls
 * instead of ours, or NULL: the program's own, or a library's that comes before this one. */
struct tracer_resolution {
  int allocator_is_glibc;
  int is_first_copy;
  const char *_Nullable bypassed_for;
  /* The path of a sanitizer's runtime that is loaded; it and a tracer cannot share a process. */
  const char *_Nullable sanitizer;
};
void tracer_resolve_originals(struct tracer_resolution *_Nonnull ret_resolution);

/* The module that holds an address: where it begins, and its file's name; both NULL where there is none. */
struct tracer_module {
  const void *_Nullable start;
  const char *_Nullable name;
};
struct tracer_module tracer_module_of(const void *_Nullable address);

/* The environment as the kernel gave it, readable before libc is initialised; NULL if this
 * process runs with raised privileges (AT_SECURE), which takes no settings from its user. */
const char *_Nullable *_Nullable tracer_environment(void);

/* Fills in `tracer_services`. */
void tracer_provide_services(void);

/* Has `tracer_forked_child()` called in children of fork, and `tracer_thread_ended(state)` for
 * threads that were noted. 0 or an errno. */
int tracer_watch_threads_and_forks(void);

/* Has `tracer_exiting()` called at quick_exit. */
int tracer_watch_quick_exit(void);

/* What an allocator may lack, made of what it has. */
void *_Nullable tracer_plain_memalign(size_t alignment, size_t size);
void *_Nullable tracer_plain_aligned_alloc(size_t alignment, size_t size);
int tracer_plain_posix_memalign(void *_Nullable *_Nonnull ret_block, size_t alignment, size_t size);
void *_Nullable tracer_plain_valloc(size_t size);
void *_Nullable tracer_plain_pvalloc(size_t size);

/* Calls made before the originals are known are served from a static range. Such a block is never
 * freed and never handed to an allocator. */
int tracer_boot_contains(const void *_Nullable block);
void *_Nullable tracer_boot_realloc(void *_Nullable block, size_t size);

/* Finds the C++ operators that are in the process's own scope; others are found at their first call. */
void tracer_find_present_operators(void);

void tracer_switch_freeing_entries(int mode);
void tracer_switch_allocating_entries(int mode);
void tracer_watch_exit(void);

#endif
